"""Networks between the replicas and their parts that stall, cut and are slow, under load: what was acknowledged is
whole, each replica says all the time that it lives, and none is restarted.
"""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster.test_replica_faults import all_ready, load, ready
from tests.server.nginx import NGINX
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.live import ServerProcess, until
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from tests.support.wire import Wire, wire

pytestmark = pytest.mark.slow

PARTS = ("index", "objects")


@dataclass(frozen=True)
class Wired:
    """A cluster, and the line to each of its parts, which all replicas share."""

    cluster: Cluster
    lines: dict[str, Wire]


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed, postgres: PostgresServer) -> Iterator[Wired]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path_factory.mktemp("wired")
    with wire(seaweed.port) as objects, wire(postgres.port) as index:
        s3 = {**seaweed.options, "endpoint": objects.endpoint}
        with clusters.running(folder, seaweed, postgres, s3=s3, index_port=index.port) as running:
            yield Wired(running, {"index": index, "objects": objects})


@dataclass
class Pulse:
    """The answers of a replica to the question if it lives."""

    replica: ServerProcess
    answers: list[object] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Ask again and again until it is over."""
        while not self.over.wait(0.05):
            try:
                self.answers.append(self.replica.request("GET", "/health/live").status)
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(error)


@dataclass(frozen=True)
class Pulses:
    """Those of all replicas."""

    each: list[Pulse]

    def more(self, answers: int) -> None:
        """Wait for some more answers of each replica."""
        enough = [len(pulse.answers) + answers for pulse in self.each]
        until(lambda: all(len(pulse.answers) >= least for pulse, least in zip(self.each, enough, strict=True)))


@contextmanager
def living(cluster: Cluster) -> Iterator[Pulses]:
    """While the block runs, every replica answers that it lives, and it is the same process at the end."""
    before = [cluster.replica(number) for number in range(2)]
    pulses = Pulses([Pulse(replica) for replica in before])
    threads = [threading.Thread(target=pulse.watch) for pulse in pulses.each]
    for thread in threads:
        thread.start()
    try:
        yield pulses
    finally:
        for pulse, thread in zip(pulses.each, threads, strict=True):
            pulse.over.set()
            thread.join()
    for pulse in pulses.each:
        assert set(pulse.answers) == {200}
        assert pulse.replica.is_running


def stall(cluster: Cluster, line: Wire, pulses: Pulses) -> None:
    """Nothing comes through for a moment; then not until every replica has noticed."""
    line.flows.clear()
    pulses.more(20)
    line.flows.set()
    pulses.more(20)
    line.flows.clear()
    until(lambda: not ready(cluster, 0) and not ready(cluster, 1))
    pulses.more(20)


def cut(cluster: Cluster, line: Wire, pulses: Pulses) -> None:
    """All connections are reset, again and again; and new ones in the middle of an answer."""
    before = line.connections
    for _ in range(10):
        line.break_all()
        pulses.more(5)
    draw = random.Random(5)
    line.cuts[:] = [draw.randrange(40_000) for _ in range(40)]
    for _ in range(10):
        line.break_all()
        pulses.more(5)
    assert len(line.cuts) < 40
    assert line.connections > before + 5


def slow_down(cluster: Cluster, line: Wire, pulses: Pulses) -> None:
    """All comes through, late."""
    before = line.down_bytes
    line.pause_seconds = 0.05
    pulses.more(100)
    assert line.down_bytes > before


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("trouble", [stall, cut, slow_down])
def test_a_line_in_trouble_loses_nothing(
    wired: Wired, part: str, trouble: Callable[[Cluster, Wire, Pulses], None], tmp_path: Path
) -> None:
    line = wired.lines[part]
    with load(wired.cluster, tmp_path) as at_work, living(wired.cluster) as pulses:
        at_work.more()
        try:
            trouble(wired.cluster, line, pulses)
        finally:
            line.heal()
        at_work.more()
        all_ready(wired.cluster)
        at_work.more()
