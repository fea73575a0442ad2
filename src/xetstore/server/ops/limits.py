"""Limits for one client, and for all of them together: requests per second, bytes in memory, patience with a body."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xetstore.errors import TimedOutError, TooManyRequestsError
from xetstore.server.ops.budgets import Budget

if TYPE_CHECKING:
    from xetstore.server.settings import ServerSettings

MAX_KEYS: Final = 1 << 16
"""Most clients a TokenBuckets remembers."""
PROGRESS_BYTES: Final = 64 << 10
"""A sender slower than this in every ``stall_seconds`` is cut off."""


class TokenBuckets:
    """One token bucket for each key: ``per_second`` on the long run, ``burst_seconds`` of it at once; 0 is no limit.

    Of the keys only the last ``max_keys`` used are remembered. ``clock`` gives seconds that never go back.
    """

    def __init__(
        self,
        per_second: float,
        burst_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._interval = 1 / per_second if per_second > 0 else 0.0
        # Less than one request at a time would be none at all.
        self._burst = max(burst_seconds, self._interval)
        self._clock = clock
        self._max_keys = max_keys
        # When the bucket of a key is full again: all that has to be known of it.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def has_room(self, key: str) -> bool:
        """True if :meth:`admit` would count one request now."""
        now = self._clock()
        return max(0.0, self._full_at.get(key, now) - now) + self._interval <= self._burst * (1 + 1e-9)

    def admit(self, key: str) -> None:
        """Count one request. Raises TooManyRequestsError, which says when to ask again, if it is one too many."""
        if not self._interval:
            return
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + self._interval
        if full_at - now > self._burst * (1 + 1e-9):
            error = TooManyRequestsError("too many requests")
            error.retry_after = full_at - now - self._burst
            raise error
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)


class Pace:
    """The patience with one client, by what it has moved: ``progress_bytes`` in every ``stall_seconds``, and
    ``rate`` bytes a second on average once it has been waited for during ``grace_seconds``; a rate of 0 is no limit.

    Only waiting for the client counts: what the server takes for its own work is not held against it.
    """

    def __init__(self, progress_bytes: int, stall_seconds: float, rate: float, grace_seconds: float) -> None:
        self._progress_bytes, self._stall_seconds, self._rate = progress_bytes, stall_seconds, rate
        self._progress = 0
        self._stall_left = stall_seconds
        self._mean_left = grace_seconds if rate > 0 else math.inf

    @property
    def patience(self) -> float:
        """Seconds; none are left at 0 and below."""
        return min(self._stall_left, self._mean_left)

    def waited(self, seconds: float) -> None:
        """The client was waited for."""
        self._stall_left -= seconds
        self._mean_left -= seconds

    def moved(self, nbytes: int) -> None:
        """Count bytes that it sent, or took."""
        self._progress += nbytes
        if self._progress >= self._progress_bytes:
            self._progress = 0
            self._stall_left = self._stall_seconds
        if self._rate > 0:
            self._mean_left += nbytes / self._rate

    def too_slow(self, what: str) -> TimedOutError:
        """The error for a client whose patience is used up; ``what`` names the bytes that do not move."""
        if self._mean_left < self._stall_left:
            return TimedOutError(f"{what} at less than {self._rate:g} bytes a second on average")
        return TimedOutError(f"{what} at less than {self._progress_bytes} bytes within {self._stall_seconds:g} seconds")


class ServerLimits:
    """The limits of one server, by its settings.

    There is a budget of its own for each kind of work, so that none of them keeps another from going on: bytes that
    are ``reading`` (answers and downloads), ``receiving`` (bodies that come in) and ``committing`` (shards that are
    parsed, verified and registered); and places, for ``commits`` of xorbs and for ``shards``.
    """

    def __init__(self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        burst = settings.burst_seconds
        in_flight = settings.max_bytes_in_flight

        def budget(name: str, total: int) -> Budget:
            return Budget(name, total, queue_seconds=settings.queue_seconds, share=settings.max_share)

        self.reading = budget("reading", in_flight)
        self.receiving = budget("receiving", in_flight)
        self.committing = budget("committing", in_flight)
        self.commits = budget("commits", settings.max_commits)
        self.shards = budget("shards", settings.max_shards)
        self.tokens = TokenBuckets(settings.rate_per_token, burst, clock=clock)
        self.addresses = TokenBuckets(settings.rate_per_address, burst, clock=clock)
        self._stall_seconds = settings.stall_seconds
        self._rate, self._grace = settings.min_rate_bytes, settings.rate_grace_seconds

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All of them."""
        return self.reading, self.receiving, self.committing, self.commits, self.shards

    def pace(self, progress_bytes: int = PROGRESS_BYTES) -> Pace:
        """The patience with the client of a body that begins now."""
        return Pace(progress_bytes, self._stall_seconds, self._rate, self._grace)
