"""Calls into the store from the event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from xetstore.server.threads import in_commit_thread, in_thread


class Body:
    """What a call is about: it may have tens of MiB."""


@pytest.mark.parametrize("run", [in_thread, in_commit_thread])
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
        await asyncio.sleep(0)
        return alive

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(play())() is None
    finally:
        gc.enable()
