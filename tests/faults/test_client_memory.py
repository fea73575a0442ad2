"""The cap on memory holds: for a file far bigger than it, random or sparse, up and down, over a server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import ServerProcess
from tests.support.process import ROOT
from tests.support.strategies import splitmix64

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process had is read from /proc")

MIB, GIB = 1 << 20, 1 << 30
CAP = 128 * MIB
# Half a minute: not each time that somebody runs the tests.
SPARSE_BYTES = 50 * GIB if "CI" in os.environ else 4 * GIB

# The command, which says at its end how much memory it has had; and nothing else is loaded.
COMMAND = """
import atexit, sys

def tell():
    with open("/proc/self/status") as status:
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    print(int(peak) << 10, file=sys.stderr)

atexit.register(tell)
from xetstore.cli.main import run

run()
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: a file of holes is read from there in no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def server(memory: Path) -> Iterator[ServerProcess]:
    with ServerProcess(memory / "store", "--log-level", "error") as running:
        yield running


def run(server: ServerProcess, folder: Path, *arguments: str) -> tuple[str, int]:
    """What the command prints, and the most memory that it had."""
    return run_on(server.url, folder, *arguments, "--max-memory", str(CAP), XET_TOKEN=server.admin_token)


def run_on(store: Path | str, folder: Path, *arguments: str, **more: str) -> tuple[str, int]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XET")},
        "XET_CACHE": str(folder / "cache"),
        **more,
    }
    command = [sys.executable, "-c", COMMAND, "--store", str(store), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, int(ended.stderr.splitlines()[-1])


def test_300_mb_of_random_data_go_up_and_down_within_the_cap(server: ServerProcess, memory: Path) -> None:
    source, out = memory / "source", memory / "out"
    source.write_bytes(splitmix64(1, 300_000_000))
    said, up = run(server, memory, "put", str(source))
    _, down = run(server, memory, "get", said.split()[0], "-o", str(out))
    print(f"{up / MIB:.0f} MiB up, {down / MIB:.0f} MiB down")
    assert out.read_bytes() == source.read_bytes()
    assert (up < CAP, down < CAP) == (True, True), (up / MIB, down / MIB)


def test_without_a_cap_a_put_takes_what_it_needs(server: ServerProcess, memory: Path) -> None:
    """Two xorbs, or three towards a server, and the blocks of the file; the rest is the interpreter."""
    source = memory / "source"
    source.write_bytes(splitmix64(1, 200_000_000))
    _, here = run_on(memory / "directory", memory, "put", str(source))
    _, there = run_on(server.url, memory, "put", str(source), XET_TOKEN=server.admin_token)
    print(f"{here / MIB:.0f} MiB into a directory, {there / MIB:.0f} MiB to a server")
    assert here < 100 * MIB
    assert there < 130 * MIB


def test_a_sparse_file_of_many_gib_goes_up_and_down_within_the_cap(server: ServerProcess, memory: Path) -> None:
    source, out = memory / "source", memory / "out"
    islands = {0: splitmix64(1, 5000), SPARSE_BYTES // 2 + 77: splitmix64(2, 300_000), SPARSE_BYTES - 9: b"the end.."}
    with source.open("wb") as file:
        for at, content in islands.items():
            file.seek(at)
            file.write(content)
    said, up = run(server, memory, "put", str(source))
    _, down = run(server, memory, "get", said.split()[0], "-o", str(out))
    print(f"{up / MIB:.0f} MiB up, {down / MIB:.0f} MiB down")
    assert (out.stat().st_size, out.stat().st_blocks * 512 < 32 * MIB) == (SPARSE_BYTES, True)
    with out.open("rb") as file:
        for at, content in islands.items():
            file.seek(at)
            assert file.read(len(content)) == content
    assert (up < CAP, down < CAP) == (True, True), (up / MIB, down / MIB)
