"""No room left on the client's machine: a download says so and goes on later; a cache is done without."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.test_client_two import Machine
from tests.faults.test_full_disk import MOUNT
from tests.support.double import Double
from tests.support.liar import liar
from tests.support.live import LiveServer, live_server
from tests.support.process import Worker, WorkerFailedError
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.store import Store

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class SmallDisk:
    """A disk of 40 MiB that only the client sees, and a server elsewhere."""

    client: Worker
    disk: Path
    elsewhere: Path
    server: LiveServer

    def fill(self, leave: int) -> None:
        """Let there be so much room and no more."""
        self.free()
        assert self.client.run("fill", ballast=str(self.disk / "ballast"), leave=leave).code == 0

    def free(self) -> None:
        assert self.client.run("remove", path=str(self.disk / "ballast")).code == 0

    def names(self) -> list[str]:
        [told] = self.client.run("names", folder=str(self.disk)).told
        return [name for name in told["names"] if name != "ballast"]

    def is_same(self, path: Path, other: Path) -> bool:
        return self.client.run("same", path=str(path), other=str(other)).told == [{"same": True}]


@pytest.fixture
def small(scratch: Path) -> Iterator[SmallDisk]:
    disk, elsewhere = scratch / "disk", scratch / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("a small disk takes the command unshare, of util-linux")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = MOUNT.replace("16m", "40m")
    prefix = ["unshare", *as_root, "--mount", "--propagation", "private", "sh", "-c", mount, str(disk)]
    try:
        worker = Worker(prefix, module="tests.faults.client_worker")
    except WorkerFailedError:
        pytest.skip("a small disk takes permission to mount: run the tests as root")
    with worker, EmbeddedCas.open(elsewhere / "store") as cas, live_server(cas, log_level="error") as server:
        yield SmallDisk(worker, disk, elsewhere, server)
    assert list(disk.iterdir()) == [], "the disk was not the client's own"


def test_a_download_onto_a_full_disk_says_so_and_goes_on_where_there_is_room(small: SmallDisk) -> None:
    source, old, out = small.elsewhere / "source", small.elsewhere / "old", small.disk / "out"
    source.write_bytes(splitmix64(1, 32 * MIB))
    old.write_bytes(b"old")
    file = str(Store(small.server.site.cas).put(source).hash)
    assert small.client.run("copy", path=str(old), to=str(out)).code == 0
    with Double(small.server.url) as double:
        machine = Machine(small.elsewhere, small.server, double.url)
        small.fill(20 * MIB)
        ended = small.client.run(**machine.download(file, out, jobs=2, size=32 * MIB))
        assert (ended.code, ended.error) == (6, "StorageFullError"), ended.message
        assert small.is_same(out, old)
        left = [name for name in small.names() if name != "out"]
        assert len(left) == 2
        assert all(re.fullmatch(r"\.out\..*\.incomplete(\.journal)?", name) for name in left)
        small.free()
        double.clear()
        ended = small.client.run(**machine.download(file, out, jobs=2))
        assert (ended.code, ended.error) == (0, None), ended.message
        assert small.is_same(out, source)
        assert small.names() == ["out"]
        assert ended.told[0]["reused"] > 8 * MIB
        assert double.xorb_bytes_down < 24 * MIB


def test_what_only_a_server_says_and_does_not_fit_is_refused_before_it_is_fetched(small: SmallDisk) -> None:
    source, out = small.elsewhere / "source", small.disk / "out"
    source.write_bytes(splitmix64(1, 32 * MIB))
    file = str(Store(small.server.site.cas).put(source).hash)
    with Double(small.server.url) as double:
        machine = Machine(small.elsewhere, small.server, double.url)
        small.fill(20 * MIB)
        ended = small.client.run(**machine.download(file, out))
        assert (ended.code, ended.error) == (6, "StorageFullError"), ended.message
        assert double.xorb_bytes_down == 0
        assert small.names() == []
        small.free()
        ended = small.client.run(**machine.download(file, out))
        assert (ended.code, ended.error) == (0, None), ended.message


def test_a_server_that_makes_much_of_one_chunk_does_not_fill_the_disk(small: SmallDisk) -> None:
    with liar() as server:
        ended = small.client.run(
            "download",
            url=server.url,
            token="x",
            file="1" * 64,
            out=str(small.disk / "out"),
            cache=str(small.elsewhere / "cache"),
        )
    assert (ended.code, ended.error) == (6, "StorageFullError"), ended.message
    assert "than its disk can spare" in (ended.message or "")
    assert small.names() == []


def test_a_full_disk_under_the_cache_slows_reading_down_and_no_more(small: SmallDisk) -> None:
    source = small.elsewhere / "source"
    source.write_bytes(splitmix64(2, 6 * MIB))
    file = str(Store(small.server.site.cas).put(source).hash)
    machine = Machine(small.elsewhere, small.server)
    cache = str(small.disk / "cache")
    for leave in (0, 16 * KIB, 200 * KIB, 2 * MIB):
        small.fill(leave)
        ended = small.client.run(**machine.read(file, source) | {"cache": cache})
        assert (ended.code, ended.error) == (0, None), ended.message
        assert ended.told[0]["right"]
        assert ended.told[0]["disabled"], f"{leave} bytes are not enough, and it is not said"
    small.free()
    for _ in range(2):
        ended = small.client.run(**machine.read(file, source) | {"cache": cache})
        assert ended.told == [{"right": True, "disabled": []}]


def test_a_full_disk_under_what_is_known_of_a_server_does_not_stop_an_upload(small: SmallDisk) -> None:
    machine = Machine(small.elsewhere, small.server)
    for number, leave in enumerate((0, 8 * KIB, 40 * KIB, 120 * KIB)):
        small.fill(leave)
        source = machine.source(number, splitmix64(10 + number, 2 * MIB))
        machine.expect_stored(small.client.run(**machine.upload(source) | {"known": str(small.disk / "known.sqlite3")}))
        machine.expect_stored(small.client.run(**machine.upload(source) | {"known": str(small.disk / "known.sqlite3")}))
