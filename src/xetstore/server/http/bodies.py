"""Bodies of requests, as ASGI brings them: within a length and a pace. Unwanted ones are read to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from xetstore.errors import TooLargeError, UsageError
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive

    from xetstore.server.ops.limits import Pace, ServerLimits

DISCARD_BYTES: Final = XET_GEARHASH_BLAKE3.max_xorb_body_bytes + (1 << 20)
"""Most that is read of an unwanted body: any valid one, since some clients read no answer before they sent it."""
DISCARD_SECONDS: Final = 30.0
DISCARD_IDLE_SECONDS: Final = 5.0
SLOW_BODY: Final = "the body came"
"""The start of an error for a slow sender."""


class ClientGoneError(Exception):
    """The client closed the connection in the middle of its body. It cannot be answered; nothing is wrong here."""


async def read_body(request: Request, limits: ServerLimits, max_bytes: int) -> bytearray:
    """The whole body. Errors as in :func:`blocks_of`."""
    body = bytearray()
    async for parts in blocks_of(request, limits, max_bytes):
        for part in parts:
            body += part
    return body


async def blocks_of(
    request: Request, limits: ServerLimits, max_bytes: int, block_bytes: int = 2 << 20, pace: Pace | None = None
) -> AsyncGenerator[list[bytes]]:
    """The body as it comes in: lists of received parts that make up ``block_bytes``, or a little more, together.

    Raises TooLargeError if it is longer than ``max_bytes``: before anything is read where its length is declared;
    TimedOutError if it does not keep ``pace``; ClientGoneError if the client closes.
    """
    pace = pace or limits.pace()
    if (declared_bytes(request) or 0) > max_bytes:
        raise too_large(max_bytes)
    received, more = 0, True
    while more:
        parts, more = await _gather(request.receive, min(block_bytes, max_bytes - received + 1), pace)
        received += sum(map(len, parts))
        if received > max_bytes:
            raise too_large(max_bytes)
        if parts:
            yield parts


async def discard(receive: Receive) -> bool:
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


def too_large(max_bytes: int) -> TooLargeError:
    """The error for a body that is longer than that."""
    return TooLargeError(f"the body is longer than {max_bytes} bytes, the most that is valid here")
