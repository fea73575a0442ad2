"""Where downloaded bytes go: a file that appears whole under its name or not at all, and a seekable reader."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from xetstore.errors import NotFoundError, UsageError, XetError, kind_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

READ_AHEAD_BYTES = 4 << 20
_ZEROS = bytes(1 << 20)


class NewFile:
    """A file being written beside its destination, renamed onto it by :meth:`commit`. A context manager.

    Until then the destination keeps what it was, whatever happens; leaving without a commit removes the new file.
    Runs of zeros are left as holes.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._temporary = destination.with_name(f".{destination.name[:200]}.{secrets.token_hex(4)}.incomplete")
        self._fd = -1
        self._end = 0

    def __enter__(self) -> NewFile:
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(self._destination.stat().st_mode):
                    raise UsageError(f"{self._destination} is not a file to write to", hint="give the name of a file")
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise _destination_error(self._destination, error) from error
        return self

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write at an offset. Thread-safe for ranges that do not overlap."""
        if not data[0] and not data[-1] and _is_zero(data):
            return
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise _destination_error(self._destination, error) from error

    def commit(self, size: int) -> None:
        """Give the file its size and its name."""
        try:
            os.truncate(self._fd, size)
            os.close(self._fd)
            self._fd = -1
            self._temporary.replace(self._destination)
        except OSError as error:
            raise _destination_error(self._destination, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        with contextlib.suppress(OSError):
            self._temporary.unlink()


class StoredFile(io.RawIOBase):
    """A stored file, read-only and seekable, read in windows as it is asked for. Not thread-safe."""

    def __init__(self, size: int, stream: Callable[[int, int], Iterator[memoryview]]) -> None:
        super().__init__()
        self._size = size
        self._stream = stream
        self._position = 0
        self._window = memoryview(b"")
        self._window_start = 0

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
        end = min(self._size, self._position + max(wanted, READ_AHEAD_BYTES))
        self._window = next(self._stream(self._position, end))
        self._window_start = self._position


def _is_zero(data: memoryview) -> bool:
    return all(data[i : i + len(_ZEROS)].tobytes() == _ZEROS[: len(data) - i] for i in range(0, len(data), len(_ZEROS)))


def _destination_error(path: Path, error: OSError) -> XetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"the directory of {path} does not exist")
    return kind_of(error)(f"{path} cannot be written: {error.strerror}", hint="the destination was not touched")
