"""Storing a file while the object store fails, at every single request: nothing is half there. With both indexes.

The requests pass through a proxy, which spoils the first, the second, … of each put.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.cas.test_faults import expect_absent_or_whole
from tests.support import engines
from tests.support.proxy import Fate, proxy
from tests.support.seaweed import Seaweed
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Index
from xetstore.errors import UnavailableError
from xetstore.testing import Sample, make_sample, random_bytes, read_back

ENGINES = engines.BOTH

MIB = 1 << 20

Spoil = Callable[[int], Fate]
"""The fate of a request by its number: 0 is the one to spoil, 1 the next."""


def one_refused(number: int) -> Fate:
    return Fate.REFUSED if number == 0 else Fate.PASSED


def one_lost(number: int) -> Fate:
    return Fate.LOST if number == 0 else Fate.PASSED


def all_refused(number: int) -> Fate:
    return Fate.REFUSED if number >= 0 else Fate.PASSED


def one_lost_then_all_refused(number: int) -> Fate:
    return one_lost(number) if number <= 0 else Fate.REFUSED


@dataclass
class Requests:
    """Requests of a put, counted from the last :meth:`begin`, and those that were spoilt."""

    spoil: Spoil
    spoilt: list[str] = field(default_factory=list)
    _at: int | None = None
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, at: int) -> None:
        """Spoil the request number ``at`` of those to come, and what follows it as the plan says."""
        with self._lock:
            self.spoilt, self._at, self._count = [], at, 0

    def heal(self) -> None:
        """Let all requests pass."""
        with self._lock:
            self._at = None

    def fate(self, request: str) -> Fate:
        with self._lock:
            number, self._count = self._count, self._count + 1
            fate = Fate.PASSED if self._at is None else self.spoil(number - self._at)
            if fate is not Fate.PASSED:
                self.spoilt.append(request)
            return fate


@dataclass(frozen=True)
class Far:
    """A store whose objects are behind the proxy. It remembers no footer, so that each is asked for."""

    cas: EmbeddedCas
    requests: Requests


@pytest.fixture
def spoil(request: pytest.FixtureRequest) -> Spoil:
    chosen: Spoil = request.param
    return chosen


@pytest.fixture
def far(seaweed: Seaweed, opening: engines.Opening, spoil: Spoil) -> Iterator[Far]:
    requests = Requests(spoil)
    with proxy(seaweed.endpoint) as between:
        between.fate = requests.fate
        place = BucketPlace.parse(seaweed.prefix(), {**seaweed.options, "endpoint": between.endpoint})
        blobs = BucketBlobStore(place, pause_seconds=0.001)
        with EmbeddedCas(blobs, Index(opening()), footer_cache_bytes=0) as cas:
            yield Far(cas, requests)


@dataclass
class Outcomes:
    """Of each put of which a request was spoilt the number of calls that were acknowledged; and all requests spoilt."""

    acknowledged: list[int] = field(default_factory=list)
    spoilt: set[str] = field(default_factory=set)


def put(far: Far, sample: Sample, other: Sample, done: int = 0) -> int:
    """Put a xorb, another one, and the shard of the first, for which its footer is read; the number of these that were
    acknowledged. The first ``done`` were so before.
    """
    calls: list[Callable[[], object]] = [
        lambda: far.cas.put_xorb(sample.xorb.hash, sample.body),
        lambda: far.cas.put_xorb(other.xorb.hash, other.body),
        lambda: far.cas.put_shard(sample.shard),
    ]
    for call in calls[done:]:
        try:
            call()
        except UnavailableError:
            break
        done += 1
    return done


def put_while_requests_fail(far: Far, size: int, leftovers: int) -> Outcomes:
    """Put file after file, while the first, the second, … request is spoilt. Each leaves at most so many objects."""
    outcomes = Outcomes()
    samples = []
    for number in range(100):
        sample, other = make_sample(random_bytes(size, 100 + number)), make_sample(random_bytes(1000, 300 + number))
        samples.append(sample)
        far.requests.begin(number)
        acknowledged = put(far, sample, other)
        far.requests.heal()
        if not far.requests.spoilt:
            break
        outcomes.acknowledged.append(acknowledged)
        outcomes.spoilt |= {kind(request) for request in far.requests.spoilt}
        is_there = expect_absent_or_whole(far.cas, sample, leftovers=leftovers * len(samples))
        assert is_there or acknowledged < 3, far.requests.spoilt
        # Of what was acknowledged nothing has to be put again; the rest is, as it was.
        assert put(far, sample, other, acknowledged) == 3
        assert read_back(far.cas, sample.file.hash) == sample.data
    assert acknowledged == 3
    verify_invariants(far.cas)
    for sample in samples:
        assert read_back(far.cas, sample.file.hash) == sample.data
    return outcomes


def kind(request: str) -> str:
    """A request without its names and numbers."""
    method, _, target = request.partition(" ")
    query = [part.partition("=")[0] for part in target.partition("?")[2].split("&")]
    return " ".join([method, *sorted(filter(None, query))])


SHORT, LONG = 20_000, 6 * MIB  # of two parts
SIZES = pytest.mark.parametrize("size", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long")])
PUTS = {"PUT", "GET", "HEAD"}
LONG_PUTS = {"POST uploads", "PUT partNumber uploadId", "POST uploadId"}


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("spoil", [one_refused, one_lost], indirect=True)
def test_whichever_request_fails_once_the_put_goes_on(far: Far, size: int) -> None:
    outcomes = put_while_requests_fail(far, size, leftovers=0)
    assert set(outcomes.acknowledged) == {3}
    assert outcomes.spoilt >= (PUTS if size == SHORT else PUTS | LONG_PUTS)


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("spoil", [all_refused, one_lost_then_all_refused], indirect=True)
def test_from_whichever_request_on_the_objects_are_away_the_store_is_whole(far: Far, size: int) -> None:
    outcomes = put_while_requests_fail(far, size, leftovers=1)
    assert set(outcomes.acknowledged) >= {0, 1, 2}
    # What cannot be undone is left behind.
    assert outcomes.spoilt >= PUTS | (LONG_PUTS | {"DELETE uploadId"} if size == LONG else set())
