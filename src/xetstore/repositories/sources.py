"""Sources of a commit: what is to be at each path of a repository, from local files, folders and bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from xetstore.errors import UsageError, XetError
from xetstore.hub.ignore import Ignore
from xetstore.hub.names import check_path
from xetstore.platform.homes import local_path
from xetstore.records import EXECUTABLE_MODE, FILE_MODE, FOLDER_MODE, LINK_MODE, RepoFile
from xetstore.transfer.byte_source import Readable
from xetstore.transfer.scan import source_error

Note: TypeAlias = Callable[[Path, str], None]
"""Told of a local path that is not stored, or not as it is: "is left out: it is not a regular file"."""


Content: TypeAlias = Path | str | bytes | RepoFile | Readable
"""The content of a path of a repository: a local file or folder, bytes, a large file of it, or a binary stream."""

EXCLUDED: Final = "is left out: it is excluded"


def no_note(path: Path, why: str) -> None:
    """Tell nothing."""


def all_in(folder: Path) -> bool:  # noqa: ARG001
    """Leave no folder out."""
    return False


@dataclass(frozen=True, slots=True)
class Source:
    """The content for one path of a repository: of a local ``file``, or ``data``; of an empty folder neither. ``size``
    is the bytes of ``file`` when it was looked at. ``entry`` is a large file that the repository has already, and
    ``stream`` what is read once.
    """

    path: str
    mode: int = FILE_MODE
    file: Path | None = None
    data: bytes | None = None
    size: int = 0
    entry: RepoFile | None = None
    stream: Readable | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of what is taken from local folders.

    With ``keeps_modes`` links within a folder stay links, and executable bits and empty folders are kept; else the
    content of the file is stored that a link leads to. ``exclude`` says what is left out, by paths from the folder.
    ``is_left_out`` is asked for each folder.
    """

    keeps_modes: bool = True
    exclude: Ignore | None = None
    is_left_out: Callable[[Path], bool] = all_in

    def excludes(self, path: str, *, is_folder: bool) -> bool:
        """True if a path in the folder is left out for itself."""
        return self.exclude is not None and self.exclude.leaves_out(path, is_folder=is_folder)

    def spares(self, path: str, *, is_folder: bool) -> bool:
        """True if a path, or a folder that it is in, is left out: it is not looked at, so it is not missing."""
        parts = path.split("/")
        above = any(self.excludes("/".join(parts[:end]), is_folder=True) for end in range(1, len(parts)))
        return above or self.excludes(path, is_folder=is_folder)


def sources_of(
    add: Mapping[str, Content],
    rules: Rules,
    *,
    on_note: Note = no_note,
    on_error: Callable[[Path, XetError], None] | None = None,
) -> Iterator[Source]:
    """The sources of a mapping of paths in the repository to local paths, bytes, streams, or large files that it has;
    of a folder all that is in it.

    Its content goes to the path, ``""`` for the root. A name that no repository takes, and a path that cannot be read,
    is handed to ``on_error``; without it the error is raised.
    """
    for path, content in add.items():
        if isinstance(content, bytes | bytearray | memoryview):
            yield Source(check_path(path), data=bytes(content))
            continue
        if isinstance(content, RepoFile):
            if content.sha256 is None:
                raise UsageError(f"{content.path} is no large file of the repository", hint="give its bytes")
            yield Source(check_path(path), content.mode, size=content.size, entry=content)
            continue
        if isinstance(content, Readable):
            yield Source(check_path(path), stream=content)
            continue
        local = local_path(content, "the content of a path")
        try:
            info = local.stat()
        except OSError as error:
            raise source_error(local, error) from error
        if stat.S_ISDIR(info.st_mode):
            yield from _Folder(local, path.strip("/"), rules, on_note, on_error).sources()
        elif stat.S_ISREG(info.st_mode):
            if not path:
                raise UsageError(f"{local} needs a path in the repository", hint=f"for example {local.name}")
            yield Source(check_path(path), _mode(info, rules, local, on_note), local, size=info.st_size)
        else:
            raise UsageError(f"{local} is neither a file nor a folder")


