"""PartialFile: a new file that goes on with what an earlier attempt left."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from xetstore.errors import IntegrityError, InterruptedCallError, XetError
from xetstore.platform import forks
from xetstore.platform.files import remove_open
from xetstore.platform.locks import Flock, Lock, flock, try_lock, unlock
from xetstore.transfer.download.new_file import NewFile, add_hint, hidden_name, open_own
from xetstore.transfer.download.reuse.journal import DownloadJournal

if TYPE_CHECKING:
    from xetstore.transfer.download.file_range import FileRange

KEPT_BYTES: Final = 8 << 20
"""The least that an interrupted download leaves to be kept: less is fetched again in no time."""


class PartialFile(NewFile):
    """A :class:`NewFile` that goes on with what an earlier attempt at the same destination left.

    It is found by the file's hash and the range; beside it is a :class:`DownloadJournal` of what was written. After an
    error of the network or the disk both are kept, if they are ``kept_bytes`` or more, and the error says so; after an
    interruption only with ``keep``; after an IntegrityError never. One that finds another at work on the same file
    writes one of its own, which cannot be continued.
    """

    def __init__(
        self,
        destination: Path,
        wanted: FileRange,
        *,
        keep: bool = False,
        fsync: bool = False,
        reserve: bool = False,
        kept_bytes: int = KEPT_BYTES,
        flock: Flock = flock,
    ) -> None:
        super().__init__(destination, fsync=fsync, reserve=reserve, flock=flock)
        span = "" if wanted.is_whole else f"-{wanted.start}-{'' if wanted.end is None else wanted.end}"
        self._may_be_kept = True
        self._shared = hidden_name(self._destination, f"{str(wanted.file)[:12]}{span}.incomplete")
        self._journal_path = self._shared.with_name(f"{self._shared.name}.journal")
        self._wanted = wanted
        self._keep = keep
        self._kept_bytes = kept_bytes
        self._journal_fd = -1
        self._journal: DownloadJournal | None = None

    @property
    def journal(self) -> DownloadJournal | None:
        """The journal for the downloader, beside :meth:`write_at`; None where another one is at work."""
        return self._journal

    def _open(self) -> None:
        journal_fd = _lock(self._journal_path, self._flock)
        if journal_fd is None:
            super()._open()
            return
        self._journal_fd = journal_fd
        try:
            fd = open_own(self._shared)
            if fd is not None:
                self._temporary = self._shared
                self._data.open(fd)
                is_new = os.fstat(fd).st_size == 0
                self._journal = DownloadJournal(journal_fd, fd, self._destination, self._wanted, is_new=is_new)
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
        unlock(self._journal_fd)
        os.close(self._journal_fd)
        self._journal_fd = -1
        if isinstance(error, XetError):
            add_hint(error, "the same command goes on where it stopped")

    def _is_kept(self, journal: DownloadJournal, error: BaseException | None) -> bool:
        if error is None or isinstance(error, IntegrityError) or not self._may_be_kept:
            return False
        if journal.recorded_bytes < self._kept_bytes:
            return False
        given_up = not isinstance(error, Exception) or isinstance(error, InterruptedCallError)
        return self._keep or not given_up

    def _reserve_was_reached(self) -> None:
        self._may_be_kept = False

    def _forget_journal(self) -> None:
        """Remove the journal, and with its descriptor let go of the lock."""
        if self._journal_fd >= 0:
            remove_open(self._journal_path, self._journal_fd)
            self._journal_fd = -1


def _lock(path: Path, flock: Flock) -> int | None:
    """Open a file of our own and lock it; None where another one holds it, or it cannot be locked."""
    for _ in range(3):
        fd = open_own(path)
        if fd is None:
            return None
        try:
            lock = try_lock(fd, flock=flock)
            # Its holder may have removed it between our two calls.
            if lock is Lock.OURS and os.fstat(fd).st_nlink:
                return fd
        except OSError:
            os.close(fd)
            return None
        os.close(fd)
        if lock is Lock.TAKEN:
            return None
        if lock is Lock.MISSING:
            # Without locks nothing can be continued, and no other process writes to it.
            with contextlib.suppress(OSError):
                path.unlink()
            return None
    return None
