"""Limits for one client, and for all of them together: requests per second, bytes in memory, patience with a body."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xetstore.errors import TimedOutError, TooManyRequestsError
from xetstore.server.ops.budgets import Budget
from xetstore.server.ops.shared import Shared

if TYPE_CHECKING:
    from xetstore.server.settings import ServerSettings

PROGRESS_BYTES: Final = 64 << 10
"""A sender slower than this in every ``stall_seconds`` is cut off."""


class TokenBuckets:
    """One token bucket for each key: ``per_second`` on the long run, ``burst_seconds`` of it at once; 0 is no limit.

    The buckets are slots of ``table``, one of the two in ``shared``, and so of all workers together. A key has a slot
    in each of two rows, and its bucket is the emptier of them: it waits for another only where that has both slots.
    ``clock`` gives seconds that never go back, and are the same in all processes.
    """

    def __init__(
        self,
        per_second: float,
        burst_seconds: float,
        *,
        shared: Shared | None = None,
        table: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1 / per_second if per_second > 0 else 0.0
        # Less than one request at a time would be none at all.
        self._burst = max(burst_seconds, self._interval)
        self._clock = clock
        self._shared = shared or Shared.alone()
        # When a bucket is full again: all that has to be known of it.
        self._full_at = self._shared.rates[table]

    def has_room(self, key: str) -> bool:
        """True if :meth:`admit` would count one request now."""
        first, second, _ = self._shared.places(key)
        left = min(self._full_at[first], self._full_at[second]) - self._clock()
        return max(0.0, left) + self._interval <= self._burst * (1 + 1e-9)

    def admit(self, key: str) -> None:
        """Count one request. Raises TooManyRequestsError, which says when to ask again, if it is one too many."""
        if not self._interval:
            return
        now = self._clock()
        table = self._full_at
        first, second, _ = self._shared.places(key)
        full_at = max(now, min(table[first], table[second])) + self._interval
        if full_at - now > self._burst * (1 + 1e-9):
            error = TooManyRequestsError("too many requests")
            error.retry_after = full_at - now - self._burst
            raise error
        for place in (first, second):
            if table[place] < full_at:
                table[place] = full_at


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
    """The limits of one server, by its settings, as one of its workers keeps them.

    There is a budget of its own for each kind of work, so that none of them keeps another from going on: bytes that
    are ``reading`` (answers and downloads), ``receiving`` (bodies that come in) and ``committing`` (shards that are
    parsed, verified and registered); bytes on disk, of bodies that are ``spooling``; and places, for ``commits`` of
    xorbs and for ``shards``. A worker has its part of each.
    """

    def __init__(
        self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic, shared: Shared | None = None
    ) -> None:
        self.shared = shared = shared or Shared.alone()
        burst = settings.burst_seconds
        in_flight = settings.max_bytes_in_flight

        def budget(name: str, total: int) -> Budget:
            return Budget(
                name,
                shared.part(total),
                queue_seconds=settings.queue_seconds,
                share=settings.max_share,
                turn=shared.turn(name) if shared.workers > 1 else None,
            )

        self.reading = budget("reading", in_flight)
        self.receiving = budget("receiving", in_flight)
        self.committing = budget("committing", in_flight)
        self.spooling = budget("spooling", settings.max_spooled_bytes)
        self.commits = budget("commits", settings.max_commits)
        self.shards = budget("shards", settings.max_shards)
        self.tokens = TokenBuckets(settings.rate_per_token, burst, shared=shared, table=0, clock=clock)
        self.addresses = TokenBuckets(settings.rate_per_address, burst, shared=shared, table=1, clock=clock)
        self._stall_seconds = settings.stall_seconds
        self._rate, self._grace = settings.min_rate_bytes, settings.rate_grace_seconds

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All of them."""
        return self.reading, self.receiving, self.committing, self.spooling, self.commits, self.shards

    def pace(self, progress_bytes: int = PROGRESS_BYTES) -> Pace:
        """The patience with the client of a body that begins now."""
        return Pace(progress_bytes, self._stall_seconds, self._rate, self._grace)
