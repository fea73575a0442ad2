"""Calls of the asyncio twins: each in a thread of its own, on a view of the store that can be given up alone."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from xetstore.platform import forks
from xetstore.platform.threads import Threads

if TYPE_CHECKING:
    from xetstore.store import Store

_T = TypeVar("_T")
_C = TypeVar("_C", bound=AbstractAsyncContextManager[Any])


class Call:
    """A thread for one call, or for the steps of one; a context manager that lets the thread end."""

    def __init__(self, stop: Callable[[], None] = lambda: None) -> None:
        self._stop = stop
        self._executor = Threads(1, "xetstore-aio")
        self._running: Future[Any] | None = None
        self._generation = forks.generation()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the thread: its result, or what it raises.

        When the task is cancelled, ``work`` is to give up, and is waited for.
        """
        if self._generation != forks.generation():
            raise forks.left_behind()
        running = self._executor.submit(contextvars.copy_context().run, work)
        self._running = running
        done = asyncio.wrap_future(running)
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:  # perhaps more than once: the thread is not left behind
                cancelled = error
                self._stop()
        if cancelled is not None:
            done.exception()
            raise cancelled
        return done.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._generation != forks.generation():
            return  # the thread is the parent's
        if self._running is not None and not self._running.done():
            self._stop()  # the event loop itself was broken off
        self._executor.shutdown()


class Caller:
    """A store whose calls are run in threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def once(self, work: Callable[[Store], _T]) -> _T:
        """One call on a view of the store that can be given up alone."""
        view = self._store.for_one_call()
        with Call(view.interrupt) as call:
            return await call.run(lambda: work(view))

    async def each(self, make: Callable[[Store], Iterator[_T]], at_once: int = 1) -> AsyncGenerator[_T]:
        """Yield from an iterator that is made, asked and closed in one thread."""
        view = self._store.for_one_call()
        with Call(view.interrupt) as call:
            items = await call.run(lambda: make(view))
            try:
                while part := await call.run(lambda: list(islice(items, at_once))):
                    for item in part:
                        yield item
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    await call.run(close)


class Opening(Coroutine[Any, Any, _C], Generic[_C]):
    """Something that is being opened: a coroutine to be awaited, or what ``async with`` takes as it is."""

    def __init__(self, opening: Coroutine[Any, Any, _C]) -> None:
        self._opening = opening
        self._opened: _C | None = None

    def __await__(self) -> Generator[Any, Any, _C]:
        return self._opening.__await__()

    def send(self, value: Any) -> Any:
        """As a coroutine."""
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine."""
        return self._opening.throw(*error)

    def close(self) -> None:
        """As a coroutine."""
        self._opening.close()

    async def __aenter__(self) -> _C:
        self._opened = await self._opening
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._opened is not None
        await self._opened.__aexit__(kind, error, traceback)


async def opened(work: Callable[[], _T], close: Callable[[_T], None]) -> _T:
    """Open by ``work``; the result is closed again where the task was cancelled meanwhile."""
    made: list[_T] = []
    with Call() as call:
        try:
            await call.run(lambda: made.append(work()))
        except asyncio.CancelledError:
            for opened in made:
                close(opened)
            raise
    return made[0]
