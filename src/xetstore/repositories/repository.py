"""Repository: files by revision and path, commits, branches and tags, the same over a store here, a server or a Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from xetstore.arguments import several, text_of
from xetstore.batches import sized_batches
from xetstore.cancellation import Cancellation
from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UsageError,
    WrongTypeError,
)
from xetstore.hub.ignore import excluding
from xetstore.hub.names import check_path
from xetstore.interfaces import Names
from xetstore.platform import forks
from xetstore.platform.homes import local_path
from xetstore.records import Commit, DeletedName, Ref, RepoFile, RepositoryId, RepositoryRecord
from xetstore.repositories.differences import Difference, differences
from xetstore.repositories.planning import TRIES, CommitReport, Plan, commit_plan, title_of, unborn
from xetstore.repositories.reading import held, sliced
from xetstore.repositories.restoring import Restore, Restored, RestoreOptions, read_together
from xetstore.repositories.sources import Content, Note, Rules, Source, all_in, no_note, sources_of
from xetstore.repositories.staging import Files, Staged, blob, empty_folder, pointer, stage

if TYPE_CHECKING:
    from xetstore.errors import XetError
    from xetstore.transfer.compare.comparison import Comparison
    from xetstore.transfer.progress import Progress

MAIN: Final = "main"
_PATHS: Final = "several paths of the repository, such as a list of them"
MOVED_AT_ONCE: Final = 2 << 30
"""Bytes of large files that are on the disk at a time while they go from one store to another one."""


class Home(Protocol):
    """The store that a repository is in: :class:`xetstore.Store` is one."""

    def call_names(self) -> tuple[Names, Cancellation]:
        """Its names, for one call, and what ends that call."""

    def files_of(self, repo: RepositoryId, revision: str) -> Files:
        """The files of a repository at a revision."""


class Repository:
    """A repository of a store. Thread-safe; of use as long as its store is open.

    ``revision`` is a branch, a tag or the id of a commit everywhere, and main by default. Paths are from the root of
    the repository, with slashes.

    >>> import pathlib, tempfile, xetstore
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with xetstore.open(folder / "store") as store:
    ...     repo = store.create_repo("alice/bert")
    ...     _ = repo.commit({"config.json": b"{}"}, message="The first file")
    ...     with repo.open("config.json") as file:
    ...         print(file.read(), [commit.title for commit in repo.log()][0])
    b'{}' The first file
    """

    def __init__(self, home: Home, repo: RepositoryId) -> None:
        self._home = home
        self.id = repo

    @property
    def name(self) -> str:
        """The name behind ``xet://``: ``alice/bert``, ``datasets/alice/news``."""
        return self.id.path

    def __repr__(self) -> str:
        return f"Repository({self.name!r})"

    # --- Reading ----------------------------------------------------------------------------------------

    def info(self) -> RepositoryRecord:
        """The record of the repository. Raises RepositoryNotFoundError."""
        return self._home.call_names()[0].info(self.id)

    def exists(self) -> bool:
        """True if there is such a repository, as far as the caller may know."""
        with suppress(RepositoryNotFoundError):
            self.info()
            return True
        return False

    def files(
        self, revision: str = MAIN, path: str = "", *, recursive: bool = True, dates: bool = False
    ) -> Iterator[RepoFile]:
        """The entries of a folder, with all that is below it unless ``recursive`` is False; folders are among them.

        Of a file its one entry. With ``dates`` each says when the last commit changed it, which takes longer. Raises
        RevisionNotFoundError and EntryNotFoundError.
        """
        return self._names().entries(self.id, _at(revision), _path(path), recursive=recursive, dates=dates)

    def file(self, path: str, revision: str = MAIN) -> RepoFile:
        """The entry of one file or folder. Raises EntryNotFoundError."""
        return _entry(self._names(), self.id, revision, path)

    def files_at(self, paths: Sequence[str], revision: str = MAIN) -> list[RepoFile]:
        """The entries at those of these paths where there is one."""
        wanted = [_path(path) for path in several(paths, "what is looked for", _PATHS)]
        return self._names().entries_at(self.id, _at(revision), wanted)

    def open(self, path: str, revision: str = MAIN) -> BinaryIO:
        """A file to read from, at any place of it; what is read is verified. Raises EntryNotFoundError."""
        names = self._names()
        file = _entry(names, self.id, revision, path)
        if file.is_folder:
            raise UsageError(f"{path} is a folder, not a file", hint="name a file in it")
        if file.hash is not None:
            return self._files(revision).open(file.hash)
        return held(names.read(self.id, revision, file))

    def iter_range(
        self, path: str, revision: str = MAIN, start: int = 0, end: int | None = None
    ) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, verified before they are yielded."""
        names = self._names()
        file = _entry(names, self.id, revision, path)
        if file.is_folder:
            raise UsageError(f"{path} is a folder, not a file", hint="name a file in it")
        if file.hash is not None:
            return self._files(revision).iter_range(file.hash, start, end)
        return sliced(held(names.read(self.id, revision, file)), start, end)

    def log(self, revision: str = MAIN) -> Iterator[Commit]:
        """The commits of a revision, from new to old."""
        return self._names().log(self.id, _at(revision))

    def diff(self, old: str, new: str = MAIN, path: str = "") -> list[Difference]:
        """The files in which two revisions differ, below a path; see :meth:`compare` for the bytes of one."""
        names = self._names()
        return list(differences(*(_below(names, self.id, revision, _path(path)) for revision in (old, new))))

    def compare(self, difference: Difference, old: str, new: str = MAIN) -> Comparison | None:
        """Which bytes and chunks a changed large file has in common with what it was; None for any other file."""
        before, after = difference.old, difference.new
        if before is None or after is None or before.hash is None or after.hash is None:
            return None
        from xetstore.transfer.compare.comparison import compare

        return compare((self._files(old).cas, before.hash), (self._files(new).cas, after.hash))

    def download(
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
        """Write a revision into the folder ``to``, or the file at ``path`` to the file ``to``; the fate of each path.

        Files that are there already stay. With ``delete`` what the revision does not have is removed, and what is of
        another kind replaced; with ``dry_run`` nothing is changed. A link that leads out of ``to`` is an error unless
        ``any_links``. A file that fails is handed to ``on_error``, and then nothing is deleted; without it its
        error is raised. Each file appears verified and whole, or not at all.
        """
        return list(
            self.iter_download(
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

    @forks.bound
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
    ) -> Generator[Restored]:
        """As :meth:`download`: files are written as they are taken."""
        folder = local_path(to, "the place of a revision")
        names = self._names()
        path = _path(path)
        commit = names.commit_at(self.id, _at(revision)).oid
        entries = list(names.entries(self.id, commit, path, recursive=True))
        options = RestoreOptions(delete, dry_run, any_links, fsync)
        restore = Restore(names, self._files(commit), self.id, commit, options, progress=progress, on_error=on_error)
        if path and len(entries) == 1 and entries[0].path == path and not entries[0].is_folder:
            yield from restore.file(entries[0], folder)
        else:
            yield from restore.folder(entries, path, folder)

    # --- Writing ----------------------------------------------------------------------------------------

    def commit(
        self,
        add: Mapping[str, Content] | None = None,
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
        unchanged: str = "read",
        progress: Progress | None = None,
        on_note: Note = no_note,
        is_left_out: Callable[[Path], bool] = all_in,
    ) -> CommitReport:
        """Commit changes to a branch, all of them or none; nothing is committed where nothing would change.

        ``add`` maps paths in the repository to local files and folders, to bytes, to binary streams, which are read
        once, or to large files that it has; the content of a folder goes to its path, ``""`` for the root. ``delete``
        are files and folders. ``mirror`` is a folder, ``""`` for the root, below which all goes that ``add`` does not
        have. ``exclude`` are patterns as in a .gitignore, of paths in local folders and of what stays in ``mirror``.

        Where others commit meanwhile, the changes are made to what they made: both stay. With ``parent``, the id of
        a commit, OutdatedError is raised if the branch is not there any more. A repository that is not there is made if
        ``create``, private or as is usual in the store if ``is_private`` is None. ``on_note`` is told of local paths
        that are left out. With ``dry_run`` nothing is stored. ``unchanged`` is that of :meth:`xetstore.Store.put_many`,
        for large files; small ones, which git keeps, are read.

        Raises RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError for a path to delete that is not
        there, SourceChangedError, UnprocessableError for a path that no repository takes, and what ``put`` raises.
        """
        if not isinstance(add, Mapping | None):
            raise WrongTypeError.of(
                "what is added", add, "a mapping of paths in the repository to files, bytes or folders"
            )
        for role, given in (("message", message or ""), ("description", description), ("a branch", branch)):
            text_of(role, given)
        names = self._names()
        rules = Rules(names.keeps_modes, excluding(exclude) if exclude else None, is_left_out)
        sources = list(sources_of(add or {}, rules, on_note=on_note))
        if create and not self.exists():
            if dry_run:
                return unborn(sources)
            self._create(names, is_private)
        staged = stage(
            sources,
            lambda asked: names.large_files(self.id, branch, asked),
            self._files(branch),
            progress=progress,
            dry_run=dry_run,
            unchanged=unchanged,
        )
        gone = tuple(check_path(_path(path)) for path in several(delete, "what is deleted", _PATHS))
        plan = Plan(staged, gone, None if mirror is None else _path(mirror), rules)
        return self._commit(plan, branch, message, description=description, parent=parent, dry_run=dry_run)

    def copy_from(
        self,
        source: Repository,
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
        """Commit a file or a folder of another repository, or of this one, at the path ``to``.

        Within a store no bytes are moved; between two stores they are. ``delete_source`` is a move within a branch.
        The other arguments are those of :meth:`commit`, and ``mirror`` is about the folder ``to``.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._copy_once(
                    source,
                    revision,
                    path=_path(path),
                    to=_path(to),
                    message=message,
                    branch=branch,
                    mirror=mirror,
                    delete_source=delete_source,
                    create=create,
                    is_private=is_private,
                    dry_run=dry_run,
                    progress=progress,
                )
            except OutdatedError:  # only where the source goes: it is another one now
                if not left:
                    raise
        raise AssertionError("unreachable")

    def adopt(self, source: Repository, *files: RepoFile) -> bool:
        """Have large files of another repository of the store in this one too, by their grants: no bytes are moved.

        False where their bytes have to be moved.
        """
        theirs, ours = _names_of(source), self._names()
        if theirs.location != ours.location:
            return False
        return source.id == self.id or ours.adopt(self.id, source.id, files)

    # --- Branches and tags ------------------------------------------------------------------------------

    def branches(self) -> list[Ref]:
        """The branches, by name."""
        return self._names().branches(self.id)

    def tags(self) -> list[Ref]:
        """The tags, by name."""
        return self._names().tags(self.id)

    def create_branch(self, name: str, revision: str = MAIN) -> None:
        """Create a branch at a revision. Raises ExistsError."""
        self._names().create_branch(self.id, text_of("a branch", name), _at(revision))

    def delete_branch(self, name: str) -> None:
        """Delete a branch. Raises RevisionNotFoundError, and UsageError for main."""
        self._names().delete_branch(self.id, text_of("a branch", name))

    def create_tag(self, name: str, revision: str = MAIN, *, message: str = "") -> None:
        """Create a tag at a revision. Raises ExistsError."""
        self._names().create_tag(self.id, text_of("a tag", name), _at(revision), text_of("message", message))

    def delete_tag(self, name: str) -> None:
        """Delete a tag. Raises RevisionNotFoundError."""
        self._names().delete_tag(self.id, text_of("a tag", name))

    def deleted(self, path: str = "") -> list[DeletedName]:
        """Deleted names that can be given back for a while, at most 1,000 of a kind: repositories that
        had it, and of the one that has it branches, tags, and files of a bucket below ``path``.
        """
        return self._home.call_names()[0].deleted(self.id, _path(path))

    def undelete(self, *, to: str | None = None) -> RepositoryRecord:
        """Give back the repository that last had this name, with all that it had, as ``to`` if that is given.

        Raises RepositoryNotFoundError where none was deleted or it is collected, ExistsError for a name that is taken.
        """
        return self._home.call_names()[0].undelete(self.id, to=_to(to))

    def undelete_ref(self, name: str, *, to: str | None = None) -> Ref:
        """Give back a branch or a tag, or the state of a branch before a squash; by the name ``to`` if that is given.

        Raises RevisionNotFoundError where none was deleted or it is collected, ExistsError for a name that is taken.
        """
        try:
            return self._names().undelete_ref(self.id, text_of("a branch or tag", name), to=_to(to))
        except RevisionNotFoundError:
            what = f"no branch or tag {name[:200]!r} of {self.id.path} was deleted, or it is collected"
            raise RevisionNotFoundError(what, hint="xet undelete --list shows what can be given back") from None

    def undelete_files(self, path: str, *, to: str | None = None) -> list[str]:
        """Give back a file of a bucket, at the path ``to`` if that is given; or those of a folder in whose place
        nothing is now. Returns their paths.

        Raises EntryNotFoundError where none was deleted or it is collected, ExistsError where there is a file.
        """
        return self._home.call_names()[0].undelete_files(self.id, text_of("a path of a bucket", path), to=_to(to))

    # --- Within ------------------------------------------------------------------------------------------

    def _names(self) -> Names:
        """The names, for one call about files and revisions, which a bucket does not have in this way."""
        if self.id.kind == "buckets":
            raise UsageError(
                f"{self.name} is a bucket, which has no revisions", hint="hf buckets and hf sync move its files"
            )
        return self._home.call_names()[0]

    def _create(self, names: Names, is_private: bool | None) -> None:
        with suppress(ExistsError):  # another writer was first
            names.create(self.id, is_private=is_private)

    def _files(self, revision: str) -> Files:
        return self._home.files_of(self.id, revision)

    def _commit(
        self, plan: Plan, branch: str, message: str | None, *, description: str = "", parent: str | None, dry_run: bool
    ) -> CommitReport:
        names, cancellation = self._home.call_names()
        return commit_plan(
            plan,
            names,
            self.id,
            branch,
            title=lambda report: message or title_of(report),
            description=description,
            parent=parent,
            dry_run=dry_run,
            cancellation=cancellation,
        )

    def _copy_once(
        self,
        source: Repository,
        revision: str,
        *,
        path: str,
        to: str,
        message: str | None,
        branch: str,
        mirror: bool,
        delete_source: bool,
        create: bool,
        is_private: bool | None,
        dry_run: bool,
        progress: Progress | None,
    ) -> CommitReport:
        theirs, ours = _names_of(source), self._names()
        commit = theirs.commit_at(source.id, _at(revision)).oid
        entries = list(theirs.entries(source.id, commit, path, recursive=True))
        placed = [(file, _moved(file.path, path, to)) for file in entries]
        if create and not self.exists():
            if dry_run:
                return unborn([Source(new, file.mode, size=file.size) for file, new in placed if not file.is_folder])
            self._create(ours, is_private)
        is_here = theirs.location == ours.location and source.id == self.id
        if delete_source and not (is_here and path):
            raise UsageError("only a path within one repository can be moved", hint="copy it, then delete it")
        large = [(file, new) for file, new in placed if file.sha256 is not None]
        can_adopt = not dry_run and self.adopt(source, *[one for one, _ in large])
        folders = _empty_folders(entries)
        staged = [empty_folder(new) for file, new in placed if file.path in folders]
        small = [(file, new) for file, new in placed if file.sha256 is None and not file.is_folder]
        for part in read_together(small):
            contents = theirs.read_many(source.id, commit, [file for file, _ in part])
            staged += [blob(new, data, file.mode) for (file, new), data in zip(part, contents, strict=True)]
        if can_adopt or dry_run:
            staged += [pointer(new, file.sha256 or "", file.size, file.hash, file.mode) for file, new in large]
        else:
            staged += self._moved_bytes(source, commit, large, branch, progress)
        plan = Plan(staged, (path,) if delete_source else (), to if mirror else None)
        return self._commit(plan, branch, message, parent=commit if delete_source else None, dry_run=dry_run)

    def _moved_bytes(
        self,
        source: Repository,
        commit: str,
        large: Sequence[tuple[RepoFile, str]],
        branch: str,
        progress: Progress | None,
    ) -> Iterator[Staged]:
        """Fetch large files from one store and store them in the other one, some GiB at a time."""
        theirs, ours = source._files(commit), self._files(branch)
        for part in sized_batches(large, lambda one: one[0].size, MOVED_AT_ONCE):
            with tempfile.TemporaryDirectory(prefix="xet-") as folder:
                places = [Path(folder, str(number)) for number in range(len(part))]
                restore = Restore(source._names(), theirs, source.id, commit, RestoreOptions(), progress=progress)
                for (file, _), place in zip(part, places, strict=True):
                    for _done in restore.file(file, place):
                        pass
                for (file, new), report in zip(part, ours.iter_put(places), strict=True):
                    if report.info.sha256 is None:
                        raise AssertionError("a put has a SHA-256")
                    yield pointer(new, report.info.sha256, report.info.size, report.info.hash, file.mode)


