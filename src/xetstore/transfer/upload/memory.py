"""Memory: all that works on a file of what this machine remembers. Everything works without it, so that no error comes
out of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Generic, Self, TypeVar

from xetstore.events import CacheDisabled, Emit
from xetstore.platform import forks
from xetstore.transfer.upload.memory_file import MemoryFile, is_damage

BUSY_SECONDS: Final = 2.0
"""The longest wait for another process that has the file locked."""

F = TypeVar("F", bound=MemoryFile)
T = TypeVar("T")


class Memory(Generic[F]):
    """To be closed. Thread-safe, and safe between processes. The file is opened when it is first needed.

    After an error (no room, no permission, a file locked for long) everything works without the memory, which the
    event CacheDisabled tells once: ``CONTENT`` cannot be kept. A damaged file is moved away and started anew, once.
    """

    CONTENT: ClassVar[str]

    def __init__(self, path: Path, *, max_bytes: int, busy_seconds: float, emit: Emit) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._busy_seconds = busy_seconds
        self._emit = emit
        self._lock = forks.lock()
        self._file: F | None = None
        self._is_off = False
        self._was_replaced = False
        self._section = forks.Section(self, rest=Memory._close_file, cut=Memory._cut)

    def close(self) -> None:
        """Let go of the file; nothing is remembered or found any more. May be called again."""
        self._is_off = True
        with self._section.entered(), self._lock:
            self._close_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_file(self) -> F:
        """The file, opened; made if there is none. Raises sqlite3.Error and OSError."""
        raise NotImplementedError

    def _attempt(self, work: Callable[[F], T], otherwise: T, *, create: bool = True) -> T:
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
            self._emit(CacheDisabled(f"{self.CONTENT} cannot be kept in {self.path}: {failure}"))
            return otherwise

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
