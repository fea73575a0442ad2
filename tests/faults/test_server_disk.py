"""A server whose disk is full, or may not be written to: it says so, serves what it has, and takes more afterwards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_full_disk import MOUNT
from tests.support.clients import Client, result_of
from tests.support.forked import ForkedServer, ServerWorker, ServerWorkerError
from tests.support.live import Response
from tests.support.strategies import splitmix64
from xetstore.testing.samples import Sample, make_sample

KIB, MIB = 1 << 10, 1 << 20


def sample_of(seed: int, size: int) -> Sample:
    return make_sample(splitmix64(seed, size))


class SmallDisk:
    """A disk of 16 MiB with a store, which only the worker and its servers see."""

    def __init__(self, worker: ServerWorker, folder: Path) -> None:
        self.worker = worker
        self.store = folder / "store"
        self._ballast = str(folder / "ballast")

    def fill(self, leave: int) -> None:
        """Let there be so much room and no more."""
        self.worker.call("fill", ballast=self._ballast, leave=leave)

    def free(self) -> None:
        self.worker.call("remove", path=self._ballast)

    def expect_in_order(self) -> None:
        """The store is, but for objects that could not be registered; also while it is served."""
        found = self.worker.call("look", store=str(self.store))
        assert found["problems"] == []
        assert all("is stored but not registered" in note for note in found["notes"])


@pytest.fixture
def disk(scratch: Path) -> Iterator[SmallDisk]:
    if shutil.which("unshare") is None:
        pytest.skip("a small disk takes the command unshare, of util-linux")
    # An ordinary user may mount something for itself where the system lets it have a namespace of users.
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        worker = ServerWorker(
            ["unshare", *as_root, "--mount", "--propagation", "private", "sh", "-c", MOUNT, str(scratch)]
        )
    except ServerWorkerError:
        pytest.skip("a small disk takes permission to mount: run the tests as root")
    with worker:
        yield SmallDisk(worker, scratch)
    assert list(scratch.iterdir()) == [], "the disk was not the worker's own"


def expect_refusal(answer: Response, status: int, code: str) -> None:
    """In the form of all errors."""
    assert (answer.status, answer.json()["code"]) == (status, code), answer.body
    assert set(answer.json()) == {"code", "message", "request_id"}


def failure_of(answer: Response) -> dict[str, Any]:
    """What the last frame of /v2/shards says went wrong."""
    assert answer.status == 200, answer.body
    last: dict[str, Any] = json.loads(answer.body.splitlines()[-1])
    assert last["type"] == "error"
    return last


def test_a_server_on_a_full_disk_says_so_and_serves_what_it_has(disk: SmallDisk) -> None:
    stored, held, other, big = (sample_of(seed, MIB) for seed in range(4))
    with ForkedServer(disk.worker, disk.store) as server, Client(server.url, server.token) as client:
        client.upload(stored)
        assert client.post_xorb(held).status == 200
        disk.fill(0)
        for _ in range(2):
            expect_refusal(client.post_xorb(other), 507, "storage_full")
            expect_refusal(client.post_shard(held), 507, "storage_full")
            assert failure_of(client.post_shard(held, version=2))["retryable"]
            assert client.has_whole(stored)
            assert not client.has_whole(held)
            assert client.xorb_size(held.xorb.hash) == len(held.body)
            assert client.xorb_size(other.xorb.hash) is None
            assert client.request("GET", "/health/live").status == 200
        # What is stored already takes no room.
        assert client.post_xorb(stored).json() == {"was_inserted": False}
        disk.free()
        assert result_of(client.post_shard(held)) == 1
        for sample in (other, big):
            client.upload(sample)
        assert all(client.has_whole(sample) for sample in (stored, held, other, big))
        assert client.request("GET", "/health/ready").status == 200
        disk.expect_in_order()


def test_wherever_the_disk_is_full_an_upload_is_stored_or_refused(disk: SmallDisk) -> None:
    """As the room grows, it is the xorb, its row, the shard or the files that do not fit, until all do."""
    refused = 0
    with ForkedServer(disk.worker, disk.store) as server, Client(server.url, server.token) as client:
        client.upload(stored := sample_of(0, 200 * KIB))
        for seed, leave in enumerate(range(100, 340, 8), 1):
            sample = sample_of(seed, 200 * KIB)
            disk.fill(leave * KIB)
            answer = client.post_xorb(sample)
            if answer.status == 200:
                answer = client.post_shard(sample)
            if answer.status != 200:
                expect_refusal(answer, 507, "storage_full")
                refused += 1
            assert client.has_whole(sample) == (answer.status == 200)
            assert client.has_whole(stored)
            disk.free()
            if seed % 4 == 0:
                client.upload(sample)
                assert client.has_whole(sample)
        disk.expect_in_order()
    assert refused > 0


def test_a_server_can_be_started_on_a_full_disk_where_there_is_a_store(disk: SmallDisk) -> None:
    stored, other = sample_of(0, MIB), sample_of(1, MIB)
    with ForkedServer(disk.worker, disk.store) as server, Client(server.url, server.token) as client:
        client.upload(stored)
    disk.fill(0)
    with ForkedServer(disk.worker, disk.store) as server, Client(server.url, server.token) as client:
        assert client.has_whole(stored)
        expect_refusal(client.post_xorb(other), 507, "storage_full")
        disk.free()
        client.upload(other)
        assert client.has_whole(other)
    disk.expect_in_order()


# --- A store that may not be written to ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server_worker() -> Iterator[ServerWorker]:
    with ServerWorker() as worker:
        yield worker


def allow(root: Path, *, writing: bool) -> None:
    """Let its owner write to a store's objects, or not."""
    for name in ("xorbs", "shards", "tmp"):
        for path in (root / name, *(root / name).rglob("*")):
            if path.is_dir():
                path.chmod(0o755 if writing else 0o555)


def test_a_store_that_becomes_read_only_is_served_and_takes_nothing(server_worker: ServerWorker, scratch: Path) -> None:
    root = scratch / "store"
    stored, held, other = (sample_of(seed, 200 * KIB) for seed in range(3))
    with (
        ForkedServer(server_worker, root, bound=True) as server,
        Client(server.url, server.token) as client,
    ):
        client.upload(stored)
        assert client.post_xorb(held).status == 200
        allow(root, writing=False)
        for _ in range(2):
            for answer in (client.post_xorb(other), client.post_shard(held)):
                expect_refusal(answer, 503, "denied")
                assert int(answer.headers["Retry-After"]) >= 1
            assert str(scratch) not in failure_of(client.post_shard(held, version=2))["message"]
            assert client.has_whole(stored)
            assert not client.has_whole(held)
            assert client.request("GET", "/health/live").status == 200
        allow(root, writing=True)
        client.upload(other)
        assert result_of(client.post_shard(held)) == 1
        assert all(client.has_whole(sample) for sample in (stored, held, other))
        assert server.terminate() == 0
