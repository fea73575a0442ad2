"""Nanoseconds per byte of each stage: alone on one thread, and in a transfer; written into docs/performance.md."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import corpora
from bench.pages import fill
from bench.server import serving
from bench.worker import PROFILE, run_worker
from xetstore import _kernel
from xetstore.cas import EmbeddedCas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import DedupPlanner
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbBuilder, XorbInfo

if TYPE_CHECKING:
    from bench.rows import Row

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
SUITE = XET_GEARHASH_BLAKE3.kernel
_SAMPLE_BYTES = 60 << 20
_BLOCK_BYTES = 4 << 20
_SECONDS_EACH = 0.4
CORES = os.cpu_count() or 1
"""The ideal is that all processor time of both sides is spread over so many cores, and nobody waits."""


def best(work: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    """The least seconds of several calls."""
    found, until = float("inf"), time.perf_counter() + _SECONDS_EACH
    while time.perf_counter() < until:
        start = clock()
        work()
        found = min(found, clock() - start)
    return found


class Sample:
    """A part of a corpus in memory, cut, and as a xorb."""

    def __init__(self, name: str, work: Path) -> None:
        self.path = work / "sample"
        corpora.make(name, self.path, _SAMPLE_BYTES)
        self.data = self.path.read_bytes()
        self.chunks = ChunkList(*_kernel.find_chunks(SUITE, self.data, final=True))
        self.room = bytearray(len(self.data) + 8 * len(self.chunks))
        self.builder = XorbBuilder()
        self.builder.append([self.data], self.chunks, policy=_kernel.AUTO)
        self.xorb: XorbInfo
        self.xorb, body = self.builder.finish()
        self.body = bytes(body)

    def encode(self, policy: int) -> None:
        _kernel.encode_chunks(SUITE, [self.data], self.chunks.lengths, self.room, policy=policy)

    def plan(self) -> None:
        planner = DedupPlanner()
        for at in range(0, len(self.chunks), 64):
            block = self.chunks.slice(at, min(at + 64, len(self.chunks)))
            list(planner.worth_asking(block))
            planner.plan(block)

    def read(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)

    def write(self, target: Path) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        view = memoryview(self.data)
        os.truncate(descriptor, len(view))
        for at in range(0, len(view), 2 << 20):
            os.pwrite(descriptor, view[at : at + (2 << 20)], at)
        os.close(descriptor)

    def loopback(self) -> tuple[float, float]:
        """Seconds of processor time of who sends the xorb through a local connection, and of who receives it."""
        spent: list[float] = []

        def receive(listening: socket.socket) -> None:
            connection, _ = listening.accept()
            buffer = memoryview(bytearray(1 << 20))
            start = time.thread_time()
            with connection:
                while connection.recv_into(buffer):
                    pass
            spent.append(time.thread_time() - start)

        def once() -> tuple[float, float]:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                receiver = threading.Thread(target=receive, args=(listening,))
                receiver.start()
                with socket.create_connection(listening.getsockname()) as connection:
                    start = time.thread_time()
                    connection.sendall(self.body)
                    sent = time.thread_time() - start
                receiver.join()
            return sent, spent.pop()

        sent, received = zip(*(once() for _ in range(5)), strict=True)
        return min(sent), min(received)

    def store(self, folder: Path) -> None:
        """What the server does with a xorb once it has received it."""
        shutil.rmtree(folder, ignore_errors=True)
        with EmbeddedCas.open(folder) as cas, cas.receive_xorb(self.xorb.hash) as receiver:
            for at in range(0, len(self.body), 2 << 20):
                receiver.write(self.body[at : at + (2 << 20)])
            receiver.commit()


def alone(work: Path, name: str) -> dict[str, float]:
    """Nanoseconds per raw byte of each stage on its own."""
    sample = Sample(name, work)
    raw = bytearray(len(sample.data))
    sent, received = sample.loopback()
    seconds = {
        "read (4 MiB blocks)": best(sample.read),
        "SHA-256": best(lambda: hashlib.sha256(sample.data)),
        "cut and hash": best(lambda: _kernel.find_chunks(SUITE, sample.data, final=True)),
        "plan": best(sample.plan),
        "encode, none": best(partial(sample.encode, _kernel.NONE)),
        "encode, LZ4": best(partial(sample.encode, _kernel.LZ4)),
        "encode, BG4-LZ4": best(partial(sample.encode, _kernel.BG4_LZ4)),
        "encode, auto": best(partial(sample.encode, _kernel.AUTO)),
        "send over loopback": sent,
        "receive from loopback": received,
        "server: verify": best(lambda: _kernel.verify_chunks(SUITE, sample.body, final=True)),
        "server: verify, write, fsync": best(lambda: sample.store(work / "stage-store"), time.process_time),
        "decode and hash": best(lambda: _kernel.decode_chunks(SUITE, sample.body, raw, final=True)),
        "write (2 MiB pieces)": best(lambda: sample.write(work / "stage-out")),
    }
    for used in (sample.path, work / "stage-out"):
        used.unlink()
    shutil.rmtree(work / "stage-store")
    return {stage: spent / len(sample.data) * 1e9 for stage, spent in seconds.items()}


def in_transfer(work: Path, name: str, nbytes: int) -> dict[str, dict[str, float]]:
    """Nanoseconds of the client's processor time per byte by stage, of an upload and a download on one core."""
    source, out, store, cache = (work / part for part in (name, "out", "store", "cache"))
    corpora.make(name, source, nbytes)
    found = {}
    with serving(store) as server:
        put = run_worker("ours", "put", source, server.url, cache=cache, environment={PROFILE: "1"})
        get = run_worker(
            "ours", "get", str(put["result"]), nbytes, server.url, out, cache=cache, environment={PROFILE: "1"}
        )
    for way, told in (("upload", put), ("download", get)):
        stages: dict[str, float] = told["stages"]
        stages["everything else"] = told["cpu"] - sum(stages.values())
        found[way] = {stage: spent / nbytes * 1e9 for stage, spent in stages.items()}
    for used in (source, out):
        used.unlink()
    for folder in (store, cache):
        shutil.rmtree(folder)
    return found


