"""Figures of the client: xetstore and hf_xet against the same server of ours, in turn; written to CLIENT.md."""

from __future__ import annotations

import http.client
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from bench import corpora, stages, table
from bench.rows import BOTH, MOVED, TIMES, Row, Run
from bench.server import Server, serving
from bench.worker import run_worker, tree_bytes

ROOT = Path(__file__).parent
_SMALL_BYTES = 4096
_EDITS = 100
_EDITED_SHARE = 0.01


def traffic(server: Server) -> dict[str, float]:
    """Bytes of bodies that the server has received and sent, by its own count."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        way: sum(
            map(float, re.findall(rf"^xetstore_http_{way}_bytes_total\{{(?!route=\"/metrics\").*}} (\S+)$", text, re.M))
        )
        for way in ("received", "sent")
    }


def measure(server: Server, who: str, verb: str, *args: str | int | Path, cache: Path) -> tuple[Run, str]:
    """One operation in a fresh process, and what it cost on both sides; what it gave."""
    run, [given] = measure_together(server, [partial(run_worker, who, verb, *args, cache=cache)])
    return run, given


def measure_together(server: Server, workers: Sequence[Callable[[], dict[str, Any]]]) -> tuple[Run, list[str]]:
    """Several workers at once: from the first's beginning to the last's end, the processor time of all, and the peak
    memory of the largest; what each gave.
    """
    # Peak memory counts from here.
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    before, cpu = traffic(server), server.cpu()
    with ThreadPoolExecutor(len(workers)) as pool:
        told = [answer.result() for answer in [pool.submit(worker) for worker in workers]]
    after = traffic(server)
    counts = {way: after[way] - before[way] for way in after}
    run = Run(
        max(one["start"] + one["seconds"] for one in told) - min(one["start"] for one in told),
        sum(one["cpu"] for one in told),
        max(one["peak_mib"] for one in told),
        server.cpu() - cpu,
        server.peak_mib(),
        counts["received"],
        counts["sent"],
    )
    return run, [str(one["result"]) for one in told]


class Bench:
    """All rows, measured in a folder."""

    def __init__(self, work: Path, rounds: int) -> None:
        self.work = work
        self.rounds = rounds
        self.rows: list[Row] = []

    def each_round(self, rows: list[Row], run: Callable[[str, Path, Path], tuple[list[Run], list[str]]]) -> list[str]:
        """Let both clients do their operations in turn, whoever is second being first in the next round.

        ``run`` gets who, a folder for a store and one for a cache, both new; it measures as many operations as there
        are rows. What they give has to be the same of both, and in every round.
        """
        agreed: list[str] = []
        for number in range(self.rounds):
            for who in BOTH if number % 2 == 0 else BOTH[::-1]:
                store, cache = self.work / "store", self.work / "cache"
                try:
                    runs, given = run(who, store, cache)
                finally:
                    for used in (store, cache):
                        shutil.rmtree(used, ignore_errors=True)
                for row, one in zip(rows, runs, strict=True):
                    row.runs[who].append(one)
                agreed = agreed or given
                if given != agreed:
                    raise SystemExit(f"{rows[0].what}: the two do not agree")
        for row in rows:
            print(row.times(), row.moved(), sep="\n", flush=True)
        self.rows += rows
        return agreed

    def corpus(self, name: str, nbytes: int) -> None:
        """One file hashed, up, and down again."""
        source, out = self.work / name, self.work / "out"
        corpora.make(name, source, nbytes)

        def run(who: str, store: Path, cache: Path) -> tuple[list[Run], list[str]]:
            with serving(store) as server:
                hashed, hash_ = measure(server, who, "hash", source, cache=cache)
                shutil.rmtree(cache, ignore_errors=True)
                up, file = measure(server, who, "put", source, server.url, cache=cache)
                up = replace(up, stored=tree_bytes(store))
                shutil.rmtree(cache, ignore_errors=True)
                down, _ = measure(server, who, "get", file, nbytes, server.url, out, cache=cache)
            same_content(source, out)
            out.unlink()
            return [hashed, up, down], [hash_, file]

        rows = [
            Row(f"{name}, hash", nbytes, goal=3),
            Row(f"{name}, upload", nbytes, goal=2),
            Row(f"{name}, download", nbytes, goal=1.8),
        ]
        self.each_round(rows, run)
        source.unlink()

    def edited(self, nbytes: int) -> None:
        """A random file, a hundredth of it changed: uploaded from where the first was, and from another machine."""
        source, again, elsewhere = (self.work / name for name in ("random", "again", "elsewhere"))
        corpora.make("random", source, nbytes)
        for seed, path in ((1, again), (2, elsewhere)):
            edit(source, path, Random(seed))

        def run(who: str, store: Path, cache: Path) -> tuple[list[Run], list[str]]:
            with serving(store) as server:
                measure(server, who, "put", source, server.url, cache=cache)
                first, first_hash = measure(server, who, "put", again, server.url, cache=cache)
                first = replace(first, stored=tree_bytes(store))
                shutil.rmtree(cache)
                second, second_hash = measure(server, who, "put", elsewhere, server.url, cache=cache)
                second = replace(second, stored=tree_bytes(store))
            return [first, second], [first_hash, second_hash]

        rows = [Row(f"1 % edited, {whose}", nbytes, goal=2.5) for whose in ("same machine", "another machine")]
        self.each_round(rows, run)
        for used in (source, again, elsewhere):
            used.unlink()

    def small_files(self, count: int) -> None:
        """Many files up in one call, and down again."""
        source, out, names = self.work / "files", self.work / "out", self.work / "names"
        source.mkdir()
        chance = Random(3)
        for number in range(count):
            (source / f"{number:06}").write_bytes(chance.randbytes(_SMALL_BYTES))

        def run(who: str, store: Path, cache: Path) -> tuple[list[Run], list[str]]:
            with serving(store) as server:
                up, files = measure(server, who, "put_many", source, server.url, names, cache=cache)
                up = replace(up, stored=tree_bytes(store))
                shutil.rmtree(cache, ignore_errors=True)
                down, _ = measure(server, who, "get_many", names, _SMALL_BYTES, server.url, out, cache=cache)
            for number, path in enumerate(sorted(source.iterdir())):
                if path.read_bytes() != (out / str(number)).read_bytes():
                    raise SystemExit(f"{path.name}: other bytes came back")
            shutil.rmtree(out)
            return [up, down], [files]

        nbytes = count * _SMALL_BYTES
        rows = [Row(f"{count:,} files of 4 KB, {way}", nbytes, count, goal=3) for way in ("upload", "download")]
        self.each_round(rows, run)
        shutil.rmtree(source)

    def ranges(self, nbytes: int, count: int) -> None:
        """Ranges of one large file, as ranges and by seeking in an open file (hf_xet has the former only)."""
        source, filled = self.work / "large", self.work / "filled"
        corpora.make("random", source, nbytes)
        with serving(filled) as server:
            _, file = measure(server, "ours", "put", source, server.url, cache=self.work / "cache")
        source.unlink()

        def run(who: str, _: Path, cache: Path) -> tuple[list[Run], list[str]]:
            runs, given = [], []
            for verb in ("ranges", "seeks"):
                shutil.rmtree(cache, ignore_errors=True)
                with serving(filled) as server:
                    one, digest = measure(server, who, verb, file, nbytes, server.url, count, cache=cache)
                runs.append(one)
                given.append(digest)
            return runs, given

        read = count * min(1 << 20, nbytes)
        rows = [
            Row(f"{count} ranges of 1 MiB of {nbytes / 1e9:g} GB, {how}", read, goal=2)
            for how in ("as ranges", "opened")
        ]
        self.each_round(rows, run)
        shutil.rmtree(filled)


def edit(source: Path, target: Path, chance: Random) -> None:
    """Copy a file with other bytes in 100 places, a hundredth of it in all."""
    shutil.copyfile(source, target)
    size = source.stat().st_size
    length = int(size * _EDITED_SHARE / _EDITS)
    with target.open("r+b") as file:
        for place in range(_EDITS):
            # One place in each hundredth, so that no two overlap.
            file.seek(place * (size // _EDITS) + chance.randrange(size // _EDITS - length))
            file.write(chance.randbytes(length))


def same_content(source: Path, out: Path) -> None:
    if subprocess.run(["cmp", "-s", source, out], check=False).returncode:
        raise SystemExit(f"{source.name}: other bytes came back")


def run(work: Path, chosen: Any) -> dict[str, Any]:
    """All of it; what the table beside hf_xet says. Pages are written unless it is to be quick."""
    nbytes = int(chosen.gib * 2**30)
    bench = Bench(work, chosen.rounds)
    for name in corpora.NAMES:
        bench.corpus(name, nbytes)
    bench.small_files(chosen.small_files)
    bench.edited(nbytes)
    bench.ranges(int(chosen.gib * 2e9), 100)
    print(table.markdown(bench.rows), flush=True)
    if not chosen.quick:
        publish(work, chosen, bench)
    return table.figures(bench.rows)


def publish(work: Path, chosen: Any, bench: Bench) -> None:
    """Write the pages, and measure the stages for theirs."""
    text = (
        f"# Figures of the client\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, hf_xet 1.8.0; {chosen.rounds} rounds, the two in turn, medians; the ratio is "
        "hf_xet's time by ours, the median of the pairs.\n\n"
        f"Both talk to the same server of ours, `xet serve` on the same machine, with a new store for each run, on "
        f"tmpfs. Files of {chosen.gib:g} GiB. Client caches are empty, but for the second upload from the same "
        "machine. Uploads make a SHA-256. Our downloads and ranges are verified, those of hf_xet are not.\n\n"
        "## Time, memory, processor\n\n"
    )
    text += "\n".join([*TIMES, *(row.times() for row in bench.rows)])
    text += "\n\n## Bytes of bodies, as the server counts them\n\n"
    text += "\n".join([*MOVED, *(row.moved() for row in bench.rows)])
    (ROOT / "CLIENT.md").write_text(text + "\n")
    figures: dict[str, Any] = {row.what: {who: list(map(asdict, row.runs[who])) for who in BOTH} for row in bench.rows}
    (ROOT / "client.json").write_text(json.dumps(figures, indent=1) + "\n")
    table.publish(bench.rows, chosen.gib)
    stages.run(work, chosen, {row.what: row for row in bench.rows})
