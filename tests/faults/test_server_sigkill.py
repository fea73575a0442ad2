"""A server that is killed under load, 200 times: what it acknowledged is there and whole, the rest is not there."""

from __future__ import annotations

import http.client
import queue
import random
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.clients import Client, result_of
from tests.support.forked import ForkedServer, ServerWorker
from tests.support.strategies import splitmix64
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.testing.samples import Sample, make_sample

MIB = 1 << 20
UPLOADERS = 4
KILLS_AT_THE_START = 20
KILLS_UNDER_LOAD = 180
STARTING_SECONDS = 0.05
"""About what a server of the worker needs until it accepts connections: the moments to kill it lie within that."""

STORE_NAMES = {
    *("index.sqlite3", "index.sqlite3-reserve", "index.sqlite3-shm", "index.sqlite3-wal"),
    *("access", "format", "shards", "stores", "tmp", "xorbs"),
    *("probes", "snapshots"),  # of a server that lived until its first care
}
INTERRUPTED = re.compile(r"(xorbs/..|shards)/[0-9a-f]{64}-[0-9a-f]{16} is (stored but not registered|not used): .*")


@pytest.fixture(scope="module")
def server_worker() -> Iterator[ServerWorker]:
    with ServerWorker() as worker:
        yield worker


def sample_of(seed: int) -> Sample:
    """A file of its own for each number; one in sixteen is longer than the blocks in which the server writes."""
    size = 100_000 + seed * 7919 % 200_000
    return make_sample(splitmix64(seed, size + 5 * MIB // 2 if seed % 16 == 0 else size))


class Uploader:
    """Uploads one file after the other, from one server to the next one, and knows what was acknowledged."""

    def __init__(self, number: int, acknowledgements: queue.SimpleQueue[int]) -> None:
        self.files: list[int] = []
        self._seed = number
        self._sample = sample_of(number)
        self._xorb_is_stored = False
        self._acknowledgements = acknowledgements

    def run(self, url: str, token: str) -> None:
        """Upload until the server is gone, starting with what the one before did not acknowledge."""
        try:
            with Client(url, token) as client:
                while True:
                    self._step(client)
        except (OSError, http.client.HTTPException):
            return

    def look(self, client: Client) -> None:
        """Of what was under way there is nothing that is not whole."""
        client.has_whole(self._sample)
        size = client.xorb_size(self._sample.xorb.hash)
        assert size == len(self._sample.body) or (size is None and not self._xorb_is_stored)

    def _step(self, client: Client) -> None:
        if not self._xorb_is_stored:
            body = self._sample.body
            pieces = (body[at : at + MIB] for at in range(0, len(body), MIB))
            path, headers = f"/v1/xorbs/default/{self._sample.xorb.hash}", {"Content-Length": str(len(body))}
            answer = client.request("POST", path, pieces, headers)
            assert answer.status == 200, answer.body
            self._xorb_is_stored = True
            self._acknowledgements.put(self._seed)
        # A xorb that was acknowledged is not sent again: its shard is only accepted where it is there.
        result_of(client.post_shard(self._sample, version=1 + self._seed % 2))
        self.files.append(self._seed)
        self._acknowledgements.put(self._seed)
        self._seed += UPLOADERS
        self._sample = sample_of(self._seed)
        self._xorb_is_stored = False


def test_a_server_killed_while_it_makes_its_store_can_be_started_again(
    server_worker: ServerWorker, scratch: Path
) -> None:
    chance = random.Random(1)
    sample = make_sample(b"Hello World!")
    for number in range(KILLS_AT_THE_START):
        root = scratch / str(number)
        starting = ForkedServer(server_worker, root)
        time.sleep(chance.uniform(0, STARTING_SECONDS))
        assert starting.kill() == -signal.SIGKILL
        with ForkedServer(server_worker, root) as server, Client(server.url, server.token) as client:
            client.upload(sample)
            assert client.has_whole(sample)


def test_a_server_killed_at_any_moment_loses_nothing_that_it_acknowledged(
    server_worker: ServerWorker, scratch: Path
) -> None:
    chance = random.Random(2)
    root = scratch / "store"
    acknowledgements: queue.SimpleQueue[int] = queue.SimpleQueue()
    uploaders = [Uploader(number, acknowledgements) for number in range(UPLOADERS)]
    tokens = set()
    with ThreadPoolExecutor(UPLOADERS) as pool:
        for number in range(KILLS_UNDER_LOAD):
            if number % 10 == 9:
                starting = ForkedServer(server_worker, root)
                time.sleep(chance.uniform(0, STARTING_SECONDS))
                assert starting.kill() == -signal.SIGKILL
                continue
            with ForkedServer(server_worker, root) as server:
                tokens.add(server.token)
                with Client(server.url, server.token) as client:
                    for uploader in uploaders:
                        uploader.look(client)
                    for seed in chance.choice(uploaders).files[-1:]:
                        assert client.has_whole(sample_of(seed))
                while not acknowledgements.empty():
                    acknowledgements.get()
                running = [pool.submit(uploader.run, server.url, server.token) for uploader in uploaders]
                if number % 2:
                    time.sleep(chance.uniform(0, 0.15))
                else:  # in the very moment in which something is acknowledged
                    for _ in range(chance.randrange(1, 10)):
                        acknowledgements.get(timeout=60)
                assert server.kill() == -signal.SIGKILL
                for each in running:
                    each.result()
    assert len(tokens) == 1
    assert all(uploader.files for uploader in uploaders)
    expect_all(server_worker, root, [seed for uploader in uploaders for seed in uploader.files], uploaders)


def expect_all(server_worker: ServerWorker, root: Path, seeds: list[int], uploaders: list[Uploader]) -> None:
    """A server has all these files, and the store is in order but for what interrupted uploads left."""
    with ForkedServer(server_worker, root) as server, Client(server.url, server.token) as client:
        for uploader in uploaders:
            uploader.look(client)
        for seed in seeds:
            assert client.has_whole(sample_of(seed))
    with EmbeddedCas.open(root) as cas:
        verify_invariants(cas)
        assert [note for note in check(cas).notes if not INTERRUPTED.fullmatch(note)] == []
        totals = cas.totals()
    # An acknowledgement may have got lost.
    assert 0 <= totals.files - len(seeds) <= UPLOADERS
    assert {path.name for path in root.iterdir()} <= STORE_NAMES
    left = list((root / "tmp").iterdir())
    assert len(left) <= UPLOADERS * KILLS_UNDER_LOAD
    assert all(path.is_file() and not path.is_symlink() for path in left)
    assert "Traceback" not in server_worker.log
