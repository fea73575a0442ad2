"""How the figures grow: with files and clients at once, with the size of a file, with the rows of the index.

Each is a table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from bench import corpora, pages
from bench.client import BOTH, Bench, Row, Run, measure, measure_together, same_content
from bench.server import fill, serving
from bench.stages import PAGE
from bench.worker import BEGIN, run_worker
from xetstore.cas import EmbeddedCas
from xetstore.errors import NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash
from xetstore.testing.samples import Sample, make_sample, upload

AT_ONCE: Final = (1, 2, 4, 8)
FILE_BYTES: Final = 256 << 20
_SECONDS_TO_START: Final = 0.6
"""Of one worker, until it has imported what it needs, while others do the same."""
_LARGE_GIB: Final = 4
"""Larger files are measured once."""
_RESERVE_BYTES: Final = 2 << 30
"""Of memory, for both processes, beside a file on tmpfs."""
_ASKED: Final = 2_000
_WRITTEN: Final = 200


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
    """Whether a file fits, which on tmpfs takes memory, and its xorbs on the disk."""
    available = int(re.findall(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())[0]) << 10
    memory = min(available, shutil.disk_usage(folder).free)
    return nbytes + _RESERVE_BYTES < min(memory, shutil.disk_usage(tempfile.gettempdir()).free)


def one_size(bench: Bench, gib: float) -> list[Row]:
    source, nbytes = bench.work / "source", int(gib * 2**30)
    corpora.make("random", source, nbytes)

    def run(who: str, _: Path, cache: Path) -> tuple[list[Run], list[str]]:
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
    """Calls of the store by the number of registered files: a column for each."""
    columns = [one_column(work / "rows", count) for count in chosen.growth_rows]
    counts = " | ".join(f"{count:,}" for count in chosen.growth_rows)
    return [
        f"| registered files | {counts} |",
        "|---|" + "---|" * len(columns),
        *(f"| {what} | {' | '.join(column[what] for column in columns)} |" for what in columns[0]),
    ]


def one_column(store: Path, count: int) -> dict[str, str]:
    start = time.process_time()
    chunks = fill(store, count)
    filled = time.process_time() - start
    index = (store / "index.sqlite3").stat().st_size
    start = time.perf_counter()
    with EmbeddedCas.open(store) as cas:
        opened = time.perf_counter() - start
        latencies = operations(cas, chunks)
    shutil.rmtree(store)
    column = {
        "index, MiB": f"{index / 2**20:,.0f}",
        "index, bytes a file": f"{index / count:.0f}",
        "registering a thousand at a time, CPU µs a file": f"{filled / count * 1e6:.0f}",
        "open the store, ms": f"{opened * 1000:.1f}",
        **{f"{what}, ms: p50 / p99": figures for what, figures in latencies.items()},
    }
    print(count, column, flush=True)
    return column


def operations(cas: EmbeddedCas, chunks: list[Hash]) -> dict[str, str]:
    """p50 and p99 of each. ``chunks`` are some of the registered ones, each of them also a file."""
    chance = Random(1)
    known = chance.choices(chunks, k=_ASKED)
    unknown = [chunk_hash(b"%d" % number) for number in range(_ASKED)]
    new = [make_sample(chance.randbytes(1000)) for _ in range(_WRITTEN)]

    def missing(file: Hash) -> None:
        try:
            cas.reconstruct(file)
        except NotFoundError:
            return
        raise SystemExit(f"{file} is there, and nobody registered it")

    def query(chunk: Hash, *, found: bool) -> None:
        if (cas.find_chunk(chunk) is not None) != found:
            raise SystemExit(f"chunk {chunk}: found is not {found}")

    def register(sample: Sample) -> None:
        upload(cas, sample)

    return {
        "reconstruction": each(cas.reconstruct, [file_hash(chunk) for chunk in known]),
        "reconstruction of an unknown file": each(missing, [file_hash(chunk) for chunk in unknown]),
        "dedup query, found": each(partial(query, found=True), known),
        "dedup query, unknown": each(partial(query, found=False), unknown),
        "a new file: its xorb and its shard": each(register, new),
    }


def each(call: Callable[[Any], object], arguments: list[Any]) -> str:
    """p50 and p99 in milliseconds of calls one after another."""
    found = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        found.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(found, n=100)
    return f"{cuts[49]:.2f} / {cuts[98]:.2f}"


TABLES: Final = {"files": files, "clients": clients, "sizes": sizes, "rows": rows}


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
        "--growth-rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000], help="registered files"
    )
