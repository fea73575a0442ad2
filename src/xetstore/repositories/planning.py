"""Plans of commits: what a commit is to do, and the changes that this comes to at the head of a branch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from xetstore.cancellation import Cancellation
from xetstore.errors import EntryNotFoundError, OutdatedError, UsageError
from xetstore.interfaces import Names
from xetstore.records import Change, Commit, NewBlob, NewFolder, Removal, RepoFile, RepositoryId
from xetstore.repositories.sources import Rules, Source
from xetstore.repositories.staging import Staged

TRIES: Final = 20
"""Attempts at one commit, while others move the branch."""
PAUSE_SECONDS: Final = 0.05
ATTRIBUTES: Final = ".gitattributes"
ADDED: Final = " filter=lfs diff=lfs merge=lfs -text"


@dataclass(frozen=True, slots=True)
class CommitReport:
    """A commit that was made, or the one that the branch was at already where nothing was to change.

    ``files`` are the entries that came or changed, ``deleted`` the paths that went, ``new_bytes`` what was new of large
    files and all of small ones. With a dry run ``commit`` is the one that the branch is at.
    """

    commit: Commit
    files: tuple[RepoFile, ...] = ()
    deleted: tuple[str, ...] = ()
    unchanged: int = 0
    new_bytes: int = 0

    @property
    def is_new(self) -> bool:
        """True if there was anything to commit."""
        return bool(self.files or self.deleted)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a commit is to do. ``mirrored`` is the folder of which only what is ``staged`` stays, or None, and what
    ``rules`` leave out, by paths from there.
    """

    staged: list[Staged] = field(default_factory=list)
    delete: tuple[str, ...] = ()
    mirrored: str | None = None
    rules: Rules = Rules()  # noqa: RUF009  # it is immutable

    def changes_at(self, names: Names, repo: RepositoryId, head: Commit) -> tuple[list[Change], CommitReport]:
        """The changes that it still comes to at a commit, and what is to be told of them.

        Raises EntryNotFoundError for a path to delete that is not there, UsageError for a file where a folder is.
        """
        there = self._there(names, repo, head)
        for path in self.delete:
            if path not in there:
                raise EntryNotFoundError(f"{path[:200]!r} is not there to be deleted", commit=head.oid)
        gone = list(self.delete)
        if self.mirrored is not None:
            kept = {one.file.path: one.file for one in self.staged}
            inner = len(self.mirrored) + 1 if self.mirrored else 0
            spares = self.rules.spares
            spared = {path: file for path, file in there.items() if spares(path[inner:], is_folder=file.is_folder)}
            gone += _extra(there, spared | kept, self.mirrored)
        removed = set(gone)
        new = []
        for one in self.staged:
            path = one.file.path
            before = None if removed.intersection((path, *_parents(path))) else there.get(path)
            if before is None:
                new.append(one)
            elif before.is_folder and not isinstance(one.change, NewFolder):
                raise UsageError(
                    f"{path} is a folder in the repository, and no folder here",
                    hint="delete it in the same commit, or have the folder above it mirrored",
                )
            elif not _is_same(before, one.file, with_mode=names.keeps_modes) and not (
                path == ATTRIBUTES and _goes_on(one, names.read_many(repo, head.oid, [before])[0])
            ):
                new.append(one)
        changes: list[Change] = [Removal(path) for path in gone]
        changes += [one.change for one in new]
        report = CommitReport(
            head,
            tuple(one.file for one in new),
            tuple(gone),
            len(self.staged) - len(new),
            sum(one.new_bytes for one in new),
        )
        return changes, report

    def _there(self, names: Names, repo: RepositoryId, head: Commit) -> dict[str, RepoFile]:
        there: dict[str, RepoFile] = {}
        if self.mirrored is not None:
            with suppress(EntryNotFoundError):
                there = {file.path: file for file in names.entries(repo, head.oid, self.mirrored, recursive=True)}
        paths = {*self.delete, *(one.file.path for one in self.staged)} - there.keys()
        if paths and self.mirrored != "":
            there |= {file.path: file for file in names.entries_at(repo, head.oid, sorted(paths))}
        return there


def commit_plan(
    plan: Plan,
    names: Names,
    repo: RepositoryId,
    branch: str,
    *,
    title: Callable[[CommitReport], str],
    description: str = "",
    parent: str | None = None,
    dry_run: bool = False,
    cancellation: Cancellation,
) -> CommitReport:
    """Make a commit of a plan, once more while the branch moves on, unless ``parent`` says where it has to be.

    What it comes to is looked at anew each time: nothing that another writer made is lost.
    """
    for left in reversed(range(TRIES)):
        head = names.commit_at(repo, branch)
        if parent is not None and head.oid != parent:
            raise OutdatedError(f"the branch {branch} of {repo.path} has moved on: it is at {head.oid[:12]}")
        changes, report = plan.changes_at(names, repo, head)
        if dry_run or not changes:
            return report
        try:
            made = names.commit(repo, branch, changes, message=title(report), description=description, parent=head.oid)
        except OutdatedError:
            if parent is not None or not left:
                raise
            cancellation.wait(random.random() * PAUSE_SECONDS * (TRIES - left))
            continue
        return CommitReport(made, report.files, report.deleted, report.unchanged, report.new_bytes)
    raise AssertionError("unreachable")


def unborn(sources: Sequence[Source]) -> CommitReport:
    """The report of a dry run for a repository that is not there: all of it would be new."""
    sizes = [one.size if one.data is None else len(one.data) for one in sources]
    files = tuple(RepoFile(one.path, size, "", mode=one.mode) for one, size in zip(sources, sizes, strict=True))
    return CommitReport(Commit(""), files, new_bytes=sum(sizes))


def title_of(report: CommitReport) -> str:
    """A message for a commit that was given none.

    >>> title_of(CommitReport(Commit("0"), deleted=("old", "older")))
    'Delete 2 paths'
    """
    count, gone = len(report.files), len(report.deleted)
    if count == 1 and not gone:
        return f"Add {report.files[0].path}"
    if not count:
        return f"Delete {report.deleted[0]}" if gone == 1 else f"Delete {gone} paths"
    return f"Add {count} files" + (f", delete {gone} paths" if gone else "")


def _is_same(before: RepoFile, after: RepoFile, *, with_mode: bool) -> bool:
    if before.is_folder and after.is_folder:
        return True
    return before.oid == after.oid and (before.mode == after.mode or not with_mode)


def _goes_on(one: Staged, before: bytes) -> bool:
    """True if a .gitattributes is this one and lines behind it, which a store adds for large files it does not name."""
    if not isinstance(one.change, NewBlob) or not before.startswith(one.change.data):
        return False
    lines = before[len(one.change.data) :].decode("utf-8", "replace").split("\n")
    return all(not line or line.endswith(ADDED) for line in lines)


def _extra(there: Mapping[str, RepoFile], kept: Mapping[str, RepoFile], mirrored: str) -> list[str]:
    """The paths that have to go so that only those kept are left. A folder goes as a whole, if nothing of it stays.

    The file that says which files are large ones stays: the next commit is made by it.
    """
    folders = {parent for path in kept for parent in _parents(path)}
    gone: list[str] = []
    last = None
    for path, file in sorted(there.items()):
        if path in (mirrored, ATTRIBUTES) or (last is not None and path.startswith(f"{last}/")):
            continue
        stays = path in folders if file.is_folder else path in kept
        if file.is_folder and path in kept:
            # An empty one is to be there: what is in it goes, and a file is to take its place.
            stays = kept[path].is_folder
        if not stays:
            gone.append(path)
            last = path
    return gone


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
