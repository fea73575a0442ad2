"""No room left: the error says so, nothing is half-written, what was stored stays readable, and room made is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Worker, WorkerFailedError
from tests.support.strategies import splitmix64

KIB, MIB = 1 << 10, 1 << 20

# A file system of its own for one process and those it starts: it is gone when the last of them ends.
MOUNT = 'mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@"'


class SmallDisk:
    """A store on a disk of 16 MiB, which only the worker sees, and files to put into it, which lie elsewhere."""

    def __init__(self, worker: Worker, disk: Path, elsewhere: Path) -> None:
        self.worker = worker
        self.disk = disk
        self.store = disk / "store"
        self._elsewhere = elsewhere
        self._made = 0

    def source(self, size: int) -> Path:
        self._made += 1
        path = self._elsewhere / f"source{self._made}"
        path.write_bytes(splitmix64(self._made, size))
        return path

    def put(self, *sources: Path) -> tuple[int, str | None, list[str]]:
        """Exit code, error and the hashes of what was acknowledged."""
        ended = self.worker.run("put", store=str(self.store), paths=[str(path) for path in sources])
        return ended.code, ended.error, [told["hash"] for told in ended.told]

    def expect_stored(self, hashes: dict[str, Path]) -> None:
        """The files are there and whole, the store is in order."""
        look = self.worker.run("look", store=str(self.store))
        assert (look.code, look.error, look.told[0]["problems"]) == (0, None, [])
        for name, source in hashes.items():
            out = self._elsewhere / "out"
            assert self.worker.run("get", store=str(self.store), file=name, out=str(out)).code == 0
            assert out.read_bytes() == source.read_bytes()

    def fill(self, leave: int) -> None:
        """Let there be so much room and no more."""
        self.free()
        assert self.worker.run("fill", ballast=str(self.disk / "ballast"), leave=leave).code == 0

    def free(self) -> None:
        assert self.worker.run("remove", path=str(self.disk / "ballast")).code == 0


@pytest.fixture
def small(scratch: Path) -> Iterator[SmallDisk]:
    disk, elsewhere = scratch / "disk", scratch / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("a small disk takes the command unshare, of util-linux")
    # An ordinary user may mount something for itself where the system lets it have a namespace of users.
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        worker = Worker(["unshare", *as_root, "--mount", "--propagation", "private", "sh", "-c", MOUNT, str(disk)])
    except WorkerFailedError:
        pytest.skip("a small disk takes permission to mount: run the tests as root")
    with worker:
        yield SmallDisk(worker, disk, elsewhere)
    assert list(disk.iterdir()) == [], "the disk was not the worker's own"


def test_a_file_too_big_for_the_disk_is_refused_and_leaves_no_trace(small: SmallDisk) -> None:
    first, big, last = small.source(MIB), small.source(20 * MIB), small.source(2 * MIB)
    code, _, [stored] = small.put(first)
    assert code == 0
    assert small.put(big) == (6, "StorageFullError", [])
    small.expect_stored({stored: first})
    code, _, [also] = small.put(last)
    assert code == 0, "what it had written is free again"
    small.expect_stored({stored: first, also: last})


@pytest.mark.parametrize("leave", [0, MIB, *(MIB + kib * KIB for kib in (24, 40, 48, 64, 96, 160))])
def test_whatever_the_disk_is_full_at_nothing_is_half_written(small: SmallDisk, leave: int) -> None:
    """As the room grows, it is the xorb, the shard or the index that does not fit, until all do."""
    first, second = small.source(MIB), small.source(MIB)
    _, _, [stored] = small.put(first)
    small.fill(leave)
    code, error, acknowledged = small.put(second)
    assert (code, error, len(acknowledged)) in ((6, "StorageFullError", 0), (0, None, 1))
    expected = {stored: first} | dict.fromkeys(acknowledged, second)
    small.expect_stored(expected)
    small.free()
    code, error, [also] = small.put(second)
    assert (code, error) == (0, None)
    small.expect_stored({stored: first, also: second})


def test_a_store_cannot_be_made_on_a_full_disk_but_afterwards(small: SmallDisk) -> None:
    source = small.source(10 * KIB)
    for leave in (0, 4 * KIB, 32 * KIB):
        small.fill(leave)
        code, error, acknowledged = small.put(source)
        assert (code, error, acknowledged) == (6, "StorageFullError", [])
    small.free()
    code, _, [stored] = small.put(source)
    assert code == 0
    small.expect_stored({stored: source})


def test_a_get_onto_a_full_disk_leaves_the_destination_as_it_was(small: SmallDisk) -> None:
    source = small.source(2 * MIB)
    _, _, [stored] = small.put(source)
    out = small.disk / "out"
    old = small.source(5)
    assert small.worker.run("copy", path=str(old), to=str(out)).code == 0
    small.fill(MIB)
    ended = small.worker.run("get", store=str(small.store), file=stored, out=str(out))
    assert (ended.code, ended.error) == (6, "StorageFullError")
    assert small.worker.run("names", folder=str(small.disk)).told == [{"names": ["ballast", "out", "store"]}]
    assert small.worker.run("same", path=str(out), other=str(old)).told == [{"same": True}]
    small.free()
    assert small.worker.run("get", store=str(small.store), file=stored, out=str(out)).code == 0
    assert small.worker.run("same", path=str(out), other=str(source)).told == [{"same": True}]


def test_the_command_line_ends_with_6(small: SmallDisk) -> None:
    code = small.worker.run("cli", arguments=["--store", str(small.store), "put", str(small.source(20 * MIB))]).code
    assert code == 6


# --- The same by a limit on the size of files, which takes no permission -------------------------------------


def test_a_limit_that_the_xorb_exceeds_is_no_room(worker: Worker, scratch: Path) -> None:
    small, big = scratch / "small", scratch / "big"
    small.write_bytes(splitmix64(1, 300_000))
    big.write_bytes(splitmix64(2, 3 * MIB))
    store = str(scratch / "store")
    [told] = worker.run("put", store=store, paths=[str(small)]).told
    refused = worker.run("put", store=store, paths=[str(big)], file_limit=MIB)
    assert (refused.code, refused.told) == (6, [])
    assert refused.error in ("UnavailableError", "StorageFullError")
    [found] = worker.run("look", store=store).told
    assert found == {"problems": [], "notes": []}
    assert list((scratch / "store" / "tmp").iterdir()) == []

    out = scratch / "out"
    assert worker.run("get", store=store, file=told["hash"], out=str(out)).code == 0
    assert out.read_bytes() == small.read_bytes()
    [also] = worker.run("put", store=store, paths=[str(big)]).told
    out.write_bytes(b"old")
    refused = worker.run("get", store=store, file=also["hash"], out=str(out), file_limit=MIB)
    assert (refused.code, refused.error) == (6, "StorageFullError")
    assert out.read_bytes() == b"old"
    assert worker.run("get", store=store, file=also["hash"], out=str(out)).code == 0
    assert out.read_bytes() == big.read_bytes()
    assert {path.name for path in scratch.iterdir()} == {"small", "big", "store", "out"}


@pytest.mark.parametrize("limit", [0, 3 * KIB, 20 * KIB, 60 * KIB, 100 * KIB])
def test_a_limit_that_the_index_exceeds_is_no_room(worker: Worker, scratch: Path, limit: int) -> None:
    source = scratch / "source"
    source.write_bytes(b"small")
    store = scratch / "store"
    refused = worker.run("put", store=str(store), paths=[str(source)], file_limit=limit)
    if refused.code != 0:
        assert (refused.code, refused.told) == (6, [])
    [told] = worker.run("put", store=str(store), paths=[str(source)]).told
    [found] = worker.run("look", store=str(store)).told
    assert found["problems"] == []
    assert worker.run("get", store=str(store), file=told["hash"], out=str(scratch / "out")).code == 0
    assert (scratch / "out").read_bytes() == b"small"
