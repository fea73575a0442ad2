"""LocalBlobStore: objects as files below a directory, and write_new_object(), which makes each one durable."""

# ruff: noqa: PTH102, PTH108, PTH116  # the calls of `os`, in their order, are the promise; tests watch them

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, Self

from xetstore.cas.blobs import RESERVED_FOLDERS, TEMPORARY_FOLDER, check_key, check_range
from xetstore.cas.place import Place
from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    NotFoundError,
    RangeError,
    StorageFullError,
    UnavailableError,
    XetError,
    kind_of,
)
from xetstore.interfaces import BlobInfo
from xetstore.platform import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer

STALE_TEMPORARY_SECONDS: Final = 24 * 3600
"""Age at which a temporary file is taken for the remains of a process that died."""

# A single write call moves at most this much: less than the 2 GiB that Linux takes at once.
_WRITE_BYTES: Final = 1 << 30


class LocalBlobStore:
    """A BlobStore of plain files: key ``xorbs/ab/cd`` is the file ``xorbs/ab/cd``. Thread-safe, also between processes.

    Files at the top of the directory and in the reserved folders are not objects. Opening sweeps temporary files
    that have not been touched for a day. A directory that cannot be written to can be read; one that is moved or
    replaced takes nothing more: UnavailableError.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place = Place(root)
        # Folders whose own entry in their parent is known to be durable.
        self._durable_folders: set[Path] = set()
        self._lock = forks.lock()
        sweep_temporaries(root, older_than=time.time() - STALE_TEMPORARY_SECONDS)

    @property
    def scratch_folder(self) -> Path:
        """The folder for unfinished things, on the disk of the store."""
        return self._root / TEMPORARY_FOLDER

    def put_new(self, key: str, parts: Sequence[Buffer]) -> bool:
        """Create an object from the parts in order; False, untouched, if the key exists. Durable on return.

        An error leaves no object behind, with one exception: if only the last step fails, making the
        directory entry durable, a whole object may stay, not acknowledged.
        """
        path = self._path(key)
        self._place.require()
        try:
            self._make_folder(path.parent)
            # The other writer of an existing object may not have come as far as to make its entry durable.
            if path.exists():
                sync_folder(path.parent)
                return False
        except OSError as error:
            raise _write_error(error, key) from error
        with self.create(key) as new:
            for part in parts:
                new.write(part)
            return new.commit()

    def create(self, key: str) -> NewFileObject:
        """An object to be written piece by piece, in ``tmp/`` until it is committed."""
        path = self._path(key)
        self._place.require()
        try:
            self._make_folder(path.parent)
            return NewFileObject(self._root, path, key, self._place)
        except OSError as error:
            raise _write_error(error, key) from error

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        path = self._path(key)
        try:
            return read_regular(path)
        except OSError as error:
            raise _read_error(error, key) from error

    def get_range(self, key: str, start: int, end: int) -> FileStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""
        check_range(start, end)
        try:
            descriptor, found = open_regular(self._path(key))
        except OSError as error:
            raise _read_error(error, key) from error
        size = found.st_size
        if end > size:
            os.close(descriptor)
            raise RangeError(f"object {key} has {size} bytes, bytes {start} to {end} are not in it")
        return FileStream(descriptor, start, end, key)

    def stat(self, key: str) -> BlobInfo | None:
        """Key, size and time, or None."""
        try:
            found = os.stat(self._path(key))
            return BlobInfo(key, found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _read_error(error, key) from error

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove objects; how many of them were there."""
        removed = 0
        for path in [self._path(key) for key in keys]:
            try:
                os.unlink(path)
                removed += 1
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise storage_error(error, f"object {path.name} could not be removed") from error
        return removed

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """Objects whose key starts with ``prefix`` and comes after ``after``, in key order.

        One directory is held in memory at a time.
        """
        try:
            yield from _list(self._root, "", prefix, after)
        except OSError as error:
            raise storage_error(error, f"{self._root} could not be listed") from error

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _make_folder(self, folder: Path) -> None:
        """Create a folder and the folders above it; their entries are durable on return."""
        if folder == self._root or folder in self._durable_folders:
            return
        self._make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        # Also for a folder that was there: the process that made it may have died before this step.
        sync_folder(folder.parent)
        with self._lock:
            self._durable_folders.add(folder)


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
    with _NewFile(root, path) as new:
        for part in parts:
            new.write(part)
        return new.commit()


