"""Durable files: whole and on the disk before they have their name, or not there at all."""

# ruff: noqa: PTH102, PTH108  # the calls of `os`, in their order, are the promise; tests watch them

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import AccessDeniedError, StorageFullError, UnavailableError, XetError, kind_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

TEMPORARY_FOLDER: Final = "tmp"
"""The folder, at the top of a store, of unfinished files."""

# A single write call moves at most this much: less than the 2 GiB that Linux takes at once.
_WRITE_BYTES: Final = 1 << 30


class NoRegularFileError(FileNotFoundError):
    """A pipe, a folder or a device is where a file should be. For objects that is as if nothing were there."""


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor for reading a file of a store, the caller's to close, and what it is.

    Raises NoRegularFileError for what is there but is none, and OSError. To open a pipe would otherwise wait for a
    writer, for ever; ``O_NONBLOCK`` changes nothing for a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
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
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, part: Buffer) -> None:
        """Append bytes to the temporary file."""
        _write_all(self._descriptor, memoryview(part))

    def commit(self) -> bool:
        """Give the file its name, durably. False if there is a file of that name."""
        try:
            os.fsync(self._descriptor)
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


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
