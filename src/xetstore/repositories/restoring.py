"""Restoring: a revision, or a folder or file of one, as local files with their modes and links.

Every file appears verified and whole or not at all. Nothing is written through a link, and no link is made that leads
out of the folder, unless the caller asks for it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.batches import sized_batches
from xetstore.errors import FormatError, UsageError, XetError, kind_of
from xetstore.interfaces import Names
from xetstore.platform.names import FolderNames, folded
from xetstore.records import RepoFile, RepositoryId
from xetstore.repositories.sources import leads_within
from xetstore.repositories.staging import Files, blob_id
from xetstore.transfer.download.new_file import NewFile, hidden_name
from xetstore.transfer.progress import NoProgress, Progress, with_files
from xetstore.transfer.scan import hash_file

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

BATCH_FILES: Final = 256
BATCH_BYTES: Final = 8 << 20
"""The most small files, and the most bytes of them, that are read at a time. A larger file is read alone."""


class Action(StrEnum):
    """The fate of a local path."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    LINKED = "linked"
    FOLDER = "folder"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Restored:
    """A local path, and its fate; ``file`` is what the revision has there, None for a path that was deleted."""

    path: Path
    action: Action
    file: RepoFile | None = None


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """Options of a restore.

    ``delete`` removes what the revision does not have, and replaces what is of another kind. With ``dry_run`` nothing
    is changed. With ``any_links`` links that lead out of the folder are made too. With ``fsync`` each file is on the
    disk when it has its name.
    """

    delete: bool = False
    dry_run: bool = False
    any_links: bool = False
    fsync: bool = False


