"""The directory of a store: its format marker, and where its index lies."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from typing import Final

from xetstore.cas.layout import XORBS
from xetstore.errors import DamagedError, NotFoundError, UsageError
from xetstore.platform.files import (
    TEMPORARY_FOLDER,
    NoRegularFileError,
    make_durable_folder,
    read_regular,
    storage_error,
    write_new_object,
)
from xetstore.platform.locks import Lockf, has_range_locks, no_locks

FORMAT_VERSION: Final = 1

_MARKER: Final = "format"
_MARKER_TEXT: Final = "xetstore embedded store, format {}\n"
_MARKER_PATTERN: Final = re.compile(r"xetstore embedded store, format ([0-9]{1,9})\n")
_INDEX: Final = "index.sqlite3"
_RESTORE: Final = "put the index back from a backup"


def open_directory(root: Path, *, create: bool, lockf: Lockf = fcntl.lockf) -> Path:
    """Make sure that ``root`` holds a store of a format we know; returns where its index lies.

    With ``create``, a directory that is missing or empty becomes a store. Raises NotFoundError without, and
    UsageError for a directory that holds something else or that newer code wrote; UnavailableError at once where its
    file system has no locks, for which SQLite would wait as if another process held them.
    """
    try:
        marker = _read_marker(root)
        if marker is None and create:
            _create(root)
            marker = _read_marker(root)
    except OSError as error:
        raise storage_error(error, f"the store {root} cannot be opened") from error
    if marker is None:
        raise NotFoundError(f"there is no store in {root}", hint="put a file into it to create one")
    _check_marker(root, marker)
    try:
        has_locks = has_range_locks(root / _MARKER, lockf=lockf)
    except OSError as error:
        raise storage_error(error, f"the store {root} cannot be opened") from error
    if not has_locks:
        raise no_locks(f"the store {root}")
    index = root / _INDEX
    if index.exists() and not index.is_file():
        raise DamagedError(f"the index {_INDEX} of the store {root} is no regular file", hint=_RESTORE)
    if (not index.exists() or not index.stat().st_size) and (root / XORBS).exists():
        # Going on with an empty index would look as if all files had been lost.
        raise DamagedError(
            f"the store {root} has objects, but its index {_INDEX} is missing or empty",
            hint=_RESTORE,
        )
    return index


def _read_marker(root: Path) -> str | None:
    try:
        return read_regular(root / _MARKER).decode("utf-8", errors="replace")
    except NoRegularFileError:
        raise UsageError(f"{root} is not a store of xetstore: its {_MARKER!r} is no regular file") from None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_marker(root: Path, marker: str) -> None:
    match = _MARKER_PATTERN.fullmatch(marker)
    if match is None:
        raise UsageError(f"{root} is not a store of xetstore: its file {_MARKER!r} says something else")
    if int(match[1]) != FORMAT_VERSION:
        raise UsageError(
            f"the store {root} has format {match[1]}; this xetstore knows format {FORMAT_VERSION}",
            hint="open it with the xetstore that wrote it, or a newer one",
        )


def _create(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file, not a directory for a store")
    make_durable_folder(root)
    # Another process may be creating the same store right now, and be as far as its first temporary file.
    others = sorted({entry.name for entry in root.iterdir()} - {TEMPORARY_FOLDER})
    if others and _MARKER not in others:
        raise UsageError(
            f"{root} is not a store, and not empty: it holds {others[0]!r}",
            hint="name an empty or a new directory",
        )
    write_new_object(root, root / _MARKER, [_MARKER_TEXT.format(FORMAT_VERSION).encode()])
