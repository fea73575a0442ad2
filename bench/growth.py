"""How the figures grow: with files and clients at once, with the size of a file, with the rows of the index.

Each is a table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from bench import corpora, crowded, pages
from bench.client import Bench, measure, measure_together, same_content
from bench.rows import BOTH, Row, Run
from bench.server import fill, percentiles, serving
from bench.stages import PAGE
from bench.worker import BEGIN, run_worker
from xetstore.cas import EmbeddedCas
from xetstore.errors import NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash
from xetstore.testing.samples import make_sample, upload

AT_ONCE: Final = (1, 2, 4, 8)
FILE_BYTES: Final = 256 << 20
_SECONDS_TO_START: Final = 0.6
"""Of one worker, until it has imported what it needs, while others do the same."""
_LARGE_GIB: Final = 4
"""Larger files are measured once."""
_RESERVE_BYTES: Final = 2 << 30
"""Of memory, for both processes, beside a file on tmpfs."""
_TOUCHED: Final = 4
"""Times what will be written: the system does not take the same pages again."""
_WRITES: Final = 200


def files(work: Path, chosen: Any) -> list[str]:
    """Several files in one call of one client."""
    bench = Bench(work, chosen.growth_rounds)
    lines = [
        "| files at once | upload | hf_xet | ratio | download | hf_xet | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in AT_ONCE:
        cells = " | ".join(
            f"{row.rate('ours')} | {row.rate('theirs')} | **{row.ratio():.2f}**" for row in in_one_call(bench, count)
        )
        lines.append(f"| {count} | {cells} |")
    return lines


def in_one_call(bench: Bench, count: int) -> list[Row]:
    source, out, names = (bench.work / name for name in ("files", "out", "names"))
    paths = make_files(source, count)

    def run(who: str, store: Path, cache: Path) -> tuple[list[Run], list[str]]:
        touch(bench.work, 2 * count * FILE_BYTES)
        with serving(store) as server:
            up, hashes = measure(server, who, "put_many", source, server.url, names, cache=cache)
            shutil.rmtree(cache, ignore_errors=True)
            down, _ = measure(server, who, "get_many", names, FILE_BYTES, server.url, out, cache=cache)
        for path in paths:
            same_content(path, out / path.name)
        shutil.rmtree(out)
        return [up, down], [hashes]

    rows = [Row(f"{count} files at once, {way}", count * FILE_BYTES) for way in ("upload", "download")]
    bench.each_round(rows, run)
    shutil.rmtree(source)
    return rows


def clients(work: Path, chosen: Any) -> list[str]:
    """Several clients, each with a file of its own."""
    lines = [
        "| clients | upload | clients' CPU s/GB | server CPU s/GB | server peak MiB "
        "| download | clients' CPU s/GB | server CPU s/GB | server peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for count in AT_ONCE:
        paths = make_files(work / "files", count)
        rows = [Row(f"{count} clients, {way}", count * FILE_BYTES) for way in ("upload", "download")]
        for _ in range(chosen.growth_rounds):
            for row, run in zip(rows, each_its_own(work, paths), strict=True):
                row.runs["ours"].append(run)
        shutil.rmtree(work / "files")
        lines.append(f"| {count} | {' | '.join(map(by_all, rows))} |")
        print(lines[-1], flush=True)
    return lines


def each_its_own(work: Path, paths: list[Path]) -> list[Run]:
    """All files up, then all of them down again."""
    store, cache, out = (work / name for name in ("store", "cache", "out"))
    out.mkdir()
    touch(work, 2 * len(paths) * FILE_BYTES)

    def workers(verb: str, calls: Iterable[tuple[str | int | Path, ...]]) -> list[Callable[[], dict[str, Any]]]:
        begin = {BEGIN: str(time.monotonic() + (1 + len(paths)) * _SECONDS_TO_START)}
        return [
            partial(run_worker, "ours", verb, *call, cache=cache / verb / str(number), environment=begin)
            for number, call in enumerate(calls)
        ]

    with serving(store) as server:
        up, names = measure_together(server, workers("put", ((path, server.url) for path in paths)))
        wanted = ((name, FILE_BYTES, server.url, out / path.name) for name, path in zip(names, paths, strict=True))
        down, _ = measure_together(server, workers("get", wanted))
    for path in paths:
        same_content(path, out / path.name)
    for used in (store, cache, out):
        shutil.rmtree(used)
    return [up, down]


def by_all(row: Row) -> str:
    cpu, server_cpu = (row.median("ours", figure) / row.nbytes * 1e9 for figure in ("cpu", "server_cpu"))
    return f"{row.rate('ours')} | {cpu:.2f} | {server_cpu:.2f} | {row.median('ours', 'server_peak_mib'):.0f}"


def make_files(folder: Path, count: int) -> list[Path]:
    """Random files that have nothing in common."""
    folder.mkdir()
    paths = [folder / str(number) for number in range(count)]
    for seed, path in enumerate(paths):
        corpora.make("random", path, FILE_BYTES, seed=seed)
    return paths


def sizes(work: Path, chosen: Any) -> list[str]:
    """Files of several sizes, hashed and uploaded into a store on disk."""
    lines = [
        "| file | ns a byte | hf_xet | ratio | client CPU | hf_xet | server CPU | for hf_xet "
        "| peak MiB | hf_xet | server peak MiB | for hf_xet |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for gib in chosen.growth_gib:
        if has_room(work, int(gib * 2**30)):
            rounds = 1 if gib > _LARGE_GIB else chosen.growth_rounds
            lines += map(per_byte, one_size(Bench(work, rounds), gib))
        else:
            lines.append(f"| {gib:g} GiB | no room |" + " |" * 10)
    return lines


def has_room(folder: Path, nbytes: int) -> bool:
    """Whether a file fits into the folder, and its xorbs on the disk."""
    return nbytes < min(room(folder), shutil.disk_usage(tempfile.gettempdir()).free - _RESERVE_BYTES)


def room(folder: Path) -> int:
    """Bytes that can be written into a folder, of which on tmpfs each takes memory."""
    available = int(re.findall(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())[0]) << 10
    return min(available, shutil.disk_usage(folder).free) - _RESERVE_BYTES


def touch(folder: Path, nbytes: int) -> None:
    """Use memory before so many bytes are written. A virtual machine may get it from its host only at the first touch,
    and wait longer for it than for all that is measured.
    """
    block = bytes(64 << 20)
    with (folder / "touched").open("wb", buffering=0) as file:
        for _ in range(min(_TOUCHED * nbytes, room(folder)) // len(block)):
            file.write(block)
    (folder / "touched").unlink()


def one_size(bench: Bench, gib: float) -> list[Row]:
    source, nbytes = bench.work / "source", int(gib * 2**30)
    corpora.make("random", source, nbytes)

    def run(who: str, _: Path, cache: Path) -> tuple[list[Run], list[str]]:
        touch(bench.work, nbytes)  # by the system, as it keeps what was written to the disk
        # Where temporary files usually are, not on tmpfs as all else.
        with tempfile.TemporaryDirectory(prefix="xetstore-bench-") as disk, serving(Path(disk, "store")) as server:
            hashed, hash_ = measure(server, who, "hash", source, cache=cache)
            shutil.rmtree(cache, ignore_errors=True)
            up, file = measure(server, who, "put", source, server.url, cache=cache)
        return [hashed, up], [hash_, file]

    rows = [Row(f"{gib:g} GiB, {what}", nbytes) for what in ("hash", "upload")]
    bench.each_round(rows, run)
    source.unlink()
    return rows


def per_byte(row: Row) -> str:
    seconds, cpu, server_cpu = (
        " | ".join(f"{row.median(who, figure) / row.nbytes * 1e9:.2f}" for who in BOTH)
        for figure in ("seconds", "cpu", "server_cpu")
    )
    peaks = " | ".join(f"{row.median(who, figure):.0f}" for figure in ("peak_mib", "server_peak_mib") for who in BOTH)
    return f"| {row.what} | {seconds} | **{row.ratio():.2f}** | {cpu} | {server_cpu} | {peaks} |"


def rows(work: Path, chosen: Any) -> list[str]:
    """What single calls of the store take, in this process, by the number of registered files."""
    lines = [
        "| files | index MiB | bytes a file | open s | reconstruction ms: p50 | p99 | of an unknown file: p50 | p99 "
        "| dedup query, found: p50 | p99 | unknown: p50 | p99 | a new file of one chunk: p50 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count in chosen.growth_rows:
        store = work / "rows"
        chunks = fill(store, count)
        index = (store / "index.sqlite3").stat().st_size
        start = time.perf_counter()
        with EmbeddedCas.open(store) as cas:
            opened = time.perf_counter() - start
            figures = " | ".join(operations(cas, chunks, chosen.asked))
        shutil.rmtree(store)
        lines.append(f"| {count:,} | {index / 2**20:.0f} | {index / count:.0f} | {opened:.2f} | {figures} |")
        print(lines[-1], flush=True)
    return lines


def operations(cas: EmbeddedCas, chunks: list[Hash], asked: int) -> list[str]:
    """p50 and p99 of each. ``chunks`` are registered, each as a file too."""
    chance = Random(1)
    known = [chance.choice(chunks) for _ in range(asked)]
    unknown = [chunk_hash(b"%d" % number) for number in range(asked)]
    new = [make_sample(chance.randbytes(1000)) for _ in range(_WRITES)]

    def missing(file: Hash) -> None:
        try:
            cas.reconstruct(file)
        except NotFoundError:
            return
        raise SystemExit(f"{file} is there, and nobody registered it")

    def query(chunk: Hash, *, found: bool) -> None:
        if (cas.find_chunks(chunk) is not None) != found:
            raise SystemExit(f"chunk {chunk} is {'not ' if found else ''}found")

    return [
        each(cas.reconstruct, [file_hash(chunk) for chunk in known]),
        each(missing, [file_hash(chunk) for chunk in unknown]),
        each(partial(query, found=True), known),
        each(partial(query, found=False), unknown),
        each(lambda sample: upload(cas, sample), new),
    ]


def each(call: Callable[[Any], object], arguments: list[Any]) -> str:
    """p50 and p99 in milliseconds of calls one after another."""
    milliseconds = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        milliseconds.append((time.perf_counter() - start) * 1000)
    return percentiles(milliseconds)


TABLES: Final = {
    "files": files,
    "clients": clients,
    "sizes": sizes,
    "rows": rows,
    "crowded uploads": crowded.uploads,
    "crowded queries": crowded.queries,
}


def run(work: Path, chosen: Any) -> None:
    """The tables that are chosen, each written as soon as it is measured; the page's words stay."""
    for name in chosen.growth_tables:
        table = "\n".join(TABLES[name](work, chosen)) + "\n"
        print(table, flush=True)
        pages.fill(PAGE, {name: table})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--growth-tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--growth-rounds", type=int, default=3)
    parser.add_argument("--growth-gib", type=float, nargs="+", default=[1, 4, 16], help="sizes of one file")
    parser.add_argument(
        "--crowded-xorbs", type=int, default=1_000_000, help="xorbs that are in the index beside those that are put"
    )
    parser.add_argument("--crowded-rounds", type=int, default=9)
    parser.add_argument(
        "--growth-rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000], help="registered files"
    )