class _NewFile:
    """The only place in xetstore where bytes become durable outside the index.

    Written to a temporary name; then fsync, link to the final name (which, unlike rename, never replaces), fsync the
    directory. Raises OSError; a failed fsync is final, because a second one cannot be trusted.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._path = path
        self._temporary = root / TEMPORARY_FOLDER / f"{os.getpid()}-{secrets.token_hex(16)}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._temporary.parent)
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, part: Buffer) -> None:
        _write_all(self._descriptor, memoryview(part))

    def commit(self) -> bool:
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


class NewFileObject:
    """A NewObject that becomes a file, while its root is in its place. ``key`` names it in errors."""

    def __init__(self, root: Path, path: Path, key: str, place: Place) -> None:
        self._file = _NewFile(root, path)
        self._key = key
        self._place = place

    def write(self, part: Buffer, /) -> None:
        """Append bytes to the temporary file."""
        try:
            self._file.write(part)
        except OSError as error:
            raise _write_error(error, self._key) from error

    def commit(self) -> bool:
        """Make the object durable under its name. False, untouched, if the key exists."""
        self._place.require()
        try:
            return self._file.commit()
        except OSError as error:
            raise _write_error(error, self._key) from error

    def close(self) -> None:
        """Remove the temporary file. May be called again."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


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


def _write_error(error: OSError, key: str) -> XetError:
    return storage_error(error, f"object {key} could not be stored")


def _read_error(error: OSError, key: str) -> XetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"there is no object {key}")
    if error.errno == errno.EIO:
        # The medium has lost it: asked again it says the same.
        return DamagedError(f"object {key} could not be read: {error.strerror}")
    return storage_error(error, f"object {key} could not be read")


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


def _list(folder: Path, base: str, prefix: str, after: str) -> Iterator[BlobInfo]:
    """Objects in ``folder``, whose keys start with ``base``; only folders that can hold some that are asked for are
    read.
    """
    entries: list[tuple[str, os.stat_result | None]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                # With its slash a folder sorts where its keys do: behind "a.b", before "a0".
                entries.append((f"{base}{entry.name}/", None))
            elif base and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    entries.append((base + entry.name, entry.stat(follow_symlinks=False)))
    for name, found_file in sorted(entries, key=lambda entry: entry[0]):
        if found_file is not None:
            if name.startswith(prefix) and name > after:
                yield BlobInfo(name, found_file.st_size, found_file.st_mtime)
        elif name.rstrip("/") in RESERVED_FOLDERS or (name < after and not after.startswith(name)):
            continue
        elif name.startswith(prefix) or prefix.startswith(name):
            yield from _list(folder / name[len(base) : -1], name, prefix, after)


class FileStream:
    """A ByteStream over a part of an open file, which it owns."""

    def __init__(self, descriptor: int, start: int, end: int, key: str) -> None:
        self._descriptor = descriptor
        self._position = start
        self._end = end
        self._key = key

    def readinto(self, buffer: memoryview, /) -> int:
        """Read the next bytes straight into ``buffer``."""
        wanted = min(len(buffer), self._end - self._position)
        if not wanted:
            return 0
        try:
            count = os.preadv(self._descriptor, [buffer[:wanted]], self._position)
        except OSError as error:
            raise _read_error(error, self._key) from error
        if not count:
            raise DamagedError(f"object {self._key} became shorter while it was read")
        self._position += count
        return count

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # nothing was written, so nothing is lost
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
