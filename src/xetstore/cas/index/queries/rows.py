"""Rows of the index as values, their packed forms, and the questions of which all others are made."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from xetstore.cas.checksums import section_bytes
from xetstore.cas.layout import shard_key, xorb_key
from xetstore.errors import DamagedError, TooLargeError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.suite import HASH_BYTES
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord

if TYPE_CHECKING:
    from xetstore.access.tenant import Tenant
    from xetstore.database.connection import Connection, Row
    from xetstore.protocol.shard import FileEntry

# Terms kept in one row of file_segment: a range query reads at most this many that it does not need.
SEGMENT_TERMS: Final = 512
# Rows that a listing keeps in memory.
PAGE_ROWS: Final = 1000
# A term as it is packed: xorb id, first chunk, end chunk, unpacked bytes.
TERM: Final = struct.Struct("<QIII")
XORB_ID: Final = struct.Struct("<Q")  # with which a term begins
PackedTerm = tuple[int, int, int, int]


class ObjectRow(Protocol):
    """The row of a thing that has an object."""

    @property
    def key(self) -> str:
        """The key of the object that counts."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes that the object may have."""

    @property
    def is_damaged(self) -> bool:
        """True if the object was found damaged."""


@dataclass(frozen=True, slots=True)
class XorbRow:
    """The row of a xorb. ``id`` is its number in the index, which grows with registration.

    ``generation`` tells its object from others of the same hash; ``is_damaged`` if the object was found so. One that
    ``is_doomed`` is not offered, and deleted if no file is made of it before its grace has passed.
    """

    id: int
    hash: Hash
    region_bytes: int
    raw_bytes: int
    chunk_count: int
    generation: str = ""
    is_damaged: bool = False
    is_doomed: bool = False

    @property
    def is_offerable(self) -> bool:
        """True if a client may be told of it."""
        return not (self.is_damaged or self.is_doomed)

    @property
    def stored_bytes(self) -> int:
        """Size of the stored object: the chunk region and its footer."""
        return self.region_bytes + XorbInfo.footer_bytes(self.chunk_count)

    @property
    def key(self) -> str:
        """The key of the object that counts."""
        return xorb_key(self.hash, self.generation)

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the object without checksums, and with them."""
        return self.stored_bytes, self.stored_bytes + section_bytes(self.chunk_count)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """The row of a shard; ``generation`` and ``is_damaged`` as of a :class:`XorbRow`."""

    hash: Hash
    size: int
    generation: str = ""
    is_damaged: bool = False

    @property
    def key(self) -> str:
        """The key of the object that counts."""
        return shard_key(self.hash, self.generation)

    @property
    def sizes(self) -> tuple[int]:
        """Bytes of the object."""
        return (self.size,)


@dataclass(frozen=True, slots=True)
class TermCount:
    """The sums of some terms: their number, that of their xorbs, and that of all their chunks."""

    terms: int
    xorbs: int
    chunks: int


XORB: Final = (
    "xorb.id, xorb.hash, xorb.region_bytes, xorb.raw_bytes, xorb.chunk_count, xorb.generation, xorb.damaged_at,"
    " xorb.doomed_at"
)
"""The columns of :func:`xorb_row`."""
_FILE: Final = "file.id, file.hash, file.size, {}, file.created_at, file.term_count, file.xorb_count"
FILE: Final = _FILE.format("file.checked_sha256")
"""The columns of :func:`file_record`; with the SHA-256 if it was computed here."""
FILE_OF_NAMESPACE: Final = _FILE.format("""coalesce(file.checked_sha256, (
    SELECT sha256_claim.sha256 FROM sha256_claim
    WHERE sha256_claim.namespace = :namespace AND sha256_claim.file_id = file.id
    ORDER BY sha256_claim.sha256 LIMIT 1
))""")
"""The same; with a SHA-256 that the namespace claims, where none was computed."""
SOUND: Final = "xorb.damaged_at IS NULL"
OFFERABLE: Final = f"{SOUND} AND xorb.doomed_at IS NULL"
"""Of a xorb: a client may be told of it."""
VISIBLE: Final = """(
    EXISTS (SELECT 1 FROM xorb_holder WHERE xorb_holder.xorb_id = xorb.id AND xorb_holder.namespace = :namespace)
    OR EXISTS (
        SELECT 1 FROM edge JOIN file_grant ON file_grant.file_id = edge.file_id
        WHERE edge.xorb_id = xorb.id AND file_grant.namespace = :namespace
    )
)"""
"""Of a xorb: the namespace has uploaded it, or has a file of it."""
_OFFERED: Final = """EXISTS (
    SELECT 1 FROM xorb_holder WHERE xorb_holder.xorb_id = xorb.id AND xorb_holder.namespace NOT IN (:private)
)"""


def pack_terms(terms: Sequence[Term], rows: Mapping[Hash, XorbRow]) -> Iterator[tuple[int, bytes]]:
    """The segments of a file: where each begins, and its packed terms."""
    position = 0
    for at in range(0, len(terms), SEGMENT_TERMS):
        segment = terms[at : at + SEGMENT_TERMS]
        yield (
            position,
            b"".join(
                TERM.pack(rows[term.xorb].id, term.chunk_start, term.chunk_end, term.unpacked_bytes) for term in segment
            ),
        )
        position += sum(term.unpacked_bytes for term in segment)


def chunk_key(digest: bytes) -> int:
    """The number under which an eligible chunk is found in the index."""
    return int.from_bytes(digest[:8], "little", signed=True)


def count_terms_in(packed: Iterable[PackedTerm]) -> TermCount:
    """The sums over packed terms."""
    terms = chunks = 0
    xorbs: set[int] = set()
    for term in packed:
        terms += 1
        chunks += term[2] - term[1]
        xorbs.add(term[0])
    return TermCount(terms, len(xorbs), chunks)


def too_many(most: TermCount) -> TooLargeError:
    """The error for an answer that would have more than that."""
    return TooLargeError(
        f"the answer has more than {most.terms} terms, or {most.chunks} chunks", hint="ask for ranges of the file"
    )


def first_uses(entry: FileEntry) -> dict[Hash, int]:
    """Each xorb of a file and the first byte that comes from it."""
    uses: dict[Hash, int] = {}
    position = 0
    for term in entry.terms:
        uses.setdefault(term.xorb, position)
        position += term.unpacked_bytes
    return uses


def usable_by(tenant: Tenant) -> tuple[str, dict[str, object]]:
    """Of a xorb: shards of the tenant may name it. With the values of its parameters."""
    namespace: dict[str, object] = {"namespace": tenant.namespace}
    if not tenant.shares:
        return VISIBLE, namespace
    if not tenant.private:
        return "TRUE", {}
    return f"({_OFFERED} OR {VISIBLE})", namespace | {"private": sorted(tenant.private)}


def name_of(digest: object) -> Hash:
    """A hash as it is in a row. SQLite does not hold a damaged file to the schema."""
    if not isinstance(digest, bytes) or len(digest) != HASH_BYTES:
        raise DamagedError("the index is damaged: a row has no hash", hint="put the index back from a backup")
    return Hash(digest)


def unpack_terms(payload: bytes, file: Hash) -> Iterator[PackedTerm]:
    """The terms of a segment of a file. Raises DamagedError."""
    if len(payload) % TERM.size:
        raise DamagedError(f"the index holds a broken list of terms for file {file}")
    return TERM.iter_unpack(payload)


def terms_of(packed: Iterable[PackedTerm], xorbs: Mapping[int, XorbRow], file: Hash) -> list[Term]:
    """Packed terms with the names of their xorbs. Raises DamagedError where one is not there."""
    try:
        return [Term(xorbs[xorb_id].hash, *rest) for xorb_id, *rest in packed]
    except KeyError as error:
        raise DamagedError(f"the index names an unknown xorb {error} in file {file}") from None


def xorb_row(row: Row) -> XorbRow:
    """The value of the columns ``XORB``."""
    xorb_id, digest, region_bytes, raw_bytes, chunk_count, generation, damaged_at, doomed_at = row
    marks = damaged_at is not None, doomed_at is not None
    return XorbRow(xorb_id, name_of(digest), region_bytes, raw_bytes, chunk_count, generation, *marks)


def file_record(row: Row) -> FileRecord:
    """The value of the columns ``FILE``."""
    _, digest, size, sha256, created_at, term_count, xorb_count = row
    return FileRecord(
        name_of(digest), size, None if sha256 is None else sha256.hex(), created_at, term_count, xorb_count
    )


class Questions:
    """Queries in one snapshot of the index."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
