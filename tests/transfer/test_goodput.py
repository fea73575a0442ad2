"""The number of fetches at a time: it grows while that pays, and comes back when it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xetstore.transfer.goodput import HELD_INTERVALS, Goodput


class Network:
    """A network whose rate, in bytes per second, depends on how many requests run; and the clock of it."""

    def __init__(self, rate: Callable[[int], float], start: int = 4, most: int = 32) -> None:
        self.seconds = 0.0
        self.rate = rate
        self.goodput = Goodput(start, most, clock=lambda: self.seconds)

    def run(self, seconds: float, *, busy: bool = True) -> list[int]:
        """The numbers that were used, each time one was decided on."""
        seen = []
        for _ in range(round(seconds / 0.1)):
            self.seconds += 0.1
            self.goodput.arrived(round(self.rate(self.goodput.requests) * 0.1))
            if self.goodput.step(busy=busy) is not None:
                seen.append(self.goodput.requests)
        return seen


def test_it_grows_while_more_requests_bring_more() -> None:
    network = Network(lambda requests: requests * 20e6)
    assert network.run(20) == [6, 9, 13, 19, 28, 32]


def test_it_stays_where_more_bring_nothing() -> None:
    network = Network(lambda requests: min(requests, 9) * 20e6)
    network.run(8)
    assert network.goodput.requests in (9, 13)


def test_it_steps_back_where_more_bring_less() -> None:
    network = Network(lambda requests: 200e6 if requests <= 4 else 100e6)
    assert network.run(3) == [6, 4]
    assert network.goodput.requests == 4


def test_it_tries_again_after_a_while() -> None:
    limit = [4]
    network = Network(lambda requests: min(requests, limit[0]) * 50e6)
    network.run(3)
    limit[0] = 32
    network.run(HELD_INTERVALS * 0.5 + 10)
    assert network.goodput.requests > 9


def test_it_follows_a_network_that_becomes_slower() -> None:
    speed = [100e6]
    network = Network(lambda _requests: speed[0])
    network.run(3)
    settled = network.goodput.requests
    for _ in range(5):
        speed[0] /= 1.5
        network.run(2)
    assert network.goodput.requests < settled
    assert network.goodput.requests >= 1


def test_nothing_is_decided_on_too_little() -> None:
    network = Network(lambda _requests: 1e6)
    assert network.run(10) == [], "10 MB are not enough"
    for _ in range(16):
        network.goodput.finished()
    network.run(0.1)
    assert network.goodput.requests == 6, "but four fetches by each are"


def test_a_rate_with_idle_requests_says_nothing() -> None:
    network = Network(lambda requests: requests * 100e6)
    assert network.run(5, busy=False) == []
    assert network.goodput.requests == 4


@pytest.mark.parametrize(("start", "most", "expected"), [(4, 1, 1), (4, 2, 2), (4, 4, 4), (4, 5, 5)])
def test_the_limit_holds(start: int, most: int, expected: int) -> None:
    network = Network(lambda requests: requests * 100e6, start, most)
    network.run(30)
    assert network.goodput.requests == expected
