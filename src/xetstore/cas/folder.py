"""The directory of a store, or of its objects: its format marker, its locks, and where its index lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from xetstore.cas.layout import STORES, XORBS
from xetstore.cas.parts import INDEX_FILE, STORE_FILE
from xetstore.errors import DamagedError, NotFoundError, UsageError, XetError
from xetstore.platform.files import (
    TEMPORARY_FOLDER,
    NoRegularFileError,
    make_durable_folder,
    read_regular,
    storage_error,
    write_new_object,
)
from xetstore.platform.locks import Lockf, has_range_locks, lockf, no_locks

FORMAT_VERSION: Final = 1

FORMAT_FILE: Final = "format"
"""The file in the directory of a store that tells its format."""
_MARKER_TEXT: Final = "xetstore embedded store, format {}\n"
_MARKER_PATTERN: Final = re.compile(r"xetstore embedded store, format ([0-9]{1,9})\n")
RESTORE: Final = "xet repair --rebuild-index --yes makes it anew from the objects; or put it back from a backup"
_EMPTY: Final = "put a file into it to create one"
_FILLED: Final = "it is a directory with something else in it: name that of a store, or an empty or a new one"
MEND: Final = "if it is one, and only its mark was lost, `xet repair --yes` makes that anew"


def open_directory(root: Path, *, create: bool, lockf: Lockf = lockf) -> Path:
    """Make sure that ``root`` holds a store of a format we know, with its index; returns where that lies.

    Raises what :func:`open_objects_folder` and :func:`check_index_file` raise.
    """
    open_objects_folder(root, create=create)
    require_locks(root / FORMAT_FILE, f"the store {root}", lockf=lockf)
    index = root / INDEX_FILE
    check_index_file(index, root)
    return index


def open_objects_folder(root: Path, *, create: bool) -> None:
    """Make sure that ``root`` holds objects of a store of a format we know.

    With ``create``, a directory that is missing or empty becomes one. Raises NotFoundError without, and UsageError for
    a directory that holds something else or that newer code wrote.
    """
    try:
        marker = _read_marker(root)
        if marker is None and create:
            _create(root)
            marker = _read_marker(root)
    except OSError as error:
        raise storage_error(error, f"the store {root} cannot be opened") from error
    if marker is None:
        is_filled = root.is_dir() and any(root.iterdir())
        hint = MEND if (root / INDEX_FILE).exists() else _FILLED if is_filled else _EMPTY
        raise NotFoundError(f"there is no store in {root}", hint=hint)
    _check_marker(root, marker)


def require_locks(file: Path, what: str, *, lockf: Lockf = lockf) -> None:
    """Raise UnavailableError at once where the file system of ``file``, which no database is in, has no locks: SQLite
    would wait as if another process held them.
    """
    try:
        has_locks = has_range_locks(file, lockf=lockf)
    except OSError as error:
        raise storage_error(error, f"{what} cannot be opened") from error
    if not has_locks:
        raise no_locks(what)


def require_locks_in(folder: Path, what: str) -> None:
    """The same for a folder that may hold databases, as far as a file can be made in it."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".locks-") as probe:
            require_locks(Path(probe.name), what)
    except XetError:
        raise
    except OSError:
        return  # it can be read only, for which SQLite finds its own way


def check_index_file(index: Path, objects: Path | None) -> None:
    """Raise DamagedError for a SQLite file that is none, and for one that is missing while its objects are there.

    ``objects`` is their directory, if they are in one.
    """
    if index.exists() and not index.is_file():
        raise DamagedError(f"the index {_index_of(index, objects)} is no regular file", hint=RESTORE)
    # A store that has names and small files only has no xorb. Its mark in STORES comes after its index, so it had one;
    # where the index is elsewhere, pairing says whose mark it is.
    signs = () if objects is None else (XORBS, STORES) if index == objects / INDEX_FILE else (XORBS,)
    if objects is not None and is_new_file(index) and any((objects / sign).exists() for sign in signs):
        # Going on with an empty index would look as if all files and names had been lost.
        where = f"its index {INDEX_FILE}" if index == objects / INDEX_FILE else f"its index {index}"
        raise DamagedError(f"the store {objects} has objects, but {where} is missing or empty", hint=RESTORE)


def is_new_file(index: Path) -> bool:
    """True if there is nothing in a SQLite file yet."""
    return not index.exists() or not index.stat().st_size


def _index_of(index: Path, objects: Path | None) -> str:
    return f"{INDEX_FILE} of the store {objects}" if objects and index == objects / INDEX_FILE else str(index)


def has_marker(root: Path) -> bool:
    """True if a directory says that it is a store, of whichever format."""
    try:
        return _MARKER_PATTERN.fullmatch(_read_marker(root) or "") is not None
    except UsageError:
        return False


def write_marker(root: Path) -> None:
    """Let a directory say that it is a store. Durable on return; what is there stays. Raises OSError."""
    write_new_object(root, root / FORMAT_FILE, [_MARKER_TEXT.format(FORMAT_VERSION).encode()])


def _read_marker(root: Path) -> str | None:
    try:
        return read_regular(root / FORMAT_FILE).decode("utf-8", errors="replace")
    except NoRegularFileError:
        raise UsageError(f"{root} is not a store of xetstore: its {FORMAT_FILE!r} is no regular file") from None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_marker(root: Path, marker: str) -> None:
    match = _MARKER_PATTERN.fullmatch(marker)
    if match is None:
        hint = MEND if (root / INDEX_FILE).exists() else None
        raise UsageError(f"{root} is not a store of xetstore: its file {FORMAT_FILE!r} says something else", hint=hint)
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
    others = sorted({entry.name for entry in root.iterdir()} - {TEMPORARY_FOLDER, STORE_FILE})
    if others and FORMAT_FILE not in others:
        raise UsageError(
            f"{root} is not a store, and not empty: it holds {others[0]!r}",
            hint=MEND if INDEX_FILE in others else "name an empty or a new directory",
        )
    write_marker(root)