def table(head: str, columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One column of figures for each corpus."""
    stages = list(dict.fromkeys(stage for figures in columns.values() for stage in figures))
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for stage in stages:
        figures = (columns[name].get(stage) for name in columns)
        lines.append(f"| {stage} | " + " | ".join("" if value is None else f"{value:.2f}" for value in figures) + " |")
    return lines


def sides(rows: Mapping[str, Row]) -> list[str]:
    """Both sides of each transfer, beside what the machine could do if no core were ever idle."""
    lines = [
        "| transfer | time | client CPU | server CPU | ideal | time / ideal | hf_xet: time | client CPU | server CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in corpora.NAMES:
        for way in ("upload", "download"):
            row = rows[f"{name}, {way}"]
            time_, cpu, server, *theirs = (
                row.median(who, figure) / row.nbytes * 1e9
                for who in ("ours", "theirs")
                for figure in ("seconds", "cpu", "server_cpu")
            )
            ideal = (cpu + server) / CORES
            cells = " | ".join(f"{value:.2f}" for value in (time_, cpu, server, ideal, time_ / ideal, *theirs))
            lines.append(f"| {row.what} | {cells} |")
    return lines


def run(work: Path, chosen: Any, rows: Mapping[str, Row]) -> None:
    """Measure, and replace the tables of the page; its words stay."""
    by_corpus = {name: alone(work, name) for name in corpora.NAMES}
    transfers = {name: in_transfer(work, name, int(chosen.gib * 2**30)) for name in corpora.NAMES}
    tables = {
        "sides": sides(rows),
        "alone": table("stage, alone on one thread", by_corpus),
        **{
            way: table(f"stage of an {way}" if way == "upload" else f"stage of a {way}", columns)
            for way in ("upload", "download")
            for columns in [{name: transfers[name][way] for name in corpora.NAMES}]
        },
    }
    texts = {name: "\n".join(lines) + "\n" for name, lines in tables.items()}
    print(*texts.values(), sep="\n", flush=True)
    fill(PAGE, texts)
