"""Leases: one runner at a time does a chore, and one that was taken for dead changes nothing any more."""

from __future__ import annotations

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.cas.lease import Lease
from xetstore.errors import LeaseLostError

ENGINES = engines.BOTH


def taken(cas: EmbeddedCas, seconds: float = 60) -> Lease:
    lease = Lease.take(cas.index, "collect", seconds=seconds)
    assert lease is not None
    return lease


def test_one_runner_has_a_chore_until_it_gives_it_back(cas: EmbeddedCas) -> None:
    with taken(cas) as first:
        assert Lease.take(cas.index, "collect") is None
        assert Lease.take(cas.index, "scrub") is not None
        first.renew()
    with taken(cas):
        pass


def test_a_runner_that_was_taken_for_dead_changes_nothing(cas: EmbeddedCas) -> None:
    first = taken(cas, seconds=-1)
    first.note("half")
    second = taken(cas)
    assert second.position == "half"
    with pytest.raises(LeaseLostError), cas.index.transaction() as writer:
        writer.supersede("xorbs/ab/none", now=1.0)
        first.require(writer)
    for late in (first.renew, lambda: first.note("all"), lambda: first.finish("{}")):
        with pytest.raises(LeaseLostError):
            late()
    first.release()
    assert Lease.take(cas.index, "collect") is None
    with cas.index.snapshot() as reader:
        assert reader.superseded_before(2.0) == []


def test_the_next_runner_goes_on_where_the_last_one_was(cas: EmbeddedCas) -> None:
    with taken(cas) as first:
        assert first.position is None
        first.note("17")
    with taken(cas) as second:
        assert second.position == "17"
        second.finish('{"xorbs":1}')
    with taken(cas) as third:
        assert third.position is None
    with cas.index.snapshot() as reader:
        [row] = reader.chores()
    assert (row.name, row.report, row.position) == ("collect", '{"xorbs":1}', None)
    assert row.ended_at is not None


def test_a_lease_that_was_taken_by_a_clock_that_was_wrong_ends(cas: EmbeddedCas) -> None:
    ahead = taken(cas, seconds=1e8)
    with taken(cas) as lease:
        lease.renew()
        with pytest.raises(LeaseLostError):
            ahead.renew()
