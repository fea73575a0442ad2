"""LocalBlobStore: objects as files below a directory."""

# ruff: noqa: PTH102, PTH108, PTH116  # the calls of `os`, in their order, are the promise; tests watch them

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, Self

from xetstore.blobs.keys import RESERVED_FOLDERS, check_key, taken
from xetstore.blobs.ranges import check_range, one_by_one
from xetstore.errors import (
    DamagedError,
    NotFoundError,
    UsageError,
    XetError,
)
from xetstore.interfaces import BlobInfo, RangeAnswer, RangeRequest
from xetstore.platform import forks
from xetstore.platform.descriptors import read_into
from xetstore.platform.files import (
    TEMPORARY_FOLDER,
    NewFile,
    open_regular,
    read_regular,
    storage_error,
    sweep_temporaries,
    sync_folder,
)
from xetstore.platform.place import Place

if TYPE_CHECKING:
    from typing_extensions import Buffer

STALE_TEMPORARY_SECONDS: Final = 24 * 3600
"""Age at which a temporary file is taken for the remains of a process that died."""


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

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """Create an object from the parts in order. Durable on return. UsageError if the key has an object.

        An error leaves no object behind, with one exception: if only the last step fails, making the
        directory entry durable, a whole object may stay, not acknowledged.
        """
        with self.create(key) as new:
            for part in parts:
                new.write(part)
            new.commit()

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
            raise self._read_error(error, key) from error

    def get_range(self, key: str, start: int, end: int) -> FileStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""
        try:
            descriptor, found = open_regular(self._path(key))
        except OSError as error:
            raise self._read_error(error, key) from error
        try:
            check_range(key, found.st_size, start, end)
        except UsageError:
            os.close(descriptor)
            raise
        return FileStream(descriptor, start, end, key)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """The bytes of several small ranges, in order, or what is wrong with an object."""
        return one_by_one(self.get_range, requests)

    def stat(self, key: str) -> BlobInfo | None:
        """Key, size and time, or None."""
        try:
            found = os.stat(self._path(key))
            return BlobInfo(key, found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            self._place.require()
            return None
        except OSError as error:
            raise self._read_error(error, key) from error

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

    def _read_error(self, error: OSError, key: str) -> XetError:
        """The error of ours. An object is missing only where its directory is in its place: or all would seem lost."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self._place.require()
        return _read_error(error, key)

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


class NewFileObject:
    """A NewObject that becomes a file, while its root is in its place. ``key`` names it in errors."""

    def __init__(self, root: Path, path: Path, key: str, place: Place) -> None:
        self._file = NewFile(root, path)
        self._key = key
        self._place = place

    def write(self, part: Buffer, /) -> None:
        """Append bytes to the temporary file."""
        try:
            self._file.write(part)
        except OSError as error:
            raise _write_error(error, self._key) from error

    def commit(self) -> None:
        """Make the object durable under its name. UsageError if the key has an object, which stays."""
        self._place.require()
        try:
            is_new = self._file.commit()
        except OSError as error:
            raise _write_error(error, self._key) from error
        if not is_new:
            raise taken(self._key)

    def close(self) -> None:
        """Remove the temporary file. May be called again."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _write_error(error: OSError, key: str) -> XetError:
    return storage_error(error, f"object {key} could not be stored")


def _read_error(error: OSError, key: str) -> XetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"there is no object {key}")
    if error.errno == errno.EIO:
        # The medium has lost it: asked again it says the same.
        return DamagedError(f"object {key} could not be read: {error.strerror}")
    return storage_error(error, f"object {key} could not be read")


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
            count = read_into(self._descriptor, buffer[:wanted], self._position)
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
