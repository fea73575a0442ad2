"""The journal of a download: which chunks of a partial file were written, by hash, so that another attempt can tell.

An append-only file: a header that names the request, then records of consecutive whole chunks, each behind a checksum.
Nothing is flushed to the disk: the next attempt hashes what the partial file holds and compares. So a journal that is
torn, stale or ahead of the data costs nothing but the bytes that it promised.

    header   magic "XETGET1\\n", file hash (32), start u64, end u64 (all ones: the end of the file), CRC-32 u32
    record   position in the file u64, chunks u32, CRC-32 of all of the record u32, hashes (32 each), lengths (u32 each)
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.platform.descriptors import next_data, read_at, read_into, write_at
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from xetstore.transfer.download.file_range import FileRange

RECORD_CHUNKS: Final = 256
"""The most chunks of a record: they are lost where it is torn."""

_MAGIC: Final = b"XETGET1\n"
_HEADER: Final = struct.Struct("<8s32sQQI")
_RECORD: Final = struct.Struct("<QII")
_OPEN_END: Final = 2**64 - 1
_LENGTH_BYTES: Final = 4
_READ_BYTES: Final = 1 << 20


class DownloadJournal:
    """The record of what attempts at a range of a file wrote, earlier ones and this one. Thread-safe.

    ``fd`` is the journal, ``data_fd`` the partial file, both open for reading and writing, and closed by the caller
    after :meth:`close`. Positions are those in the whole file. ``path`` is the destination.
    """

    def __init__(self, fd: int, data_fd: int, path: Path, wanted: FileRange, *, is_new: bool = False) -> None:
        self.path = path
        self.start = wanted.start
        self._fd = fd
        self._data_fd = data_fd
        self._lock = threading.Lock()
        # Of the records of earlier attempts, by position: where they are in the file, and in the journal.
        self._positions = array("Q")
        self._offsets = array("Q")
        self._recorded_bytes = 0
        end = _OPEN_END if wanted.end is None else wanted.end
        head = _HEADER.pack(_MAGIC, wanted.file.digest, wanted.start, end, 0)
        self._header = head[:-4] + zlib.crc32(head[:-4]).to_bytes(4, "little")
        if is_new or read_at(fd, len(self._header), 0) != self._header:
            os.ftruncate(fd, 0)
            write_at(fd, self._header, 0)
            self._append_at = len(self._header)
        else:
            self._append_at = self._read_index()
            os.ftruncate(fd, self._append_at)

    @property
    def recorded_bytes(self) -> int:
        """Raw bytes of all records, those of earlier attempts included."""
        return self._recorded_bytes

    def close(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._fd = -1

    def record(self, position: int, chunks: ChunkList) -> None:
        """Whole chunks are in the partial file from ``position`` on. Never fails: what is not noted is not resumed."""
        for first in range(0, len(chunks), RECORD_CHUNKS):
            some = chunks.slice(first, min(first + RECORD_CHUNKS, len(chunks)))
            data = _packed(position, some)
            nbytes = some.total_bytes
            position += nbytes
            with self._lock:
                if self._fd < 0:
                    return
                try:
                    written = write_at(self._fd, data, self._append_at)
                except OSError:
                    written = 0
                if written == len(data):  # else the next record takes its place
                    self._append_at += written
                    self._recorded_bytes += nbytes

    def runs(self, start: int, end: int) -> Iterator[tuple[int, ChunkList]]:
        """Yield what earlier attempts wrote of ``[start, end)``: positions and whole chunks, ascending, no overlap."""
        reached = start
        # A record that starts before may reach in.
        before = max(0, start - RECORD_CHUNKS * XET_GEARHASH_BLAKE3.max_chunk_bytes)
        for index in range(bisect_left(self._positions, before), len(self._positions)):
            position = self._positions[index]
            if position >= end:
                return
            found = self._load(self._offsets[index])
            if found is None:
                continue
            sizes = found.sizes
            first = 0
            while first < len(found) and position < reached:
                position += sizes[first]
                first += 1
            last, stop = first, position
            while last < len(found) and stop + sizes[last] <= end:
                stop += sizes[last]
                last += 1
            if first < last:
                yield position, found.slice(first, last)
                reached = stop

    def read(self, position: int, view: memoryview) -> bool:
        """Fill ``view`` from the partial file, with zeros behind its end: they are not written. False for an error."""
        at = position - self.start
        while view:
            try:
                count = read_into(self._data_fd, view, at)
            except OSError:
                return False
            if not count:
                view[:] = bytes(len(view))
                return True
            at, view = at + count, view[count:]
        return True

    def is_hole(self, position: int, nbytes: int) -> bool:
        """True if nothing was ever written there in the partial file."""
        at = position - self.start
        try:
            start = next_data(self._data_fd, at)
        except OSError:
            return False
        return start is None or start >= at + nbytes

    def _read_index(self) -> int:
        """Find the records; the offset behind the last one that is whole."""
        entries: list[tuple[int, int]] = []
        at = len(self._header)
        block, block_at = b"", at
        while True:
            inside = at - block_at
            if len(block) - inside < _RECORD.size + RECORD_CHUNKS * (HASH_BYTES + _LENGTH_BYTES):
                block, block_at, inside = read_at(self._fd, _READ_BYTES, at), at, 0
            parsed = _parse(block, inside)
            if parsed is None:
                break
            position, chunks, size = parsed
            entries.append((position, at))
            self._recorded_bytes += chunks.total_bytes
            at += size
        # Of records for one place the last is the better one.
        entries.sort(key=lambda entry: (entry[0], -entry[1]))
        self._positions = array("Q", (position for position, _ in entries))
        self._offsets = array("Q", (offset for _, offset in entries))
        return at

    def _load(self, offset: int) -> ChunkList | None:
        try:
            data = read_at(self._fd, _RECORD.size + RECORD_CHUNKS * (HASH_BYTES + _LENGTH_BYTES), offset)
        except OSError:
            return None
        parsed = _parse(data, 0)
        return parsed[1] if parsed else None


def _packed(position: int, chunks: ChunkList) -> bytes:
    body = chunks.hashes + array("I", chunks.sizes).tobytes()
    head = _RECORD.pack(position, len(chunks), 0)
    return _RECORD.pack(position, len(chunks), zlib.crc32(body, zlib.crc32(head))) + body


def _parse(data: bytes, at: int) -> tuple[int, ChunkList, int] | None:
    """Position, chunks and size of the record at an offset; None if none is whole there."""
    if len(data) < at + _RECORD.size:
        return None
    position, count, checksum = _RECORD.unpack_from(data, at)
    size = _RECORD.size + count * (HASH_BYTES + _LENGTH_BYTES)
    if not 0 < count <= RECORD_CHUNKS or len(data) < at + size:
        return None
    body = data[at + _RECORD.size : at + size]
    if zlib.crc32(body, zlib.crc32(_RECORD.pack(position, count, 0))) != checksum:
        return None
    lengths = array("I", body[count * HASH_BYTES :])
    if not all(0 < length <= XET_GEARHASH_BLAKE3.max_chunk_bytes for length in lengths) or position > 1 << 62:
        return None
    return position, ChunkList(body[: count * HASH_BYTES], array("Q", lengths).tobytes()), size
