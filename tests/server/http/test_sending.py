"""Sending and calling into threads: streams filled to the last byte and closed, calls that are never abandoned."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import splitmix64
from xetstore.cas.checked_range import LONGEST_CHUNK_BYTES
from xetstore.errors import DamagedError
from xetstore.server.http.ranges import Framing
from xetstore.server.http.sending import FramedStream
from xetstore.server.threads import in_thread

DATA = splitmix64(5, 1000)


class Range:
    """Bytes of DATA that come a few at a time."""

    opened: int = 0

    def __init__(self, start: int, end: int, *, step: int = 7) -> None:
        self._rest, self._step = BytesIO(DATA[start:end]), step
        Range.opened += 1

    def readinto(self, buffer: memoryview) -> int:
        return self._rest.readinto(buffer[: self._step])

    def close(self) -> None:
        if not self._rest.closed:
            self._rest.close()
            Range.opened -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@given(
    st.lists(st.tuples(st.integers(0, 990), st.integers(1, 10)).map(lambda part: (part[0], sum(part))), min_size=1),
    st.integers(1, 300),
)
def test_a_stream_is_the_framing_with_its_ranges(ranges: list[tuple[int, int]], size: int) -> None:
    framing = Framing(ranges, len(DATA), "boundary")
    stream = FramedStream(framing.parts(), Range)
    blocks = []
    while count := stream.readinto(memoryview(block := bytearray(size))):
        blocks.append(bytes(block[:count]))
    stream.close()
    assert b"".join(blocks) == b"".join(
        part if isinstance(part, bytes) else DATA[slice(*part)] for part in framing.parts()
    )
    assert Range.opened == 0


def test_a_block_is_filled_by_many_ranges_up_to_the_room_for_one_chunk() -> None:
    framing = Framing(((1, 9),) * 4000, len(DATA), "boundary")
    stream = FramedStream(framing.parts(), Range)
    blocks = []
    while count := stream.readinto(memoryview(bytearray(200_000))):
        blocks.append(count)
    stream.close()
    assert sum(blocks) == framing.length > 350_000
    assert min(blocks[:-1]) >= 200_000 - LONGEST_CHUNK_BYTES


def test_a_range_that_ends_early_is_damage_and_is_closed() -> None:
    stream = FramedStream(Framing(((0, 10), (990, 1001)), 2000, "b").parts(), Range)
    with pytest.raises(DamagedError):
        while True:
            assert stream.readinto(memoryview(bytearray(5000)))
    stream.close()
    stream.close()
    assert Range.opened == 0


def test_whoever_is_cancelled_waits_for_the_call_that_is_under_way() -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        assert may_end.wait(60)
        ended.set()
        raise ValueError("nobody listens")

    async def scene() -> None:
        waiting = asyncio.create_task(in_thread(call))
        assert await asyncio.to_thread(started.wait, 60)
        for _ in range(2):
            waiting.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended.is_set()

    asyncio.run(scene())


def test_a_call_returns_what_it_returns_and_raises_what_it_raises() -> None:
    async def scene() -> None:
        assert await in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 1, 0)

    asyncio.run(scene())
