"""Care: chores in the background of a server, done by one of those that share a store."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.live import ServerProcess, until
from xetstore.cas import EmbeddedCas
from xetstore.cas.index.queries.chores import ChoreRow
from xetstore.cas.lease import Lease
from xetstore.cas.snapshots.take import snapshots_in
from xetstore.cas.throttle import Throttle
from xetstore.errors import UnavailableError
from xetstore.server.care import Care, Chore, Report
from xetstore.testing import make_sample, upload

ENGINES = engines.BOTH


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    engines.engines_of(metafunc)


@pytest.fixture
def open_store(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> engines.OpenStore:
    """Open one store, once more with each call, as another server does."""
    return engines.opening_store(engine, tmp_path / "store", request)


Work = Callable[[Lease, Throttle], Report]


@contextmanager
def caring(cas: EmbeddedCas, work: Work, every_seconds: float = 0.02, name: str = "sweep") -> Iterator[Care]:
    """Care for one chore."""
    with closing(Care(cas.index, (Chore(name, every_seconds, work),))) as care:
        care.start()
        yield care


def row_of(cas: EmbeddedCas, name: str = "sweep") -> ChoreRow | None:
    with cas.index.snapshot() as reader:
        return reader.chore(name)


def test_a_chore_is_done_again_and_again_and_its_report_is_kept(open_store: engines.OpenStore) -> None:
    with open_store() as cas:
        done: list[int] = []

        def work(_lease: Lease, _throttle: Throttle) -> Report:
            done.append(1)
            return {"files": len(done)}

        with caring(cas, work) as care:
            until(lambda: len(done) > 2)
            until(lambda: "sweep" in care.rows and care.rows["sweep"].ended_at is not None)
        row = row_of(cas)
        assert row is not None
        assert row.report is not None
        assert json.loads(row.report).keys() == {"files", "seconds"}


def test_of_several_servers_one_does_a_chore(open_store: engines.OpenStore) -> None:
    with open_store() as cas, open_store() as other:
        at_it: list[int] = []
        most: list[int] = []
        done: list[int] = []

        def work(lease: Lease, throttle: Throttle) -> Report:
            at_it.append(1)
            try:
                most.append(len(at_it))
                for _ in range(5):
                    throttle.rest()
                    lease.renew()
                    most.append(len(at_it))
            finally:
                at_it.pop()
            done.append(1)
            return {}

        with caring(cas, work), caring(other, work), caring(cas, work):
            until(lambda: len(done) > 10)
        assert max(most) == 1


def test_a_chore_that_was_cut_off_is_gone_on_with_at_once_where_it_was(open_store: engines.OpenStore) -> None:
    with open_store() as cas:
        reached, seen = threading.Event(), list[str | None]()

        def stuck(lease: Lease, throttle: Throttle) -> Report:
            lease.note("half")
            reached.set()
            while True:
                throttle.rest()

        def rest(lease: Lease, _throttle: Throttle) -> Report:
            seen.append(lease.position)
            return {}

        with caring(cas, stuck):
            assert reached.wait(60)
        with caring(cas, rest, every_seconds=0.02):
            until(lambda: bool(seen))
        assert seen[0] == "half"
        row = row_of(cas)
        assert row is not None
        assert row.position is None


def test_an_error_is_one_line_and_the_chore_is_done_later(
    open_store: engines.OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store() as cas:
        tried: list[int] = []

        def work(_lease: Lease, _throttle: Throttle) -> Report:
            tried.append(1)
            if len(tried) == 1:
                raise UnavailableError("the objects do not answer")
            return {}

        with caplog.at_level(logging.INFO, "xetstore.care"), caring(cas, work):
            until(lambda: len(tried) > 2)
        [record] = caplog.records
        assert "the sweep did not get done" in record.getMessage()
        assert "the objects do not answer" in record.getMessage()


@pytest.mark.parametrize(
    ("ended_at", "position", "due"),
    [
        (None, None, True),
        (1000.0, None, False),
        (1000.0, "half", True),
        (900.0, None, True),
        (10_000.0, None, True),  # by a clock that was wrong
        (1100.0, None, False),
    ],
)
def test_when_a_chore_is_due(ended_at: float | None, position: str | None, due: bool) -> None:
    chore = Chore("sweep", 60, lambda *_: {})
    row = ChoreRow("sweep", 1, "one", 0.0, ended_at, position, None)
    assert (chore.due_in(row, 1010.0) <= 0) is due
    held = ChoreRow("sweep", 1, "one", 1050.0, ended_at, position, None)
    assert chore.due_in(held, 1010.0) == 40.0
    assert chore.due_in(None, 1010.0) == 0


def test_a_server_writes_a_snapshot_once_something_has_changed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with EmbeddedCas.open(root) as cas, ServerProcess(root, "--workers", "1", "--snapshot-seconds", "0.1"):
        until(lambda: len([*snapshots_in(cas.blobs)]) == 1)
        upload(cas, make_sample(b"new"))
        until(lambda: len([*snapshots_in(cas.blobs)]) == 2)
