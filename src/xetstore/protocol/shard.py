"""Shards (draft 9; their footer: published draft 9.6): files as terms, xorbs as chunks, to and from bytes."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from xetstore.errors import FormatError, UsageError
from xetstore.protocol import kernel
from xetstore.protocol.chunk_table import CHUNK_TABLE_ENTRY, chunk_table
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term, term_fault
from xetstore.protocol.suite import (
    CHUNK_DEDUP_ELIGIBLE,
    FILE_WITH_METADATA,
    FILE_WITH_VERIFICATION,
    HASH_BYTES,
    MAX_SHARD_BYTES,
    SHARD_APPLICATION_ID,
    SHARD_BOOKEND,
    SHARD_FOOTER_BYTES,
    SHARD_FOOTER_VERSION,
    SHARD_MAGIC,
    SHARD_RECORD_BYTES,
    SHARD_TAG,
    SHARD_VERSION,
    XET_GEARHASH_BLAKE3,
    AlgorithmSuite,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Every record is 48 bytes: a hash, then four u32 (9.4, 9.5). Of the file header the last two are reserved.
_HEADER: Final = struct.Struct("<32sQQ")
_RECORD: Final = struct.Struct("<32s4I")
# 9.6: version, offsets of the two sections, offset and count of three lookup tables, key, creation, expiry,
# 48 reserved bytes, three statistics, the footer's own offset.
_FOOTER: Final = struct.Struct("<9Q32sQQ48x4Q")
# Bytes an entry of the file, xorb and chunk lookup tables.
_LOOKUP_ENTRY_BYTES: Final = (12, 12, CHUNK_TABLE_ENTRY.size)

_ZEROS: Final = bytes(HASH_BYTES)
_BOOKEND_HASH: Final = SHARD_BOOKEND[:HASH_BYTES]
_EMPTY_SHA256: Final = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file block (9.4): the terms of a file, a verification hash for each of them (6.4), and its SHA-256.

    ``sha256`` is the ordinary digest, 32 bytes in natural order. The empty file is Hash.ZERO with no terms.
    """

    hash: Hash
    terms: tuple[Term, ...]
    verification: tuple[Hash, ...] | None = None
    sha256: bytes | None = None

    def __post_init__(self) -> None:
        if self.verification is not None and len(self.verification) != len(self.terms):
            raise ValueError(f"{len(self.verification)} verification hashes for {len(self.terms)} terms")
        if self.sha256 is not None and len(self.sha256) != HASH_BYTES:
            raise ValueError(f"a SHA-256 has {HASH_BYTES} bytes, not {len(self.sha256)}")

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(term.unpacked_bytes for term in self.terms)


