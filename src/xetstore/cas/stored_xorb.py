"""StoredXorb: the chunk region of one xorb of the store, to be read as often as one likes; and checks of its object."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xetstore.blobs.layers import forget
from xetstore.blobs.ranges import fill, read_all
from xetstore.cas.checked_range import CheckedRanges
from xetstore.cas.checksums import END_BYTES, parse_checksums, told_section_bytes
from xetstore.cas.footers import FooterCache, Tail, damaged, parse_tail
from xetstore.errors import DamagedError, FormatError, IntegrityError, NotFoundError, RangeError
from xetstore.protocol import kernel
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from xetstore.cas.index import ObjectRow, XorbRow
    from xetstore.interfaces import BlobStore, ByteStream
    from xetstore.protocol.hashes import Hash

_BLOCK_BYTES: Final = 2 << 20
_CHECKED_BYTES: Final = 1 << 20


class StoredXorb:
    """A xorb as the index has it, and its bytes. Thread-safe; holds nothing open.

    ``on_damage`` is called where the object turns out not to have the bytes it should.
    """

    def __init__(
        self,
        row: XorbRow,
        blobs: BlobStore,
        footers: FooterCache,
        on_damage: Callable[[XorbRow, DamagedError], None],
    ) -> None:
        self.row = row
        self._blobs = blobs
        self._footers = footers
        self._on_damage = on_damage

    @property
    def size(self) -> int:
        """Bytes of its chunk region."""
        return self.row.region_bytes

    @property
    def generation(self) -> str:
        """Which of the objects stored under the hash it is: byte ranges of another one do not fit."""
        return self.row.generation

    def read(self, start: int, end: int) -> ByteStream:
        """Bytes ``[start, end)`` as they are, for a reader that compares hashes.

        Raises RangeError, and DamagedError where the object does not have them.
        """
        self._require_in_region(start, end)
        try:
            return self._blobs.get_range(self.row.key, start, end)
        except (NotFoundError, RangeError) as error:
            raise self._damaged(str(error)) from error

    def checked(self) -> Callable[[int, int], ByteStream]:
        """Opens bytes ``[start, end)``, one range after the other, of which each was compared with its checksum.

        Raises as :meth:`read`, while they are read, too: before a byte is given that is not as it was stored.
        """
        ranges: CheckedRanges | None = None

        def read_again(start: int, end: int) -> ByteStream:
            forget(self._blobs, self.row.key)
            return self._blobs.get_range(self.row.key, start, end)

        def read(start: int, end: int) -> ByteStream:
            nonlocal ranges
            self._require_in_region(start, end)
            if ranges is None:
                tail = self._footers.tail(self.row)
                ranges = CheckedRanges(
                    tail, lambda *span: self._blobs.get_range(self.row.key, *span), read_again, self._damaged
                )
            return ranges.open(start, end)

        return read

    def _require_in_region(self, start: int, end: int) -> None:
        if not 0 <= start < end <= self.size:
            raise RangeError(f"xorb {self.row.hash} has {self.size} bytes, bytes {start} to {end} are not in it")

    def _damaged(self, what: str) -> DamagedError:
        error = damaged(self.row.hash, what)
        self._on_damage(self.row, error)
        return error


def looks_whole(row: ObjectRow, blobs: BlobStore) -> bool:
    """True if nothing is known or seen to be wrong with an object: it is not marked, it is there, and as long as its
    row says. One look at the file system, however long the object is.
    """
    if row.is_damaged:
        return False
    found = blobs.stat(row.key)
    return found is not None and found.size in row.sizes


def whole_size(row: ObjectRow, blobs: BlobStore) -> int:
    """Bytes of an object. Raises IntegrityError where it is missing, or longer or shorter than its row says."""
    found = blobs.stat(row.key)
    if found is None:
        raise IntegrityError("the object is missing")
    if found.size not in row.sizes:
        raise IntegrityError(f"the object has {found.size} bytes instead of {row.sizes[-1]}")
    return found.size


def verify_object(blobs: BlobStore, key: str, xorb: Hash, threads: int = 1) -> XorbInfo:
    """Decode and hash all of an object, 2 MiB at a time: the xorb that it holds.

    Raises NotFoundError, and IntegrityError where it holds another one, or ends otherwise than it was stored.
    """
    found = blobs.stat(key)
    size = found.size if found else 0
    end = read_all(blobs.get_range(key, max(0, size - END_BYTES), size), min(END_BYTES, size))
    footer_end = size - told_section_bytes(end)
    verifier = XorbVerifier(threads=threads)
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with blobs.get_range(key, 0, max(0, footer_end)) as stream:
        while count := stream.readinto(buffer):
            verifier.update(buffer[:count])
    info = verifier.finish()
    if info.hash != xorb:
        raise IntegrityError(f"the object holds xorb {info.hash}")
    if footer_end != info.region_bytes + XorbInfo.footer_bytes(info.chunk_count):
        raise IntegrityError("the object has another footer than it was stored with")
    if size > footer_end:
        tail = read_all(blobs.get_range(key, info.region_bytes, size), size - info.region_bytes)
        _compare(tail, info, verifier)
    return info


def read_object(data: bytes) -> XorbInfo:
    """The xorb of a whole object, or of the body of an upload. Every chunk is decoded and hashed; a footer, and
    checksums, are compared where they are there. Raises FormatError or HashMismatchError.
    """
    footer_end = len(data) - told_section_bytes(data[-END_BYTES:])
    verifier = XorbVerifier()
    verifier.update(memoryview(data)[: max(0, footer_end)])
    info = verifier.finish()
    if footer_end < len(data):
        _compare(data[info.region_bytes :], info, verifier)
    return info


def _compare(tail: bytes, info: XorbInfo, verifier: XorbVerifier) -> None:
    if parse_checksums(tail, XorbInfo.footer_bytes(info.chunk_count), info.region_bytes) != verifier.checksums:
        raise FormatError("checksums.chunk", info.region_bytes, "its checksums are those of other chunks")


def verify_row(row: XorbRow, blobs: BlobStore, threads: int = 1) -> XorbInfo:
    """:func:`verify_object`, of the object that counts, which has to be as long as its row says."""
    info = verify_object(blobs, row.key, row.hash, threads)
    if info.region_bytes != row.region_bytes:
        raise IntegrityError(f"it has {info.region_bytes} bytes of chunks, the index says {row.region_bytes}")
    return info


def read_tail(row: XorbRow, size: int, blobs: BlobStore) -> Tail:
    """The end of an object of ``size`` bytes, by one read. Raises NotFoundError or IntegrityError."""
    start = row.region_bytes
    return parse_tail(read_all(blobs.get_range(row.key, start, size), size - start), row)


def compare_checksums(row: XorbRow, info: XorbInfo, checksums: bytes, blobs: BlobStore) -> None:
    """Read all chunks of an object as they are stored, 1 MiB at a time, and compare their checksums.

    Nothing is decoded. Raises NotFoundError, and IntegrityError at the first that differs.
    """
    ends = memoryview(info.ends).cast("Q")
    lengths = struct.pack(f"={len(ends)}Q", *(end - start for start, end in zip((0, *ends), ends, strict=False)))
    buffer = memoryview(bytearray(_CHECKED_BYTES))
    with blobs.get_range(row.key, 0, info.region_bytes) as stream:
        first = position = 0
        while first < len(ends):
            end = bisect_right(ends, position + _CHECKED_BYTES)
            part, place = buffer[: ends[end - 1] - position], slice(8 * first, 8 * end)
            fill(stream, part)
            if kernel.chunk_checksums(part, lengths[place]) != checksums[place]:
                raise IntegrityError(f"bytes {position} to {ends[end - 1]} are not those that were stored")
            first, position = end, ends[end - 1]
