"""Throttle: work in the background that leaves the machine to those who wait for answers."""

from __future__ import annotations

import time
from typing import Final

from xetstore.cancellation import Cancellation

LONGEST_REST_SECONDS: Final = 5.0


class Throttle:
    """Keeps work to a share of the time. Call :meth:`rest` between short steps of it. Not thread-safe.

    With ``share`` 1 it rests never. Once ``cancellation`` is cancelled, a step is the last one.
    """

    def __init__(self, share: float = 1.0, cancellation: Cancellation | None = None) -> None:
        self._share = share
        self._cancellation = cancellation or Cancellation()
        self._since = time.monotonic()

    def rest(self) -> None:
        """Rest after a step. Raises InterruptedCallError when the work is to end."""
        self._cancellation.check()
        if self._share < 1:
            worked = time.monotonic() - self._since
            self._cancellation.wait(min(worked * (1 / self._share - 1), LONGEST_REST_SECONDS))
            self._since = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Rest for that long, whatever the share is. Raises as :meth:`rest`."""
        self._cancellation.check()
        if seconds > 0:
            self._cancellation.wait(min(seconds, LONGEST_REST_SECONDS))
        self._since = time.monotonic()
