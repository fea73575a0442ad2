"""The number of requests at a time: more of them as long as that brings more bytes per second.

:class:`Climb` decides, for downloads and uploads alike. The two measure in different ways, and so are two classes:
:class:`Goodput` counts the bytes of all fetches that arrive, because they arrive piece by piece; the slots of an upload
(``upload/slots.py``) look at how fast each xorb was sent, because a xorb is acknowledged as a whole, and a xorb on its
way is memory. The bytes of small files that wait (``download/batch.py``, ``Room``) are a bound, and are not measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

INTERVAL_SECONDS: Final = 0.5
INTERVAL_BYTES: Final = 20_000_000
INTERVAL_FETCHES: Final = 4
"""The time and the bytes, or the fetches for each that runs at a time, after which a rate is believed."""

GAIN: Final = 1.05
LOSS: Final = 0.9
HELD_INTERVALS: Final = 20
"""Intervals that pass before more requests are tried again, after they brought nothing."""


class Climb:
    """Which number of requests to try next, by the rate that each number brought. Not thread-safe.

    More that bring nothing are left running, unless each is ``costly``.

    >>> climb = Climb(4, 32)
    >>> climb.after(50e6), climb.after(70e6), climb.after(71e6), climb.after(71e6)
    (6, 9, 9, 9)
    """

    def __init__(self, start: int, most: int, *, costly: bool = False) -> None:
        self.requests = min(start, most)
        self._most = most
        self._costly = costly
        # Where it came from, and at which rate; None while nothing has been tried.
        self._before: tuple[int, float] | None = None
        self._held = 0
        self._held_rate = 0.0

    def after(self, rate: float) -> int:
        """The number for the next interval, after one at ``rate`` bytes per second."""
        self.requests = self._next(rate)
        return self.requests

    def _next(self, rate: float) -> int:
        if self._held:
            self._held -= 1
            if rate < LOSS * self._held_rate:  # the network has become slower: fewer may do as well
                self._held_rate = rate
                return max(1, self.requests - 1)
            self._held_rate = max(self._held_rate, rate)
            return self._up(rate) if not self._held else self.requests
        if self._before is None or rate >= GAIN * self._before[1]:
            return self._up(rate)
        fewer, old_rate = self._before
        if self._costly or rate < old_rate:
            return self._hold(old_rate, fewer)
        return self._hold(rate, self.requests)

    def _up(self, rate: float) -> int:
        if self.requests == self._most:
            return self._hold(rate, self.requests)
        self._before = (self.requests, rate)
        return min(self._most, self.requests + max(1, self.requests // 2))

    def _hold(self, rate: float, requests: int) -> int:
        self._before, self._held, self._held_rate = None, HELD_INTERVALS, rate
        return requests


class Goodput:
    """Follows the rate at which bytes arrive. Thread-safe; ``requests`` is the number that may run now.

    >>> seconds = iter([0.0, 1.0])
    >>> goodput = Goodput(4, 32, clock=lambda: next(seconds))
    >>> goodput.arrived(50_000_000)
    >>> goodput.step(busy=True), goodput.requests
    (50000000.0, 6)
    """

    def __init__(self, start: int, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._climb = Climb(start, most)
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._bytes = 0
        self._fetches = 0

    @property
    def requests(self) -> int:
        """The number of requests that may run now."""
        return self._climb.requests

    def arrived(self, nbytes: int) -> None:
        """Bytes came, of whichever fetch."""
        with self._lock:
            self._bytes += nbytes

    def finished(self) -> None:
        """A fetch came to its end."""
        with self._lock:
            self._fetches += 1

    def step(self, *, busy: bool) -> float | None:
        """Decide, if enough has been seen. ``busy`` says that as many ran as may.

        The rate so far, in bytes per second, if the number changed; else None.
        """
        with self._lock:
            seconds = self._clock() - self._since
            if busy and (
                seconds < INTERVAL_SECONDS
                or (self._bytes < INTERVAL_BYTES and self._fetches < INTERVAL_FETCHES * self.requests)
            ):
                return None
            rate = self._bytes / seconds if seconds > 0 else 0.0
            self._since += seconds
            self._bytes = self._fetches = 0
            before = self.requests
            return rate if busy and self._climb.after(rate) != before else None
