"""Sending past the event loop: every byte, in order, to fast and slow clients; none to those that take nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.strategies import splitmix64
from xetstore.errors import DamagedError, TimedOutError
from xetstore.server.http.direct import TURN_BYTES, BodySender
from xetstore.server.ops.limits import Pace

BLOCK = 64 << 10
DATA = splitmix64(5, TURN_BYTES + 3 * BLOCK + 7)


class Source:
    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._left:
            raise DamagedError("it ends early")
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def sender(source: Source, length: int, stall_seconds: float = 60) -> BodySender:
    return BodySender(source, length, block_bytes=BLOCK, pace=Pace(1 << 10, stall_seconds, 0, 0))


def run(work: Callable[[socket.socket, socket.socket, asyncio.Future[None]], Awaitable[Any]]) -> None:
    """With both ends of a connection, and a future for a client that is gone."""

    async def bounded() -> None:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            async with asyncio.timeout(60):
                await work(here, there, asyncio.get_running_loop().create_future())

    asyncio.run(bounded())


def receive(there: socket.socket, nbytes: int, at_a_time: int) -> bytes:
    got = bytearray()
    while len(got) < nbytes and (part := there.recv(at_a_time)):
        got += part
    return bytes(got)


@pytest.mark.parametrize("at_a_time", [1 << 20, 10_007])
def test_every_byte_arrives_in_order(at_a_time: int) -> None:
    async def work(here: socket.socket, there: socket.socket, gone: asyncio.Future[None]) -> None:
        told: list[int] = []
        receiving = asyncio.create_task(asyncio.to_thread(receive, there, len(DATA), at_a_time))
        with sender(Source(DATA), len(DATA)) as body:
            await asyncio.to_thread(body.fill)
            await body.send(here.fileno(), gone, told.append)
        assert await receiving == DATA
        assert sum(told) == len(DATA)

    run(work)


def test_two_at_a_time_do_not_mix() -> None:
    others = splitmix64(6, len(DATA))

    async def work(here: socket.socket, there: socket.socket, gone: asyncio.Future[None]) -> None:
        async def one(data: bytes) -> None:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                receiving = asyncio.create_task(asyncio.to_thread(receive, theirs, len(data), 30_011))
                with sender(Source(data), len(data)) as body:
                    await body.send(ours.fileno(), gone, lambda _: None)
                assert await receiving == data

        for _ in range(2):  # the second time with the buffers of the first
            await asyncio.gather(one(DATA), one(others))

    run(work)


def test_who_takes_nothing_is_given_up() -> None:
    async def work(here: socket.socket, _: socket.socket, gone: asyncio.Future[None]) -> None:
        with sender(Source(DATA), len(DATA), stall_seconds=0.05) as body, pytest.raises(TimedOutError, match="within"):
            await body.send(here.fileno(), gone, lambda _: None)

    run(work)


def test_who_has_closed_is_no_error() -> None:
    async def work(here: socket.socket, there: socket.socket, gone: asyncio.Future[None]) -> None:
        there.close()
        with sender(Source(DATA), len(DATA)) as body:
            await body.send(here.fileno(), gone, lambda _: None)

    run(work)


def test_who_is_gone_is_not_waited_for() -> None:
    async def work(here: socket.socket, _: socket.socket, gone: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_later(0.05, gone.set_result, None)
        with sender(Source(DATA), len(DATA)) as body:
            await body.send(here.fileno(), gone, lambda _: None)

    run(work)


def test_what_the_source_raises_comes_out() -> None:
    async def work(here: socket.socket, there: socket.socket, gone: asyncio.Future[None]) -> None:
        draining = threading.Thread(target=receive, args=(there, len(DATA), 1 << 20))
        draining.start()
        with sender(Source(DATA[:BLOCK]), len(DATA)) as body, pytest.raises(DamagedError):
            await body.send(here.fileno(), gone, lambda _: None)
        here.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(draining.join)

    run(work)
