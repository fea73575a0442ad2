"""Plain LFS on a full disk, and by a server that is killed: an object is there whole and right, or it is not there."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_server_disk import SmallDisk
from tests.faults.test_server_disk import disk as disk
from tests.support.clients import Client
from tests.support.forked import ForkedServer, ServerWorker
from tests.support.live import Response
from tests.support.strategies import splitmix64
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.service import EmbeddedCas

KIB = 1 << 10
PART = 64 * KIB
KILLS = 40


class Lfs:
    """A client of one repository, which sends objects whole or in parts."""

    def __init__(self, server: ForkedServer) -> None:
        self._url = server.url
        self._client = Client(server.url, server.token)

    def create(self) -> None:
        body = json.dumps({"name": "bert", "organization": "alice"}).encode()
        assert self._client.request("POST", "/api/repos/create", body).status in (200, 409)

    def put(self, data: bytes, *, in_parts: bool = False) -> Response:
        """Send an object; the first answer that is no 200, or the last one."""
        upload = self._actions(data, "upload", in_parts=in_parts)["upload"]
        header = upload.get("header", {})
        if "chunk_size" not in header:
            return self._signed("PUT", upload["href"], data)
        tags = []
        for number in range(1, len(header)):
            part = data[(number - 1) * PART : number * PART]
            answer = self._signed("PUT", header[f"{number:05}"], part)
            if answer.status != 200:
                return answer
            tags.append({"partNumber": number, "etag": answer.headers["ETag"]})
        return self._signed("POST", upload["href"], json.dumps({"parts": tags}).encode())

    def is_there(self, data: bytes) -> bool:
        """True if an object is there; it has the bytes that were sent then. AssertionError."""
        if self._actions(data, "upload"):
            return False
        answer = self._signed("GET", self._actions(data, "download")["download"]["href"])
        assert answer.body == data
        return True

    def _actions(self, data: bytes, operation: str, *, in_parts: bool = False) -> dict[str, Any]:
        oid = hashlib.sha256(data).hexdigest()
        transfers = ["basic", "multipart"] if in_parts else ["basic"]
        body = {"operation": operation, "transfers": transfers, "objects": [{"oid": oid, "size": len(data)}]}
        answer = self._client.request("POST", "/alice/bert.git/info/lfs/objects/batch", json.dumps(body).encode())
        assert answer.status == 200, answer.body
        [each] = answer.json()["objects"]
        return dict(each.get("actions", {}))

    def _signed(self, method: str, href: str, body: bytes | None = None) -> Response:
        return self._client.request(method, href.removeprefix(self._url), body, authorized=False)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Lfs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_wherever_the_disk_is_full_an_object_is_stored_or_refused(disk: SmallDisk, in_parts: bool) -> None:
    refused = 0
    with ForkedServer(disk.worker, disk.store, lfs_part_bytes=PART) as server, Lfs(server) as lfs:
        lfs.create()
        for seed, leave in enumerate(range(20, 700, 30), 1):
            data = splitmix64(seed, 200 * KIB)
            disk.fill(leave * KIB)
            answer = lfs.put(data, in_parts=in_parts)
            if answer.status != 200:
                assert (answer.status, answer.json()["code"]) == (507, "storage_full"), answer.body
                refused += 1
            disk.free()
            assert lfs.is_there(data) == (answer.status == 200)
            if answer.status != 200:
                assert lfs.put(data, in_parts=in_parts).status == 200
                assert lfs.is_there(data)
        disk.expect_in_order()
    assert 0 < refused < 23


@pytest.fixture(scope="module")
def server_worker() -> Iterator[ServerWorker]:
    with ServerWorker() as worker:
        yield worker


def object_of(seed: int) -> bytes:
    return splitmix64(seed, 100 * KIB + seed * 7919 % (400 * KIB))


def test_a_server_killed_at_any_moment_keeps_what_it_acknowledged_and_no_half(
    server_worker: ServerWorker, scratch: Path
) -> None:
    chance = random.Random(3)
    root = scratch / "store"
    acknowledged: list[int] = []
    seed = 0
    for _ in range(KILLS):
        with ForkedServer(server_worker, root, lfs_part_bytes=PART) as server, Lfs(server) as lfs:
            lfs.create()
            seed += lfs.is_there(object_of(seed))  # where the answer was lost, or the object is not there
            timer = threading.Timer(chance.uniform(0.02, 0.3), server.kill)
            timer.start()
            try:
                while True:
                    answer = lfs.put(object_of(seed), in_parts=seed % 2 == 1)
                    assert answer.status == 200, answer.body
                    acknowledged.append(seed)
                    seed += 1
            except (OSError, http.client.HTTPException):
                timer.join()
            finally:
                timer.cancel()
            assert server.exit_code == -signal.SIGKILL
    with ForkedServer(server_worker, root) as server, Lfs(server) as lfs:
        assert len(acknowledged) > KILLS // 2
        for number in acknowledged:
            assert lfs.is_there(object_of(number))
    with EmbeddedCas.open(root) as cas:
        verify_invariants(cas)
        assert check(cas).problems == ()
    assert "Traceback" not in server_worker.log
