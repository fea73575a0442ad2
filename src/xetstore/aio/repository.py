"""AsyncRepository: every verb of Repository for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.aio.calls import Caller, Opening
from xetstore.aio.file import AsyncFile
from xetstore.repositories.repository import MAIN, Repository
from xetstore.repositories.sources import Note, all_in, no_note

if TYPE_CHECKING:
    from xetstore.errors import XetError
    from xetstore.records import Commit, DeletedName, Ref, RepoFile, RepositoryId, RepositoryRecord
    from xetstore.repositories.differences import Difference
    from xetstore.repositories.planning import CommitReport
    from xetstore.repositories.restoring import Restored
    from xetstore.store import Store
    from xetstore.transfer.compare.comparison import Comparison
    from xetstore.transfer.progress import Progress

_T = TypeVar("_T")
_LISTED_AT_ONCE: Final = 256


class AsyncRepository(Caller):
    """A :class:`xetstore.Repository` for asyncio: the same verbs, arguments and errors."""

    def __init__(self, store: Store, repo: RepositoryId) -> None:
        super().__init__(store)
        self.id = repo

    @property
    def name(self) -> str:
        """The name behind ``xet://``."""
        return self.id.path

    def __repr__(self) -> str:
        return f"AsyncRepository({self.name!r})"

    async def info(self) -> RepositoryRecord:
        """The record of the repository."""
        return await self._call(lambda repo: repo.info())

    async def exists(self) -> bool:
        """True if there is such a repository, as far as the caller may know."""
        return await self._call(lambda repo: repo.exists())

    def files(
        self, revision: str = MAIN, path: str = "", *, recursive: bool = True, dates: bool = False
    ) -> AsyncGenerator[RepoFile]:
        """The entries of a folder, with all that is below it unless ``recursive`` is False."""
        return self._every(
            lambda repo: repo.files(revision, path, recursive=recursive, dates=dates), at_once=_LISTED_AT_ONCE
        )

    async def file(self, path: str, revision: str = MAIN) -> RepoFile:
        """The entry of one file or folder."""
        return await self._call(lambda repo: repo.file(path, revision))

    async def files_at(self, paths: Sequence[str], revision: str = MAIN) -> list[RepoFile]:
        """The entries at those of these paths where there is one."""
        return await self._call(lambda repo: repo.files_at(paths, revision))

    def open(self, path: str, revision: str = MAIN) -> Opening[AsyncFile]:
        """A file to read from, at any place of it: to be awaited, or used with ``async with``."""
        return Opening(self._open(path, revision))

    async def _open(self, path: str, revision: str) -> AsyncFile:
        size = (await self.file(path, revision)).size
        return AsyncFile(self._store, lambda store: store.repo(self.id).open(path, revision), size)

    def iter_range(
        self, path: str, revision: str = MAIN, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, verified before they are yielded."""
        return self._every(lambda repo: repo.iter_range(path, revision, start, end))

    def log(self, revision: str = MAIN) -> AsyncGenerator[Commit]:
        """The commits of a revision, from new to old."""
        return self._every(lambda repo: repo.log(revision), at_once=_LISTED_AT_ONCE)

    async def diff(self, old: str, new: str = MAIN, path: str = "") -> list[Difference]:
        """The files in which two revisions differ, below a path."""
        return await self._call(lambda repo: repo.diff(old, new, path))

    async def compare(self, difference: Difference, old: str, new: str = MAIN) -> Comparison | None:
        """Which bytes and chunks a changed large file has in common with what it was."""
        return await self._call(lambda repo: repo.compare(difference, old, new))

    async def download(
        self,
        revision: str = MAIN,
        to: Path | str = ".",
        *,
        path: str = "",
        delete: bool = False,
        dry_run: bool = False,
        any_links: bool = False,
        fsync: bool = False,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
    ) -> list[Restored]:
        """Write a revision into the folder ``to``, or the file at ``path`` to the file ``to``."""
        return await self._call(
            lambda repo: repo.download(
                revision,
                to,
                path=path,
                delete=delete,
                dry_run=dry_run,
                any_links=any_links,
                fsync=fsync,
                progress=progress,
                on_error=on_error,
            )
        )

    def iter_download(
        self,
        revision: str = MAIN,
        to: Path | str = ".",
        *,
        path: str = "",
        delete: bool = False,
        dry_run: bool = False,
        any_links: bool = False,
        fsync: bool = False,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
    ) -> AsyncGenerator[Restored]:
        """As :meth:`download`: files are written as they are taken."""
        return self._every(
            lambda repo: repo.iter_download(
                revision,
                to,
                path=path,
                delete=delete,
                dry_run=dry_run,
                any_links=any_links,
                fsync=fsync,
                progress=progress,
                on_error=on_error,
            )
        )

    async def commit(
        self,
        add: Mapping[str, Path | str | bytes | RepoFile] | None = None,
        delete: Iterable[str] = (),
        *,
        message: str | None = None,
        description: str = "",
        branch: str = MAIN,
        parent: str | None = None,
        mirror: str | None = None,
        exclude: Sequence[str] = (),
        create: bool = False,
        is_private: bool | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
        on_note: Note = no_note,
        is_left_out: Callable[[Path], bool] = all_in,
    ) -> CommitReport:
        """Commit changes to a branch, all of them or none."""
        return await self._call(
            lambda repo: repo.commit(
                add,
                delete,
                message=message,
                description=description,
                branch=branch,
                parent=parent,
                mirror=mirror,
                exclude=exclude,
                create=create,
                is_private=is_private,
                dry_run=dry_run,
                progress=progress,
                on_note=on_note,
                is_left_out=is_left_out,
            )
        )

    async def copy_from(
        self,
        source: AsyncRepository,
        revision: str = MAIN,
        *,
        path: str = "",
        to: str = "",
        message: str | None = None,
        branch: str = MAIN,
        mirror: bool = False,
        delete_source: bool = False,
        create: bool = False,
        is_private: bool | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CommitReport:
        """Commit a file or a folder of another repository, or of this one, at the path ``to``."""
        return await self.once(
            lambda store: self.within(store).copy_from(
                source.within(store),
                revision,
                path=path,
                to=to,
                message=message,
                branch=branch,
                mirror=mirror,
                delete_source=delete_source,
                create=create,
                is_private=is_private,
                dry_run=dry_run,
                progress=progress,
            )
        )

    async def adopt(self, source: AsyncRepository, *files: RepoFile) -> bool:
        """Have large files of another repository of the store in this one too, by their grants."""
        return await self.once(lambda store: self.within(store).adopt(source.within(store), *files))

    async def branches(self) -> list[Ref]:
        """The branches, by name."""
        return await self._call(lambda repo: repo.branches())

    async def tags(self) -> list[Ref]:
        """The tags, by name."""
        return await self._call(lambda repo: repo.tags())

    async def create_branch(self, name: str, revision: str = MAIN) -> None:
        """Create a branch at a revision."""
        return await self._call(lambda repo: repo.create_branch(name, revision))

    async def delete_branch(self, name: str) -> None:
        """Delete a branch."""
        return await self._call(lambda repo: repo.delete_branch(name))

    async def create_tag(self, name: str, revision: str = MAIN, *, message: str = "") -> None:
        """Create a tag at a revision."""
        return await self._call(lambda repo: repo.create_tag(name, revision, message=message))

    async def delete_tag(self, name: str) -> None:
        """Delete a tag."""
        return await self._call(lambda repo: repo.delete_tag(name))

    async def deleted(self, path: str = "") -> list[DeletedName]:
        """Names that were deleted and can be given back for a while."""
        return await self._call(lambda repo: repo.deleted(path))

    async def undelete(self, *, to: str | None = None) -> RepositoryRecord:
        """Give back the repository that last had this name."""
        return await self._call(lambda repo: repo.undelete(to=to))

    async def undelete_ref(self, name: str, *, to: str | None = None) -> Ref:
        """Give back a branch or a tag, or the state of a branch before a squash."""
        return await self._call(lambda repo: repo.undelete_ref(name, to=to))

    async def undelete_files(self, path: str, *, to: str | None = None) -> list[str]:
        """Give back a file of a bucket, or those of a folder."""
        return await self._call(lambda repo: repo.undelete_files(path, to=to))

    def within(self, store: Store) -> Repository:
        """The repository as one call sees it."""
        return store.repo(self.id)

    async def _call(self, work: Callable[[Repository], _T]) -> _T:
        return await self.once(lambda store: work(store.repo(self.id)))

    def _every(self, make: Callable[[Repository], Iterator[_T]], at_once: int = 1) -> AsyncGenerator[_T]:
        return self.each(lambda store: make(store.repo(self.id)), at_once)