class Restore:
    """One restore into a folder. ``on_error`` gets the errors of single files; without it the first is raised."""

    def __init__(
        self,
        names: Names,
        files: Files,
        repo: RepositoryId,
        commit: str,
        options: RestoreOptions,
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        names_in: Callable[[Path], FolderNames] = FolderNames,
    ) -> None:
        self._names = names
        self._files = files
        self._repo = repo
        self._commit = commit
        self._options = options
        self._progress = progress or NoProgress()
        self._told = with_files(progress)
        self._on_error = on_error
        self._names_in = names_in
        self._failed = False
        self._to = Path()

    def file(self, file: RepoFile, path: Path) -> Iterator[Restored]:
        """Write one file to a path."""
        self._to = path.parent
        yield from self._write([(file, path)])

    def folder(self, entries: Sequence[RepoFile], prefix: str, to: Path) -> Iterator[Restored]:
        """Write the entries below ``prefix``, all that there are, into a folder."""
        self._to = to
        inner = [_checked(entry.path, prefix) for entry in entries]
        refused = self._names_in(to).refused(inner)
        placed = []
        for entry, name in zip(entries, inner, strict=True):
            if name in refused:
                self._tell(to / name, refused[name])
            else:
                placed.append((entry, to / name))
        folders = {to} | {path for entry, path in placed if entry.is_folder}
        for _, path in placed:
            while (path := path.parent) not in folders:
                folders.add(path)
        yield from self._make_folders(sorted(folders), to, placed)
        yield from self._write([(entry, path) for entry, path in placed if not entry.is_folder])
        if self._options.delete and not self._failed:
            yield from self._delete(folders, {path for _, path in placed})

    def _make_folders(
        self, folders: Sequence[Path], to: Path, placed: Sequence[tuple[RepoFile, Path]]
    ) -> Iterator[Restored]:
        named = {path: entry for entry, path in placed if entry.is_folder}
        for folder in folders:
            is_new = self._make_folder(folder, is_root=folder == to)
            if is_new and folder in named:
                yield Restored(folder, Action.FOLDER, named[folder])

    def _make_folder(self, folder: Path, *, is_root: bool) -> bool:
        """True if the folder was not there. A link in its place is never gone through, except at the root."""
        kind = _kind(folder)
        if kind == stat.S_IFDIR or (is_root and folder.is_dir()):
            return False
        if kind is not None:
            if not self._options.delete:
                told = "is no folder" if is_root else "is a folder in the revision, and here it is none"
                raise UsageError(f"{folder} {told}", hint="move it away, or have it replaced with --delete")
            if not self._options.dry_run:
                folder.unlink()
        if not self._options.dry_run:
            try:
                folder.mkdir(parents=is_root)
            except OSError as error:
                raise kind_of(error)(f"{folder} cannot be made: {error.strerror}") from error
        return True

    def _write(self, placed: Sequence[tuple[RepoFile, Path]]) -> Iterator[Restored]:
        self._told.files(len(placed))
        for restored in self._written(placed):
            self._told.file(str(restored.path))
            yield restored

    def _written(self, placed: Sequence[tuple[RepoFile, Path]]) -> Iterator[Restored]:
        stored: list[tuple[RepoFile, Path]] = []
        small: list[tuple[RepoFile, Path]] = []
        links: list[tuple[RepoFile, Path]] = []
        for file, path in placed:
            try:
                if file.is_link:
                    links.append((file, path))
                elif self._is_there(file, path):
                    self._progress.total(file.size)
                    self._progress.advance(logical=file.size)
                    self._set_mode(file, path)
                    yield Restored(path, Action.UNCHANGED, file)
                elif self._options.dry_run:
                    yield Restored(path, Action.WRITTEN, file)
                else:
                    self._make_way(path)
                    (small if file.hash is None else stored).append((file, path))
            except XetError as error:
                self._tell(path, error)
        yield from self._write_stored(stored)
        yield from self._write_small(small)
        for file, path in links:  # last: nothing is to be written through them
            try:
                yield self._link(file, path)
            except XetError as error:
                self._tell(path, error)

    def _write_stored(self, placed: Sequence[tuple[RepoFile, Path]]) -> Iterator[Restored]:
        if not placed:
            return
        errors: dict[Path, XetError] = {}
        on_error = None if self._on_error is None else errors.__setitem__
        reports = self._files.iter_get(
            [(file.hash, path) for file, path in placed if file.hash is not None],
            progress=self._progress,
            on_error=on_error,
            fsync=self._options.fsync,
        )
        left = iter(placed)
        with closing(reports):
            for _ in reports:
                for file, path in left:
                    if path in errors:
                        self._tell(path, errors[path])
                        continue
                    self._set_mode(file, path)
                    yield Restored(path, Action.WRITTEN, file)
                    break
        for _, path in left:
            if path in errors:
                self._tell(path, errors[path])

    def _write_small(self, placed: Sequence[tuple[RepoFile, Path]]) -> Iterator[Restored]:
        for part in read_together(placed):
            contents: Sequence[Iterable[Buffer]] = []
            with suppress(XetError):  # then each file says itself what is wrong with it
                contents = [[data] for data in self._read([file for file, _ in part])]
            for number, (file, path) in enumerate(part):
                try:
                    self._write_one(file, path, contents[number] if contents else None)
                except XetError as error:
                    self._tell(path, error)
                    continue
                yield Restored(path, Action.WRITTEN, file)

    def _read(self, files: Sequence[RepoFile]) -> list[bytes]:
        return self._names.read_many(self._repo, self._commit, files) if files[0].size <= BATCH_BYTES else []

    def _write_one(self, file: RepoFile, path: Path, content: Iterable[Buffer] | None) -> None:
        self._progress.total(file.size)
        with NewFile(path, fsync=self._options.fsync) as new:
            size = 0
            for part in self._names.read(self._repo, self._commit, file) if content is None else content:
                view = memoryview(part)
                if len(view):
                    new.write_at(size, view)
                    size += len(view)
                    self._progress.advance(logical=len(view))
            new.commit(size)
        self._set_mode(file, path)

    def _link(self, file: RepoFile, path: Path) -> Restored:
        target = os.fsdecode(b"".join(bytes(part) for part in self._names.read(self._repo, self._commit, file)))
        with suppress(OSError):
            if path.is_symlink() and os.readlink(path) == target:  # noqa: PTH115
                return Restored(path, Action.UNCHANGED, file)
        if not target or "\0" in target:
            raise FormatError("repository.link", 0, f"the link {file.path!r} leads nowhere")
        # In the folder that is written: of a repository this may be a small part.
        if not self._options.any_links and not leads_within(path.relative_to(self._to).as_posix(), target):
            raise UsageError(
                f"the link {path} is left out: it leads out of {self._to}, to {target[:200]!r}",
                hint="--any-links makes it all the same",
            )
        if not self._options.dry_run:
            self._make_way(path)
            temporary = hidden_name(path, f"{secrets.token_hex(4)}.incomplete")
            try:
                temporary.symlink_to(target)
                try:
                    temporary.replace(path)
                except BaseException:
                    temporary.unlink()
                    raise
            except OSError as error:
                raise kind_of(error)(f"{path} cannot be made a link: {error.strerror}") from error
        return Restored(path, Action.LINKED, file)

    def _is_there(self, file: RepoFile, path: Path) -> bool:
        """True if a regular file is there with this very content."""
        try:
            info = path.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.size:
            return False
        try:
            if file.hash is not None:
                return hash_file(path).hash == file.hash
            if file.sha256 is not None:
                with path.open("rb") as local:
                    return hashlib.file_digest(local, "sha256").hexdigest() == file.sha256
            return blob_id(path.read_bytes()) == file.oid
        except (OSError, XetError):
            return False

    def _make_way(self, path: Path) -> None:
        """Remove what cannot be replaced by a file: a link, through which nothing is written; with ``delete`` a folder
        too."""
        kind = _kind(path)
        if kind == stat.S_IFDIR and not self._options.delete:
            raise UsageError(
                f"{path} is a file in the revision, and here a folder",
                hint="move it away, or have it replaced with --delete",
            )
        try:
            if kind == stat.S_IFDIR:
                shutil.rmtree(path)
            elif kind not in (None, stat.S_IFREG):
                path.unlink()
        except OSError as error:
            raise kind_of(error)(f"{path} cannot be replaced: {error.strerror}") from error

    def _set_mode(self, file: RepoFile, path: Path) -> None:
        if self._options.dry_run or not (self._names.keeps_modes or file.is_executable):
            return
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | (mode & 0o444) >> 2 if file.is_executable else mode & ~0o111
            if mode != wanted:
                path.chmod(wanted)
        except OSError as error:
            raise kind_of(error)(f"the mode of {path} cannot be set: {error.strerror}") from error

    def _delete(self, folders: set[Path], kept: set[Path]) -> Iterator[Restored]:
        spelled: dict[str, list[Path]] = {}
        for path in folders | kept:
            spelled.setdefault(folded(str(path)), []).append(path)
        for folder in sorted(folders):
            try:
                with os.scandir(folder) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                if self._options.dry_run:
                    continue
                raise kind_of(error)(f"{folder} cannot be read: {error.strerror}") from error
            for entry in entries:
                path = folder / entry.name
                if path in kept or path in folders or _is_one_of(path, spelled.get(folded(str(path)), ())):
                    continue
                if not self._options.dry_run:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            shutil.rmtree(path)
                        else:
                            path.unlink()
                    except OSError as error:
                        raise kind_of(error)(f"{path} cannot be deleted: {error.strerror}") from error
                yield Restored(path, Action.DELETED)

    def _tell(self, path: Path, error: XetError) -> None:
        if self._on_error is None:
            raise error
        self._failed = True
        self._told.file(str(path))
        self._on_error(path, error)


def read_together(placed: Iterable[tuple[RepoFile, T]]) -> Iterator[list[tuple[RepoFile, T]]]:
    """Files in parts that are read at once."""
    return sized_batches(placed, lambda one: one[0].size, BATCH_BYTES, most=BATCH_FILES)


def _checked(path: str, prefix: str) -> str:
    """A path of the repository below ``prefix``, if it may become a local one. Raises FormatError."""
    inner = path.removeprefix(f"{prefix}/") if prefix else path
    parts = inner.split("/")
    if "\0" in inner or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise FormatError("repository.path", 0, f"{path[:200]!r} is no path that a repository may have")
    return inner


def _is_one_of(path: Path, spelled: Iterable[Path]) -> bool:
    """True if a file system that changes or ignores spellings lists a path in another one than it was given."""
    for other in spelled:
        with suppress(OSError):
            if os.path.samestat(path.lstat(), other.lstat()):
                return True
    return False


def _kind(path: Path) -> int | None:
    """The kind of what is at a path, links not followed; None for nothing."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise kind_of(error)(f"{path} cannot be looked at: {error.strerror}") from error