def _names_of(source: Repository) -> Names:
    if not isinstance(source, Repository):
        raise WrongTypeError.of("the source", source, "a Repository")
    return source._names()


def _to(name: str | None) -> str | None:
    return None if name is None else text_of("the new name", name)


def _at(revision: str) -> str:
    return text_of("a revision", revision)


def _path(path: str) -> str:
    return text_of("a path of a repository", path).strip("/")


def _entry(names: Names, repo: RepositoryId, revision: str, path: str) -> RepoFile:
    found = names.entries_at(repo, _at(revision), [check_path(_path(path))])
    if not found:
        raise EntryNotFoundError(f"{repo.path} has no {path[:200]!r} at {revision[:200]}")
    return found[0]


def _below(names: Names, repo: RepositoryId, revision: str, path: str) -> list[RepoFile]:
    """All below a path; nothing where there is no such path, while a revision has to be there."""
    with suppress(EntryNotFoundError):
        return list(names.entries(repo, _at(revision), path, recursive=True))
    return []


def _moved(path: str, old: str, new: str) -> str:
    """The path of an entry when ``old`` is called ``new``."""
    inner = path[len(old) :].strip("/")
    return check_path("/".join(part for part in (new, inner) if part))


def _empty_folders(entries: Sequence[RepoFile]) -> set[str]:
    """The folders without an entry in them."""
    full = {file.path.rpartition("/")[0] for file in entries}
    return {file.path for file in entries if file.is_folder} - full
