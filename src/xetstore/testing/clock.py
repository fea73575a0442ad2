"""FakeClock: time that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A clock for stores under test: unix seconds, advanced by hand.

    >>> clock = FakeClock(1000.0)
    >>> clock.advance(60)
    >>> clock()
    1060.0
    """

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """The time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
