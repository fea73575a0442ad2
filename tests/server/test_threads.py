"""Calls into the store from the event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from xetstore.errors import UnavailableError
from xetstore.platform.threads import Threads
from xetstore.server.threads import begun_within, in_asking_thread, in_commit_thread, in_thread


class Body:
    """What a call is about: it may have tens of MiB."""


@pytest.mark.parametrize("run", [in_thread, in_asking_thread, in_commit_thread])
def test_what_a_call_was_about_that_fails_is_let_go_of_with_its_error(run: object) -> None:
    """At once, not when the interpreter looks for circles: the memory was given back, and others count on it."""

    def fail(body: Body) -> None:
        raise ValueError(f"about {body}")

    async def play() -> weakref.ref[Body]:
        body = Body()
        alive = weakref.ref(body)
        with pytest.raises(ValueError, match="about"):
            await run(fail, body)  # type: ignore[operator]
        del body
        for _ in range(1000):  # the thread that failed may not have left its call yet
            if alive() is None:
                break
            await asyncio.sleep(0.001)
        return alive

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(play())() is None
    finally:
        gc.enable()


def test_a_call_that_finds_no_thread_in_time_is_given_up_and_never_made() -> None:
    pool = Threads(1, "test")
    begun, release = threading.Event(), threading.Event()
    made: list[str] = []

    def hang() -> str:
        begun.set()
        release.wait(60)
        return "done"

    async def main() -> None:
        hanging = asyncio.create_task(begun_within(0.05, pool, hang))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(UnavailableError):
            await begun_within(0.05, pool, lambda: made.append("late"))
        given_up = asyncio.create_task(begun_within(60, pool, lambda: made.append("cancelled")))
        await asyncio.sleep(0.01)
        given_up.cancel()
        release.set()
        assert await hanging == "done", "one that has begun is waited for"
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await begun_within(60, pool, lambda: "next") == "next"

    asyncio.run(main())
    pool.shutdown()
    assert "late" not in made
