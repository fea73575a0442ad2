"""CheckedRanges: ranges of a stored xorb that are compared with its checksums before a reader gets a byte of them.

A reader that does not verify, as the reference client, would take a flipped bit for a file. So what is read is
compared where it lies, in the buffer of the reader, cut behind whole chunks; nothing is copied or decoded. A range that
begins or ends inside of a chunk reads all of that chunk.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable
from operator import sub
from typing import TYPE_CHECKING, Final, Self

from xetstore.blobs.ranges import fill
from xetstore.errors import DamagedError, FormatError, NotFoundError, RangeError
from xetstore.protocol import kernel
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, HASH_BYTES, XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from xetstore.cas.footers import Tail
    from xetstore.interfaces import ByteStream

LONGEST_CHUNK_BYTES: Final = CHUNK_HEADER_BYTES + XET_GEARHASH_BLAKE3.max_chunk_bytes
"""The longest stored chunk: a buffer with less room is filled by way of another one."""

_log = logging.getLogger("xetstore.cas")

Opened = Callable[[int, int], "ByteStream"]
"""Opens bytes ``[start, end)`` of an object."""


class CheckedRanges:
    """Reads ranges of one object whose end is ``tail``, one after the other. Not thread-safe.

    ``open_range`` opens its bytes, and ``open_again`` does past all caches: what is wrong is read once more, because
    memory and networks have faults, too. ``on_damage`` is told what is wrong twice, and gives the error.
    """

    def __init__(
        self, tail: Tail, open_range: Opened, open_again: Opened, on_damage: Callable[[str], DamagedError]
    ) -> None:
        info, self._checksums = tail
        self._name = info.hash
        self._hashes = info.chunks.hashes
        self._ends = memoryview(info.ends).cast("Q")
        self._open = open_range
        self._open_again = open_again
        self._on_damage = on_damage
        # The chunk that was read last for a part of it: many ranges of one chunk cost no more than one.
        self._chunk = memoryview(b"")
        self._chunk_number = -1

    def open(self, start: int, end: int) -> CheckedStream:
        """Bytes ``[start, end)`` of the region, which are in it. Raises DamagedError, here or while it is read."""
        first, last = bisect_right(self._ends, start), bisect_right(self._ends, end - 1)
        return CheckedStream(self, start, end, first, last + 1)

    # For the streams of this module

    def begin(self, number: int) -> int:
        """The byte at which a chunk begins."""
        return self._ends[number - 1] if number else 0

    def behind(self, position: int, first: int, end: int) -> int:
        """The chunk behind those, from ``first`` on, that end at ``position`` or before."""
        return bisect_right(self._ends, position, first, end)

    def opened(self, first: int, end: int) -> ByteStream:
        """The bytes of chunks ``[first, end)``."""
        try:
            return self._open(self.begin(first), self.begin(end))
        except (NotFoundError, RangeError, DamagedError) as error:
            raise self._on_damage(str(error)) from error

    def read(self, stream: ByteStream, part: memoryview, first: int, end: int) -> None:
        """Fill ``part`` with chunks ``[first, end)``, which are next in the stream, and compare them."""
        if self._fault(stream, part, first, end) is None:
            return
        try:
            again = self._open_again(self.begin(first), self.begin(end))
        except (NotFoundError, RangeError, DamagedError) as error:
            raise self._on_damage(str(error)) from error
        with again:
            fault = self._fault(again, part, first, end)
        if fault is not None:
            raise self._on_damage(fault)
        _log.warning(
            "bytes %d to %d of xorb %s came wrong once, and right when they were read again",
            self.begin(first),
            self.begin(end),
            self._name,
        )

    def chunk(self, number: int, stream: ByteStream | None = None) -> memoryview:
        """All of one chunk: the next in the stream, if there is one."""
        if stream is None and number == self._chunk_number:
            return self._chunk
        self._chunk_number = -1
        self._chunk = memoryview(bytearray(self.begin(number + 1) - self.begin(number)))
        if stream is not None:
            self.read(stream, self._chunk, number, number + 1)
        else:
            with self.opened(number, number + 1) as alone:
                self.read(alone, self._chunk, number, number + 1)
        self._chunk_number = number
        return self._chunk

    def _fault(self, stream: ByteStream, part: memoryview, first: int, end: int) -> str | None:
        try:
            fill(stream, part)
        except (NotFoundError, RangeError, DamagedError) as error:
            return str(error)
        if self._is_right(part, first, end):
            return None
        return f"bytes {self.begin(first)} to {self.begin(end)} are not those that were stored"

    def _is_right(self, part: memoryview, first: int, end: int) -> bool:
        if not self._checksums:  # format 1: the hashes of its chunks tell, once they are decoded
            try:
                hashes = kernel.verify_chunks(XET_GEARHASH_BLAKE3.kernel, part, final=True)[0]
            except FormatError:
                return False
            return hashes == self._hashes[HASH_BYTES * first : HASH_BYTES * end]
        ends = self._ends[first:end].tolist()
        lengths = array("Q", map(sub, ends, [self.begin(first), *ends]))
        return kernel.chunk_checksums(part, lengths) == self._checksums[8 * first : 8 * end]


class CheckedStream:
    """A ByteStream of bytes ``[start, end)`` of a xorb, which lie in chunks ``[first, last)``.

    It fills a buffer up to the last chunk that it has room for.
    """

    def __init__(self, ranges: CheckedRanges, start: int, end: int, first: int, last: int) -> None:
        self._ranges = ranges
        self._position = start
        self._end = end
        self._next, self._last = first, last
        self._rest = memoryview(b"")  # of a chunk, of which a part was asked for, or taken
        self._stream: ByteStream | None = None
        if start > ranges.begin(first) or (last == first + 1 and end < ranges.begin(last)):
            self._take_chunk(ranges.chunk(first))
        if self._next < self._last:
            self._stream = ranges.opened(self._next, self._last)

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes, which are those that were stored. Raises DamagedError."""
        if not self._rest and self._position < self._end and buffer:
            count = self._read(buffer)
            if count:
                self._position += count
                return count
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def close(self) -> None:
        """Let go of what is open. May be called again."""
        self._end = self._position
        self._rest = memoryview(b"")
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self, buffer: memoryview) -> int:
        """Read whole chunks in place; 0 where there is no room for the next, which is in ``_rest`` then."""
        assert self._stream is not None
        ranges, position = self._ranges, self._position
        room = min(len(buffer), self._end - position)
        behind = ranges.behind(position + room, self._next, self._last)
        if behind == self._next:
            self._take_chunk(ranges.chunk(self._next, self._stream))
            return 0
        count = ranges.begin(behind) - position
        ranges.read(self._stream, buffer[:count], self._next, behind)
        self._next = behind
        return count

    def _take_chunk(self, chunk: memoryview) -> None:
        begin = self._ranges.begin(self._next)
        self._rest = chunk[self._position - begin : self._end - begin]
        self._next += 1
