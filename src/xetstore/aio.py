"""The store for asyncio: every verb of Store, run in a thread; a task that is cancelled gives up its own call only.

A canceller waits until the thread has ended, so that nothing is left of the call, no temporary file and no open
socket. Callbacks (progress, errors, events) are called from these threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.errors import XetError
from xetstore.events import Emit, ignore
from xetstore.limits import NO_LIMITS, Limits
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.records import FileRecord, Totals
from xetstore.store import GetReport, Store, open_store
from xetstore.store import open_locator as _open_locator
from xetstore.transfer.estimate.estimation import CELLS, Estimate
from xetstore.transfer.progress import Progress, Stoppable
from xetstore.transfer.scan import FileInfo
from xetstore.transfer.scan import hash_file as _hash_file
from xetstore.transfer.upload.pending import PutReport

if TYPE_CHECKING:
    from xetstore.cas.check import CheckReport
    from xetstore.opening import GivenToken
    from xetstore.transfer.download.forecast import GetForecast

__all__ = ["AsyncFile", "AsyncStore", "hash_file", "open", "open_locator"]

_T = TypeVar("_T")
_LISTED_AT_ONCE: Final = 256


class _Call:
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


class AsyncStore:
    """A :class:`xetstore.Store` for asyncio: the same verbs, arguments and errors. An asynchronous context manager.

    >>> import asyncio, pathlib, tempfile
    >>> from xetstore import aio
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "greeting.txt").write_text("Hello World!")
    >>> async def main() -> bytes:
    ...     async with await aio.open(folder / "store") as store:
    ...         info = await store.put(folder / "greeting.txt")
    ...         async with await store.open(info.hash) as file:
    ...             return await file.read()
    >>> asyncio.run(main())
    b'Hello World!'
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.location = store.location

    async def put(
        self, path: Path | str, *, policy: CompressionPolicy | str = "auto", progress: Progress | None = None
    ) -> FileInfo:
        """Store a file."""
        return await self._once(lambda store: store.put(path, policy=policy, progress=progress))

    async def put_many(
        self,
        paths: Iterable[Path | str],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_report: Callable[[PutReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
    ) -> list[PutReport]:
        """Store files that share xorbs; their reports."""
        return await self._once(
            lambda store: store.put_many(
                paths, policy=policy, progress=progress, on_report=on_report, on_error=on_error, dry_run=dry_run
            )
        )

    def iter_put(
        self,
        paths: Iterable[Path | str],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
    ) -> AsyncGenerator[PutReport]:
        """As :meth:`put_many`; an asynchronous iterator of the reports."""
        return self._each(
            lambda store: store.iter_put(paths, policy=policy, progress=progress, on_error=on_error, dry_run=dry_run)
        )

    async def estimate(
        self,
        paths: Iterable[Path | str],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        cells: int = CELLS,
    ) -> Estimate:
        """Estimate the saving of storing these files."""
        return await self._once(lambda store: store.estimate(paths, progress=progress, on_error=on_error, cells=cells))

    async def get(
        self,
        file: Hash | str,
        out: Path | str,
        *,
        start: int = 0,
        end: int | None = None,
        progress: Progress | None = None,
        base: Path | str | None = None,
        fsync: bool = False,
        keep_partial: bool = False,
        size: int | None = None,
    ) -> GetReport:
        """Write a file, or its bytes ``[start, end)``, to ``out``."""
        return await self._once(
            lambda store: store.get(
                file,
                out,
                start=start,
                end=end,
                progress=progress,
                base=base,
                fsync=fsync,
                keep_partial=keep_partial,
                size=size,
            )
        )

    async def get_many(
        self,
        files: Iterable[tuple[Hash | str, Path | str]],
        *,
        progress: Progress | None = None,
        on_report: Callable[[GetReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> list[GetReport]:
        """Write files to their paths; their reports."""
        return await self._once(
            lambda store: store.get_many(files, progress=progress, on_report=on_report, on_error=on_error, fsync=fsync)
        )

    def iter_get(
        self,
        files: Iterable[tuple[Hash | str, Path | str]],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> AsyncGenerator[GetReport]:
        """As :meth:`get_many`; an asynchronous iterator of the reports."""
        return self._each(lambda store: store.iter_get(files, progress=progress, on_error=on_error, fsync=fsync))

    async def forecast(self, file: Hash | str, start: int = 0, end: int | None = None) -> GetForecast:
        """Forecast the fetches of :meth:`get`."""
        return await self._once(lambda store: store.forecast(file, start, end))

    async def open(self, file: Hash | str) -> AsyncFile:
        """A stored file to read from, at any place of it."""
        name = await self.resolve(file)
        return AsyncFile(self._store, name, (await self.stat(name)).size)

    def iter_range(self, file: Hash | str, start: int = 0, end: int | None = None) -> AsyncGenerator[memoryview]:
        """Bytes ``[start, end)`` of a file in order: an asynchronous iterator of some MiB at a time."""
        return self._each(lambda store: store.iter_range(file, start, end))

    async def stat(self, file: Hash | str) -> FileRecord:
        """The record of a stored file."""
        return await self._once(lambda store: store.stat(file))

    async def resolve(self, file: Hash | str) -> Hash:
        """The hash of a file that is named by it or by a locator."""
        return await self._once(lambda store: store.resolve(file))

    def files(self) -> AsyncGenerator[FileRecord]:
        """Every stored file: an asynchronous iterator."""
        return self._each(lambda store: store.files(), at_once=_LISTED_AT_ONCE)

    async def totals(self) -> Totals:
        """The sums of all that is stored."""
        return await self._once(lambda store: store.totals())

    async def check(
        self, *, read_data: bool = False, checksums: bool = False, progress: Progress | None = None
    ) -> CheckReport:
        """Look for damage."""
        return await self._once(lambda store: store.check(read_data=read_data, checksums=checksums, progress=progress))

    def interrupt(self) -> None:
        """Let what all other tasks are doing here fail soon, with InterruptedCallError. Waits for nothing."""
        self._store.interrupt()

    async def close(self) -> None:
        """Let go of the store; calls under way fail."""
        with _Call() as call:
            await call.run(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _once(self, work: Callable[[Store], _T]) -> _T:
        """One call on a view of the store that can be given up alone."""
        view = self._store.for_one_call()
        with _Call(view.interrupt) as call:
            return await call.run(lambda: work(view))

    async def _each(self, make: Callable[[Store], Iterator[_T]], at_once: int = 1) -> AsyncGenerator[_T]:
        """Yield from an iterator that is made, asked and closed in one thread."""
        view = self._store.for_one_call()
        with _Call(view.interrupt) as call:
            items = await call.run(lambda: make(view))
            try:
                while part := await call.run(lambda: list(islice(items, at_once))):
                    for item in part:
                        yield item
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    await call.run(close)


class AsyncFile:
    """A stored file, read-only: read, seek, tell and close. One call at a time. An asynchronous context manager.

    A read that is cancelled leaves the position where it was; the file can be read on.
    """

    def __init__(self, store: Store, file: Hash, size: int) -> None:
        self._store = store
        self._file = file
        self._position = 0
        self._closed = False
        self._view = store.for_one_call()
        self._reader: io.BufferedReader | None = None
        self.size = size
        self._begin()
        forks.renew(self, AsyncFile._begin)

    def _begin(self) -> None:
        self._lock = asyncio.Lock()

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes from the position on, fewer only at the end; all that is left if it is negative."""
        async with self._lock:
            self._check_open()
            try:
                with _Call(self._view.interrupt) as call:
                    data = await call.run(lambda: self._read(size))
            except BaseException:
                self._renew()
                raise
            self._position += len(data)
            return data

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as file objects do; returns it. Past the end is allowed, and nothing is read there."""
        async with self._lock:
            self._check_open()
            base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
            if base is None or base + offset < 0:
                raise ValueError(f"no position {offset} from {whence}")
            self._position = base + offset
            return self._position

    def tell(self) -> int:
        """The position: the offset of the next byte to be read."""
        return self._position

    async def close(self) -> None:
        """Let go of the file. May be called again."""
        async with self._lock:
            self._closed = True
            self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _read(self, size: int) -> bytes:
        if self._reader is None:
            self._reader = self._view.open(self._file)
        self._reader.seek(self._position)
        return self._reader.read(size)

    def _renew(self) -> None:
        """Start over with a view of the store that was not given up."""
        self._view = self._store.for_one_call()
        self._drop()

    def _drop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")


async def open(  # noqa: A001  # the module's verb, as the package's
    where: Path | str,
    *,
    create: bool = True,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> AsyncStore:
    """Open a store, as :func:`xetstore.open` does. To be closed, or used with ``async with``."""
    return AsyncStore(
        await _opened(
            lambda: open_store(
                where,
                create=create,
                token=token,
                limits=limits,
                cache=cache,
                allow_http=allow_http,
                on_event=on_event,
            ),
            Store.close,
        )
    )


async def open_locator(
    locator: str,
    *,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> tuple[AsyncStore, Hash]:
    """The store that a locator's file is in, to be closed by the caller, and the file's hash."""
    store, file = await _opened(
        lambda: _open_locator(
            locator, token=token, limits=limits, cache=cache, allow_http=allow_http, on_event=on_event
        ),
        lambda opened: opened[0].close(),
    )
    return AsyncStore(store), file


async def hash_file(
    path: Path | str, *, sha256: bool = False, threads: int | None = None, progress: Progress | None = None
) -> FileInfo:
    """The Xet hash and size of a file, as :func:`xetstore.hash_file` gives them."""
    cancellation = Cancellation()
    told = Stoppable(progress, cancellation)
    with _Call(cancellation.cancel) as call:
        return await call.run(lambda: _hash_file(path, sha256=sha256, threads=threads, progress=told))


async def _opened(work: Callable[[], _T], close: Callable[[_T], None]) -> _T:
    """Open by ``work``; the result is closed again where the task was cancelled meanwhile."""
    made: list[_T] = []
    with _Call() as call:
        try:
            await call.run(lambda: made.append(work()))
        except asyncio.CancelledError:
            for opened in made:
                close(opened)
            raise
    return made[0]
