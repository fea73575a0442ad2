"""Where downloaded bytes go: a file that appears whole under its name or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import IntegrityError, InterruptedCallError, NotFoundError, UsageError, XetError, kind_of
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.journal import DownloadJournal

if TYPE_CHECKING:
    pass

KEPT_BYTES: Final = 8 << 20
"""What an interrupted download leaves is kept if it is at least so much: less is fetched again in no time."""

_ZEROS: Final = bytes(1 << 20)
_NAME_BYTES: Final = 150


class NewFile:
    """A file being written beside its destination, renamed onto it by :meth:`commit`. A context manager.

    Until then the destination keeps what it was, whatever happens; leaving without a commit removes the new file.
    Runs of zeros are left as holes. With ``fsync``, a file that has its name has its bytes, even after a power cut.
    """

    def __init__(self, destination: Path, *, fsync: bool = False) -> None:
        self._destination = destination
        self._fsync = fsync
        # None once it has its name: from then on the temporary one may be another process's.
        self._temporary: Path | None = _hidden(destination, f"{secrets.token_hex(4)}.incomplete")
        self._data = _OpenFile()
        self._generation = forks.generation()

    @property
    def journal(self) -> DownloadJournal | None:
        """What to give to the downloader beside :meth:`write_at`."""
        return None

    def __enter__(self) -> Self:
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(self._destination.stat().st_mode):
                    raise UsageError(f"{self._destination} is not a file to write to", hint="give the name of a file")
            self._open()
        except OSError as error:
            raise _destination_error(self._destination, error) from error
        return self

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write at an offset. Thread-safe for ranges that do not overlap.

        Raises InterruptedCallError once the file was committed or left.
        """
        try:
            with self._data as fd:
                if not data[0] and not data[-1] and _is_zero(data):
                    _write_zeros(fd, offset, data)
                else:
                    _write(fd, offset, data)
        except OSError as error:
            raise _destination_error(self._destination, error) from error

    def commit(self, size: int) -> None:
        """Give the file its size and its name. Once."""
        assert self._temporary is not None
        try:
            with self._data as fd:
                os.truncate(fd, size)
                if self._fsync:
                    os.fsync(fd)
            self._close()
            self._temporary.replace(self._destination)
            self._temporary = None
            if self._fsync:
                _sync_directory(self._destination.parent)
        except OSError as error:
            raise _destination_error(self._destination, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation != forks.generation():
            return  # in a child: what is beside the destination is the parent's
        self._close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
        if isinstance(error, IntegrityError):
            _add_hint(error, "the destination was not touched")

    def _open(self) -> None:
        assert self._temporary is not None
        self._data.open(os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))

    def _close(self) -> None:
        self._data.close()


