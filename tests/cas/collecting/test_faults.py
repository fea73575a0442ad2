"""A collection while anything fails, at every single operation there is: the store is whole, and the next one goes on.

Each round has something for every step: a grant and a file, an older xorb, an older object, and one of an upload that
was cut off.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cas.test_request_faults import Requests, Spoil, one_lost
from tests.support import engines
from tests.support.collecting import DAY, GRACE, revoke
from tests.support.postgres import PostgresServer
from tests.support.proxy import Fate, proxy
from tests.support.seaweed import Seaweed
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.collecting import collect
from xetstore.cas.index import Index
from xetstore.cas.layout import named_by
from xetstore.cas.lease import COLLECT, Lease
from xetstore.errors import XetError
from xetstore.interfaces import BlobStore
from xetstore.testing import (
    FakeClock,
    FaultPlan,
    FaultyBlobStore,
    FaultyDatabase,
    Sample,
    make_sample,
    random_bytes,
    read_back,
)
from xetstore.testing import upload as put

ENGINES = engines.BOTH
LIVE = make_sample(random_bytes(30_000, 1))
FOLDER = "ab"
MOST = 150


def samples() -> Iterator[Sample]:
    """Small files whose xorbs are all in one folder: SeaweedFS keeps empty folders, and each is listed by a request."""
    for seed in itertools.count(100):
        sample = make_sample(random_bytes(100, seed))
        if str(sample.xorb.hash).startswith(FOLDER):
            yield sample


class Rounds:
    """A store in which each round deletes a file, and collects."""

    def __init__(self, cas: EmbeddedCas, clock: FakeClock) -> None:
        self.cas, self.clock = cas, clock
        self.number = 0
        self.samples = samples()
        clock.advance(time.time() - clock())
        put(cas, LIVE)
        for _ in range(3):
            self.prepare()
            self.collect()

    def prepare(self) -> None:
        self.number += 1
        sample = next(self.samples)
        put(self.cas, sample)
        revoke(self.cas, sample.file.hash)
        abandoned = f"xorbs/{FOLDER}/{FOLDER * 32}-{self.number:016x}"
        self.cas.blobs.put_new(abandoned, [b"of an upload that was cut off"])
        self.clock.advance(25 * DAY)

    def collect(self) -> None:
        lease = Lease.take(self.cas.index, COLLECT)
        assert lease is not None
        with lease:
            collect(self.cas, lease, GRACE)
            lease.finish("{}")

    def finish(self) -> None:
        """Nothing is left but what lives, and the last three things that wait for their time."""
        for _ in range(4):
            self.clock.advance(25 * DAY)
            self.collect()
        verify_invariants(self.cas)
        assert read_back(self.cas, LIVE.file.hash) == LIVE.data
        # SeaweedFS lists folders that are empty.
        left = [blob.key for blob in self.cas.blobs.list("xorbs/") if named_by(blob.key)]
        assert {key[9:73] for key in left} == {str(LIVE.xorb.hash)}, left
        with self.cas.index.snapshot() as reader:
            assert [row.hash for row in reader.xorbs_after(0)] == [LIVE.xorb.hash]
            assert reader.superseded_before(self.clock() + 1) == []


def collect_while_it_fails(rounds: Rounds, plan: FaultPlan) -> int:
    """Collect again and again, while the first, the second, … operation fails; the number of those that failed, with or
    without an error: for want of room a change is done once more, with the reserve.
    """
    failed = 0
    for number in range(MOST):
        rounds.prepare()
        plan.fail_next(after=number)
        with suppress(XetError):
            rounds.collect()
        has_failed = plan.has_failed
        plan.disarm()
        if not has_failed:
            break
        failed += 1
        verify_invariants(rounds.cas)
        assert read_back(rounds.cas, LIVE.file.hash) == LIVE.data
        if number % 2:  # or the next round has more to do
            rounds.collect()
    else:
        raise AssertionError("it never got done")
    rounds.finish()
    return failed


@pytest.fixture(autouse=True)
def _quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that could not be given back ends by itself; here at once."""
    take = Lease.take.__func__  # type: ignore[attr-defined]

    def take_at_once(cls: type[Lease], index: Index, name: str, *, seconds: float = 60) -> Lease | None:
        lease: Lease | None = take(cls, index, name, seconds=seconds)
        if lease is None:
            index.change(lambda writer: writer.connection.change("UPDATE chore SET expires_at = 0"))
            lease = take(cls, index, name, seconds=seconds)
        return lease

    monkeypatch.setattr(Lease, "take", classmethod(take_at_once))


