"""How the figures grow: with the files at once, with the size of a file, with the rows of the index.

Written into the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from bench import corpora, pages
from bench.client import BOTH, Bench, Row, Run, measure, same_content
from bench.server import fill, serving
from bench.worker import run_worker
from xetstore.cas import EmbeddedCas
from xetstore.errors import NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash
from xetstore.testing.samples import make_sample, upload

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
AT_ONCE: Final = (1, 2, 4, 8)
FILE_BYTES: Final = 128 << 20
_WRITES: Final = 200


def files(work: Path, chosen: Any) -> str:
    """1 to 8 files in one call; and 1 to 8 clients at once, each with one."""
    bench = Bench(work, chosen.growth_rounds)
    lines = [
        "| files at once | upload, one client | hf_xet | ratio | download, one client | hf_xet | ratio "
        "| upload, a client each | server CPU s/GB | download, a client each | server CPU s/GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    source = work / "files"
    for count in AT_ONCE:
        source.mkdir()
        for number in range(count):
            (source / str(number)).write_bytes(np.random.default_rng(number).bytes(FILE_BYTES))
        up, down = in_one_call(bench, source, count)
        by_clients = each_its_own(work, source, chosen.growth_rounds)
        shutil.rmtree(source)
        one = " | ".join(f"{row.rate('ours')} | {row.rate('theirs')} | **{row.ratio():.2f}**" for row in (up, down))
        lines.append(f"| {count} | {one} | {by_clients} |")
        print(lines[-1], flush=True)
    return table(lines)


def in_one_call(bench: Bench, source: Path, count: int) -> list[Row]:
    out, names = bench.work / "out", bench.work / "names"

    def run(who: str, store: Path, cache: Path) -> tuple[list[Run], list[str]]:
        with serving(store) as server:
            up, hashes = measure(server, who, "put_many", source, server.url, names, cache=cache)
            shutil.rmtree(cache, ignore_errors=True)
            down, _ = measure(server, who, "get_many", names, FILE_BYTES, server.url, out, cache=cache)
        for number in range(count):
            same_content(source / str(number), out / str(number))
        shutil.rmtree(out)
        return [up, down], [hashes]

    rows = [Row(f"{count} files at once, {way}", count * FILE_BYTES) for way in ("up", "down")]
    bench.each_round(rows, run)
    return rows


def each_its_own(work: Path, source: Path, rounds: int) -> str:
    """As many clients at once as there are files: GB/s of all together, and the server's processor time."""
    paths = sorted(source.iterdir())
    gb = len(paths) * FILE_BYTES / 1e9
    rates: dict[str, list[tuple[float, float]]] = {"put": [], "get": []}
    for _ in range(rounds):
        with serving(work / "store") as server, ThreadPoolExecutor(len(paths)) as pool:

            def all_of(verb: str, calls: Iterable[tuple[str | int | Path, ...]]) -> list[str]:
                before = server.cpu()
                told = [
                    pool.submit(run_worker, "ours", verb, *call, cache=work / "cache" / str(number))
                    for number, call in enumerate(calls)
                ]
                done = [one.result() for one in told]
                seconds = max(one["seconds"] for one in done)
                rates[verb].append((gb / seconds, (server.cpu() - before) / gb))
                return [str(one["result"]) for one in done]

            hashes = all_of("put", ((path, server.url) for path in paths))
            shutil.rmtree(work / "cache")
            outs = [work / f"out{path.name}" for path in paths]
            all_of("get", ((name, FILE_BYTES, server.url, out) for name, out in zip(hashes, outs, strict=True)))
        for path, out in zip(paths, outs, strict=True):
            same_content(path, out)
            out.unlink()
        for used in ("store", "cache"):
            shutil.rmtree(work / used)
    return " | ".join(
        f"{statistics.median(rate for rate, _ in found):.2f} GB/s | {statistics.median(cpu for _, cpu in found):.2f}"
        for found in rates.values()
    )


