"""StoredFile: a stored file to read from, at any place of it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from xetstore.platform import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER_BYTES: Final = 64 << 10
READ_AHEAD_BYTES: Final = 512 << 10
"""The least that a reader asks for; one that reads on where it was gets all that follows, window by window."""


class StoredFile(io.RawIOBase):
    """A stored file, read-only and seekable, read in windows as it is asked for. Not thread-safe.

    ``stream(start, end)`` yields bytes of the file. Who reads on where the last window ended is given one stream of all
    that follows, which fetches ahead.
    """

    def __init__(self, size: int, stream: Callable[[int, int], Iterator[memoryview]]) -> None:
        super().__init__()
        self._size = size
        self._stream = stream
        self._position = 0
        self._window = memoryview(b"")
        self._window_start = 0
        # The stream that goes on where the window ends, if there is one.
        self._following: Iterator[memoryview] | None = None
        forks.renew(self, StoredFile._leave)

    def close(self) -> None:
        """Fetch nothing any more."""
        self._stop_following()
        super().close()

    def _leave(self) -> None:
        """In a child: keep the position and what was read; the stream is the parent's."""
        self._following = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Offset of the next byte to read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move as file objects do; past the end is allowed and reads nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence {whence}")
        if base + offset < 0:
            raise OSError(errno.EINVAL, "negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Read at most as much as the buffer holds; 0 at the end."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self._size - self._position)
        if wanted <= 0:
            return 0
        inside = self._position - self._window_start
        if not 0 <= inside < len(self._window):
            self._load(wanted)
            inside = 0
        part = self._window[inside : inside + wanted]
        target[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _load(self, wanted: int) -> None:
        if self._window and self._position == self._window_start + len(self._window):
            following = self._following or self._stream(self._position, self._size)
            self._following = None  # unless this goes well
            self._window = next(following)
            self._following = following
        else:
            self._stop_following()
            end = min(self._size, self._position + max(wanted, READ_AHEAD_BYTES))
            blocks = self._stream(self._position, end)
            self._window = next(blocks)
            _close(blocks)
        self._window_start = self._position

    def _stop_following(self) -> None:
        if self._following is not None:
            _close(self._following)
            self._following = None


class StoredReader(io.BufferedReader):
    """A stored file behind a buffer. In a child it goes on where it was in the parent, whatever read from it there."""

    def __init__(self, file: StoredFile) -> None:
        super().__init__(file, BUFFER_BYTES)
        self._file = file
        forks.renew(self, StoredReader._begin_anew)

    def _begin_anew(self) -> None:
        if self.closed:
            return
        self._file.seek(self.tell())
        # The lock in it may be held by a thread that is not here; this makes it another one.
        super().__init__(self._file, BUFFER_BYTES)


def _close(blocks: Iterator[memoryview]) -> None:
    close = getattr(blocks, "close", None)
    if close is not None:
        close()