@pytest.mark.slow
def test_whichever_statement_fails_the_next_one_goes_on(
    tmp_path: Path, opening: engines.Opening, clock: FakeClock
) -> None:
    plan = FaultPlan()
    blobs = LocalBlobStore(tmp_path)
    with EmbeddedCas(blobs, Index(FaultyDatabase(opening(), plan)), clock=clock) as cas:
        assert collect_while_it_fails(Rounds(cas, clock), plan) > 40


@pytest.mark.slow
def test_at_whichever_statement_the_connection_breaks_the_next_one_goes_on(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, clock: FakeClock
) -> None:
    plan = FaultPlan()
    database = FaultyDatabase(
        engines.opening_of(postgres_url)(), plan, instead=lambda: postgres.terminate(postgres_url)
    )
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(database), clock=clock) as cas:
        assert collect_while_it_fails(Rounds(cas, clock), plan) > 10


def test_whichever_operation_on_objects_fails_the_next_one_goes_on(
    tmp_path: Path, opening: engines.Opening, clock: FakeClock
) -> None:
    plan = FaultPlan()
    blobs: BlobStore = FaultyBlobStore(LocalBlobStore(tmp_path), plan)
    with EmbeddedCas(blobs, Index(opening()), clock=clock) as cas:
        assert collect_while_it_fails(Rounds(cas, clock), plan) > 5


@pytest.mark.slow
def test_whichever_file_cannot_be_changed_the_next_one_goes_on(
    root: Path, on_sqlite: None, engine: str, clock: FakeClock
) -> None:
    assert engine
    plan = FaultPlan()
    with plan.installed(), EmbeddedCas.open(root, clock=clock) as cas:
        assert collect_while_it_fails(Rounds(cas, clock), plan) > 10


# Objects in S3, behind a proxy


@pytest.fixture
def requests(request: pytest.FixtureRequest) -> Requests:
    spoil: Spoil = request.param
    return Requests(spoil)


@pytest.fixture
def far(seaweed: Seaweed, opening: engines.Opening, requests: Requests, clock: FakeClock) -> Iterator[Rounds]:
    with proxy(seaweed.endpoint) as between:
        between.fate = requests.fate
        place = BucketPlace.parse(seaweed.prefix(), {**seaweed.options, "endpoint": between.endpoint})
        with EmbeddedCas(BucketBlobStore(place, pause_seconds=0.001), Index(opening()), clock=clock) as cas:
            yield Rounds(cas, clock)


def all_refused(number: int) -> Fate:
    return Fate.REFUSED if number >= 0 else Fate.PASSED


@pytest.mark.slow
@pytest.mark.parametrize("requests", [one_lost, all_refused], indirect=True)
def test_whichever_request_fails_the_next_one_goes_on(far: Rounds, requests: Requests) -> None:
    failed = spoilt = 0
    for number in range(MOST):
        far.prepare()
        requests.begin(number)
        try:
            far.collect()
        except XetError:
            failed += 1
        requests.heal()
        if not requests.spoilt:
            break
        spoilt += 1
        verify_invariants(far.cas)
        assert read_back(far.cas, LIVE.file.hash) == LIVE.data
        if number % 2:  # or the next round has more to do
            far.collect()
    else:
        raise AssertionError("it never got done")
    assert spoilt >= 10
    assert failed >= spoilt or requests.spoil is not all_refused
    far.finish()
