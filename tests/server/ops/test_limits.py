"""Limits: token buckets, the pace of bodies, and bodies that are too long, too slow, or cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from xetstore.errors import TimedOutError, TooLargeError, TooManyRequestsError, UsageError
from xetstore.server.http.bodies import DISCARD_BYTES, ClientGoneError, blocks_of, discard, read_body
from xetstore.server.ops.limits import Pace, ServerLimits, TokenBuckets
from xetstore.server.ops.shared import Shared
from xetstore.server.settings import ServerSettings
from xetstore.testing.clock import FakeClock

# Token buckets


def test_a_burst_is_admitted_and_then_one_request_for_each_interval() -> None:
    clock = FakeClock(0)
    buckets = TokenBuckets(2, burst_seconds=5, clock=clock)
    for _ in range(10):
        buckets.admit("a")
    with pytest.raises(TooManyRequestsError) as refused:
        buckets.admit("a")
    assert refused.value.retry_after == pytest.approx(0.5)
    clock.advance(0.5)
    buckets.admit("a")
    with pytest.raises(TooManyRequestsError):
        buckets.admit("a")


def test_one_key_does_not_use_up_the_rate_of_another() -> None:
    buckets = TokenBuckets(1, burst_seconds=1, clock=FakeClock())
    buckets.admit("a")
    with pytest.raises(TooManyRequestsError):
        buckets.admit("a")
    buckets.admit("b")


def test_refused_requests_do_not_make_the_wait_longer() -> None:
    clock = FakeClock(0)
    buckets = TokenBuckets(1, burst_seconds=1, clock=clock)
    buckets.admit("a")
    for _ in range(100):
        with pytest.raises(TooManyRequestsError):
            buckets.admit("a")
    clock.advance(1)
    buckets.admit("a")


def test_a_rate_of_0_is_no_limit() -> None:
    buckets = TokenBuckets(0, burst_seconds=1, clock=FakeClock())
    for _ in range(10_000):
        buckets.admit("a")


def test_a_rate_without_burst_still_admits_one_request_at_a_time() -> None:
    clock = FakeClock(0)
    buckets = TokenBuckets(0.1, burst_seconds=0, clock=clock)
    buckets.admit("a")
    clock.advance(9)
    with pytest.raises(TooManyRequestsError):
        buckets.admit("a")
    clock.advance(1)
    buckets.admit("a")


def test_no_key_is_forgotten_or_waits_for_others_however_many_there_are() -> None:
    buckets = TokenBuckets(1, burst_seconds=2, clock=FakeClock())
    for key in range(100):
        for _ in range(2):
            buckets.admit(f"192.0.2.{key}")
    for key in range(100):
        assert not buckets.has_room(f"192.0.2.{key}")
        with pytest.raises(TooManyRequestsError):
            buckets.admit(f"192.0.2.{key}")


def test_a_key_that_shares_one_slot_with_another_has_its_own_rate_all_the_same() -> None:
    shared = Shared.alone()
    buckets = TokenBuckets(1, burst_seconds=1, clock=FakeClock(), shared=shared)
    buckets.admit("a")
    first, _, _ = shared.places("a")
    other = next(key for key in map(str, range(1 << 20)) if shared.places(key)[0] == first)
    buckets.admit(other)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 5))
def test_no_more_is_admitted_than_the_burst_and_the_rate_allow(gaps: list[float], rate: int, burst: int) -> None:
    clock = FakeClock(0)
    buckets = TokenBuckets(rate, burst_seconds=burst, clock=clock)
    admitted = 0
    for gap in gaps:
        clock.advance(gap)
        for _ in range(10):
            try:
                buckets.admit("a")
            except TooManyRequestsError:
                break
            admitted += 1
        assert admitted <= rate * (burst + clock()) + 1e-6


# The pace of a client


def test_a_client_that_is_waited_for_too_long_without_progress_has_used_up_its_patience() -> None:
    pace = Pace(1000, stall_seconds=10, rate=0, grace_seconds=0)
    pace.moved(999)
    pace.waited(9)
    assert pace.patience == 1
    pace.moved(1)
    assert pace.patience == 10
    pace.waited(10)
    assert pace.patience == 0
    assert "1000 bytes within 10 seconds" in str(pace.too_slow("it came"))


def test_a_client_that_keeps_moving_but_too_slowly_on_average_has_used_it_up_too() -> None:
    pace = Pace(1000, stall_seconds=10, rate=500, grace_seconds=60)
    for _ in range(10):
        pace.waited(9)
        pace.moved(1000)  # 111 bytes a second: 7 seconds of its patience are gone each time
    assert pace.patience <= 0
    assert "500 bytes a second" in str(pace.too_slow("it came"))


@pytest.mark.parametrize("bodies_at_once", [1, 4])
def test_an_honest_client_on_a_bad_line_gets_a_whole_xorb_through(bodies_at_once: int) -> None:
    """50 KiB a second, of four bodies at once too: none of them is cut off."""
    pace = ServerLimits(ServerSettings()).pace()
    rate = (50 << 10) / bodies_at_once
    sent = 0
    while sent < 64 << 20:
        pace.waited(1400 / rate)
        assert pace.patience > 0
        pace.moved(1400)
        sent += 1400


def test_a_client_that_trickles_is_cut_off_long_before_its_xorb_is_there() -> None:
    """64 KiB in every 30 seconds were enough for eight hours."""
    pace = ServerLimits(ServerSettings()).pace()
    seconds = 0.0
    while pace.patience > 0:
        pace.waited(29)
        pace.moved(64 << 10)
        seconds += 29
    assert seconds < 100


# Bodies


def body_of(parts: Iterable[bytes], then: str = "end") -> Callable[[], Awaitable[Message]]:
    """What a server would receive: these parts, and then the end, silence, or the client closing."""
    left = list(parts)

    async def receive() -> Message:
        if left:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left) or then != "end"}
        if then == "gone":
            return {"type": "http.disconnect"}
        if then == "silence":
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


def request_of(receive: Callable[[], Awaitable[Message]], **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def read(request: Request, max_bytes: int, **settings: float) -> bytearray:
    async def play() -> bytearray:
        return await read_body(request, ServerLimits(ServerSettings(**settings)), max_bytes)  # type: ignore[arg-type]

    return asyncio.run(play())


def test_a_body_is_read_whole() -> None:
    assert read(request_of(body_of([b"ab", b"", b"cd"])), 4) == b"abcd"
    assert read(request_of(body_of([b""])), 0) == b""


def test_a_body_that_is_declared_too_long_is_refused_before_any_of_it_is_read() -> None:
    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    with pytest.raises(TooLargeError):
        read(request_of(receive, content_length="5"), 4)


def test_a_body_of_undeclared_length_is_refused_as_soon_as_it_is_too_long() -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"abc", "more_body": True}

    with pytest.raises(TooLargeError):
        read(request_of(receive), 4)
    assert received == 2


@pytest.mark.parametrize("length", ["", "x", "-1", "1_0", "٣", "9" * 30])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    request = request_of(body_of([b"a"]))
    request.scope["headers"] = [(b"content-length", length.encode("utf-8"))]
    with pytest.raises(UsageError):
        read(request, 1 << 20)


def test_a_sender_that_stalls_is_cut_off() -> None:
    with pytest.raises(TimedOutError):
        read(request_of(body_of([b"a"], then="silence")), 4, stall_seconds=0.01)


def test_a_sender_of_a_few_bytes_now_and_then_is_cut_off() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"a", "more_body": True}

    with pytest.raises(TimedOutError):
        read(request_of(receive), 1 << 20, stall_seconds=0.05)


def test_a_sender_that_keeps_sending_is_not_cut_off() -> None:
    left = 60

    async def receive() -> Message:
        nonlocal left
        await asyncio.sleep(0.01)
        left -= 1
        return {"type": "http.request", "body": bytes(64 << 10), "more_body": left > 0}

    assert len(read(request_of(receive), 4 << 20, stall_seconds=0.5)) == 60 * (64 << 10)


def test_a_client_that_leaves_in_the_middle_is_no_error_of_ours() -> None:
    with pytest.raises(ClientGoneError):
        read(request_of(body_of([b"a"], then="gone")), 4)


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 60))
def test_blocks_are_the_body_in_order_and_none_but_the_last_is_small(parts: list[bytes], block_bytes: int) -> None:
    async def play() -> list[list[bytes]]:
        blocks = blocks_of(request_of(body_of(parts)), ServerLimits(ServerSettings()), 10_000, block_bytes)
        return [block async for block in blocks]

    blocks = asyncio.run(play())
    assert b"".join(part for block in blocks for part in block) == b"".join(parts)
    assert all(sum(map(len, block)) >= block_bytes for block in blocks[:-1])
    assert all(part for block in blocks for part in block)


# What nobody wants any more


def discarded(receive: Callable[[], Awaitable[Message]]) -> bool:
    return asyncio.run(discard(receive))


def test_the_rest_of_a_body_is_discarded_to_its_end() -> None:
    assert discarded(body_of([bytes(1 << 20)] * 60))


def test_discarding_ends_when_the_client_leaves() -> None:
    assert not discarded(body_of([b"a"], then="gone"))


def test_discarding_ends_somewhere() -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1 << 20
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": True}

    assert not discarded(receive)
    assert DISCARD_BYTES <= received <= DISCARD_BYTES + (1 << 20)


def test_a_body_that_comes_too_slowly_on_average_is_cut_off() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": bytes(64 << 10), "more_body": True}

    with pytest.raises(TimedOutError, match="on average"):
        read(request_of(receive), 1 << 30, min_rate_bytes=1 << 30, rate_grace_seconds=0.05)
