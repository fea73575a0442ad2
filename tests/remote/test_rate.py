"""A limit of rate is kept, whatever the number of connections."""

from __future__ import annotations

import time

import pytest

from tests.support.scripted import reply, scripted
from xetstore.cancellation import Cancellation
from xetstore.errors import InterruptedCallError
from xetstore.remote.rate import MAX_SLICE_BYTES, MIN_SLICE_BYTES, RateLimit
from xetstore.remote.transport import Transport


class _Turns:
    """Takes from a limit by a clock that moves when somebody sleeps, and remembers when what was handed out."""

    def __init__(self, rate: float) -> None:
        self.now = 0.0
        self.limit = RateLimit(rate, clock=lambda: self.now)
        self.handed_out: list[tuple[float, int]] = []

    def take(self, n_bytes: int) -> None:
        self.limit.take(n_bytes, self._sleep)
        self.handed_out.append((self.now, n_bytes))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def test_no_second_has_more_than_the_rate_and_a_slice() -> None:
    turns = _Turns(100_000)
    for at in range(500):
        if at == 250:
            turns.now += 10  # nobody saves up
        turns.take(turns.limit.slice_bytes)
    for start, _ in turns.handed_out:
        within = sum(n_bytes for at, n_bytes in turns.handed_out if start <= at < start + 1)
        assert within <= 100_000 + turns.limit.slice_bytes


def test_the_rate_is_used_to_the_full() -> None:
    turns = _Turns(100_000)
    while turns.now < 10:
        turns.take(turns.limit.slice_bytes)
    assert sum(n_bytes for _, n_bytes in turns.handed_out) >= 1_000_000


def test_what_was_not_moved_is_given_back() -> None:
    turns = _Turns(1000)
    for _ in range(100):
        turns.take(500)
        turns.limit.give_back(499)
    assert turns.now < 0.2


def test_who_is_interrupted_while_waiting_took_nothing() -> None:
    turns = _Turns(1000)
    turns.take(500)

    def interrupted(_: float) -> None:
        raise InterruptedCallError("enough")

    with pytest.raises(InterruptedCallError):
        turns.limit.take(1_000_000, interrupted)
    turns.take(1)
    assert turns.now == pytest.approx(0.5)


@pytest.mark.parametrize(("rate", "slice_bytes"), [(1, MIN_SLICE_BYTES), (50 << 10, 1 << 10), (1e12, MAX_SLICE_BYTES)])
def test_slices_are_small_enough_to_be_smooth(rate: float, slice_bytes: int) -> None:
    assert RateLimit(rate).slice_bytes == slice_bytes


def test_bodies_of_both_directions_are_limited() -> None:
    """By a clock of its own nothing takes less time than the rate allows."""
    with scripted(reply(200, bytes(20_000))) as server, Transport(rate=200_000) as transport:
        before = time.monotonic()
        with transport.request("POST", server.url, body=bytes(20_000), cancellation=Cancellation()) as answer:
            assert len(answer.read(20_000)) == 20_000
        # 40,000 bytes, of which a slice each way is free.
        assert time.monotonic() - before >= 2 * (20_000 - 4_000) / 200_000
        assert server.requests[0].body == bytes(20_000)