class _Folder:
    def __init__(
        self,
        root: Path,
        path: str,
        rules: Rules,
        on_note: Note,
        on_error: Callable[[Path, XetError], None] | None,
    ) -> None:
        self._root = root
        self._prefix = f"{path}/" if path else ""
        self._rules = rules
        self._note = on_note
        self._on_error = on_error

    def sources(self) -> Iterator[Source]:
        folders = [""]
        while folders:
            folder = folders.pop()
            here = self._root / folder
            try:
                with os.scandir(here) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self._failed(here, source_error(here, error))
                continue
            below = []
            count = 0
            for entry in entries:
                inner = f"{folder}/{entry.name}" if folder else entry.name
                local = self._root / inner
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if self._rules.excludes(inner, is_folder=is_folder):
                        self._note(local, EXCLUDED)
                        continue
                    if is_folder:
                        if self._is_kept(entry, local):
                            count += 1
                            below.append(inner)
                        continue
                    source = self._source(entry, inner, local)
                except XetError as error:
                    self._failed(local, error)
                    continue
                if source is not None:
                    count += 1
                    yield source
            folders += reversed(below)
            if not count and folder:
                yield from self._empty(folder, here)

    def _is_kept(self, entry: os.DirEntry[str], local: Path) -> bool:
        if entry.name.lower() == ".git":
            self._note(local, "is left out: it is a repository of git")
            return False
        if self._rules.is_left_out(local):
            self._note(local, "is left out: it is the store itself")
            return False
        return True

    def _source(self, entry: os.DirEntry[str], inner: str, local: Path) -> Source | None:
        try:
            if entry.is_symlink():
                target = os.readlink(local)  # noqa: PTH115  # a Path would tidy it up
                if self._rules.keeps_modes and leads_within(inner, target):
                    return Source(self._path(inner, local), LINK_MODE, data=os.fsencode(target))
                if not self._rules.keeps_modes and local.is_file():
                    self._note(local, "is stored as the file that it leads to: a Hub knows no links")
                if not local.exists():
                    self._note(local, "is left out: it is a link to nothing")
                    return None
            info = local.stat()
        except OSError as error:
            raise source_error(local, error) from error
        if stat.S_ISREG(info.st_mode):
            path = self._path(inner, local)
            return Source(path, _mode(info, self._rules, local, self._note), local, size=info.st_size)
        is_link = entry.is_symlink() and stat.S_ISDIR(info.st_mode)
        why = "it is a link to a folder elsewhere" if is_link else "it is not a regular file"
        self._note(local, f"is left out: {why}")
        return None

    def _empty(self, folder: str, here: Path) -> Iterator[Source]:
        if not self._rules.keeps_modes:
            self._note(here, "is left out: it is an empty folder, of which a Hub knows nothing")
            return
        try:
            yield Source(self._path(folder, here), FOLDER_MODE)
        except XetError as error:
            self._failed(here, error)

    def _path(self, inner: str, local: Path) -> str:
        try:
            return check_path(self._prefix + inner)
        except UsageError as error:
            raise UsageError(
                f"{str(local)!r} has a name that no repository takes", hint="rename it, or leave it out with --exclude"
            ) from error

    def _failed(self, local: Path, error: XetError) -> None:
        if self._on_error is None:
            raise error
        self._on_error(local, error)


def leads_within(path: str, target: str) -> bool:
    """True if a link at ``path`` leads to a place in the same folder tree, whatever other such links are there.

    Steps up come first: behind a name, which may be a link itself, they lead from where that leads to.

    >>> [leads_within("a/b", target) for target in ("../c", "../../c", "/etc", "b/..")]
    [True, False, False, False]
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = path.count("/")
    is_below = False
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if is_below or depth < 0:
                return False
        elif part not in ("", "."):
            is_below = True
    return True


def _mode(info: os.stat_result, rules: Rules, local: Path, on_note: Note) -> int:
    if not info.st_mode & stat.S_IXUSR:
        return FILE_MODE
    if not rules.keeps_modes:
        on_note(local, "is stored without its executable bit, of which a Hub knows nothing")
        return FILE_MODE
    return EXECUTABLE_MODE