class PartialFile(NewFile):
    """A :class:`NewFile` that goes on with what an earlier attempt at the same destination left.

    It is found by the file's hash and the range; beside it is a :class:`DownloadJournal` of what was written. After an
    error of the network or the disk both are kept, and the error says so; after an interruption only with ``keep``;
    after an IntegrityError never. Whoever finds another one at work on the same file writes one of its own, which
    cannot be continued.
    """

    def __init__(
        self,
        destination: Path,
        file: Hash,
        start: int = 0,
        end: int | None = None,
        *,
        keep: bool = False,
        fsync: bool = False,
    ) -> None:
        super().__init__(destination, fsync=fsync)
        span = "" if (start, end) == (0, None) else f"-{start}-{'' if end is None else end}"
        self._shared = _hidden(destination, f"{str(file)[:12]}{span}.incomplete")
        self._journal_path = self._shared.with_name(f"{self._shared.name}.journal")
        self._request = (file, start, end)
        self._keep = keep
        self._journal_fd = -1
        self._journal: DownloadJournal | None = None

    @property
    def journal(self) -> DownloadJournal | None:
        """What to give to the downloader beside :meth:`write_at`; None where another one is at work."""
        return self._journal

    def _open(self) -> None:
        journal_fd = _lock(self._journal_path)
        if journal_fd is None:
            super()._open()
            return
        self._journal_fd = journal_fd
        try:
            fd = _open_own(self._shared)
            if fd is not None:
                self._temporary = self._shared
                self._data.open(fd)
                is_new = os.fstat(fd).st_size == 0
                self._journal = DownloadJournal(journal_fd, fd, self._destination, *self._request, is_new=is_new)
                return
        except OSError:
            self._close()
            self._forget_journal()
            raise
        self._forget_journal()
        super()._open()

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        super()._close()

    def commit(self, size: int) -> None:
        """Give the file its size and its name."""
        super().commit(size)
        self._forget_journal()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation != forks.generation():
            return
        if self._journal is None or not self._is_kept(self._journal, error):
            super().__exit__(kind, error, traceback)
            self._forget_journal()
            return
        self._close()
        # Closing would not do where a child that was forked meanwhile has a copy.
        fcntl.flock(self._journal_fd, fcntl.LOCK_UN)
        os.close(self._journal_fd)
        self._journal_fd = -1
        if isinstance(error, XetError):
            _add_hint(error, "the same command goes on where it stopped")

    def _is_kept(self, journal: DownloadJournal, error: BaseException | None) -> bool:
        if error is None or isinstance(error, IntegrityError) or journal.recorded_bytes < KEPT_BYTES:
            return False
        given_up = not isinstance(error, Exception) or isinstance(error, InterruptedCallError)
        return self._keep or not given_up

    def _forget_journal(self) -> None:
        """Remove the journal, and with its descriptor let go of the lock."""
        if self._journal_fd >= 0:
            with contextlib.suppress(OSError):
                self._journal_path.unlink()
            os.close(self._journal_fd)
            self._journal_fd = -1


class _OpenFile:
    """A descriptor that is closed only when nobody writes: a late one must not meet another file under its number."""

    def __init__(self) -> None:
        self._fd = -1
        self._writers = 0
        self._changed = threading.Condition()

    def open(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        with self._changed:
            if self._fd < 0:
                raise InterruptedCallError("the file is not being written any more")
            self._writers += 1
            return self._fd

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._writers -= 1
            if not self._writers:
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            fd, self._fd = self._fd, -1
            self._changed.wait_for(lambda: not self._writers)
        if fd >= 0:
            os.close(fd)


def _hidden(destination: Path, suffix: str) -> Path:
    """A name beside the destination, of a length that any file system takes."""
    name = os.fsencode(destination.name)[:_NAME_BYTES].decode(errors="ignore")
    return destination.with_name(f".{name}.{suffix}")


def _lock(path: Path) -> int | None:
    """Open a file of our own and lock it; None where another one holds it, or it cannot be locked."""
    for _ in range(3):
        fd = _open_own(path)
        if fd is None:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed it between our two calls.
            if os.fstat(fd).st_nlink:
                return fd
        except OSError:
            os.close(fd)
            return None
        os.close(fd)
    return None


def _open_own(path: Path) -> int | None:
    """Open or create a file under a name that others may know; None where it is not a file of this user."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
            return None
        raise
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink <= 1:
        return fd
    os.close(fd)
    return None


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_zero(data: memoryview) -> bool:
    return all(data[i : i + len(_ZEROS)].tobytes() == _ZEROS[: len(data) - i] for i in range(0, len(data), len(_ZEROS)))


def _write(fd: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _write_zeros(fd: int, offset: int, zeros: memoryview) -> None:
    """Write them where something was written before, and leave the holes in between."""
    position, end = offset, offset + len(zeros)
    while position < end:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is no data up to the end of the file
                return
            raise
        if start >= end:
            return
        position = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        _write(fd, start, zeros[start - offset : position - offset])


def _add_hint(error: XetError, hint: str) -> None:
    error.hint = f"{error.hint}; {hint}" if error.hint else hint


def _destination_error(path: Path, error: OSError) -> XetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"the directory of {path} does not exist")
    return kind_of(error)(f"{path} cannot be written: {error.strerror}", hint="the destination was not touched")
