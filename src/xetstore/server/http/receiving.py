"""Receiving a long body: read and taken by one thread at a time, past the HTTP parser and the event loop's buffers.

The event loop's own way costs new memory for each part that is read, another copy of it in the parser, and a change of
threads for each block. Where a body's length is known, and it is not encrypted, a thread reads what the socket has into
a block that is used again, and hands it on, and the next one. While the socket has nothing no thread waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

from xetstore.server.http.blocks import blocks
from xetstore.server.http.bodies import SLOW_BODY, ClientGoneError, blocks_of, declared_bytes
from xetstore.server.ops.limits import Pace, ServerLimits
from xetstore.server.threads import in_thread, settled

if TYPE_CHECKING:
    from starlette.requests import Request
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


BODY_SOURCE: Final = "xetstore.body_source"
"""Under this key an ASGI scope has a BodySource, where the body can be received directly."""
LEAST_BYTES: Final = 1 << 20
"""Shorter bodies are not worth it."""
BLOCK_BYTES: Final = 1 << 20
"""Bytes that are handed on at a time."""
WAKE_BYTES: Final = 256 << 10
"""Less than this is not worth a thread, unless it is all that comes."""
TURN_BYTES: Final = 8 << 20
"""Bytes after which a thread is given back, because others may wait for one."""

DIRECT_BYTES: Final = 2 << 20
"""Memory of a body that is received directly, measured: a block, and the chunks that its taker has open."""
LOOP_BYTES: Final = 8 << 20
"""Memory of one that the event loop receives, measured: a block that is taken, one that comes in, the parser's."""

Take = Callable[..., None]
"""Takes the next bytes of a body, in parts that are valid until it returns; called in a thread."""


class Lender(Protocol):
    """A connection, as far as it matters here."""

    def take_body(self) -> tuple[int, int]:
        """Bytes of the body that are still to come, and a descriptor to receive them by, which is the caller's."""

    def give_body_back(self, left: int, /) -> None:
        """Receive the rest of the body as ever, ``left`` bytes."""


class BodySource:
    """The body of the request that is being answered, as far as it is still to come. One event loop's."""

    def __init__(self, connection: Lender, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self.received_bytes = 0
        """Bytes that were received by :meth:`rest`."""

    async def rest(self, take: Take, pace: Pace) -> None:
        """Hand on all that was not received yet, but for the end.

        Raises what ``take`` does, TimedOutError if it does not keep ``pace``, and ClientGoneError.
        What is left then is received as ever.
        """
        if not self._cycle.more_body:
            return  # all of it was parsed meanwhile, and perhaps the next request, too
        if self._cycle.disconnected:
            raise ClientGoneError
        parsed, self._cycle.body = bytes(self._cycle.body), bytearray()
        left, descriptor = self._connection.take_body()
        with socket.socket(fileno=descriptor) as sock:
            receiver = _Receiver(sock, left, take)
            try:
                self.received_bytes += len(parsed)
                if parsed:
                    await in_thread(take, parsed)
                await receiver.receive(pace)
            finally:
                receiver.close()
                self.received_bytes += left - receiver.left
                self._connection.give_body_back(receiver.left)


class _Receiver:
    def __init__(self, sock: socket.socket, left: int, take: Take) -> None:
        self._sock = sock
        self.left = left
        self._take = take
        self._block = blocks.take(BLOCK_BYTES)
        self._filled = 0

    def close(self) -> None:
        blocks.give_back(self._block)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    async def receive(self, pace: Pace) -> None:
        loop = asyncio.get_running_loop()
        while self.left:
            count = await in_thread(self._turn)
            pace.moved(count)
            if count < TURN_BYTES and self.left:
                if pace.patience <= 0:
                    raise pace.too_slow(SLOW_BODY)
                since = loop.time()
                await self._readable(loop, pace.patience)
                pace.waited(loop.time() - since)

    def _turn(self) -> int:
        """Take what the socket has; in a thread."""
        received = 0
        while self.left and received < TURN_BYTES:
            room = self._block[self._filled :][: self.left]
            try:
                count = self._sock.recv_into(room)
            except BlockingIOError:
                break
            except OSError as error:
                raise ClientGoneError from error
            if not count:
                raise ClientGoneError
            received += count
            self.left -= count
            self._filled += count
            if self._filled == len(self._block) or not self.left:
                filled, self._filled = self._filled, 0
                self._take(self._block[:filled])
        return received

    async def _readable(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Wait until there is something worth a thread, or the client is gone, but no longer than that."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(self.left, WAKE_BYTES))
        is_readable = asyncio.Event()
        loop.add_reader(self._sock, is_readable.set)
        try:
            async with asyncio.timeout(seconds):
                await is_readable.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(self._sock)


def memory_of_body(request: Request) -> int:
    """The memory that :meth:`receive_body` takes at most, however long the body says it is."""
    most = LOOP_BYTES if request.scope.get(BODY_SOURCE) is None else DIRECT_BYTES
    declared = declared_bytes(request)
    return most if declared is None else min(declared, most)


async def receive_body(request: Request, take: Take, limits: ServerLimits, max_bytes: int) -> int:
    """Hand on a body as it comes in, block by block; how long it was. Errors as :func:`blocks_of`."""
    source: BodySource | None = request.scope.get(BODY_SOURCE)
    if source is None:
        return await _by_the_loop(request, take, limits, max_bytes)
    received = 0
    pace = limits.pace()
    async with aclosing(blocks_of(request, limits, max_bytes, block_bytes=1, pace=pace)) as parsed:
        async for parts in parsed:
            received += sum(map(len, parts))
            await in_thread(take, *parts)
            await source.rest(take, pace)
    return received + source.received_bytes


async def _by_the_loop(request: Request, take: Take, limits: ServerLimits, max_bytes: int) -> int:
    """One block is taken while the next one comes in."""
    received = 0
    taking: asyncio.Task[None] | None = None
    try:
        async for parts in blocks_of(request, limits, max_bytes):
            received += sum(map(len, parts))
            if taking is not None:
                await asyncio.shield(taking)
            taking = asyncio.create_task(in_thread(take, *parts))
        if taking is not None:
            await asyncio.shield(taking)
    finally:
        if taking is not None:
            await settled(taking)
    return received
