"""Calls into the store, which block, from the event loop, which must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from xetstore.errors import UnavailableError
from xetstore.platform.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS: Final = 40
"""Calls into the store at once. They have threads of their own, so that however many wait, a health check need not."""

MAX_COMMIT_THREADS: Final = 2000
"""As many as there are places, which the limits of a server give: ``commits`` and ``shards``."""


MAX_SEARCHES: Final = 2
"""Calls at once that look at every row of a table, or at many objects."""

ASK_SECONDS: Final = 20.0
"""The longest wait for one of the threads that ask the index, as ``queue_seconds`` is for other shares."""

_CALLS: Final = Threads(MAX_THREADS, "xetstore")
_ASKS: Final = Threads(MAX_THREADS, "xetstore-ask")
_SEARCHES: Final = Threads(MAX_SEARCHES, "xetstore-search")
_COMMITS: Final = Threads(MAX_COMMIT_THREADS, "xetstore-commit")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a call made in a thread. A task that is cancelled while it waits goes on until the call is over.

    So what a call works with is not in use any more when its caller cleans up, even when the server stops.
    """
    return await _run(_CALLS, partial(call, *args, **kwargs))


async def in_asking_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for the first call of a request, which asks the index: where that hangs, bytes under way go on.

    Raises UnavailableError where no thread was free for 20 s; the call is not made then.
    """
    return await begun_within(ASK_SECONDS, _ASKS, partial(call, *args, **kwargs))


async def in_search_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for a call that looks at all rows, or at many objects: whatever these are, others find a thread."""
    return await begun_within(ASK_SECONDS, _SEARCHES, partial(call, *args, **kwargs))


async def begun_within(seconds: float, pool: Threads, call: Callable[[], T]) -> T:
    """The result of a call in a pool. UnavailableError where no thread of it was free in time."""
    future = pool.submit(call)
    running = asyncio.wrap_future(future)
    timer = asyncio.get_running_loop().call_later(seconds, future.cancel)  # which does nothing once it has begun
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await settled(running)
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise UnavailableError("the store does not get done with its calls", hint="try again later") from None
        raise
    finally:
        timer.cancel()
        del running, future, timer  # as below


async def in_commit_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for calls that write to the index, of which one at a time goes on: those that wait keep no reader
    from a thread.
    """
    return await _run(_COMMITS, partial(call, *args, **kwargs))


async def _run(pool: Threads, call: Callable[[], T]) -> T:
    running = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await settled(running)
        raise
    finally:
        del running  # or an error has it, by its traceback, and it the error: what the call was about would stay


async def settled(running: asyncio.Future[Any]) -> None:
    """Wait until a call is over, whatever comes of it, even when the task is cancelled."""
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    if not running.cancelled():
        running.exception()  # or asyncio complains that it was never retrieved
