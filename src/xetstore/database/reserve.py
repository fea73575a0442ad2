"""Reserve: room on the disk of a SQLite file that is kept for care, so that a full disk can be made less full."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from xetstore.errors import StorageFullError
from xetstore.platform.descriptors import WRITE, take_room

LEAST_BYTES: Final = 256 << 10
MOST_BYTES: Final = 8 << 20
_PARTS: Final = 16
"""Of a small disk it takes a sixteenth at most."""


class Reserve:
    """A file of nothing beside a SQLite file, whose room is given up where a deletion or a repair has none.

    It has at most 8 MiB: room for the log, which is folded into the file, and for a transaction that changes all of it.
    Thread-safe, and safe between processes: nothing is remembered.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._log = database.with_name(f"{database.name}-wal")
        self.path = database.with_name(f"{database.name}-reserve")

    def require(self) -> None:
        """Make sure that there is one. Raises StorageFullError where it was given up and the disk is still full."""
        wanted = self._wanted()
        has = _size(self.path)
        if has < wanted and not self._make(has, wanted) and has < wanted // 2:
            raise StorageFullError(
                "the disk of the index is full but for the room that deletions take",
                hint="delete files and collect them (`xet rm`, `xet gc`), or make room on the disk; then try again",
            )

    def give_up(self) -> bool:
        """Let its room go to others; True if there was some."""
        try:
            os.unlink(self.path)  # noqa: PTH108
        except OSError:
            return False
        return True

    def _wanted(self) -> int:
        twice = 2 * (_size(self._database) + _size(self._log))
        return min(MOST_BYTES, max(LEAST_BYTES, 1 << twice.bit_length()))

    def _make(self, has: int, size: int) -> bool:
        """Take room for it, if the disk has twice as much: what it leaves is not worth taking from others."""
        try:
            disk = shutil.disk_usage(self._database.parent)
            size = min(size, disk.total // _PARTS)
            if has >= size:
                return True
            if disk.free < 2 * size:
                return False
            descriptor = os.open(self.path, WRITE, 0o600)
        except OSError:
            return False
        try:
            take_room(descriptor, size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, has)
            return False
        finally:
            os.close(descriptor)
        return True


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  # once for each transaction
    except OSError:
        return 0
