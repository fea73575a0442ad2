"""One file of the chunk cache: a checked header (which chunks, where they end, their hashes) and serialized chunks."""

from __future__ import annotations

import os
import re
import stat
import struct
from array import array
from typing import TYPE_CHECKING, Final

from xetstore.platform.cache_folder import mark_used, remove_if_same
from xetstore.platform.descriptors import NO_FOLLOW, READ, read_at, read_into
from xetstore.protocol import kernel
from xetstore.protocol.suite import HASH_BYTES

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

# Magic, version, xorb, first chunk, number of chunks; then u32 ends, hashes, and the checksum of all that (u64).
# Numbers are native: a file from a machine of the other byte order has a version that is not ours.
_HEAD: Final = struct.Struct("=8sI32sII")
_CHECKSUM: Final = struct.Struct("=Q")
_MAGIC: Final = b"XETCHUNK"
_VERSION: Final = 1
_MAX_CHUNKS: Final = 1 << 16
_NAME: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_FLAGS: Final = READ | NO_FOLLOW


def entry_name(chunk_start: int, chunk_end: int) -> str:
    """The name of the file that holds these chunks, in the folder of its xorb."""
    return f"{chunk_start}-{chunk_end}"


def entry_range(name: str) -> tuple[int, int] | None:
    """The inverse of :func:`entry_name`; None for a name that is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    start, end = int(found[1]), int(found[2])
    return (start, end) if start < end <= start + _MAX_CHUNKS and name == entry_name(start, end) else None


def header(xorb: Hash, chunk_start: int, ends: array[int], hashes: bytes) -> bytes:
    """The header before the chunks; ``ends`` are u32 and count from the first byte behind it."""
    head = _HEAD.pack(_MAGIC, _VERSION, xorb.digest, chunk_start, len(ends)) + ends.tobytes() + hashes
    return head + _CHECKSUM.pack(kernel.crc64_nvme(head))


class EntryFile:
    """An entry that is open for reading, its header checked. It stays readable when it is evicted. Not thread-safe."""

    __slots__ = ("_body_start", "_chunk_start", "_ends", "_fd", "_hashes", "_identity", "_path", "_used")

    def __init__(self, path: str, fd: int, info: os.stat_result, chunk_start: int, head: bytes, count: int) -> None:
        self._path = path
        self._fd = fd
        self._identity = (info.st_dev, info.st_ino)
        self._used = info.st_mtime
        self._chunk_start = chunk_start
        self._body_start = len(head)
        hashes_start = _HEAD.size + 4 * count
        self._ends = memoryview(head)[_HEAD.size : hashes_start].cast("I")
        self._hashes = memoryview(head)[hashes_start : hashes_start + HASH_BYTES * count]

    @classmethod
    def open(cls, path: str, xorb: Hash, chunk_start: int, chunk_end: int) -> EntryFile | None:
        """The entry of these chunks; None where there is none, or something else, which is removed."""
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        file = None
        try:
            info = os.fstat(fd)
            count = chunk_end - chunk_start
            size = _HEAD.size + (4 + HASH_BYTES) * count + _CHECKSUM.size
            head = read_at(fd, size, 0) if stat.S_ISREG(info.st_mode) and info.st_size > size else b""
            if len(head) == size and _is_sound(head, xorb, chunk_start, count, info.st_size - size):
                file = cls(path, fd, info, chunk_start, head, count)
            else:
                remove_if_same(path, (info.st_dev, info.st_ino))
        except OSError:
            pass
        finally:
            if file is None:
                os.close(fd)
        return file

    def byte_range(self, chunk_start: int, chunk_end: int) -> tuple[int, int]:
        """The place in the file of the serialized bytes of some of its chunks."""
        first, last = chunk_start - self._chunk_start, chunk_end - self._chunk_start - 1
        return self._body_start + (self._ends[first - 1] if first else 0), self._body_start + self._ends[last]

    def hashes(self, chunk_start: int, chunk_end: int) -> bytes:
        """The packed hashes of some of its chunks."""
        start, end = chunk_start - self._chunk_start, chunk_end - self._chunk_start
        return bytes(self._hashes[start * HASH_BYTES : end * HASH_BYTES])

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Read from ``offset`` of the file on; 0 at its end, and where it cannot be read."""
        try:
            return read_into(self._fd, buffer, offset)
        except OSError:
            return 0

    def mark_used(self, seconds: float) -> None:
        """Let it be the one used last, unless that was said within ``seconds``."""
        mark_used(self._fd if os.utime in os.supports_fd else self._path, self._used, seconds)

    def remove(self) -> None:
        """Remove it, if it is still the one under its name."""
        remove_if_same(self._path, self._identity)

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_sound(head: bytes, xorb: Hash, chunk_start: int, count: int, body_bytes: int) -> bool:
    told = _HEAD.pack(_MAGIC, _VERSION, xorb.digest, chunk_start, count)
    (last_end,) = struct.unpack_from("=I", head, _HEAD.size + 4 * (count - 1))
    (checksum,) = _CHECKSUM.unpack_from(head, len(head) - _CHECKSUM.size)
    return (
        head.startswith(told)
        and last_end == body_bytes
        and checksum == kernel.crc64_nvme(memoryview(head)[: -_CHECKSUM.size])
    )
