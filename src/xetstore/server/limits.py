"""What one client, and all of them together, may take: requests per second, bytes in flight, time to send a body."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from xetstore.errors import TimedOutError, TooLargeError, TooManyRequestsError, UnavailableError, UsageError
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive

    from xetstore.server.settings import ServerSettings

MAX_KEYS: Final = 1 << 16
"""Most clients a TokenBuckets remembers."""
PROGRESS_BYTES: Final = 64 << 10
"""A sender slower than this in every ``stall_seconds`` is cut off."""
DISCARD_BYTES: Final = XET_GEARHASH_BLAKE3.max_xorb_body_bytes + (1 << 20)
"""Most that is read of a body nobody wants: any valid one, since some clients read no answer before they sent it."""
DISCARD_SECONDS: Final = 30.0
DISCARD_IDLE_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 5.0
"""What a client is told to wait when all of the budget stayed in use."""


class ClientGoneError(Exception):
    """The client closed the connection in the middle of its body. Nobody is left to answer; nothing is wrong here."""


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


class ByteBudget:
    """Bytes that may be in memory at once, handed out in the order in which they were asked for. One event loop's."""

    def __init__(self, total_bytes: int, queue_seconds: float) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self._queue_seconds = queue_seconds
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many reservations are queued."""
        return len(self._queue)

    @asynccontextmanager
    async def reserve(self, n_bytes: int) -> AsyncIterator[None]:
        """Hold ``n_bytes``, or all of the budget if they are more than it, while the context is open.

        Raises UnavailableError if they do not become free within ``queue_seconds``.
        """
        share = min(max(n_bytes, 0), self.total_bytes)
        if self._queue or self.used_bytes + share > self.total_bytes:
            await self._wait_for(share)
        else:
            self.used_bytes += share
        try:
            yield
        finally:
            self._give_back(share)

    async def _wait_for(self, share: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (share, granted)
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._queue_seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                # It came in the very moment in which we gave up.
                self._give_back(share)
            elif place in self._queue:
                self._queue.remove(place)
                self._grant()
            if isinstance(error, TimeoutError):
                busy = UnavailableError("the server is busy with other transfers", hint="try again in a moment")
                busy.retry_after = RETRY_SECONDS
                raise busy from None
            raise

    def _give_back(self, share: int) -> None:
        self.used_bytes -= share
        self._grant()

    def _grant(self) -> None:
        while self._queue and self.used_bytes + self._queue[0][0] <= self.total_bytes:
            share, granted = self._queue.popleft()
            if not granted.done():
                self.used_bytes += share
                granted.set_result(None)


class Limits:
    """The limits of one server, by its settings: ``budget``, ``tokens``, ``addresses``, ``stall_seconds``; bodies
    read within them.
    """

    def __init__(self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        burst = settings.burst_seconds
        self.budget = ByteBudget(settings.max_bytes_in_flight, settings.queue_seconds)
        self.tokens = TokenBuckets(settings.rate_per_token, burst, clock=clock)
        self.addresses = TokenBuckets(settings.rate_per_address, burst, clock=clock)
        self.stall_seconds = settings.stall_seconds

    async def read_body(self, request: Request, max_bytes: int) -> bytearray:
        """The whole body. Errors as in :meth:`blocks`."""
        body = bytearray()
        async for parts in self.blocks(request, max_bytes):
            for part in parts:
                body += part
        return body

    async def blocks(self, request: Request, max_bytes: int, block_bytes: int = 2 << 20) -> AsyncGenerator[list[bytes]]:
        """The body as it comes in: lists of received parts that make up ``block_bytes``, or a little more, together.

        Raises TooLargeError if it is longer than ``max_bytes``: before anything is read where its length is declared;
        TimedOutError if less than 64 KiB come within ``stall_seconds``; ClientGoneError if the client closes.
        """
        if (declared_bytes(request) or 0) > max_bytes:
            raise _too_large(max_bytes)
        received, more = 0, True
        while more:
            parts, more = await self._gather(request.receive, min(block_bytes, max_bytes - received + 1))
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

    async def _gather(self, receive: Receive, enough: int) -> tuple[list[bytes], bool]:
        """The next parts, ``enough`` bytes of them or all that are left; and whether there may be more."""
        parts: list[bytes] = []
        gathered, progress, more = 0, 0, True
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.stall_seconds) as timer:
                while more and gathered < enough:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientGoneError
                    more = message.get("more_body", False)
                    part = message.get("body", b"")
                    if part:
                        parts.append(part)
                        gathered += len(part)
                        progress += len(part)
                    if progress >= PROGRESS_BYTES:
                        progress = 0
                        timer.reschedule(loop.time() + self.stall_seconds)
        except TimeoutError:
            raise too_slow(self.stall_seconds) from None
        return parts, more


def declared_bytes(request: Request) -> int | None:
    """The length of the body that the client announced; None if it did not."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError("the Content-Length is not a number")
    return int(text)


def too_slow(stall_seconds: float) -> TimedOutError:
    """A body does not come on."""
    return TimedOutError(f"less than {PROGRESS_BYTES} bytes of the body came within {stall_seconds:g} seconds")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is longer than {max_bytes} bytes, the most that is valid here")