def sizes(work: Path, chosen: Any) -> str:
    """Files of growing size, hashed and uploaded to a store that is on disk; the files themselves are on tmpfs."""
    lines = [
        "| file | hash, ns a byte | upload, ns a byte | hf_xet | ratio | client CPU, ns a byte | hf_xet "
        "| server CPU, ns a byte | peak MiB | hf_xet | server peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for gib in chosen.growth_gib:
        nbytes = int(gib * 2**30)
        source = work / "source"
        if shutil.disk_usage(work).free < nbytes * 1.05:
            lines.append(f"| {gib:g} GiB | no room |" + " |" * 9)
            continue
        corpora.make("random", source, nbytes)
        hash_, up = one_size(work, source, nbytes, rounds=max(1, min(chosen.growth_rounds, int(4 / gib))))
        source.unlink()
        times = [hash_.median("ours", "seconds"), *(up.median(who, "seconds") for who in BOTH)]
        spent = [*(up.median(who, "cpu") for who in BOTH), up.median("ours", "server_cpu")]
        peaks = [*(up.median(who, "peak_mib") for who in BOTH), up.median("ours", "server_peak_mib")]
        time_cells, cpu_cells = (" | ".join(f"{s / nbytes * 1e9:.2f}" for s in figures) for figures in (times, spent))
        memory = " | ".join(f"{peak:.0f}" for peak in peaks)
        lines.append(f"| {gib:g} GiB | {time_cells} | **{up.ratio():.2f}** | {cpu_cells} | {memory} |")
        print(lines[-1], flush=True)
    return table(lines)


def one_size(work: Path, source: Path, nbytes: int, rounds: int) -> list[Row]:
    bench = Bench(work, rounds)

    def run(who: str, _: Path, cache: Path) -> tuple[list[Run], list[str]]:
        # Not on tmpfs: what is acknowledged is on a disk.
        with tempfile.TemporaryDirectory(prefix="xetstore-bench-") as disk, serving(Path(disk, "store")) as server:
            hashed, hash_ = measure(server, who, "hash", source, cache=cache)
            shutil.rmtree(cache, ignore_errors=True)
            up, file = measure(server, who, "put", source, server.url, cache=cache)
            return [hashed, up], [hash_, file]

    rows = [Row("hash", nbytes), Row("upload to disk", nbytes)]
    bench.each_round(rows, run)
    return rows


def rows(work: Path, chosen: Any) -> str:
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
    return table(lines)


def operations(cas: EmbeddedCas, chunks: list[Hash], asked: int) -> list[str]:
    chance = Random(1)
    known = [chance.choice(chunks) for _ in range(asked)]
    unknown = [chunk_hash(b"%d" % number) for number in range(asked)]
    new = [make_sample(chance.randbytes(1000)) for _ in range(_WRITES)]

    def missing(chunk: Hash) -> None:
        try:
            cas.reconstruct(file_hash(chunk))
        except NotFoundError:
            return
        raise SystemExit("a file is there that nobody registered")

    return [
        each(lambda chunk: cas.reconstruct(file_hash(chunk)), known),
        each(missing, unknown),
        each(cas.find_chunk, known),
        each(cas.find_chunk, unknown),
        each(lambda sample: upload(cas, sample), new),
    ]


def each(call: Callable[[Any], object], arguments: list[Any]) -> str:
    """p50 and p99 in milliseconds of calls one after another."""
    seconds = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        seconds.append(time.perf_counter() - start)
    cuts = statistics.quantiles(seconds, n=100)
    return f"{cuts[49] * 1000:.2f} | {cuts[98] * 1000:.2f}"


def table(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


TABLES: Final = {"files": files, "sizes": sizes, "rows": rows}


def run(work: Path, chosen: Any) -> None:
    """All of it, or the tables that are chosen."""
    for name in chosen.growth_tables:
        pages.fill(PAGE, {name: TABLES[name](work, chosen)})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--growth-tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--growth-rounds", type=int, default=3)
    parser.add_argument("--growth-gib", type=float, nargs="*", default=[1.0, 4.0, 16.0], help="sizes of one file")
    parser.add_argument(
        "--growth-rows", type=int, nargs="*", default=[10_000, 1_000_000, 10_000_000], help="registered files"
    )
