"""Direct sending: the body of a long answer, read and sent by one thread at a time, past the event loop's buffers.

The event loop's own way costs a new buffer for each block, a copy of what the socket does not take at once, and a
change of threads for each block. Here a thread reads a block and sends it, and the next one, as long as the socket
takes it; the rest stays in the block's buffer, which is used again. While the socket takes nothing no thread waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, Self

from xetstore.server.http.blocks import blocks
from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from xetstore.server.ops.limits import Pace

BODY_SOCKET: Final = "xetstore.body_socket"
"""Under this key an ASGI scope has a BodySocket, where the connection can have one."""
TURN_BYTES: Final = 8 << 20
"""Bytes after which a thread is given back, because others may wait for one."""
LOST_SECONDS: Final = 1.0
"""The event loop, which watches the same socket, hears within this time that the connection is lost."""
SLOW_ANSWER: Final = "the client took the answer"
"""The start of an error for a slow client."""


class Source(Protocol):
    """A source of the bytes of a body."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as that goes at once; return how many bytes that is, 0 only at the end."""


class BodySocket:
    """The socket of a connection, for the body of the answer that is being given."""

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle

    def open(self) -> int | None:
        """A descriptor of the socket, the caller's to close; None if there is something unsent, or the client has left.

        It is one of its own: closed by the event loop, that of the transport could be another connection's by now.
        """
        if self._cycle.disconnected or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return None
        return os.dup(self._transport.get_extra_info("socket").fileno())

    def sent(self, nbytes: int) -> None:
        """Count bytes of the body that were sent by it."""
        self._cycle.expected_content_length -= nbytes


class _LostError(Exception):
    """The connection is."""


class BodySender:
    """Sends a body of ``length`` bytes, a block at a time, to a client that has to keep ``pace``. A context manager."""

    def __init__(self, source: Source, length: int, *, block_bytes: int, pace: Pace) -> None:
        self._source = source
        self._unread = length
        self._block = blocks.take(block_bytes)
        self.rest = self._block[:0]
        """Bytes that were read, and are not sent yet."""
        self._pace = pace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.rest.release()
        blocks.give_back(self._block)

    def fill(self) -> None:
        """Read the next block; raises what the source does. In a thread."""
        block = self._block[: self._unread]
        self.rest = block[: self._source.readinto(block)]
        self._unread -= len(self.rest)

    async def send(
        self, descriptor: int, gone: asyncio.Future[None], told: Callable[[int], None], *, begins_here: bool = False
    ) -> None:
        """Send all of it, or what can be sent until ``gone`` is done; ``told`` hears how much, from time to time.

        With ``begins_here`` the block that was read goes out at once, before a thread is asked for the next. Raises
        TimedOutError where the client takes next to nothing, and what the source does.
        """
        loop = asyncio.get_running_loop()
        pace = self._pace
        while (self._unread or self.rest) and not gone.done():
            try:
                count = self._write(descriptor) if begins_here else await in_thread(self._turn, descriptor)
            except _LostError:
                await asyncio.wait((gone,), timeout=LOST_SECONDS)
                return
            begins_here = False
            told(count)
            pace.moved(count)
            if self.rest:
                since = loop.time()
                if pace.patience <= 0 or not await _writable(loop, descriptor, gone, pace.patience):
                    pace.waited(loop.time() - since)
                    raise pace.too_slow(SLOW_ANSWER)
                pace.waited(loop.time() - since)

    def _turn(self, descriptor: int) -> int:
        """Send until the socket takes no more; in a thread."""
        sent = 0
        while sent < TURN_BYTES and (self.rest or self._unread):
            if not self.rest:
                self.fill()
            count = self._write(descriptor)
            if not count:
                break
            sent += count
        return sent

    def _write(self, descriptor: int) -> int:
        """Send of the block that was read as much as the socket takes."""
        try:
            count = os.write(descriptor, self.rest)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _LostError from error
        self.rest = self.rest[count:]
        return count


async def _writable(
    loop: asyncio.AbstractEventLoop, descriptor: int, gone: asyncio.Future[None], seconds: float
) -> bool:
    """Wait until the socket takes bytes, or the client is gone; False if neither happens in time."""
    is_writable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not is_writable.done():
            is_writable.set_result(None)

    loop.add_writer(descriptor, tell)
    try:
        done, _ = await asyncio.wait((is_writable, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_writer(descriptor)
    return bool(done)
