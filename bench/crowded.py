"""Uploads and dedup queries beside 10^6 xorbs: in a store whose index has many rows, and in one that has few, in turn.

The rows are made directly, and the objects that they name do not exist: nothing here reads one.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.server import serving
from xetstore.cas import EmbeddedCas
from xetstore.interfaces import MANY_CHUNKS, Cas
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.transfer.upload.session import put_files

FEW_XORBS: Final = 1_000
FILE_BYTES: Final = 64 << 20
SMALL_FILES: Final = 500
SMALL_BYTES: Final = 4096
_KEYS: Final = 4
"""Eligible chunks of a xorb: fewer than a full one has, so that a million of them are made in a minute."""
_ROWS_AT_ONCE: Final = 50_000


def crowd(store: Path, xorbs: int, namespace: str) -> None:
    """Make a store whose index has so many xorbs of a namespace, each with its holder, its keys, and a file."""
    EmbeddedCas.open(store).close()
    chance = Random(xorbs)
    tables: dict[str, Callable[[int], Iterable[tuple[object, ...]]]] = {
        "xorb (id, hash, region_bytes, raw_bytes, chunk_count, created_at)": lambda row: [
            (row, chance.randbytes(32), 1 << 20, 1 << 20, 16, 1.0)
        ],
        "xorb_holder (xorb_id, namespace)": lambda row: [(row, namespace)],
        "dedup (chunk_key, xorb_id)": lambda row: [(chance.getrandbits(64) - (1 << 63), row) for _ in range(_KEYS)],
        "file (id, hash, size, term_count, xorb_count, created_at)": lambda row: [
            (row, chance.randbytes(32), 1 << 20, 1, 1, 1.0)
        ],
        "file_segment (file_id, first_byte, terms)": lambda row: [(row, 0, struct.pack("<QIII", row, 0, 16, 1 << 20))],
        "edge (file_id, first_byte, xorb_id)": lambda row: [(row, 0, row)],
        "file_grant (namespace, file_id, created_at)": lambda row: [(namespace, row, 1.0)],
    }
    with closing(sqlite3.connect(store / "index.sqlite3")) as index:
        for first in range(1, xorbs + 1, _ROWS_AT_ONCE):
            ids = range(first, min(first + _ROWS_AT_ONCE, xorbs + 1))
            with index:
                for table, values in tables.items():
                    marks = ", ".join("?" * (table.count(",") + 1))
                    index.executemany(
                        f"INSERT INTO {table} VALUES ({marks})", (one for row in ids for one in values(row))
                    )


@dataclass
class Side:
    """One of the two stores, and what was measured of it: seconds, and those of processor time on both sides."""

    cas: Cas
    cpu: Callable[[], float]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"new": [], "known": []})
    cpu_seconds: dict[str, list[float]] = field(default_factory=lambda: {"new": [], "known": []})


@contextmanager
def opened(store: Path, way: str) -> Iterator[Side]:
    """A store in this process, or through a server of its own."""
    with ExitStack() as until_closed:
        if way == "directory":
            yield Side(until_closed.enter_context(EmbeddedCas.open(store)), time.process_time)
        else:
            server = until_closed.enter_context(serving(store))
            cas = HttpCas(server.url)
            until_closed.callback(cas.close)
            yield Side(cas, lambda: time.process_time() + server.cpu())


def uploads(work: Path, chosen: Any) -> list[str]:
    """What is put into both stores, by turns; the ratios are the medians of the pairs'."""
    lines = [
        "| the xorbs are | way | content | new: ms, few rows | many | ratio | of processor time "
        "| known: ms, few rows | many | ratio | of processor time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    contents = {"64 MiB": (1, FILE_BYTES), f"{SMALL_FILES} of 4 KB": (SMALL_FILES, SMALL_BYTES)}
    for namespace, whose in (("default", "one's own"), ("others", "others'")):
        stores = {"few": work / "few", "many": work / "many"}
        crowd(stores["few"], FEW_XORBS, namespace)
        crowd(stores["many"], chosen.crowded_xorbs, namespace)
        for way in ("directory", "server"):
            for what, (count, nbytes) in contents.items():
                with opened(stores["few"], way) as few, opened(stores["many"], way) as many:
                    put_in_turn(few, many, work / "files", count, nbytes, rounds=chosen.crowded_rounds, seed=way + what)
                cells = " | ".join(compared(few, many, state) for state in ("new", "known"))
                lines.append(f"| {whose} | {way} | {what} | {cells} |")
                print(lines[-1], flush=True)
        for store in stores.values():
            shutil.rmtree(store)
    return lines


def put_in_turn(few: Side, many: Side, folder: Path, count: int, nbytes: int, *, rounds: int, seed: str) -> None:
    """Put files that are new, and put them again, into both, one behind the other."""
    for number in range(-1, rounds):
        paths = write(folder, count, nbytes, seed=f"{seed} {number}")
        for what in ("new", "known"):
            for side in (few, many) if number % 2 else (many, few):
                start, cpu = time.perf_counter(), side.cpu()
                for _ in put_files(side.cas, paths):
                    pass
                if number >= 0:  # the first round opens connections, and reads pages
                    side.seconds[what].append(time.perf_counter() - start)
                    side.cpu_seconds[what].append(side.cpu() - cpu)
        shutil.rmtree(folder)


def compared(few: Side, many: Side, what: str) -> str:
    """Milliseconds of both, the ratio, and that of processor time."""
    milliseconds = (f"{statistics.median(side.seconds[what]) * 1000:.0f}" for side in (few, many))
    ratios = (
        statistics.median(more / less for less, more in zip(one[what], other[what], strict=True))
        for one, other in ((few.seconds, many.seconds), (few.cpu_seconds, many.cpu_seconds))
    )
    return " | ".join([*milliseconds, *(f"**{ratio:.2f}**" for ratio in ratios)])


def write(folder: Path, count: int, nbytes: int, *, seed: str) -> list[Path]:
    """Random files of one length that have nothing in common."""
    folder.mkdir()
    chance = Random(seed)
    paths = [folder / str(number) for number in range(count)]
    for path in paths:
        path.write_bytes(chance.randbytes(nbytes))
    return paths


def queries(work: Path, chosen: Any) -> list[str]:
    """Processor time of dedup queries in this process, for first chunks of small files, of one old namespace."""
    lines = ["| xorbs | one chunk, found: ms | unknown | 1,024 chunks, found | unknown |", "|---|---|---|---|---|"]
    chance = Random(1)
    unknown = [Hash(chance.randbytes(32)) for _ in range(MANY_CHUNKS)]
    for xorbs in (FEW_XORBS, chosen.crowded_xorbs):
        store, folder = work / "asked", work / "files"
        crowd(store, xorbs, "default")
        paths = write(folder, MANY_CHUNKS, SMALL_BYTES, seed="queries")
        found = [Hash(chunk_bytes(path.read_bytes()).digest(0)) for path in paths]
        with EmbeddedCas.open(store) as cas:
            cells = []
            list(put_files(cas, paths))
            for asked in (found, unknown):
                cells.append(each([partial(cas.find_chunks, chunk) for chunk in asked]))
            for asked in (found, unknown):
                cells.append(each([partial(cas.find_chunks, *asked)] * 20))
        shutil.rmtree(store)
        shutil.rmtree(folder)
        lines.append(f"| {xorbs:,} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def each(calls: list[Callable[[], object]]) -> str:
    """Median of the processor time in milliseconds."""
    taken = []
    for call in calls:
        start = time.process_time()
        call()
        taken.append((time.process_time() - start) * 1000)
    return f"{statistics.median(taken):.2f}"