@dataclass(frozen=True, slots=True)
class XorbEntry:
    """A xorb block (9.5): the chunks of a xorb in order.

    ``stored_bytes`` is the shard's word for the serialized xorb's size. Real clients write 0: never trust it.
    """

    hash: Hash
    chunks: ChunkList
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Files and xorbs. Chunk hashes are keyed by ``key`` (32 bytes, 10.3.3), or plain where that is None.

    ``created_at`` and ``expires_at`` are unix seconds from the footer, 0 where there is none. What a shard
    says is a claim: the store that takes it in checks hashes and lengths against the xorbs.
    """

    files: tuple[FileEntry, ...] = ()
    xorbs: tuple[XorbEntry, ...] = ()
    key: bytes | None = None
    created_at: int = 0
    expires_at: int = 0

    def __post_init__(self) -> None:
        if self.key is not None and (len(self.key) != HASH_BYTES or self.key == _ZEROS):
            raise ValueError(f"a key has {HASH_BYTES} bytes, not all zero")

    @classmethod
    def parse(cls, data: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Shard:
        """Read a shard with or without footer. Any bytes give a Shard or FormatError, nothing else.

        Reserved fields and the content of lookup tables are ignored, as the reference reader does. Counts are
        compared with the bytes that are there before anything is allocated.
        """
        return _Parser(memoryview(data).cast("B"), suite).shard()

    def serialize(self) -> bytes:
        """The upload form (9.1): no footer, files and xorbs ascending by hash, no sizes on disk.

        Raises ValueError where a server would refuse: keyed hashes, terms without verification (M37), and, as
        FormatError, terms and chunks with numbers that cannot be.
        """
        if self.key is not None:
            raise ValueError("a shard of keyed hashes cannot be uploaded")
        if any(file.terms and file.verification is None for file in self.files):
            raise ValueError("a file without verification hashes cannot be uploaded")
        _check_numbers(self, XET_GEARHASH_BLAKE3)
        verified = (
            replace(file, verification=()) if file.verification is None else file for file in _by_hash(self.files)
        )
        plain = (replace(xorb, stored_bytes=0) for xorb in _by_hash(self.xorbs))
        return b"".join(
            [
                _HEADER.pack(SHARD_TAG, SHARD_VERSION, 0),
                *_file_section(verified),
                *_xorb_section(plain),
            ]
        )

    def serialize_with_footer(self, *, ascending: bool = True) -> bytes:
        """The form of stored shards and dedup answers: with the 200-byte footer, and no lookup tables but that of the
        chunks where an answer has one twice.

        As real servers write it, an absent table has count 0 and the footer's offset, and entries are in ascending
        order. Our own readers need neither: unless ``ascending`` they keep the order that they have, without a table.
        """
        listed = _by_hash(self.xorbs) if ascending else self.xorbs
        files = b"".join(_file_section(_by_hash(self.files) if ascending else self.files))
        xorbs = b"".join(_xorb_section(listed))
        has_table = ascending and self.key is not None
        table = chunk_table([xorb.chunks.hashes for xorb in listed]) if has_table else b""
        table_offset = _HEADER.size + len(files) + len(xorbs)
        footer_offset = table_offset + len(table)
        footer = _FOOTER.pack(
            SHARD_FOOTER_VERSION,
            _HEADER.size,
            _HEADER.size + len(files),
            *(table_offset, 0) * (len(_LOOKUP_ENTRY_BYTES) - 1),
            *(table_offset, len(table) // CHUNK_TABLE_ENTRY.size),
            self.key or _ZEROS,
            self.created_at,
            self.expires_at,
            sum(xorb.stored_bytes for xorb in self.xorbs),
            sum(file.size for file in self.files),
            sum(xorb.chunks.total_bytes for xorb in self.xorbs),
            footer_offset,
        )
        return b"".join([_HEADER.pack(SHARD_TAG, SHARD_VERSION, SHARD_FOOTER_BYTES), files, xorbs, table, footer])

    def keyed(self, key: bytes, created_at: int, expires_at: int) -> Shard:
        """The dedup answer that offers these xorbs: chunk hashes keyed by ``key``, no files (10.3.3)."""
        if self.key is not None:
            raise ValueError("the hashes of this shard are keyed already")
        xorbs = tuple(
            replace(xorb, chunks=ChunkList(kernel.keyed_hashes(key, xorb.chunks.hashes), xorb.chunks.lengths))
            for xorb in self.xorbs
        )
        return Shard((), xorbs, key, created_at, expires_at)


def split_for_upload(shard: Shard, max_bytes: int = MAX_SHARD_BYTES) -> list[Shard]:
    """``shard`` in parts, in order, none of which serializes above ``max_bytes`` (M44). No block is divided.

    Raises UsageError if one file alone has too many terms for a shard.
    """
    parts: list[tuple[list[FileEntry], list[XorbEntry]]] = [([], [])]
    room = empty_room = max_bytes - SHARD_RECORD_BYTES - 2 * len(SHARD_BOOKEND)

    def take(block_bytes: int, what: str) -> tuple[list[FileEntry], list[XorbEntry]]:
        nonlocal room
        if block_bytes > empty_room:
            raise UsageError(
                f"{what} needs {block_bytes} bytes of a shard, {empty_room} is the most",
                hint="its chunks are too scattered for one shard: store it with less deduplication",
            )
        if block_bytes > room:
            parts.append(([], []))
            room = empty_room
        room -= block_bytes
        return parts[-1]

    for file in _by_hash(shard.files):
        take(_file_records(file) * SHARD_RECORD_BYTES, f"file {file.hash}")[0].append(file)
    for xorb in _by_hash(shard.xorbs):
        take((1 + len(xorb.chunks)) * SHARD_RECORD_BYTES, f"xorb {xorb.hash}")[1].append(xorb)
    return [replace(shard, files=tuple(files), xorbs=tuple(xorbs)) for files, xorbs in parts]


# Writing


def _check_numbers(shard: Shard, suite: AlgorithmSuite) -> None:
    """Raise FormatError for a term or a xorb that no reader takes."""
    for file in shard.files:
        before: Term | None = None
        for term in file.terms:
            if term is before:  # a file that repeats one chunk repeats its term
                continue
            before = term
            fault = term_fault(term.chunk_start, term.chunk_end, term.unpacked_bytes, suite)
            rule, detail = fault or ("term.range", f"a term starts at chunk {term.chunk_start}")
            if fault is not None or term.chunk_start < 0:
                raise FormatError(rule, 0, detail)
    for xorb in shard.xorbs:
        sizes = xorb.chunks.sizes
        if not 0 < len(sizes) <= suite.max_xorb_chunks:
            raise FormatError("xorb.count", 0, f"a xorb of {len(sizes)} chunks cannot be")
        if not 0 < min(sizes) <= max(sizes) <= suite.max_chunk_bytes:
            raise FormatError("chunk.length", 0, f"xorb {xorb.hash} has a chunk of an impossible length")


_Entry = TypeVar("_Entry", FileEntry, XorbEntry)


def _by_hash(entries: Iterable[_Entry]) -> list[_Entry]:
    # The order of Hash, without a Python call for each comparison.
    return sorted(entries, key=lambda entry: struct.unpack("<4Q", entry.hash.digest))


def _file_records(file: FileEntry) -> int:
    """The number of 48-byte records in a file block."""
    return 1 + len(file.terms) + len(file.verification or ()) + (file.sha256 is not None)


def _file_section(files: Iterable[FileEntry]) -> Iterator[bytes]:
    for file in files:
        flags = 0
        if file.verification is not None:
            flags |= FILE_WITH_VERIFICATION
        if file.sha256 is not None:
            flags |= FILE_WITH_METADATA
        yield _RECORD.pack(file.hash.digest, flags, len(file.terms), 0, 0)
        for term in file.terms:
            yield _RECORD.pack(term.xorb.digest, 0, term.unpacked_bytes, term.chunk_start, term.chunk_end)
        for digest in file.verification or ():
            yield _RECORD.pack(digest.digest, 0, 0, 0, 0)
        if file.sha256 is not None:
            # Real clients write zeros for the empty file.
            untold = file.hash == Hash.ZERO and file.sha256 == _EMPTY_SHA256
            yield _RECORD.pack(_ZEROS if untold else _swap_words(file.sha256), 0, 0, 0, 0)
    yield SHARD_BOOKEND


def _xorb_section(xorbs: Iterable[XorbEntry]) -> Iterator[bytes]:
    for xorb in xorbs:
        chunks = xorb.chunks
        yield _RECORD.pack(xorb.hash.digest, 0, len(chunks), chunks.total_bytes, xorb.stored_bytes)
        records = array("I", bytes(len(chunks) * SHARD_RECORD_BYTES))
        hashes = array("I", chunks.hashes)
        for word in range(8):
            records[word::12] = hashes[word::8]
        records[8::12] = _little_u32(list(accumulate(chunks.sizes, initial=0))[:-1])
        records[9::12] = _little_u32(chunks.sizes)
        yield records.tobytes()
    yield SHARD_BOOKEND


def _swap_words(digest: bytes) -> bytes:
    """A SHA-256 as it travels: its hex read by the rule for hash strings (6.5), each 8 bytes turned round."""
    return struct.pack("<4Q", *struct.unpack(">4Q", digest))


def _little_u32(numbers: Iterable[int]) -> array[int]:
    """Numbers as an array of u32 whose bytes are little-endian; its own inverse on such an array."""
    words = array("I", numbers)
    if sys.byteorder == "big":
        words.byteswap()
    return words


# Reading


class _Parser:
    """Walks a shard from its header to the second bookend, then looks at the footer."""

    def __init__(self, data: memoryview, suite: AlgorithmSuite) -> None:
        self.data = data
        self.suite = suite
        self.position = 0
        self.end = len(data)
        # Terms name the same few xorbs again and again.
        self.xorb_names: dict[bytes, Hash] = {}

    def shard(self) -> Shard:
        footer_bytes = self.header()
        files = tuple(self.files())
        xorb_section = self.position
        xorbs = tuple(self.xorbs())
        # hf_xet 1.1.10 and 1.2 upload without the footer that their header speaks of.
        if self.position == self.end:
            return Shard(files, xorbs)
        if not footer_bytes:
            self.fail("shard.trailing", self.position, f"{self.end - self.position} bytes follow the last bookend")
        self.end -= footer_bytes
        if self.position > self.end:
            self.fail("shard.truncated", len(self.data), "the footer that the header speaks of is cut off")
        key, created_at, expires_at = self.footer(xorb_section)
        return Shard(files, xorbs, key, created_at, expires_at)

    def header(self) -> int:
        """Check the header; return the size of the footer."""
        if len(self.data) < _HEADER.size:
            self.fail("shard.truncated", len(self.data), f"{len(self.data)} bytes are too few for a shard")
        tag, version, footer_bytes = _HEADER.unpack_from(self.data)
        # The magic sequence comes before anything else (9.3.1), then the application.
        magic_at = HASH_BYTES - len(SHARD_MAGIC)
        if tag[magic_at:] != SHARD_MAGIC:
            self.fail("shard.tag", magic_at, "this is not a shard: the magic sequence is missing")
        if tag != SHARD_TAG:
            name = SHARD_APPLICATION_ID.decode()
            self.fail("shard.tag", 0, f"this is a shard of another application than {name}")
        if version != SHARD_VERSION:
            self.fail("shard.version", 32, f"shard version {version} is not {SHARD_VERSION}")
        if footer_bytes not in (0, SHARD_FOOTER_BYTES):
            self.fail("shard.footer_size", 40, f"a footer of {footer_bytes} bytes is neither absent nor whole")
        self.position = _HEADER.size
        return int(footer_bytes)

    def block(self) -> tuple[Hash, int, int, int, int] | None:
        """The header of the next block, or None at the bookend."""
        if self.end - self.position < SHARD_RECORD_BYTES:
            self.fail("shard.bookend", self.position, "the shard ends without a bookend")
        record = self.data[self.position : self.position + SHARD_RECORD_BYTES]
        digest, *numbers = _RECORD.unpack(record)
        if digest == _BOOKEND_HASH:
            if record != SHARD_BOOKEND:
                self.fail("shard.bookend", self.position + HASH_BYTES, "a bookend does not end in zeros")
            self.position += SHARD_RECORD_BYTES
            return None
        return Hash(digest), *numbers

    def take(self, count: int) -> memoryview:
        """The next ``count`` records, known to be there."""
        start = self.position
        self.position += count * SHARD_RECORD_BYTES
        return self.data[start : self.position]

    @property
    def records_left(self) -> int:
        return (self.end - self.position) // SHARD_RECORD_BYTES

    def files(self) -> Iterator[FileEntry]:
        while (block := self.block()) is not None:
            start = self.position
            name, flags, count, _, _ = block
            if flags & ~(FILE_WITH_VERIFICATION | FILE_WITH_METADATA):
                # Each known flag adds records to the block. What another one adds we could not skip.
                self.fail("file.flags", start + 32, f"file flags {flags:#010x} have an unknown bit")
            verified, described = bool(flags & FILE_WITH_VERIFICATION), bool(flags & FILE_WITH_METADATA)
            self.take(1)
            if count * (1 + verified) + described > self.records_left:
                self.fail("file.count", start + 36, f"{count} terms are more than the shard holds")
            terms = tuple(self.terms(count))
            verification = tuple(self.verification(count)) if verified else None
            sha256 = None
            if described:
                sha256 = _swap_words(bytes(self.take(1)[:HASH_BYTES]))
                if sha256 == _ZEROS and name == Hash.ZERO:
                    sha256 = _EMPTY_SHA256
            yield FileEntry(name, terms, verification, sha256)

    def terms(self, count: int) -> Iterator[Term]:
        start = self.position
        previous: object = None
        for index, record in enumerate(_RECORD.iter_unpack(self.take(count))):
            # A file that repeats one chunk repeats its term, perhaps a million times: keep one.
            if record != previous:
                previous = record
                digest, flags, unpacked, chunk_start, chunk_end = record
                fault = term_fault(chunk_start, chunk_end, unpacked, self.suite)
                if flags:
                    self.fail("term.flags", start + index * SHARD_RECORD_BYTES + 32, f"term flags are {flags:#x}")
                if fault is not None:
                    at = {"term.length": 36, "term.range": 40}[fault[0]]
                    self.fail(fault[0], start + index * SHARD_RECORD_BYTES + at, fault[1])
                xorb = self.xorb_names.get(digest)
                if xorb is None:
                    xorb = self.xorb_names[digest] = Hash(digest)
                term = Term(xorb, chunk_start, chunk_end, unpacked)
            yield term

    def verification(self, count: int) -> Iterator[Hash]:
        previous: bytes | None = None
        for digest, *_ in _RECORD.iter_unpack(self.take(count)):
            if digest != previous:
                previous = digest
                verification = Hash(digest)
            yield verification

    def xorbs(self) -> Iterator[XorbEntry]:
        while (block := self.block()) is not None:
            start = self.position
            name, flags, count, raw_bytes, stored_bytes = block
            if flags:
                self.fail("xorb.flags", start + 32, f"xorb flags are {flags:#x}, not 0")
            self.take(1)
            if not 0 < count <= min(self.suite.max_xorb_chunks, self.records_left):
                self.fail("xorb.count", start + 36, f"a xorb of {count} chunks cannot be here")
            chunks = self.chunks(count)
            if chunks.total_bytes != raw_bytes:
                detail = f"a xorb of {raw_bytes} bytes lists chunks of {chunks.total_bytes}"
                self.fail("xorb.raw_bytes", start + 40, detail)
            yield XorbEntry(name, chunks, stored_bytes)

    def chunks(self, count: int) -> ChunkList:
        start = self.position
        words = array("I", self.take(count).tobytes())
        hashes = array("I", bytes(count * HASH_BYTES))
        for word in range(8):
            hashes[word::8] = words[word::12]
        starts, lengths, flags = (_little_u32(words[word::12]) for word in (8, 9, 10))

        def fail(rule: str, numbers: Iterable[bool], field: int, detail: str) -> None:
            index = next(index for index, wrong in enumerate(numbers) if wrong)
            self.fail(rule, start + index * SHARD_RECORD_BYTES + field, f"{detail} chunk {index} of a xorb")

        most = self.suite.max_chunk_bytes
        if not 0 < min(lengths) <= max(lengths) <= most:
            fail("chunk.length", (not 0 < length <= most for length in lengths), 36, "impossible length of")
        expected = array("I", list(accumulate(lengths, initial=0))[:-1])
        if starts != expected:
            fail("chunk.start", (a != b for a, b in zip(starts, expected, strict=True)), 32, "wrong start of")
        # Bit 31 is a server's hint that the chunk may be asked for; who needs it works it out (10.3.1).
        if not set(flags) <= {0, CHUNK_DEDUP_ELIGIBLE}:
            fail("chunk.flags", (flag & ~CHUNK_DEDUP_ELIGIBLE != 0 for flag in flags), 40, "unknown flag of")
        return ChunkList(hashes.tobytes(), array("Q", lengths).tobytes())

    def footer(self, xorb_section: int) -> tuple[bytes | None, int, int]:
        """Check the footer; return key, creation and expiry. Its statistics are anybody's claim: ignored."""
        fields = _FOOTER.unpack_from(self.data, self.end)
        version, files_at, xorbs_at, *lookups = fields[:9]
        key, created_at, expires_at = fields[9:12]
        footer_at = fields[-1]
        if version != SHARD_FOOTER_VERSION:
            self.fail("footer.version", self.end, f"footer version {version} is not {SHARD_FOOTER_VERSION}")
        if (files_at, xorbs_at, footer_at) != (_HEADER.size, xorb_section, self.end):
            self.fail("footer.offset", self.end + 8, "the footer's offsets are not where its sections are")
        for table, entry_bytes in enumerate(_LOOKUP_ENTRY_BYTES):
            offset, count = lookups[2 * table : 2 * table + 2]
            # An absent table has any offset: 0 from the JavaScript client, the footer's from the Hub.
            if count and not self.position <= offset <= offset + count * entry_bytes <= self.end:
                self.fail("footer.lookup", self.end + 24 + 16 * table, "a lookup table lies outside its place")
        return (None if key == _ZEROS else key), created_at, expires_at

    def fail(self, rule: str, offset: int, detail: str) -> NoReturn:
        raise FormatError(rule, offset, detail)
