"""Look: a value that takes a look at every row of the index, made in the background for all who ask."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from xetstore.errors import XetError
from xetstore.platform import forks
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_AGE_SECONDS: Final = 10.0
SHARE: Final = 0.01
"""The part of the time for which the rows are looked at: a value that took 3 s is made again after 5 min."""

T = TypeVar("T")


class Look(Generic[T]):
    """A value, at most some seconds old where the store is small. Thread-safe.

    It is made in a thread of its own, one at a time, for at most a hundredth of the time, and only while it is asked
    for. ``clock`` gives unix seconds.
    """

    def __init__(self, make: Callable[[], T], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._lock = forks.lock()
        self._latest: tuple[T, float] | None = None
        self._stale_at = 0.0
        self._begin()
        forks.renew(self, Look._begin)

    def _begin(self) -> None:
        """No thread is at it."""
        self._running: threading.Event | None = None

    def latest(self, patience_seconds: float) -> tuple[T, float] | None:
        """The value, and when it was made, in unix seconds; None before it was first.

        A newer one is waited for no longer than this.
        """
        with self._lock:
            if self._running is None and time.monotonic() >= self._stale_at:
                done = threading.Event()
                with suppress(XetError):  # there is no thread to be had
                    start_thread(self._run, done, name="look")
                    self._running = done
            running = self._running
        if running is not None:
            running.wait(patience_seconds)
        return self._latest

    def _run(self, done: threading.Event) -> None:
        began, made_at = time.monotonic(), self._clock()
        try:
            with suppress(XetError):  # others complain of the index
                self._latest = self._make(), made_at
        finally:
            took = time.monotonic() - began
            with self._lock:
                self._stale_at = time.monotonic() + max(MIN_AGE_SECONDS, took / SHARE)
                if self._running is done:
                    self._running = None
            done.set()
