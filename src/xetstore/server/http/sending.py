"""Sending bytes of a store: blocks read in threads, to a client that may be slow, or leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.responses import Response

from xetstore.cas.checked_range import LONGEST_CHUNK_BYTES
from xetstore.errors import DamagedError
from xetstore.server.http.direct import BODY_SOCKET, SLOW_ANSWER, BodySender, Source
from xetstore.server.threads import in_thread, settled

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from xetstore.server.http.direct import BodySocket
    from xetstore.server.ops.limits import ServerLimits

BLOCK_BYTES: Final = 512 << 10
"""Bytes that are read at a time. Two such blocks are in memory: one that is read, and one that is sent."""
SLICE_BYTES: Final = 256 << 10
"""Bytes that a client has to take within ``stall_seconds``."""


class ClosableSource(Source, Protocol):
    """A source that holds something open."""

    def close(self) -> None:
        """Let go of it."""


class FramedStream:
    """The body of an answer as one source: the bytes of ``parts``, and its ranges as ``open_range`` gives them.

    A range is a tuple that ends in its start and its end, and all of it is given to ``open_range``. What that raises
    comes out of :meth:`readinto`; so does DamagedError if a range ends early. With ``head_first`` bytes before a range
    are given without waiting for it.
    """

    def __init__(
        self,
        parts: Iterator[bytes | tuple[Any, ...]],
        open_range: Callable[..., ClosableSource],
        *,
        head_first: bool = False,
    ) -> None:
        self._parts = parts
        self._open_range = open_range
        self._head_first = head_first
        self._range: ClosableSource | None = None
        self._text = memoryview(b"")
        self._left = 0  # bytes of the range that is open

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, but for less than the longest chunk; return how many bytes that is, 0 only at the end."""
        filled = 0
        # Behind the first bytes no less room is worth it, because a range may give whole chunks only.
        while len(buffer) - filled > (LONGEST_CHUNK_BYTES if filled else 0) and self._has_more():
            free = buffer[filled:]
            if self._range is None:
                count = min(len(free), len(self._text))
                free[:count] = self._text[:count]
                self._text = self._text[count:]
                if self._head_first and not self._text:
                    return filled + count
            else:
                count = self._range.readinto(free[: self._left])
                if count == 0:
                    raise DamagedError(f"a stored object is {self._left} bytes shorter than it was")
                self._left -= count
            filled += count
        return filled

    def close(self) -> None:
        """Close the range that is open."""
        if self._range is not None:
            self._range.close()
            self._range = None

    def _has_more(self) -> bool:
        if self._left or self._text:
            return True
        self.close()
        part = next(self._parts, None)
        if isinstance(part, bytes):
            self._text = memoryview(part)
        elif part is not None:
            self._range = self._open_range(*part)
            self._left = part[-1] - part[-2]
        return part is not None


class SentStream(Response):
    """An answer that sends ``stream``, whose length its headers say. The stream is closed in every case.

    The first block is read before anything is sent: until then errors are answers. After that the answer breaks off.
    ``on_sent`` is told how many bytes were handed over. A client that does not keep the pace of ``limits`` is cut off:
    one that takes less than SLICE_BYTES within ``stall_seconds``, say. Of the budget for reading ``holders`` have
    ``amount`` meanwhile, by default what the blocks take. With ``begins_here`` the first block is in memory already.
    """

    def __init__(
        self,
        stream: ClosableSource,
        *,
        status_code: int,
        headers: Mapping[str, str],
        limits: ServerLimits,
        holders: Sequence[str] = (),
        amount: int | None = None,
        on_sent: Callable[[int], None] = lambda _: None,
        begins_here: bool = False,
    ) -> None:
        super().__init__(status_code=status_code, headers=headers)
        self._begins_here = begins_here
        self._stream = stream
        self._length = int(headers["Content-Length"])
        self._limits, self._holders, self._amount = limits, holders, amount
        self._pace = limits.pace(SLICE_BYTES)
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as ASGI has it; past the event loop's buffers where the connection can do that."""
        leaving = asyncio.ensure_future(until_gone(receive))
        socket = scope.get(BODY_SOCKET)
        amount = self._amount
        if amount is None:
            amount = min(self._length, BLOCK_BYTES if socket is not None else 2 * BLOCK_BYTES)
        try:
            async with self._limits.reading.reserve(amount, self._holders):
                if socket is None:
                    await self._send_blocks(send, leaving)
                else:
                    await self._send_directly(socket, send, leaving)
        finally:
            leaving.cancel()
            self._stream.close()

    async def _send_directly(self, socket: BodySocket, send: Send, leaving: asyncio.Future[None]) -> None:
        """A thread reads a block and sends it, and the next one, as long as the socket takes them."""
        sent = 0

        def told(nbytes: int) -> None:
            nonlocal sent
            sent += nbytes
            socket.sent(nbytes)
            self._on_sent(nbytes)

        with BodySender(self._stream, self._length, block_bytes=BLOCK_BYTES, pace=self._pace) as body:
            if self._begins_here:
                body.fill()
            else:
                await in_thread(body.fill)
            await send(self._start())
            descriptor = socket.open()
            if descriptor is None:
                await self._send_blocks(send, leaving, bytes(body.rest))
                return
            try:
                await body.send(descriptor, leaving, told, begins_here=self._begins_here)
            finally:
                os.close(descriptor)
                # Not before: the connection may close with the last message.
                await send({"type": "http.response.body", "sent_bytes": sent, "more_body": sent < self._length})

    async def _send_blocks(self, send: Send, leaving: asyncio.Future[None], first: bytes = b"") -> None:
        """One block is sent while the next one is read. With a ``first`` one, which was read, the head was sent too."""
        sent = 0
        pace, loop = self._pace, asyncio.get_running_loop()
        reading: asyncio.Task[memoryview] | None = asyncio.create_task(self._read(self._length, first))
        try:
            while reading is not None and not leaving.done():
                block = await asyncio.shield(reading)
                left = self._length - sent - len(block)
                reading = asyncio.create_task(self._read(left)) if left else None
                if not sent and not first:
                    await send(self._start())
                for at in range(0, len(block), SLICE_BYTES):
                    part = block[at : at + SLICE_BYTES]
                    sent += len(part)
                    since = loop.time()
                    try:
                        async with asyncio.timeout(pace.patience):
                            await send({"type": "http.response.body", "body": part, "more_body": sent < self._length})
                    except TimeoutError:
                        pace.waited(loop.time() - since)
                        raise pace.too_slow(SLOW_ANSWER) from None
                    pace.waited(loop.time() - since)
                    pace.moved(len(part))
                self._on_sent(len(block))
        finally:
            if reading is not None:
                await settled(reading)

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _read(self, left: int, first: bytes = b"") -> memoryview:
        """The next block, of ``left`` bytes that are still to come; the ``first`` one, if it is there already."""
        if first:
            return memoryview(first)
        # A new one for each block: the transport may still have a view of what it could not send at once.
        buffer = memoryview(bytearray(min(left, BLOCK_BYTES)))
        return buffer[: await in_thread(self._stream.readinto, buffer)]


async def until_gone(receive: Receive) -> None:
    """Returns when the client has left. For a request whose body was received."""
    while (await receive())["type"] != "http.disconnect":
        pass
