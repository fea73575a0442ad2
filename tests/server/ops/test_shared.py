"""What the workers of a server share: rates, connections, turns. Two maps of one file are two workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.live import PATIENCE_SECONDS
from xetstore.errors import TooManyRequestsError, UnavailableError
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.limits import ServerLimits, TokenBuckets
from xetstore.server.ops.shared import AWAY, Shared
from xetstore.server.settings import ServerSettings
from xetstore.testing.clock import FakeClock

HOLDER = """
import sys
from xetstore.server.ops.shared import Shared
turn = Shared(int(sys.argv[1]), 2, 1).turn("committing")
print(turn.try_take(), flush=True)
sys.stdin.read()
"""


class Client:
    """A connection."""

    def __init__(self) -> None:
        self.is_closed = False

    def give_up(self) -> None:
        self.is_closed = True


@pytest.fixture
def pair() -> Iterator[tuple[Shared, Shared]]:
    """The memory of a server with two workers, as each of them has it."""
    created = Shared.create(2)
    assert created.descriptor is not None
    yield Shared(created.descriptor, 2, 0), Shared(created.descriptor, 2, 1)
    os.close(created.descriptor)


def test_a_rate_is_one_of_all_workers(pair: tuple[Shared, Shared]) -> None:
    clock = FakeClock()
    first, second = (TokenBuckets(2, burst_seconds=5, clock=clock, shared=shared) for shared in pair)
    for _ in range(5):
        first.admit("a")
        second.admit("a")
    for buckets in (first, second):
        assert not buckets.has_room("a")
        with pytest.raises(TooManyRequestsError):
            buckets.admit("a")
    clock.advance(0.5)
    second.admit("a")
    assert not first.has_room("a")


def test_tokens_and_addresses_have_rates_of_their_own() -> None:
    limits = ServerLimits(ServerSettings(rate_per_token=1, rate_per_address=1, burst_seconds=1), FakeClock())
    limits.tokens.admit("a")
    limits.addresses.admit("a")


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_the_parts_of_a_budget_are_the_budget(total: int, workers: int) -> None:
    shared = Shared(None, 1)
    parts = []
    for number in range(workers):
        shared.workers, shared.number = workers, number
        parts.append(shared.part(total))
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


def test_connections_of_all_workers_count_together(pair: tuple[Shared, Shared]) -> None:
    first, second = (ConnectionLimit(3, 2, shared=shared) for shared in pair)
    mine, others = [Client() for _ in range(2)], [Client() for _ in range(3)]
    assert first.take(mine[0], "192.0.2.1")
    assert second.take(others[0], "192.0.2.1")
    assert second.take(others[1], "192.0.2.1"), "its own idle one goes, as this address has two"
    assert others[0].is_closed
    first.set_busy(mine[0])
    second.set_busy(others[1])
    assert not first.take(mine[1], "192.0.2.1")
    assert first.take(mine[1], "192.0.2.2")
    first.set_busy(mine[1])
    assert not second.take(others[2], "192.0.2.3"), "there are three"
    first.leave(mine[0])
    first.leave(mine[0])
    assert second.take(others[2], "192.0.2.1")


def test_what_a_worker_had_is_free_once_it_has_ended(pair: tuple[Shared, Shared]) -> None:
    first, second = pair
    dead, alive = ConnectionLimit(2, 1, shared=first), ConnectionLimit(2, 1, shared=second)
    place = Client()
    first.load = 7
    assert dead.take(place, "192.0.2.1")
    dead.set_busy(place)
    assert not alive.take(Client(), "192.0.2.1")
    second.clear(0)
    assert first.load == AWAY
    assert alive.take(Client(), "192.0.2.1")
    assert second.connections_of_others() == 0


def test_a_worker_that_is_away_is_left_nothing(pair: tuple[Shared, Shared]) -> None:
    first, second = pair
    first.load = 5
    assert first.least_load() == 5
    second.load = 0
    assert first.least_load() == 0


@contextmanager
def another_has(shared: Shared) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has the turn to commit more than is counted."""
    assert shared.descriptor is not None
    arguments = [sys.executable, "-c", HOLDER, str(shared.descriptor)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(shared.descriptor,)
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"True\n"
            yield holder
        finally:
            holder.kill()
            holder.wait(PATIENCE_SECONDS)


def test_a_turn_is_one_workers_until_it_gives_it_back_or_is_killed(pair: tuple[Shared, Shared]) -> None:
    shared, _ = pair
    turn, other = shared.turn("committing"), shared.turn("reading")
    with another_has(shared):
        assert not turn.try_take()
        assert other.try_take()
    assert turn.try_take()
    assert not turn.try_take(), "it is taken"
    turn.give_back()
    assert turn.try_take()


def test_what_takes_more_than_a_part_is_let_in_alone_of_all_workers(pair: tuple[Shared, Shared]) -> None:
    shared, _ = pair
    settings = ServerSettings(max_bytes_in_flight=8 << 20, queue_seconds=0.2)
    budget = ServerLimits(settings, shared=shared).committing
    assert (budget.total, budget.most) == (4 << 20, 1 << 20)

    async def takes(amount: int) -> bool:
        try:
            async with budget.reserve(amount, ["a"]):
                return True
        except UnavailableError:
            return False

    with another_has(shared) as holder:
        assert asyncio.run(takes(1 << 20))
        assert asyncio.run(takes(3 << 20)), "as much as can be counted"
        assert not asyncio.run(takes(100 << 20))
        assert budget.used == 0
        holder.kill()
        holder.wait(PATIENCE_SECONDS)
        assert asyncio.run(takes(100 << 20))
        assert asyncio.run(takes(100 << 20)), "it was given back"
