"""Ctrl-C and SIGTERM while the client waits for a network that hangs: exit code 130, soon, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import double_faults as faults
from tests.support.double import Double, Fault, Kind
from tests.support.live import PATIENCE_SECONDS, LiveServer, live_server, until
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how far a connection is is read from /proc")

MIB = 1 << 20
SIZE = 20 * MIB
INTERRUPTED = 130


@dataclass(frozen=True)
class Site:
    """A server with a file, and where the client works."""

    server: LiveServer
    file: str
    source: Path
    folder: Path

    def command(self, url: str, what: str) -> list[str]:
        out = self.folder / "out" / "file"
        call = ["get", self.file, "-o", str(out)] if what == "get" else ["put", str(self.source)]
        return [sys.executable, "-m", "xetstore", "--store", url, *call]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "out").mkdir()
    stored, source = folder / "stored", folder / "source"
    stored.write_bytes(splitmix64(1, SIZE))
    source.write_bytes(splitmix64(2, MIB))
    with EmbeddedCas.open(folder / "store") as cas, live_server(cas, log_level="error") as server:
        yield Site(server, str(Store(cas).put(stored).hash), source, folder)


@contextmanager
def running(site: Site, url: str, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which hangs."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XET")},
        "XET_TOKEN": site.server.token("write"),
        "XET_CACHE": str(site.folder / "cache"),
    }
    process = subprocess.Popen(
        site.command(url, what),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def expect_a_clean_end(site: Site, process: subprocess.Popen[bytes], signals: list[signal.Signals]) -> float:
    """Interrupt a command that hangs; how long it took to end."""
    out = site.folder / "out" / "file"
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05 if len(signals) > 1 else 0)
    said, errors = process.communicate(timeout=PATIENCE_SECONDS)
    took = time.monotonic() - began
    text = errors.decode()
    assert process.returncode == INTERRUPTED, (process.returncode, text)
    assert "Traceback" not in text
    assert "xet: interrupted" in text
    assert said == b""
    assert out.read_bytes() == b"old"
    assert [path.name for path in out.parent.iterdir()] == ["file"]
    return took


SIGNALS = {
    "SIGINT": [signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
}

HANGS: dict[str, tuple[Kind, Callable[[], Fault], str]] = {
    "get, before the reconstruction": (Kind.RECONSTRUCTION_V2, faults.stall_before, "get"),
    "get, in the middle of a reconstruction": (Kind.RECONSTRUCTION_V2, faults.stall_within, "get"),
    "get, before a range": (Kind.XORB_GET, faults.stall_before, "get"),
    "get, in the middle of a range": (Kind.XORB_GET, faults.stall_within, "get"),
    "get, told to wait": (Kind.XORB_GET, lambda: faults.status(503, retry_after="60"), "get"),
    "put, while the xorb is not taken": (Kind.XORB_POST, faults.stall_early, "put"),
    "put, before the xorb is acknowledged": (Kind.XORB_POST, faults.stall_before, "put"),
    "put, before the shard is acknowledged": (Kind.SHARD_V2, faults.stall_before, "put"),
    "put, told to wait": (Kind.SHARD_V2, lambda: faults.status(503, retry_after="60"), "put"),
    "put, while dedup queries hang": (Kind.CHUNK, faults.stall_before, "put"),
}


@pytest.mark.parametrize("name", HANGS)
def test_an_interrupted_command_that_hangs_ends_and_leaves_nothing(site: Site, name: str) -> None:
    _, fault, _ = HANGS[name]
    (site.folder / "out" / "file").write_bytes(b"old")
    # Each way to hang with one of the signals; where bytes arrive with all of them.
    every = list(SIGNALS) if name == "get, in the middle of a range" else [list(SIGNALS)[list(HANGS).index(name) % 3]]
    for signals in every:
        took = hang_and_interrupt(site, name, fault(), SIGNALS[signals])
        print(f"{name}, {signals}: {took:.2f} s")


def hang_and_interrupt(site: Site, name: str, fault: Fault, signals: list[signal.Signals]) -> float:
    kind, _, what = HANGS[name]
    with Double(site.server.url) as double:
        if kind is Kind.CHUNK:  # it delays nothing: so let something else hang too
            double.plan(Kind.SHARD_V2, faults.stall_before(), times=None)
        planned = double.plan(kind, fault, times=None)
        with running(site, double.url, what) as process:
            until(lambda: planned.hits > 0 or process.poll() is not None)
            time.sleep(0.3)  # it has seen by now that nothing comes
            assert process.poll() is None, process.communicate()
            return expect_a_clean_end(site, process, signals)


@contextmanager
def nobody_accepts() -> Iterator[tuple[str, int]]:
    """An address where connections are neither made nor refused: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        address = listening.getsockname()
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(address)
            yield address
        finally:
            for sock in waiting:
                sock.close()


def is_connecting(pid: int, port: int) -> bool:
    """Whether the process waits for a connection to this port: SYN-SENT."""
    try:
        table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        inodes = {row.split()[9] for row in table if row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "02"}
        opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        return any(f"socket:[{inode}]" in opened for inode in inodes)
    except FileNotFoundError:  # it came and went
        return False


@pytest.mark.parametrize("what", ["get", "put"])
def test_an_interrupted_command_that_waits_for_a_connection_ends(site: Site, what: str) -> None:
    (site.folder / "out" / "file").write_bytes(b"old")
    with nobody_accepts() as (host, port), running(site, f"http://{host}:{port}", what) as process:
        until(lambda: is_connecting(process.pid, port) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        took = expect_a_clean_end(site, process, SIGNALS["SIGINT" if what == "get" else "SIGTERM"])
        print(f"{what}, connecting: {took:.2f} s")
