"""NewFile: a destination of a download that appears whole under its name or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import (
    IntegrityError,
    InterruptedCallError,
    NotFoundError,
    StorageFullError,
    UsageError,
    XetError,
    kind_of,
)
from xetstore.platform import forks
from xetstore.platform.descriptors import BINARY, NO_FOLLOW, NO_WAIT, next_data, next_hole, taken_bytes, write_at
from xetstore.platform.files import MOVES_OPEN_FILES, replace, sync_file, sync_folder
from xetstore.platform.locks import Flock, Lock, flock, try_lock
from xetstore.platform.permissions import is_own
from xetstore.sizes import size_text
from xetstore.transfer.download.through import followed

if TYPE_CHECKING:
    from xetstore.transfer.download.reuse.journal import DownloadJournal

RESERVE_SHARE: Final = 64
RESERVE_BYTES: Final = 1 << 30
"""The part of its disk, as a divisor, or the bytes that a file leaves free whose size only a server tells."""

LOOK_BYTES: Final = 64 << 20
FIRST_LOOK_BYTES: Final = 1 << 20
LEAST_LOOK_BYTES: Final = 64 << 10
"""Bytes after which the room on the disk is looked at again; where less is left, after half of that."""

_ZEROS: Final = bytes(1 << 20)
_NAME_BYTES: Final = 150
_NUMBERED_NAMES: Final = 16


class NewFile:
    """A file being written beside its destination, renamed onto it by :meth:`commit`. A context manager.

    Until then the destination keeps what it was, whatever happens; leaving without a commit removes the new file.
    Runs of zeros are left as holes. Links are followed: the file behind them is the destination. With ``fsync``, a file
    that has its name has its bytes, even after a power cut. With ``reserve`` a part of the disk stays free, because
    what is to come is only what a server says of it. Raises UsageError for what is no regular file.
    """

    def __init__(self, destination: Path, *, fsync: bool = False, reserve: bool = False, flock: Flock = flock) -> None:
        self._named = destination
        self._flock = flock
        self._destination = _regular(destination)
        self._fsync = fsync
        self._reserve = reserve
        self._until_look = FIRST_LOOK_BYTES
        # None before it is opened and once it has its name: then the temporary one may be another process's.
        self._temporary: Path | None = None
        self._data = _OpenFile()
        self._generation = forks.generation()

    @property
    def journal(self) -> DownloadJournal | None:
        """The journal for the downloader, beside :meth:`write_at`."""
        return None

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise _destination_error(self._named, error) from error
        return self

    def make_room(self, nbytes: int) -> None:
        """Raise StorageFullError where these bytes, which are not zeros, do not fit beside the reserve."""
        if not self._reserve or nbytes < FIRST_LOOK_BYTES:
            return
        with self._data as fd:
            there = taken_bytes(os.fstat(fd))
        self._look(nbytes - there)

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write at an offset. Thread-safe for ranges that do not overlap.

        Raises StorageFullError, and InterruptedCallError once the file was committed or left.
        """
        try:
            with self._data as fd:
                if not data[0] and not data[-1] and _is_zero(data):
                    _write_zeros(fd, offset, data)
                    return
                _write(fd, offset, data)
        except OSError as error:
            raise _destination_error(self._named, error) from error
        if self._reserve:
            # Two threads may count less than both wrote: then the next look is a little later.
            self._until_look -= len(data)
            if self._until_look <= 0:
                self._look(0)

    def commit(self, size: int) -> None:
        """Give the file its size and its name. Once."""
        assert self._temporary is not None
        try:
            with self._data as fd:
                os.truncate(fd, size)
                if self._fsync:
                    sync_file(fd)
            # Closed only afterwards: the lock keeps others from a file that has no name of its own yet.
            self._data.stop()
            if not MOVES_OPEN_FILES:
                self._close()
            replace(self._temporary, self._destination)
            self._temporary = None
            self._close()
        except OSError as error:
            raise _destination_error(self._named, error) from error
        if self._fsync:
            try:
                sync_folder(self._destination.parent)
            except OSError as error:
                raise kind_of(error)(
                    f"{self._named} is there, whole and on the disk, but its directory cannot be flushed: "
                    f"{error.strerror}",
                    hint="after a power cut it may be missing, or be what it was before",
                ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation != forks.generation():
            return  # in a child: what is beside the destination is the parent's
        if not MOVES_OPEN_FILES:
            self._close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
        self._close()
        if isinstance(error, IntegrityError):
            add_hint(error, "the destination was not touched")

    def _open(self) -> None:
        fd, self._temporary = _open_temporary(self._destination, self._flock)
        self._data.open(fd)

    def _close(self) -> None:
        self._data.close()

    def _look(self, nbytes: int) -> None:
        """Raise StorageFullError unless that many more bytes leave the reserve free."""
        try:
            disk = shutil.disk_usage(self._destination.parent)
        except OSError:
            return  # then writing says so
        left = disk.free - nbytes - min(RESERVE_BYTES, disk.total // RESERVE_SHARE)
        self._until_look = min(LOOK_BYTES, max(LEAST_LOOK_BYTES, left // 2))
        if left < 0:
            if nbytes <= 0:
                self._reserve_was_reached()
            more = f"{size_text(nbytes)} more than" if nbytes > 0 else "more than"
            raise StorageFullError(
                f"{self._named} would take {more} its disk can spare: {size_text(disk.free)} are free",
                hint="make room and run the same command again, if the file should be so large",
            )

    def _reserve_was_reached(self) -> None:
        """More was written than could be told before, as where one chunk makes all of a file: it is not kept."""


class _OpenFile:
    """A descriptor that is closed only when none writes: a late one must not meet another file under its number."""

    def __init__(self) -> None:
        self._fd = -1
        self._is_open = False
        self._writers = 0
        self._changed = threading.Condition()

    def open(self, fd: int) -> None:
        self._fd = fd
        self._is_open = True

    def __enter__(self) -> int:
        with self._changed:
            if not self._is_open:
                raise InterruptedCallError("the file is not being written any more")
            self._writers += 1
            return self._fd

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._writers -= 1
            if not self._writers:
                self._changed.notify_all()

    def stop(self) -> None:
        """Take no further writer, and wait for those at work."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: not self._writers)

    def close(self) -> None:
        self.stop()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open_temporary(destination: Path, flock: Flock) -> tuple[int, Path]:
    """Open an empty file beside the destination that no other process writes to.

    Its name has a number, and its lock says that it is in use: so the file that a killed process left is written anew
    by the next one, and such files do not pile up. Without locks it has a name of its own, and also where it could not
    keep its lock until it has been moved.
    """
    for number in range(1, _NUMBERED_NAMES + 1) if MOVES_OPEN_FILES else ():
        path = hidden_name(destination, f"{number}.incomplete")
        fd = open_own(path)
        if fd is None:
            continue
        try:
            lock = try_lock(fd, flock=flock)
            # The holder of the lock may have given the file its name between our two calls.
            if lock is Lock.OURS and os.path.samestat(os.fstat(fd), os.lstat(path)):
                os.truncate(fd, 0)
                return fd, path
        except FileNotFoundError:
            lock = Lock.TAKEN
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        if lock is Lock.MISSING:  # then no other process writes to a name with a number
            path.unlink(missing_ok=True)
            break
    path = hidden_name(destination, f"{secrets.token_hex(4)}.incomplete")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666), path


def open_own(path: Path) -> int | None:
    """Open or create a file under a name that others may know; None where it is not a file of this user."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_WAIT | BINARY, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
            return None
        raise
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and is_own(info) and info.st_nlink <= 1:
        return fd
    os.close(fd)
    return None


def hidden_name(destination: Path, suffix: str) -> Path:
    """A name beside the destination, of a length that any file system takes."""
    name = os.fsencode(destination.name)[:_NAME_BYTES].decode(errors="ignore")
    return destination.with_name(f".{name}.{suffix}")


def _regular(path: Path) -> Path:
    """The regular file that a destination leads to, which may not be there yet. Raises UsageError for anything else."""
    try:
        target = followed(path)
        if not isinstance(target, int) and stat.S_ISREG(target.stat().st_mode):
            return target
    except FileNotFoundError:
        assert isinstance(target, Path)
        return target
    except OSError as error:
        raise _destination_error(path, error) from error
    raise UsageError(f"{path} is not a file to write to", hint="give the name of a file")


def _is_zero(data: memoryview) -> bool:
    return all(data[i : i + len(_ZEROS)].tobytes() == _ZEROS[: len(data) - i] for i in range(0, len(data), len(_ZEROS)))


def _write(fd: int, offset: int, data: memoryview) -> None:
    while data:
        written = write_at(fd, data, offset)
        data, offset = data[written:], offset + written


def _write_zeros(fd: int, offset: int, zeros: memoryview) -> None:
    """Write them where something was written before, and leave the holes in between."""
    position, end = offset, offset + len(zeros)
    while position < end:
        start = next_data(fd, position)
        if start is None or start >= end:
            return
        position = min(next_hole(fd, start), end)
        _write(fd, start, zeros[start - offset : position - offset])


def add_hint(error: XetError, hint: str) -> None:
    """Add a hint to those that an error has."""
    error.hint = f"{error.hint}; {hint}" if error.hint else hint


def _destination_error(path: Path, error: OSError) -> XetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"the directory of {path} does not exist")
    return kind_of(error)(f"{path} cannot be written: {error.strerror}", hint="the destination was not touched")
