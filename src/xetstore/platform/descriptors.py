"""Open files by their descriptors: flags to open them with, bytes at a position, holes and room, on every system.

What a system lacks is looked for when it is needed: Windows has no calls that read or write at a position, macOS before
11 has no ``preadv``, and neither has ``posix_fallocate``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""No line ends are changed. On Windows each file is opened with it."""
NO_WAIT: Final[int] = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""To open a pipe or a terminal is not waited for, and takes no terminal over. It changes nothing for a file."""
NO_FOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
"""A link in the place of a file is an error. Windows makes links for users with a right of its own only."""
READ: Final = os.O_RDONLY | NO_WAIT | BINARY
WRITE: Final = os.O_WRONLY | os.O_CREAT | NO_FOLLOW | BINARY
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY
"""A file that must not be there yet. None of these is inherited: Python sees to that."""

_MOST_BUFFERS: Final = 512
_ZEROS: Final = bytes(1 << 20)
_NO_HOLES: Final = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS))
# For systems without calls at a position, none of which forks: descriptors share a few, by their numbers.
_TURNS: Final = tuple(threading.Lock() for _ in range(16))


def read_at(descriptor: int, nbytes: int, offset: int) -> bytes:
    """Read at most ``nbytes`` from a position on; nothing at the end. Raises OSError."""
    if hasattr(os, "pread"):
        data: bytes = os.pread(descriptor, nbytes, offset)
        return data
    with _at(descriptor, offset):
        return os.read(descriptor, nbytes)


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read into a buffer from a position on; the bytes that came, 0 at the end. Raises OSError."""
    if hasattr(os, "preadv"):
        count: int = os.preadv(descriptor, [buffer], offset)
        return count
    data = read_at(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def read_next(descriptor: int, buffer: memoryview) -> int:
    """Read into a buffer from where the last call ended; the bytes that came, 0 at the end. Raises OSError."""
    if hasattr(os, "readv"):
        count: int = os.readv(descriptor, [buffer])
        return count
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: Buffer, offset: int) -> int:
    """Write from a position on; the bytes that were written. Raises OSError."""
    if hasattr(os, "pwrite"):
        count: int = os.pwrite(descriptor, data, offset)
        return count
    with _at(descriptor, offset):
        return os.write(descriptor, data)


def write_parts(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Append all bytes of the parts, in order. Raises OSError."""
    views = [view for part in parts if (view := memoryview(part).cast("B"))]
    first = 0
    while first < len(views):
        some = views[first : first + _MOST_BUFFERS]
        written = os.writev(descriptor, some) if hasattr(os, "writev") else os.write(descriptor, some[0])
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]


def next_data(descriptor: int, position: int) -> int | None:
    """The first position from this one on that may have been written to; None where only a hole is left.

    A file system that tells no holes has data in all of a file. Raises OSError.
    """
    if hasattr(os, "SEEK_DATA"):
        try:
            return os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            if error.errno not in _NO_HOLES:
                raise
    return position if position < os.fstat(descriptor).st_size else None


def next_hole(descriptor: int, position: int) -> int:
    """The end of the data that a position is in, as :func:`next_data` gave it. Raises OSError."""
    if hasattr(os, "SEEK_HOLE"):
        try:
            return os.lseek(descriptor, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno not in _NO_HOLES:
                raise
    return os.fstat(descriptor).st_size


def taken_bytes(info: os.stat_result) -> int:
    """The room that a file takes on its disk, in bytes; its size where a system does not say."""
    blocks: int | None = getattr(info, "st_blocks", None)
    return info.st_size if blocks is None else blocks * 512


def take_room(descriptor: int, size: int) -> None:
    """Let a file have ``size`` bytes, for which there is room on the disk from now on. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    position = os.fstat(descriptor).st_size
    while position < size:
        position += write_at(descriptor, _ZEROS[: size - position], position)


@contextmanager
def _at(descriptor: int, offset: int) -> Iterator[None]:
    with _TURNS[descriptor % len(_TURNS)]:
        os.lseek(descriptor, offset, os.SEEK_SET)
        yield
