"""Pace: the state that all ranges from one host share."""

from __future__ import annotations

import threading
from typing import Final

from xetstore.platform import forks

MAX_HEDGES: Final = 2
TELLING_BYTES: Final = 1 << 20
"""A shorter range tells nothing of how fast its host is."""
TRICKLE_RATE: Final = 64 << 10
"""Bytes per second below which a range is a trickle, if its host has been ten times faster."""


class Pace:
    """The speed of the ranges from one host, and the number that are hedged. Thread-safe.

    ``best`` is the most that a single range got, in bytes per second of waiting for it. Only some ranges are hedged
    at a time: where all of them are silent it is the network, and asking for everything twice makes it worse.
    """

    def __init__(self, max_hedges: int = MAX_HEDGES) -> None:
        self.best = 0.0
        self._max_hedges = max_hedges
        self._begin()
        forks.renew(self, Pace._begin)

    def _begin(self) -> None:
        self._hedges = threading.BoundedSemaphore(self._max_hedges)

    def begin_hedge(self) -> bool:
        """True if one more range may be hedged; then :meth:`end_hedge` has to follow."""
        return self._hedges.acquire(blocking=False)

    def end_hedge(self) -> None:
        """It is decided which answer goes on."""
        self._hedges.release()

    def finished(self, n_bytes: int, seconds: float) -> None:
        """Take in how long a range took."""
        if n_bytes >= TELLING_BYTES:
            self.best = max(self.best, n_bytes / max(seconds, 0.01))

    def is_trickle(self, n_bytes: int, seconds: float) -> bool:
        """True if a connection is so slow that another one is worth its cost."""
        return n_bytes / seconds < min(TRICKLE_RATE, self.best / 10)
