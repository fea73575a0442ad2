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
from typing import Final

_DEVICES: Final = frozenset(
    ("con", "prn", "aux", "nul", "conin$", "conout$")
    + tuple(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³")
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


def clashes(paths: Iterable[str], takes_for_one: Callable[[str, str], bool]) -> dict[str, str]:
    """Paths with ``/`` that are taken for another one, or whose folder is; each with what came before it.

    ``takes_for_one`` is asked for two names that differ, and are alike when they are folded: a :class:`Probe`.
    """
    spelled: dict[str, str] = {}
    found: dict[str, str] = {}
    for path in paths:
        for part in _with_folders(path):
            before = spelled.setdefault(folded(part), part)
            if before != part and _is_one(before, part, takes_for_one):
                found[path] = before
                break
    return found


def _is_one(first: str, second: str, takes_for_one: Callable[[str, str], bool]) -> bool:
    pairs = zip(first.split("/"), second.split("/"), strict=True)
    return all(one == other or takes_for_one(one, other) for one, other in pairs)


def _with_folders(path: str) -> Iterator[str]:
    """The folders that a path is in, from the outermost on, and the path."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
    yield path


class Probe:
    """Tells which names the file system of a folder takes for one, by a file in a folder that is gone afterwards.

    It is asked once for each kind of difference: case, accents, or both. A folder in which nothing can be made has
    no such names. The folder may be missing: then the one above it is asked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[tuple[bool, bool], bool] = {}

    def __call__(self, first: str, second: str) -> bool:
        """True if two names that are alike when they are folded are one here."""
        kind = (first.casefold() == second.casefold(), _composed(first) == _composed(second))
        if kind not in self._answers:
            self._answers[kind] = self._try(first, second)
        return self._answers[kind]

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


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
