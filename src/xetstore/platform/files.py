"""Durable files: whole and on the disk before they have their name, or not there at all."""

# ruff: noqa: PTH102, PTH108  # the calls of `os`, in their order, are the promise; tests watch them

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import AccessDeniedError, StorageFullError, UnavailableError, XetError, kind_of
from xetstore.platform.descriptors import CREATE, READ

if sys.platform == "darwin":
    import fcntl

if TYPE_CHECKING:
    from typing_extensions import Buffer

TEMPORARY_FOLDER: Final = "tmp"
"""The folder, at the top of a store, of unfinished files."""

# A single write call moves at most this much: less than the 2 GiB that Linux takes at once.
_WRITE_BYTES: Final = 1 << 30
_NO_FULL_SYNC: Final = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY))
MOVES_OPEN_FILES: Final = sys.platform != "win32"
"""True if a file can be renamed and removed while it is open."""

_HELD: Final = (5, 32)
"""The errors of Windows for a file that is open: access denied, and a sharing violation."""
_HELD_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)


class NoRegularFileError(FileNotFoundError):
    """A pipe, a folder or a device is where a file should be. For objects that is as if nothing were there."""


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor for reading a file of a store, the caller's to close, and what it is.

    Raises NoRegularFileError for what is there but is none, and OSError. To open a pipe would otherwise wait for a
    writer, for ever; ``O_NONBLOCK`` changes nothing for a file.
    """
    descriptor = os.open(path, READ)
    found = os.fstat(descriptor)
    if not S_ISREG(found.st_mode):
        os.close(descriptor)
        raise NoRegularFileError(errno.ENOENT, "it is no regular file", str(path))
    return descriptor, found


def read_regular(path: Path) -> bytes:
    """All of a file of a store. Raises OSError as :func:`open_regular`."""
    descriptor, _ = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def make_durable_folder(folder: Path) -> None:
    """Create a folder and those missing above it; the entries of all that were created are durable on return."""
    if folder.is_dir():
        return
    make_durable_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    sync_folder(folder.parent)


def write_new_object(root: Path, path: Path, parts: Sequence[Buffer]) -> bool:
    """Create the file ``path`` below ``root``, whole and durable, or not at all. False if it exists already.

    The folder of ``path`` must exist. Raises OSError.
    """
    with NewFile(root, path) as new:
        for part in parts:
            new.write(part)
        return new.commit()


class NewFile:
    """The only place in xetstore where bytes become durable outside the index.

    Written to a temporary name; then fsync, link to the final name (which, unlike rename, never replaces), fsync the
    directory. Raises OSError; a failed fsync is final, because a second one cannot be trusted.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._path = path
        self._temporary = root / TEMPORARY_FOLDER / f"{os.getpid()}-{os.urandom(16).hex()}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._temporary.parent)
        self._descriptor = os.open(self._temporary, CREATE, 0o644)

    def write(self, part: Buffer) -> None:
        """Append bytes to the temporary file."""
        _write_all(self._descriptor, memoryview(part))

    def commit(self) -> bool:
        """Give the file its name, durably. False if there is a file of that name."""
        try:
            sync_file(self._descriptor)
            self._close_file()
            try:
                os.link(self._temporary, self._path)
                is_new = True
            except FileExistsError:
                is_new = False
        finally:
            self.close()
        sync_folder(self._path.parent)
        return is_new

    def close(self) -> None:
        """Remove the temporary file. May be called again."""
        if self._temporary.name:
            with contextlib.suppress(OSError):
                self._close_file()
            # What cannot be removed now is swept later; it must not hide the error that led here.
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = Path()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def sweep_temporaries(root: Path, *, older_than: float) -> None:
    """Remove temporary files last written before ``older_than`` (unix seconds), as far as that is allowed."""
    with contextlib.suppress(OSError), os.scandir(root / TEMPORARY_FOLDER) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < older_than:
                    os.unlink(entry.path)


def storage_error(error: OSError, what: str) -> XetError:
    """The error of ours for one of the operating system; ``what`` says what was not done."""
    message = f"{what}: {error.strerror or error}"
    kind = kind_of(error)
    if kind is StorageFullError:
        return StorageFullError(message, hint="make room on the file system of the store, then try again")
    if kind is AccessDeniedError:
        return AccessDeniedError(
            message, hint="the store must lie in a directory you may write to, with support for hard links"
        )
    return UnavailableError(message)


def _write_all(descriptor: int, part: memoryview) -> None:
    if not part.nbytes:
        return
    rest = part.cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest[:_WRITE_BYTES]) :]


def remove_open(path: Path, descriptor: int) -> None:
    """Remove a file that is open, as far as that is allowed, and close it. Windows removes none while it is open."""
    try:
        os.unlink(path)
        is_removed = True
    except OSError:
        is_removed = False
    os.close(descriptor)
    if not is_removed:
        with contextlib.suppress(OSError):
            os.unlink(path)


def sync_file(descriptor: int) -> None:
    """Make the bytes of a file durable. Raises OSError, which is final.

    On macOS fsync alone leaves them in the memory of the disk; file systems of a network may know no more than that.
    """
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has. Nothing is done on Windows, whose file system keeps a journal of that."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def replace(source: Path | str, target: Path | str) -> None:
    """Give a file the name of another one, which is gone. Raises OSError.

    Windows refuses that while any process has one of the two open, such as a scanner for viruses: it is tried again for
    about a second.
    """
    for pause in _HELD_SECONDS:
        try:
            os.replace(source, target)  # noqa: PTH105
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD:
                raise
            time.sleep(pause)
        else:
            return
    os.replace(source, target)  # noqa: PTH105
