"""Memory: work on a file of what this machine remembers, without which everything works: no error comes out of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from xetstore.events import CacheDisabled, Emit
from xetstore.platform import forks
from xetstore.transfer.upload.memory_file import MemoryFile, is_damage

F = TypeVar("F", bound=MemoryFile)
T = TypeVar("T")


class Memory(Generic[F]):
    """Thread-safe, and safe between processes. The file is opened when it is first needed, by ``open_file``.

    After an error (no room, no permission, a file locked for long) everything works without the memory, which the
    event CacheDisabled tells once: ``what`` cannot be kept. A damaged file is moved away and started anew, once.
    """

    def __init__(self, path: Path, open_file: Callable[[], F], *, what: str, emit: Emit) -> None:
        self.path = path
        self._open_file = open_file
        self._what = what
        self._emit = emit
        self._lock = forks.lock()
        self._file: F | None = None
        self._is_off = False
        self._was_replaced = False
        self._section = forks.Section(self, rest=Memory._close_file, cut=Memory._cut)

    def attempt(self, work: Callable[[F], T], otherwise: T, *, create: bool = True) -> T:
        """The result of ``work`` on the file; ``otherwise`` where there is none. It is made only with ``create``."""
        if self._is_off:
            return otherwise
        with self._section.entered():
            with self._lock:
                try:
                    if not (create or self._file is not None or self.path.exists()):
                        return otherwise
                    file = self._open()
                    return otherwise if file is None else work(file)
                except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                    failure: Exception = error
                    if not self._gives_up(error):
                        return otherwise
            self._emit(CacheDisabled(f"{self._what} cannot be kept in {self.path}: {failure}"))
            return otherwise

    def close(self) -> None:
        """Let go of the file; nothing is remembered or found any more. May be called again."""
        self._is_off = True
        with self._section.entered(), self._lock:
            self._close_file()

    def _open(self) -> F | None:
        """The file, opened unless it is; None if it is to be used no more."""
        if self._file is None and not self._is_off:
            self._is_off = forks.is_cut(self.path)
            if self._is_off:
                return None
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._open_file()
        return None if self._is_off else self._file

    def _gives_up(self, error: Exception) -> bool:
        """Start anew where the file is damaged, once. True if from now on there is no file."""
        self._close_file()
        if self._is_off:
            return False
        if is_damage(error) and not self._was_replaced:
            self._was_replaced = True
            with contextlib.suppress(OSError):
                MemoryFile.move_away(self.path)
                return False
        self._is_off = True
        return True

    def _cut(self) -> None:
        """In a child that was forked while the file was in use: do without."""
        self._is_off = True
        forks.keep(self._file)
        self._file = None
        forks.mark_cut(self.path)

    def _close_file(self) -> None:
        """Also before a fork, when no thread uses it: the next call opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None
