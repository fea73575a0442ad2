"""Names of files: those that a system cannot have or reads as others, and those that a file system takes for one.

A repository has any names, one for each content. Windows keeps some for devices and drops the ends of others; macOS and
Windows have file systems that ignore case, and macOS one that has a way of its own to write accents.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from xetstore.errors import UsageError

_DEVICES: Final = frozenset(("con", "prn", "aux", "nul", "conin$", "conout$")) | frozenset(
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
)
_NOT_ON_WINDOWS: Final = re.compile(r'[\x00-\x1f<>"|?*]')
_SHORT_GIT: Final = re.compile(r"git~[0-9]+")
# What HFS+ leaves out when it compares names.
_IGNORED_ON_MACOS: Final = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def name_fault(name: str, system: str = sys.platform) -> str | None:
    """The reason why one part of a path cannot be the name of a file here, or would be another one; None if it can.

    >>> name_fault("aux.txt", "win32"), name_fault("aux.txt", "linux")
    ('is the name of a device', None)
    """
    if system == "darwin" and _IGNORED_ON_MACOS.sub("", name).lower() == ".git":
        return "is the folder of a repository of git"
    return _fault_on_windows(name) if system == "win32" else None


def _fault_on_windows(name: str) -> str | None:
    if "\\" in name:
        return "has a backslash, which stands between folders"
    if ":" in name:
        return "has a colon, behind which a hidden stream is named"
    if _NOT_ON_WINDOWS.search(name):
        return "has a character that no name may have"
    if name.endswith((".", " ")) and name not in (".", ".."):
        return "ends with a dot or a space, which are dropped"
    if name.partition(".")[0].rstrip(" ").lower() in _DEVICES:
        return "is the name of a device"
    if _SHORT_GIT.fullmatch(name.lower()):
        return "is the short name of a repository of git"
    return None


def folded(path: str) -> str:
    """A path as a file system compares it that ignores case, and the way in which accents are written."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _lower(name: str) -> str:
    """Each letter by itself: ß is not ss."""
    return "".join(map(str.lower, name))


Fold: TypeAlias = Callable[[str], str]
_FOLDS: Final[tuple[Fold, ...]] = (
    _lower,
    str.casefold,
    _composed,
    lambda name: _composed(_lower(unicodedata.normalize("NFD", name))),
    folded,
)
"""Ways in which file systems compare names, the last of which says least."""


class FolderNames:
    """Names that files may have below a folder of this machine. The folder may be missing.

    The file system says which names it takes for one, by a file in a folder beside them that is gone afterwards. It is
    asked only if there are two that may be, and once for each kind of difference: case, accents, or both; and letters
    such as ß, which has no capital everywhere. A folder in which nothing can be made has no such names.
    """

    def __init__(self, folder: Path, system: str = sys.platform) -> None:
        self._folder = folder
        self._system = system
        self._answers: dict[tuple[bool, ...], bool] = {}

    def refused(self, paths: Iterable[str]) -> dict[str, UsageError]:
        """Paths with ``/`` that cannot be files here, or would take the place of one that comes before them, or whose
        folder would; each with the reason.
        """
        spelled: dict[str, str] = {}
        alike: dict[tuple[Fold, str], str] = {}
        found: dict[str, UsageError] = {}
        for path in paths:
            if error := self._fault(path):
                found[path] = error
                continue
            for part in _with_folders(path):
                first = spelled.setdefault(folded(part), part)
                before = None if first == part else self._before(part, first, alike)
                if before is not None:
                    found[path] = UsageError(
                        f"{path!r} is left out: the file system of {self._folder} takes it for {before!r}, which is"
                        " there too",
                        hint="get it alone, under another name; or all of it on a file system that tells the two apart",
                    )
                    break
        return found

    def takes_for_one(self, first: str, second: str) -> bool:
        """True if the file system takes two names for one, which are alike when they are folded."""
        kind = tuple(fold(first) == fold(second) for fold in _FOLDS)
        if kind not in self._answers:
            self._answers[kind] = self._try(first, second)
        return self._answers[kind]

    def _fault(self, path: str) -> UsageError | None:
        for part in path.split("/"):
            if fault := name_fault(part, self._system):
                return UsageError(
                    f"{path[:200]!r} is left out: {part!r} {fault}", hint="get it alone, under another name"
                )
        return None

    def _before(self, path: str, first: str, alike: dict[tuple[Fold, str], str]) -> str | None:
        """The path before this one that the file system takes for it; ``first`` is alike when it is folded."""
        for fold in _FOLDS:
            alike.setdefault((fold, fold(first)), first)
            before = alike.setdefault((fold, fold(path)), path)
            if before != path and self._is_one(before, path):
                return before
        return None

    def _is_one(self, first: str, second: str) -> bool:
        pairs = zip(first.split("/"), second.split("/"), strict=True)
        return all(one == other or self.takes_for_one(one, other) for one, other in pairs)

    def _try(self, first: str, second: str) -> bool:
        folder = self._folder.absolute()
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        with contextlib.suppress(OSError):
            trial = tempfile.mkdtemp(prefix=".xet-names-", dir=folder)
            try:
                Path(trial, first).touch()
                return os.path.lexists(os.path.join(trial, second))  # noqa: PTH118
            finally:
                shutil.rmtree(trial, ignore_errors=True)
        return False


def _with_folders(path: str) -> Iterator[str]:
    """The folders that a path is in, from the outermost on, and the path."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
    yield path
