"""Figures of the server: hf_xet through it beside its own local store, latencies, restarts; written to SERVER.md."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench import corpora
from bench.worker import run_worker
from xetstore import _kernel
from xetstore.cas import EmbeddedCas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder

ROOT = Path(__file__).parent
_XORB_FILES = 1000
_FILE_BYTES = 64
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A running `xet serve`. ``start_seconds`` is from its start to its first answer."""

    url: str
    process: subprocess.Popen[str]
    start_seconds: float

    def connect(self) -> http.client.HTTPConnection:
        where = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def pids(self) -> list[int]:
        """Its processes: one, or a parent and its workers."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / _TICKS

    def peak_mib(self) -> float:
        status = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in status) / 1024


@contextmanager
def serving(
    store: Path, auth: str = "none", environment: Mapping[str, str] | None = None, *, workers: int = 1
) -> Iterator[Server]:
    command = [sys.executable, "-m", "xetstore", "serve", str(store), "--port", "0", "--auth", auth, "--json"]
    command += ["--workers", str(workers)]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        try:
            assert process.stdout is not None
            server = Server(json.loads(process.stdout.readline())["url"], process, 0.0)
            connection = server.connect()
            connection.request("GET", "/health/ready")
            if connection.getresponse().status != 200:
                raise SystemExit("the server did not become ready")
            connection.close()
            server.start_seconds = time.perf_counter() - start
            yield server
        finally:
            process.terminate()


def transfers(work: Path, nbytes: int, rounds: int) -> list[str]:
    """hf_xet up and down, through the server and with its own local store, in turn."""
    lines = [
        "| corpus | hf_xet | through the server GB/s | local:// GB/s | ratio | server CPU s/GB | server peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    gb = nbytes / 1e9
    for name in corpora.NAMES:
        source, out = work / name, work / "out"
        corpora.make(name, source, nbytes)
        seconds: dict[tuple[str, str], list[float]] = {(v, w): [] for v in ("up", "down") for w in ("served", "local")}
        cpu: dict[str, list[float]] = {"up": [], "down": []}
        peak: dict[str, list[float]] = {"up": [], "down": []}
        for _ in range(rounds):
            for where in ("served", "local"):
                store, cache = work / where, work / "cache"
                for stale in (store, cache):
                    shutil.rmtree(stale, ignore_errors=True)
                if where == "local":
                    put = run_worker("theirs", "put", source, f"local://{store}", cache=cache)
                    get = run_worker("theirs", "get", str(put["result"]), nbytes, f"local://{store}", out, cache=cache)
                else:
                    with serving(store) as server:
                        before = server.cpu()
                        put = run_worker("theirs", "put", source, server.url, cache=cache)
                        between = server.cpu()
                        peak["up"].append(server.peak_mib())
                        get = run_worker("theirs", "get", str(put["result"]), nbytes, server.url, out, cache=cache)
                        cpu["up"].append((between - before) / gb)
                        cpu["down"].append((server.cpu() - between) / gb)
                        peak["down"].append(server.peak_mib())
                if subprocess.run(["cmp", "-s", source, out], check=False).returncode:
                    raise SystemExit(f"{name}: other bytes came back")
                out.unlink()
                seconds["up", where].append(put["seconds"])
                seconds["down", where].append(get["seconds"])
        for verb in ("up", "down"):
            served, local = (statistics.median(seconds[verb, where]) for where in ("served", "local"))
            pairs = zip(seconds[verb, "served"], seconds[verb, "local"], strict=True)
            ratio = statistics.median(theirs / ours for ours, theirs in pairs)
            lines.append(
                f"| {name} | {verb} | {gb / served:.2f} | {gb / local:.2f} | **{ratio:.2f}** "
                f"| {statistics.median(cpu[verb]):.2f} | {max(peak[verb]):.0f} |"
            )
        print("\n".join(lines[-2:]), flush=True)
        source.unlink()
    return lines


def fill(store: Path, files: int) -> list[Hash]:
    """Register files of one small chunk each, a thousand to a xorb; some of their hashes, which are eligible."""
    known = []
    chance = Random(files)
    with EmbeddedCas.open(store) as cas:
        for start in range(0, files, _XORB_FILES):
            count = min(_XORB_FILES, files - start)
            data = chance.randbytes(count * _FILE_BYTES)
            lengths = memoryview(bytearray(8 * count)).cast("Q")
            lengths[:] = memoryview(b"".join(_FILE_BYTES.to_bytes(8, sys.byteorder) for _ in range(count))).cast("Q")
            hashes = _kernel.hash_chunks(XET_GEARHASH_BLAKE3.kernel, data, lengths)
            chunks = ChunkList(hashes, bytes(lengths))
            builder = XorbBuilder()
            builder.append([data], chunks, policy=CompressionPolicy.NONE.kernel)
            xorb, body = builder.finish()
            cas.put_xorb(xorb.hash, body)
            entries = tuple(
                FileEntry(
                    file_hash(Hash(chunks.digest(i))),
                    (Term(xorb.hash, i, i + 1, _FILE_BYTES),),
                    (verification_hash(chunks.digest(i)),),
                )
                for i in range(count)
            )
            cas.put_shard(Shard(entries, (XorbEntry(xorb.hash, chunks),)))
            known += [Hash(chunks.digest(i)) for i in (0, count // 2, count - 1)]
    return known


def small_requests(chunks: list[Hash]) -> dict[str, tuple[list[str], int]]:
    """Paths, and the status that each gets, by the kind of request; ``chunks`` are those that :func:`fill` gave."""
    unknown = [f"/v1/chunks/default/{chunk_hash(b'%d' % number)}" for number in range(1000)]
    return {
        "reconstruction": ([f"/v2/reconstructions/{file_hash(chunk)}" for chunk in chunks], 200),
        "dedup query, found": ([f"/v1/chunks/default/{chunk}" for chunk in chunks], 200),
        "dedup query, unknown": (unknown, 404),
    }


def latencies(server: Server, paths: list[str], expected: int, asked: int, token: str | None = None) -> str:
    """p50 and p99 in milliseconds of requests one after another, on one connection, and the processor time of each."""
    connection = server.connect()
    chance = Random(1)
    found = []
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    before = server.cpu()
    for _ in range(asked):
        path = chance.choice(paths)
        start = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        found.append((time.perf_counter() - start) * 1000)
        if answer.status != expected:
            raise SystemExit(f"{path}: {answer.status}")
    connection.close()
    per_request = (server.cpu() - before) / asked * 1000
    return f"{percentiles(found)} | {per_request:.2f}"


def percentiles(milliseconds: list[float]) -> str:
    """p50 and p99."""
    cuts = statistics.quantiles(milliseconds, n=100)
    return f"{cuts[49]:.2f} | {cuts[98]:.2f}"


def growth(work: Path, sizes: list[int], asked: int) -> list[str]:
    lines = [
        "| registered files | request | p50 ms | p99 ms | server CPU ms | start s | index MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for files in sizes:
        store = work / f"files{files}"
        chunks = fill(store, files)
        index = (store / "index.sqlite3").stat().st_size / 2**20
        requests = small_requests(chunks)
        with serving(store) as server:
            for what, (paths, expected) in requests.items():
                figures = latencies(server, paths, expected, asked)
                lines.append(f"| {files:,} | {what} | {figures} | {server.start_seconds:.2f} | {index:.0f} |")
                print(lines[-1], flush=True)
        with serving(store, "tokens") as server:
            # Ten times as many: the clock of processor time ticks a hundred times a second.
            paths, expected = requests["dedup query, unknown"]
            figures = latencies(server, paths, expected, 10 * asked, (store / "access/admin-token").read_text().strip())
            what = "dedup query, unknown, with a token"
            lines.append(f"| {files:,} | {what} | {figures} | {server.start_seconds:.2f} | {index:.0f} |")
            print(lines[-1], flush=True)
        shutil.rmtree(store)
    return lines


def run(work: Path, chosen: Any) -> None:
    """All of it."""
    text = (
        f"# Figures of the server\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, hf_xet 1.8.0; medians.\n\n"
        f"## hf_xet through the server, and with its local:// store\n\nOne file of {chosen.gib:g} GiB, tmpfs, "
        f"{chosen.rounds} rounds, the two in turn, client caches empty. The server verifies what it gets, and has "
        "it on disk before it answers; the local store does neither. The ratio is local:// time by served time, the "
        "median of the pairs.\n\n"
    )
    text += "\n".join(transfers(work, int(chosen.gib * 2**30), chosen.rounds))
    text += (
        "\n\n## Latency and growth\n\nFiles of one chunk, a thousand to a xorb; requests one after another on one "
        f"connection, {chosen.asked:,} of each kind. Start: from the command to the first answer.\n\n"
    )
    text += "\n".join(growth(work, chosen.files, chosen.asked))
    (ROOT / "SERVER.md").write_text(text + "\n")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, nargs="*", default=[100, 1_000_000], help="registered files")
    parser.add_argument("--asked", type=int, default=3000, help="requests of each kind")
