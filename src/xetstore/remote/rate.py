"""RateLimit: at most N bytes per second in one direction, whatever the number of connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from xetstore.platform import forks

SLICES_PER_SECOND: Final = 50
MIN_SLICE_BYTES: Final = 512
MAX_SLICE_BYTES: Final = 256 << 10


class RateLimit:
    """A token bucket that holds one slice. Thread-safe.

    Who wants to move bytes takes them first, at most ``slice_bytes`` at a time, and waits until it is their turn:
    in no second more than the rate and one slice are handed out. ``clock`` gives seconds that never go back.
    """

    def __init__(self, bytes_per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_second = bytes_per_second
        self.slice_bytes = int(min(max(bytes_per_second / SLICES_PER_SECOND, MIN_SLICE_BYTES), MAX_SLICE_BYTES))
        self._clock = clock
        self._lock = forks.lock()
        self._free_at = clock()

    def take(self, n_bytes: int, sleep: Callable[[float], None]) -> None:
        """Wait, by ``sleep``, until ``n_bytes`` may be moved. What it raises ends the wait, and nothing was taken."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._free_at)
            self._free_at = turn + n_bytes / self.bytes_per_second
        if turn <= now:
            return
        try:
            sleep(turn - now)
        except BaseException:
            self.give_back(n_bytes)
            raise

    def give_back(self, n_bytes: int) -> None:
        """Return what was taken and not moved."""
        with self._lock:
            self._free_at -= n_bytes / self.bytes_per_second
