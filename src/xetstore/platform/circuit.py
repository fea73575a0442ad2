"""Circuit: once a part of a store does not answer, calls to it fail at once instead of waiting for it one by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from xetstore.errors import StorageFullError, TooManyRequestsError, UnavailableError, XetError
from xetstore.platform import forks

FAILURES: Final = 3
"""Failures one after the other, without a success between them, upon which a circuit opens."""

PAUSE_SECONDS: Final = 2.0
"""The time from one trial to the next while it is open: a part that is back is found within it."""

_log = logging.getLogger("xetstore.store")


class Circuit:
    """The circuit of one part. ``sentence`` says that it does not answer. Thread-safe.

    It opens after some failures one after the other. While it is open, calls raise UnavailableError, but one in
    ``pause_seconds`` goes through as a trial, however long the last one takes; the first that is answered closes it.
    Each change is one line in the log.
    """

    def __init__(
        self,
        sentence: str,
        *,
        failures: int = FAILURES,
        pause_seconds: float = PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sentence = sentence
        self._most = failures
        self._pause = pause_seconds
        self._clock = clock
        self._lock = forks.lock()
        self._failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        """True while calls fail at once."""
        return self._failures >= self._most

    def require(self) -> None:
        """Raise UnavailableError if the circuit is open, unless it is time for a trial."""
        if not self.is_open:
            return
        with self._lock:
            now = self._clock()
            if now >= self._next_trial:
                self._next_trial = now + self._pause
                return
        error = UnavailableError(
            self._sentence, hint=f"a call is tried every {self._pause:g} seconds; the log of the server says why"
        )
        error.retry_after = self._pause
        raise error

    def answered(self) -> None:
        """A call was answered, whatever the answer."""
        if not self._failures:
            return
        with self._lock:
            was_open = self.is_open
            self._failures = 0
        if was_open:
            _log.info("answered again, after %s", self._sentence)

    def failed(self, error: Exception) -> None:
        """A call was not answered."""
        with self._lock:
            self._failures += 1
            has_opened = self._failures == self._most
            if has_opened:
                self._next_trial = self._clock() + self._pause
        if has_opened:
            _log.error("%s, and calls fail at once for now: %s", self._sentence, error)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A call is made in this block. UnavailableError from it is a failure, any other end of it an answer."""
        self.require()
        try:
            yield
        except (StorageFullError, TooManyRequestsError):
            self.answered()
            raise
        except UnavailableError as error:
            self.failed(error)
            raise
        except XetError:
            self.answered()
            raise
        self.answered()
