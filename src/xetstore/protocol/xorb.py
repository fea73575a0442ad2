"""Xorbs: the description of one without its data, its CasObjectInfo footer, the builder (draft section 7)."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from xetstore.errors import FormatError, HashMismatchError
from xetstore.platform.memory import untouched_memory
from xetstore.protocol import hashes, kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import (
    CHUNK_HEADER_BYTES,
    HASH_BYTES,
    XET_GEARHASH_BLAKE3,
    XORB_BOUNDARIES_IDENT,
    XORB_HASHES_IDENT,
    XORB_IDENT,
    AlgorithmSuite,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Versions of the footer (whole and per section) that we write; 0 of the whole is an older layout.
_VERSION: Final = b"\x01"
_OLD_VERSION: Final = b"\x00"
_HASHES_VERSION: Final = b"\x00"
_BOUNDARIES_VERSION: Final = b"\x01"

# Sizes of the footer's parts: bytes that do not depend on the chunk count, and bytes a chunk. The u32
# length behind the footer counts everything but itself.
_HEAD_BYTES: Final = len(XORB_IDENT) + 1 + HASH_BYTES
_SECTION_HEAD_BYTES: Final = len(XORB_HASHES_IDENT) + 1 + 4
_NONCE_BYTES: Final = 4
_RESERVED: Final = bytes(12)
_BUFFER_BYTES: Final = _NONCE_BYTES + len(_RESERVED)
_LENGTH_BYTES: Final = 4
_FIXED_BYTES: Final = _HEAD_BYTES + 2 * _SECTION_HEAD_BYTES + 12 + _BUFFER_BYTES
_CHUNK_BYTES: Final = HASH_BYTES + 4 + 4
_OLD_FIXED_BYTES: Final = _HEAD_BYTES + 4 + _BUFFER_BYTES
_OLD_CHUNK_BYTES: Final = HASH_BYTES + 4


class CompressionPolicy(StrEnum):
    """The compression of chunks on writing; a chunk that does not shrink is stored raw under each policy."""

    AUTO = "auto"
    NONE = "none"
    LZ4 = "lz4"
    BG4_LZ4 = "bg4-lz4"

    @property
    def kernel(self) -> int:
        """The policy as ``kernel.encode_chunks`` takes it."""
        return {"auto": kernel.AUTO, "none": kernel.NONE, "lz4": kernel.LZ4, "bg4-lz4": kernel.BG4_LZ4}[self.value]


@dataclass(frozen=True, slots=True)
class XorbInfo:
    """A xorb without its data: name, chunks, and where each chunk ends in the serialized region.

    ``ends`` is a native u64 a chunk, header included: chunk ``i`` is the bytes ``[ends[i - 1], ends[i])``.
    """

    hash: Hash
    chunks: ChunkList
    ends: bytes

    def __post_init__(self) -> None:
        if not self.chunks or len(self.ends) != len(self.chunks.lengths):
            raise ValueError(f"{len(self.ends)} bytes of ends do not go with {len(self.chunks)} chunks")

    @property
    def chunk_count(self) -> int:
        """The number of chunks in the xorb: at least one."""
        return len(self.chunks)

    @property
    def raw_bytes(self) -> int:
        """Bytes of all chunks when decoded."""
        return self.chunks.total_bytes

    @property
    def region_bytes(self) -> int:
        """Bytes of the serialized chunk region: the body of an upload, footer not counted."""
        return memoryview(self.ends).cast("Q")[-1]

    def byte_range(self, chunk_start: int, chunk_end: int) -> tuple[int, int]:
        """The bytes ``[start, end)`` of the region that hold chunks ``[chunk_start, chunk_end)``."""
        if not 0 <= chunk_start < chunk_end <= self.chunk_count:
            raise ValueError(f"no chunks {chunk_start} to {chunk_end} in a xorb of {self.chunk_count}")
        ends = memoryview(self.ends).cast("Q")
        return (ends[chunk_start - 1] if chunk_start else 0, ends[chunk_end - 1])

    def chunks_of(self, start: int, end: int) -> tuple[int, int]:
        """The chunks ``[chunk_start, chunk_end)`` that bytes ``[start, end)`` of the region lie in."""
        if not 0 <= start < end <= self.region_bytes:
            raise ValueError(f"no bytes {start} to {end} in a region of {self.region_bytes}")
        ends = memoryview(self.ends).cast("Q")
        return bisect_right(ends, start), bisect_left(ends, end) + 1

    @staticmethod
    def footer_bytes(chunk_count: int) -> int:
        """Length of what :meth:`serialize_footer` returns, for a xorb of ``chunk_count`` chunks."""
        return _FIXED_BYTES + _CHUNK_BYTES * chunk_count + _LENGTH_BYTES

    def serialize_footer(self) -> bytes:
        """CasObjectInfo version 1 and the u32 length behind it (published draft 7.5)."""
        count = self.chunk_count
        raw_end = 0
        raw_ends = [raw_end := raw_end + length for length in self.chunks.sizes]
        boundaries_from_end = _SECTION_HEAD_BYTES + 8 * count + 12 + _BUFFER_BYTES
        hashes_from_end = _SECTION_HEAD_BYTES + HASH_BYTES * count + boundaries_from_end
        u32 = struct.Struct("<I").pack
        return b"".join(
            (
                XORB_IDENT + _VERSION + self.hash.digest,
                XORB_HASHES_IDENT + _HASHES_VERSION + u32(count) + self.chunks.hashes,
                XORB_BOUNDARIES_IDENT + _BOUNDARIES_VERSION + u32(count),
                struct.pack(f"<{count}I", *memoryview(self.ends).cast("Q")),
                struct.pack(f"<{count}I", *raw_ends),
                struct.pack("<3I", count, hashes_from_end, boundaries_from_end),
                bytes(_BUFFER_BYTES),
                u32(_FIXED_BYTES + _CHUNK_BYTES * count),
            )
        )

    @classmethod
    def parse_footer(cls, data: Buffer, offset: int = 0, *, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> XorbInfo:
        """Read exactly what :meth:`serialize_footer` writes; every field is checked, the tree included.

        ``offset`` is where the footer starts in its xorb, for the offsets in errors. Any bytes give a value
        or FormatError. A version 0 footer does not tell raw lengths: that takes the body, see :meth:`read`.
        """
        footer = bytes(data)
        version = _footer_version(footer, offset)
        if version == _OLD_VERSION:
            raise FormatError("footer.version", offset + 7, "a version 0 footer cannot be read without its body")
        count = _chunk_count(footer, offset, _FIXED_BYTES, _CHUNK_BYTES, suite)
        field = _Fields(footer, offset)
        name = Hash(field.take(HASH_BYTES, at=8))
        field.demand("footer.hashes_ident", XORB_HASHES_IDENT)
        field.demand("footer.hashes_version", _HASHES_VERSION)
        field.demand_u32("footer.hashes_count", count)
        chunk_hashes = field.take(HASH_BYTES * count)
        field.demand("footer.boundaries_ident", XORB_BOUNDARIES_IDENT)
        field.demand("footer.boundaries_version", _BOUNDARIES_VERSION)
        field.demand_u32("footer.boundaries_count", count)
        ends = field.take_ends("footer.end", count, CHUNK_HEADER_BYTES, suite)
        raw_ends = field.take_ends("footer.raw_end", count, 0, suite)
        if ends[-1] > suite.max_xorb_body_bytes:
            raise FormatError("footer.end", offset, f"{ends[-1]} bytes of chunks in one xorb")
        field.demand_u32("footer.count", count)
        after_boundaries = 12 + _BUFFER_BYTES
        boundaries_from_end = _SECTION_HEAD_BYTES + 8 * count + after_boundaries
        field.demand_u32("footer.hashes_offset", _SECTION_HEAD_BYTES + HASH_BYTES * count + boundaries_from_end)
        field.demand_u32("footer.boundaries_offset", boundaries_from_end)
        field.take(_NONCE_BYTES)
        field.demand("footer.reserved", _RESERVED)
        lengths = [end - start for start, end in zip((0, *raw_ends), raw_ends, strict=False)]
        chunks = ChunkList(chunk_hashes, struct.pack(f"={count}Q", *lengths))
        if (root := hashes.xorb_hash(chunks.hashes, chunks.lengths, suite)) != name:
            raise FormatError("footer.hash", offset + 8, f"the chunk hashes make {root}, the footer says {name}")
        return cls(name, chunks, struct.pack(f"={count}Q", *ends))

    @classmethod
    def read(cls, data: Buffer, threads: int = 1, *, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> XorbInfo:
        """Verify a whole serialized xorb, footer or not: decode and hash every chunk, compute its name.

        A footer must say what the body holds. Raises FormatError, or HashMismatchError where a footer is
        that of another xorb. The caller compares the hash with the name it was given.
        """
        verifier = XorbVerifier(suite, threads)
        verifier.update(data)
        return verifier.finish()

    def check_footer(self, footer: bytes, suite: AlgorithmSuite) -> None:
        """Raises FormatError or HashMismatchError where a footer that came with the body says something else."""
        offset = self.region_bytes
        if _footer_version(footer, offset) == _OLD_VERSION:
            claimed = _parse_old_footer(footer, offset, self.chunks.lengths, suite)
        else:
            claimed = XorbInfo.parse_footer(footer, offset, suite=suite)
        if claimed.hash != self.hash:
            raise HashMismatchError("a xorb", expected=str(claimed.hash), actual=str(self.hash))
        if claimed.chunks != self.chunks:
            raise FormatError("footer.chunks", offset, "the footer lists other chunks than the body holds")
        if claimed.ends != self.ends:
            raise FormatError("footer.end", offset, "the footer's chunk boundaries are not those of the body")


class XorbVerifier:
    """Verifies a serialized xorb that arrives in pieces: every chunk is decoded and hashed once (7.2 to 7.4).

    Give it pieces of some MiB. Memory: two open chunks beside the pieces, and 56 bytes a chunk. Not thread-safe;
    ``threads`` is how many the kernel may use inside a call.
    """

    def __init__(self, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3, threads: int = 1) -> None:
        self._suite = suite
        self._threads = threads
        self._chunks: list[ChunkList] = []
        self._ends: list[bytes] = []
        self._checksums: list[bytes] = []
        self._chunk_count = 0
        self._region_bytes = 0
        self._held = b""  # behind the last whole chunk: a part of a chunk, or of the footer
        self._in_footer = False

    @property
    def checksums(self) -> bytes:
        """CRC-64/NVME of each chunk so far as it is serialized, its header included: a native u64 each."""
        return b"".join(self._checksums)

    def update(self, *parts: Buffer) -> list[memoryview]:
        """Take the next bytes. Returns the part of the region that is verified by now and was not returned before.

        It lies in ``parts`` or in memory of its own; the footer never is a part of it. Raises
        FormatError with offsets in the whole body.
        """
        return [verified for part in parts for verified in self._take(memoryview(part).cast("B")) if verified]

    def _take(self, data: memoryview) -> Iterator[memoryview]:
        if self._held and not self._in_footer:
            # No more is copied than the open chunk may need.
            most = self._suite.max_chunk_bytes + CHUNK_HEADER_BYTES
            joined = memoryview(b"".join((self._held, data[:most])))
            verified = self._verify(joined, final=False)
            yield joined[:verified]
            if verified:
                data, self._held = data[verified - len(self._held) :], b""
        if self._held:
            data, self._held = memoryview(b"".join((self._held, data))), b""
        verified = 0 if self._in_footer else self._verify(data, final=False)
        yield data[:verified]
        rest = data[verified:]
        if not self._in_footer and bytes(rest[: len(XORB_IDENT)]) == XORB_IDENT:
            self._in_footer = True
        if self._in_footer and len(rest) > XorbInfo.footer_bytes(self._suite.max_xorb_chunks):
            raise FormatError("footer.length", self._region_bytes, f"a footer of {len(rest)} bytes and more")
        self._held = bytes(rest)

    def finish(self) -> XorbInfo:
        """Return the xorb of the whole body. The caller compares the hash with the name it was given. Raises as
        :meth:`XorbInfo.read` does.
        """
        if not self._in_footer:
            self._verify(memoryview(self._held), final=True)
        if not self._chunk_count:
            raise FormatError("xorb.empty", 0, "a xorb without a chunk")
        chunks = ChunkList.concat(self._chunks)
        name = hashes.xorb_hash(chunks.hashes, chunks.lengths, self._suite)
        found = XorbInfo(name, chunks, b"".join(self._ends))
        if self._in_footer:
            found.check_footer(self._held, self._suite)
        return found

    def _verify(self, data: memoryview, *, final: bool) -> int:
        base = self._region_bytes
        try:
            chunk_hashes, lengths, ends, checksums = kernel.verify_chunks(
                self._suite.kernel,
                data,
                final=final,
                chunks_before=self._chunk_count,
                body_bytes_before=self._region_bytes,
                threads=self._threads,
            )
        except FormatError as error:
            raise FormatError(error.rule, base + error.offset, error.detail) from None
        if not ends:
            return 0
        found = ChunkList(chunk_hashes, lengths)
        offsets = memoryview(ends).cast("Q")
        self._chunks.append(found)
        self._checksums.append(checksums)
        self._ends.append(struct.pack(f"={len(offsets)}Q", *(base + end for end in offsets)) if base else ends)
        self._chunk_count += len(found)
        self._region_bytes += offsets[-1]
        return offsets[-1]


def decode_chunks(
    region: Buffer, *, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3, threads: int = 1
) -> tuple[ChunkList, bytes]:
    """The chunks of a part of a chunk region, or of all of it, and their raw bytes one behind the other (7.3, 7.4).

    The hashes are those of the decoded bytes: the caller compares them. A footer behind the region is left alone.
    Raises FormatError for anything else that is no whole chunk, before memory is taken for what it claims.
    """
    lengths, ends, _ = kernel.walk_chunks(suite.kernel, region)
    if not ends:
        return ChunkList.EMPTY, b""
    out = bytearray(sum(memoryview(lengths).cast("Q")))
    with memoryview(region) as body, body.cast("B")[: memoryview(ends).cast("Q")[-1]] as whole:
        hashes, lengths, _ = kernel.decode_chunks(suite.kernel, whole, out, final=True, threads=threads)
    return ChunkList(hashes, lengths), bytes(out)


class XorbBuilder:
    """Serializes chunks into one buffer, up to the limits of a xorb. Reusable by reset(). Not thread-safe."""

    def __init__(self, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> None:
        self._suite = suite
        self._body = untouched_memory(suite.max_xorb_body_bytes)
        self._chunks: list[ChunkList] = []
        self._ends: list[bytes] = []
        self._end = 0
        self._chunk_count = 0
        self._raw_bytes = 0

    @property
    def chunk_count(self) -> int:
        """Chunks appended so far."""
        return self._chunk_count

    @property
    def raw_bytes(self) -> int:
        """Raw bytes appended so far, which the size limit counts."""
        return self._raw_bytes

    @property
    def body_bytes(self) -> int:
        """Serialized bytes so far, headers included."""
        return self._end

    @property
    def chunks(self) -> ChunkList:
        """All chunks appended so far, in order."""
        return ChunkList.concat(self._chunks)

    def can_take(self, raw_bytes: int, chunk_count: int) -> bool:
        """True if these chunks and bytes still fit within both limits of a xorb (7.1)."""
        return (
            self._raw_bytes + raw_bytes <= self._suite.max_xorb_bytes
            and self._chunk_count + chunk_count <= self._suite.max_xorb_chunks
        )

    def append(
        self,
        pieces: Sequence[Buffer],
        chunks: ChunkList,
        *,
        policy: CompressionPolicy | int = CompressionPolicy.AUTO,
        threads: int = 1,
    ) -> int:
        """Encode chunks, whose data ``pieces`` hold in runs of whole chunks. Returns the first one's index.

        ``policy`` may be its number in the kernel. Raises ValueError where :meth:`can_take` says no, or pieces and
        chunks differ in size; nothing is appended then. The hashes are believed to be those of the pieces.
        """
        raw_bytes = chunks.total_bytes
        if not self.can_take(raw_bytes, len(chunks)):
            raise ValueError(f"{raw_bytes} bytes in {len(chunks)} chunks do not fit into this xorb any more")
        base, number = self._end, policy.kernel if isinstance(policy, CompressionPolicy) else policy
        with memoryview(self._body) as body, body[base:] as out:
            ends = memoryview(
                kernel.encode_chunks(self._suite.kernel, pieces, chunks.lengths, out, policy=number, threads=threads)
            ).cast("Q")
        first = self._chunk_count
        if len(ends):
            self._ends.append(struct.pack(f"={len(ends)}Q", *(base + end for end in ends)))
            self._end = base + ends[-1]
        self._chunks.append(chunks)
        self._chunk_count += len(chunks)
        self._raw_bytes += raw_bytes
        return first

    def drop(self, spans: Sequence[tuple[int, int]]) -> None:
        """Take chunks ``[start, end)`` out again, spans in ascending order; those behind them move up."""
        chunks, ends = self.chunks, (0, *memoryview(b"".join(self._ends)).cast("Q"))
        kept: list[ChunkList] = []
        new_ends: list[int] = []
        position = at = 0
        for start, end in (*spans, (self._chunk_count, self._chunk_count)):
            kept.append(chunks.slice(position, start))
            shift = ends[position] - at
            if shift and start > position:
                self._body.move(at, ends[position], ends[start] - ends[position])
            new_ends += (ends[i + 1] - shift for i in range(position, start))
            at += ends[start] - ends[position]
            position = end
        self._chunks = [ChunkList.concat(kept)]
        self._ends = [struct.pack(f"={len(new_ends)}Q", *new_ends)]
        self._end = at
        self._chunk_count = len(new_ends)
        self._raw_bytes = self._chunks[0].total_bytes

    def finish(self) -> tuple[XorbInfo, memoryview]:
        """The xorb and its body, without a footer. The body is a read-only view, good until :meth:`reset`."""
        if not self._chunk_count:
            raise ValueError("a xorb holds at least one chunk")
        chunks = self.chunks
        name = hashes.xorb_hash(chunks.hashes, chunks.lengths, self._suite)
        return XorbInfo(name, chunks, b"".join(self._ends)), memoryview(self._body)[: self._end].toreadonly()

    def reset(self) -> None:
        """Start the next xorb in the same buffer, over the bodies that :meth:`finish` handed out."""
        self._chunks = []
        self._ends = []
        self._end = 0
        self._chunk_count = 0
        self._raw_bytes = 0


class _Fields:
    """Reads a footer from front to back. Its length is checked before, so that no field can lie outside."""

    def __init__(self, footer: bytes, base: int) -> None:
        self._footer = footer
        self._base = base
        self._at = 0

    @property
    def offset(self) -> int:
        """The place of the next field in the xorb."""
        return self._base + self._at

    def take(self, size: int, *, at: int | None = None) -> bytes:
        start = self._at if at is None else at
        self._at = start + size
        return self._footer[start : self._at]

    def demand(self, rule: str, expected: bytes) -> None:
        offset = self.offset
        if (found := self.take(len(expected))) != expected:
            raise FormatError(rule, offset, f"found {found!r} where {expected!r} belongs")

    def demand_u32(self, rule: str, expected: int) -> None:
        offset = self.offset
        if (found := int.from_bytes(self.take(4), "little")) != expected:
            raise FormatError(rule, offset, f"found {found} where {expected} belongs")

    def take_ends(self, rule: str, count: int, overhead: int, suite: AlgorithmSuite) -> tuple[int, ...]:
        """u32 end offsets, each one chunk of legal size (and ``overhead``) behind the one before."""
        offset = self.offset
        ends = struct.unpack(f"<{count}I", self.take(4 * count))
        before = 0
        for i, end in enumerate(ends):
            if not 1 <= end - before - overhead <= suite.max_chunk_bytes:
                raise FormatError(rule, offset + 4 * i, f"chunk {i} from {before} to {end} has no legal size")
            before = end
        return ends


def _footer_version(footer: bytes, offset: int) -> bytes:
    if not footer.startswith(XORB_IDENT):
        raise FormatError("footer.ident", offset, f"found {footer[:7]!r} where {XORB_IDENT!r} belongs")
    version = footer[7:8]
    if version not in (_VERSION, _OLD_VERSION):
        raise FormatError("footer.version", offset + 7, f"found version {version!r}; 0 and 1 are known")
    return version


def _chunk_count(footer: bytes, offset: int, fixed: int, per_chunk: int, suite: AlgorithmSuite) -> int:
    """The chunk count, from the footer's length: it leaves exactly one value for each later size field."""
    length = len(footer) - _LENGTH_BYTES
    count, rest = divmod(length - fixed, per_chunk)
    if rest or not 1 <= count <= suite.max_xorb_chunks:
        raise FormatError("footer.length", offset, f"a footer of {len(footer)} bytes fits no chunk count")
    if (told := int.from_bytes(footer[length:], "little")) != length:
        raise FormatError("footer.length", offset + length, f"found {told} where {length} belongs")
    return count


def _parse_old_footer(footer: bytes, offset: int, lengths: bytes, suite: AlgorithmSuite) -> XorbInfo:
    """A version 0 footer; ``lengths`` of the chunks, which it does not tell, are those of the body."""
    count = _chunk_count(footer, offset, _OLD_FIXED_BYTES, _OLD_CHUNK_BYTES, suite)
    field = _Fields(footer, offset)
    name = Hash(field.take(HASH_BYTES, at=8))
    field.demand_u32("footer.count", count)
    ends = field.take_ends("footer.end", count, CHUNK_HEADER_BYTES, suite)
    chunk_hashes = field.take(HASH_BYTES * count)
    field.take(_NONCE_BYTES)
    field.demand("footer.reserved", _RESERVED)
    if 8 * count != len(lengths):
        raise FormatError("footer.count", offset + _HEAD_BYTES, f"the body does not hold {count} chunks")
    return XorbInfo(name, ChunkList(chunk_hashes, lengths), struct.pack(f"={count}Q", *ends))
