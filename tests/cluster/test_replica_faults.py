"""Parts of a cluster that die, hang and come back under load: what was acknowledged is there, and is right.

The load is clients that put files and read back what they put, through nginx. A client may fail while a part is away;
then it tries again. At the end every file that was acknowledged is read, and the store is checked to its last byte.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

import xetstore
from tests.support.cluster import Cluster
from tests.support.hf_process import HfError, HfProcess
from tests.support.live import until
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from tests.support.strategies import splitmix64
from xetstore.cas.check import verify_invariants
from xetstore.errors import XetError
from xetstore.testing.samples import make_sample

pytestmark = pytest.mark.slow

T = TypeVar("T")

CLIENTS = 3


@dataclass
class Load:
    """Clients at work. ``acknowledged`` has the seed and the size of each file that was put, by its hash."""

    cluster: Cluster
    folder: Path
    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def work(self, client: int) -> None:
        """Put one file after another until it is over."""
        token = self.cluster.token()
        source, number = self.folder / f"source{client}", 0
        while not self._over.is_set():
            seed, size = 10_000 * client + number, 60_000 + 7919 * number % 900_000
            source.write_bytes(splitmix64(seed, size))
            try:
                with xetstore.open(self.cluster.url, token=token, cache=False) as store:
                    record = store.put(source)
                    self.acknowledged[str(record.hash)] = seed, size
                    store.get(record.hash, self.folder / f"out{client}")
            except XetError as error:
                self.refused.append(f"{type(error).__name__}: {error}")
                self._over.wait(0.2)
            else:
                assert (self.folder / f"out{client}").read_bytes() == source.read_bytes()
            number += 1

    def more(self, files: int = 3) -> None:
        """Wait until some more files were acknowledged."""
        enough = len(self.acknowledged) + files
        until(lambda: len(self.acknowledged) >= enough)

    def end(self) -> None:
        """No further file is begun."""
        self._over.set()


@contextmanager
def load(cluster: Cluster, folder: Path) -> Iterator[Load]:
    """A load while the block runs; afterwards all that it was told is checked."""
    at_work = Load(cluster, folder)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(at_work.work, client) for client in range(1, CLIENTS + 1)]
        try:
            yield at_work
        finally:
            at_work.end()
        for client in clients:
            client.result()
    require_all(at_work)


def require_all(at_work: Load) -> None:
    """Every file that was acknowledged is there, byte for byte, and the store is sound."""
    out = at_work.folder / "out"
    with xetstore.open(at_work.cluster.url, token=at_work.cluster.token("read"), cache=False) as store:
        for name, (seed, size) in at_work.acknowledged.items():
            store.get(name, out)
            assert out.read_bytes() == splitmix64(seed, size)
    with at_work.cluster.cas() as cas:
        verify_invariants(cas)


def ready(cluster: Cluster, number: int) -> bool:
    try:
        return cluster.replica(number).request("GET", "/health/ready").status == 200
    except OSError:
        return False


def is_away(cluster: Cluster, number: int) -> bool:
    return not ready(cluster, number)


def all_ready(cluster: Cluster) -> None:
    """Wait until every replica says that it is ready."""
    until(lambda: ready(cluster, 0) and ready(cluster, 1))


def test_a_replica_that_is_killed_again_and_again_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with load(cluster, tmp_path) as at_work:
        for round_ in range(6):
            at_work.more()
            cluster.kill(round_ % 2)
            at_work.more()  # by the other one
            cluster.start(round_ % 2)


def test_the_database_is_restarted(cluster: Cluster, postgres: PostgresServer, tmp_path: Path) -> None:
    with load(cluster, tmp_path) as at_work:
        for end in (postgres.stop, postgres.kill):
            at_work.more()
            end()
            postgres.start()
            at_work.more()
            all_ready(cluster)


def test_the_objects_are_away_for_a_while(cluster: Cluster, seaweed: Seaweed, tmp_path: Path) -> None:
    with load(cluster, tmp_path) as at_work:
        at_work.more()
        seaweed.kill()
        try:
            until(lambda: not ready(cluster, 0) and not ready(cluster, 1))
        finally:
            seaweed.start()
        at_work.more()
        all_ready(cluster)


@pytest.mark.parametrize("part", ["index", "objects"])
def test_a_part_that_is_away_is_named_and_answers_say_when_to_come_again(
    cluster: Cluster, postgres: PostgresServer, seaweed: Seaweed, part: str, tmp_path: Path
) -> None:
    """503 with Retry-After, from every replica, whatever is asked; and no request waits for long after it is back."""
    stop, start = {"index": (postgres.stop, postgres.start), "objects": (seaweed.kill, seaweed.start)}[part]
    (tmp_path / "source").write_bytes(splitmix64(5, 400_000))
    with xetstore.open(cluster.url, token=cluster.token(), cache=False) as store:
        record = store.put(tmp_path / "source")
    token = cluster.token("write")
    content = splitmix64(6, 200_000)
    stop()
    try:
        for number in range(2):
            until(partial(is_away, cluster, number))
            answer = cluster.replica(number).request("GET", "/health/ready")
            assert f"the {part} do" in answer.json()["reason"]
            assert answer.headers["Retry-After"]
            assert cluster.replica(number).request("GET", "/health/live").status == 200
        if part == "index":
            answer = cluster.request("GET", f"/v2/reconstructions/{record.hash}", token=token)
            assert answer.status == 503, answer.body
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            sample = make_sample(content)
            answer = cluster.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
            assert answer.status == 503, answer.body
            assert int(answer.headers["Retry-After"]) >= 1
    finally:
        start()
    all_ready(cluster)
    with xetstore.open(cluster.url, token=token, cache=False) as store:
        store.get(record.hash, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "source").read_bytes()


def test_hf_xet_goes_on_while_replicas_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    """It retries by itself; what it says to have uploaded is there."""
    client = HfProcess(cluster.connection(), tmp_path / "home")
    paths = []
    for seed in range(6):
        paths.append(tmp_path / f"file{seed}")
        paths[-1].write_bytes(splitmix64(seed + 500, 4_000_000))
    over = threading.Event()

    def kill() -> None:
        number = 0
        while not over.wait(1.0):
            cluster.kill(number % 2)
            cluster.start(number % 2)
            number += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        infos = attempt(lambda: client.upload(paths).infos)
        contents = attempt(lambda: client.download(infos))
    finally:
        over.set()
        killer.join()
    assert contents == [path.read_bytes() for path in paths]


def attempt(call: Callable[[], T]) -> T:
    """A call of hf_xet, which gives up after its own retries: a user would start it again."""
    deadline = time.monotonic() + 200
    while True:
        try:
            return call()
        except HfError:
            assert time.monotonic() < deadline
