"""Place: checks that a path still leads to the same file or folder as when the store was opened."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

from xetstore.errors import UnavailableError


class Place:
    """A file or folder of an open store, by device and inode. A file that is cut to nothing is not in place either.

    What is written through an open descriptor is lost when another file has been moved to its path; and what is written
    by path goes to another store than the one whose index names it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._identity = self._look()

    def require(self) -> None:
        """Raises UnavailableError if something else, or nothing, is at the path now."""
        if self._identity is None or self._look() != self._identity:
            raise UnavailableError(
                f"the store was moved or replaced while it was open: {self._path} is not what was opened",
                hint="put it back, or open the store again; nothing was written since",
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  # once for each transaction: a Path's own takes twice as long
        except OSError:
            return None
        is_cut = S_ISREG(found.st_mode) and not found.st_size
        return None if is_cut else (found.st_dev, found.st_ino)
