"""Limits for one client, and for all of them together: requests per second, bytes in memory, time for a body."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Final

from xetstore.errors import TimedOutError, TooLargeError, TooManyRequestsError, UsageError
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.server.budgets import Budget

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive

    from xetstore.server.settings import ServerSettings

MAX_KEYS: Final = 1 << 16
"""Most clients a TokenBuckets remembers."""
PROGRESS_BYTES: Final = 64 << 10
"""A sender slower than this in every ``stall_seconds`` is cut off."""
DISCARD_BYTES: Final = XET_GEARHASH_BLAKE3.max_xorb_body_bytes + (1 << 20)
"""Most that is read of an unwanted body: any valid one, since some clients read no answer before they sent it."""
DISCARD_SECONDS: Final = 30.0
DISCARD_IDLE_SECONDS: Final = 5.0
SLOW_BODY: Final = "the body came"
"""The start of an error for a slow sender."""


class ClientGoneError(Exception):
    """The client closed the connection in the middle of its body. It cannot be answered; nothing is wrong here."""


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


class Limits:
    """The limits of one server, by its settings; bodies read within them.

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

    async def read_body(self, request: Request, max_bytes: int) -> bytearray:
        """The whole body. Errors as in :meth:`blocks`."""
        body = bytearray()
        async for parts in self.blocks(request, max_bytes):
            for part in parts:
                body += part
        return body

    async def blocks(
        self, request: Request, max_bytes: int, block_bytes: int = 2 << 20, pace: Pace | None = None
    ) -> AsyncGenerator[list[bytes]]:
        """The body as it comes in: lists of received parts that make up ``block_bytes``, or a little more, together.

        Raises TooLargeError if it is longer than ``max_bytes``: before anything is read where its length is declared;
        TimedOutError if it does not keep ``pace``; ClientGoneError if the client closes.
        """
        pace = pace or self.pace()
        if (declared_bytes(request) or 0) > max_bytes:
            raise _too_large(max_bytes)
        received, more = 0, True
        while more:
            parts, more = await _gather(request.receive, min(block_bytes, max_bytes - received + 1), pace)
            received += sum(map(len, parts))
            if received > max_bytes:
                raise _too_large(max_bytes)
            if parts:
                yield parts

    async def discard(self, receive: Receive) -> bool:
        """Read on, and forget, what a client still sends after it was answered. True if that was the end of it.

        A connection closed on unread bytes is reset, and an answer that was sent before may never be seen. So this
        goes on for as long as a valid body may be, with an end to patience.
        """
        left = DISCARD_BYTES
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DISCARD_SECONDS
        try:
            async with asyncio.timeout(DISCARD_IDLE_SECONDS) as timer:
                while left > 0:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    if not message.get("more_body", False):
                        return True
                    left -= len(message.get("body", b""))
                    timer.reschedule(min(loop.time() + DISCARD_IDLE_SECONDS, deadline))
        except TimeoutError:
            pass
        return False


async def _gather(receive: Receive, enough: int, pace: Pace) -> tuple[list[bytes], bool]:
    """The next parts, ``enough`` bytes of them or all that are left; and whether there may be more."""
    parts: list[bytes] = []
    gathered, more = 0, True
    loop = asyncio.get_running_loop()
    since = loop.time()
    try:
        async with asyncio.timeout(pace.patience) as timer:
            while more and gathered < enough:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGoneError
                more = message.get("more_body", False)
                now = loop.time()
                pace.waited(now - since)
                since = now
                part = message.get("body", b"")
                if part:
                    parts.append(part)
                    gathered += len(part)
                    pace.moved(len(part))
                timer.reschedule(now + pace.patience)
    except TimeoutError:
        pace.waited(loop.time() - since)
        raise pace.too_slow(SLOW_BODY) from None
    return parts, more


def declared_bytes(request: Request) -> int | None:
    """The length of the body that the client announced; None if it did not."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError("the Content-Length is not a number")
    return int(text)


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is longer than {max_bytes} bytes, the most that is valid here")
