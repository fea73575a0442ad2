"""AsyncStore: every verb of Store for asyncio, and the functions that open one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from xetstore.aio.calls import Call, Caller, Opening, opened
from xetstore.aio.file import AsyncFile
from xetstore.aio.repository import AsyncRepository
from xetstore.cancellation import Cancellation
from xetstore.events import Emit, ignore
from xetstore.limits import NO_LIMITS, Limits
from xetstore.store import GetReport, Store, What, open_store
from xetstore.store import open_locator as _open_locator
from xetstore.transfer.estimate import CELLS
from xetstore.transfer.progress import Progress, Stoppable
from xetstore.transfer.scan import hash_file as _hash_file

if TYPE_CHECKING:
    from xetstore.aio.tensors import AsyncTensors
    from xetstore.cas.check import CheckReport, Selection
    from xetstore.cas.usage import NamespaceUsage, WhatIf
    from xetstore.errors import XetError
    from xetstore.opening import GivenToken
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.xorb import CompressionPolicy
    from xetstore.records import DeletedFile, FileInfo, FileRecord, RepositoryId, RepositoryRecord, Totals
    from xetstore.store.sources import Source
    from xetstore.transfer.download.forecast import GetForecast
    from xetstore.transfer.estimate.estimation import Estimate
    from xetstore.transfer.upload.context import Unchanged
    from xetstore.transfer.upload.pending import PutReport

_LISTED_AT_ONCE: Final = 256


class AsyncStore(Caller):
    """A :class:`xetstore.Store` for asyncio: the same verbs, arguments and errors. An asynchronous context manager.

    >>> import asyncio, pathlib, tempfile
    >>> from xetstore import aio
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "greeting.txt").write_text("Hello World!")
    >>> async def main() -> bytes:
    ...     async with aio.open(folder / "store") as store:
    ...         info = await store.put(folder / "greeting.txt")
    ...         async with store.open(info) as file:
    ...             return await file.read()
    >>> asyncio.run(main())
    b'Hello World!'
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.location = store.location

    def __repr__(self) -> str:
        return f"AsyncStore({self.location!r})"

    async def put(
        self,
        source: Source,
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
    ) -> FileInfo:
        """Store a file: a path, bytes, or a binary file object, which is read in a thread."""
        return await self.once(lambda store: store.put(source, policy=policy, progress=progress))

    async def put_many(
        self,
        sources: Iterable[Source],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_report: Callable[[PutReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
        unchanged: Unchanged | str = "read",
    ) -> list[PutReport]:
        """Store files that share xorbs; their reports."""
        return await self.once(
            lambda store: store.put_many(
                sources,
                policy=policy,
                progress=progress,
                on_report=on_report,
                on_error=on_error,
                dry_run=dry_run,
                unchanged=unchanged,
            )
        )

    def iter_put(
        self,
        sources: Iterable[Source],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
        unchanged: Unchanged | str = "read",
    ) -> AsyncGenerator[PutReport]:
        """As :meth:`put_many`; an asynchronous iterator of the reports."""
        return self.each(
            lambda store: store.iter_put(
                sources, policy=policy, progress=progress, on_error=on_error, dry_run=dry_run, unchanged=unchanged
            )
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
        return await self.once(lambda store: store.estimate(paths, progress=progress, on_error=on_error, cells=cells))

    async def get(
        self,
        what: What,
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
        return await self.once(
            lambda store: store.get(
                what,
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
        files: Iterable[tuple[What, Path | str]],
        *,
        progress: Progress | None = None,
        on_report: Callable[[GetReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> list[GetReport]:
        """Write files to their paths; their reports."""
        return await self.once(
            lambda store: store.get_many(files, progress=progress, on_report=on_report, on_error=on_error, fsync=fsync)
        )

    def iter_get(
        self,
        files: Iterable[tuple[What, Path | str]],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> AsyncGenerator[GetReport]:
        """As :meth:`get_many`; an asynchronous iterator of the reports."""
        return self.each(lambda store: store.iter_get(files, progress=progress, on_error=on_error, fsync=fsync))

    async def forecast(self, what: What, start: int = 0, end: int | None = None) -> GetForecast:
        """Forecast the fetches of :meth:`get`."""
        return await self.once(lambda store: store.forecast(what, start, end))

    def open(self, what: What) -> Opening[AsyncFile]:
        """A stored file to read from, at any place of it: to be awaited, or used with ``async with``."""
        return Opening(self._open(what))

    async def _open(self, what: What) -> AsyncFile:
        return AsyncFile(self._store, lambda view: view.open(what), (await self.stat(what)).size)

    async def read(self, what: What, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``[start, end)`` of a file."""
        return await self.once(lambda store: store.read(what, start, end))

    def iter_range(self, what: What, start: int = 0, end: int | None = None) -> AsyncGenerator[memoryview]:
        """Bytes ``[start, end)`` of a file in order: an asynchronous iterator of some MiB at a time."""
        return self.each(lambda store: store.iter_range(what, start, end))

    async def read_ranges(self, ranges: Iterable[tuple[What, int, int]]) -> list[memoryview | XetError]:
        """The bytes of several ranges, or the errors in their place."""
        return await self.once(lambda store: store.read_ranges(ranges))

    async def tensors(self, what: What) -> AsyncTensors:
        """The tensors of a safetensors or GGUF file by name."""
        from xetstore.aio.tensors import AsyncTensors

        return AsyncTensors(self._store, await self.once(lambda store: store.tensors(what)))

    async def stat(self, what: What) -> FileRecord:
        """The record of a stored file."""
        return await self.once(lambda store: store.stat(what))

    async def exists(self, what: What) -> bool:
        """True if the store has this file, as far as the caller may know."""
        return await self.once(lambda store: store.exists(what))

    def files(self) -> AsyncGenerator[FileRecord]:
        """Every file of the caller's namespace: an asynchronous iterator."""
        return self.each(lambda store: store.files(), at_once=_LISTED_AT_ONCE)

    async def delete(self, *what: What, dry_run: bool = False) -> list[DeletedFile]:
        """Delete files."""
        return await self.once(lambda store: store.delete(*what, dry_run=dry_run))

    async def undelete(self, *what: What) -> list[FileRecord]:
        """Give back deleted files."""
        return await self.once(lambda store: store.undelete(*what))

    def deleted(self) -> AsyncGenerator[DeletedFile]:
        """The files that can be given back: an asynchronous iterator."""
        return self.each(lambda store: store.deleted(), at_once=_LISTED_AT_ONCE)

    async def resolve(self, what: What) -> Hash:
        """The hash of a file."""
        return await self.once(lambda store: store.resolve(what))

    def repo(self, name: RepositoryId | str) -> AsyncRepository:
        """A repository by its name."""
        return AsyncRepository(self._store, self._store.repo(name).id)

    def repos(
        self, kind: str = "models", *, owner: str | None = None, search: str | None = None
    ) -> AsyncGenerator[RepositoryRecord]:
        """The repositories of one kind: an asynchronous iterator."""
        return self.each(lambda store: store.repos(kind, owner=owner, search=search), at_once=_LISTED_AT_ONCE)

    async def create_repo(
        self, name: RepositoryId | str, *, is_private: bool | None = None, exist_ok: bool = False
    ) -> AsyncRepository:
        """Create a repository."""
        repo = await self.once(lambda store: store.create_repo(name, is_private=is_private, exist_ok=exist_ok))
        return self.repo(repo.id)

    async def delete_repo(self, name: RepositoryId | str) -> None:
        """Delete a repository and all its revisions."""
        await self.once(lambda store: store.delete_repo(name))

    async def move_repo(self, name: RepositoryId | str, to: RepositoryId | str) -> AsyncRepository:
        """Give a repository another owner or name."""
        return self.repo((await self.once(lambda store: store.move_repo(name, to))).id)

    async def totals(self) -> Totals:
        """The sums of all that is stored."""
        return await self.once(lambda store: store.totals())

    async def what_if_deleted(self, names: Iterable[What]) -> WhatIf:
        """Tell what deleting these would free."""
        return await self.once(lambda store: store.what_if_deleted(names))

    async def usage(self, by: str = "namespace") -> list[tuple[str, NamespaceUsage]]:
        """Tell what each namespace takes, or each repository."""
        return await self.once(lambda store: store.usage(by))

    async def check(
        self,
        *,
        read_data: bool = False,
        checksums: bool = False,
        selection: Selection | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CheckReport:
        """Look for damage."""
        return await self.once(
            lambda store: store.check(
                read_data=read_data, checksums=checksums, selection=selection, dry_run=dry_run, progress=progress
            )
        )

    def interrupt(self) -> None:
        """Let what all other tasks are doing here fail soon, with InterruptedCallError. Waits for nothing."""
        self._store.interrupt()

    async def close(self) -> None:
        """Let go of the store; calls under way fail."""
        with Call() as call:
            await call.run(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def open(  # noqa: A001  # the module's verb, as the package's
    where: Path | str,
    *,
    create: bool = True,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | str | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> Opening[AsyncStore]:
    """Open a store, as :func:`xetstore.open` does: to be awaited and closed, or used with ``async with``."""

    async def opening() -> AsyncStore:
        store = await opened(
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
        return AsyncStore(store)

    return Opening(opening())


async def open_locator(
    locator: str,
    *,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | str | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> tuple[AsyncStore, Hash]:
    """The store that a locator's file is in, to be closed by the caller, and the file's hash."""
    store, file = await opened(
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
    with Call(cancellation.cancel) as call:
        return await call.run(lambda: _hash_file(path, sha256=sha256, threads=threads, progress=told))
