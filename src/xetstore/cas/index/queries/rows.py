"""Rows of the index as values, their packed forms, and the questions of which all others are made."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    Table,
    bindparam,
    exists,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite

from xetstore.access.tenant import Tenant
from xetstore.cas.index.schema import (
    edge,
    grant,
    holder,
    xorb,
)
from xetstore.errors import DamagedError, TooLargeError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.protocol.suite import HASH_BYTES
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord

# Terms kept in one row of file_segment: a range query reads at most this many that it does not need.
SEGMENT_TERMS: Final = 512
# Values in one IN (...): SQLite before 3.32 takes 999 variables a statement.
_BATCH: Final = 500
# Rows that a listing keeps in memory.
PAGE_ROWS: Final = 1000
# A term as it is packed: xorb id, first chunk, end chunk, unpacked bytes.
TERM: Final = struct.Struct("<QIII")
XORB_ID: Final = struct.Struct("<Q")  # with which a term begins
PackedTerm = tuple[int, int, int, int]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class XorbRow:
    """The row of a xorb. ``id`` is its number in the index, which grows with registration.

    ``generation`` tells its object from others of the same hash; ``is_damaged`` if the object was found so.
    """

    id: int
    hash: Hash
    region_bytes: int
    raw_bytes: int
    chunk_count: int
    generation: str = ""
    is_damaged: bool = False

    @property
    def stored_bytes(self) -> int:
        """Size of the stored object: the chunk region and its footer."""
        return self.region_bytes + XorbInfo.footer_bytes(self.chunk_count)


@dataclass(frozen=True, slots=True)
class TermCount:
    """The sums of some terms: their number, that of their xorbs, and that of all their chunks."""

    terms: int
    xorbs: int
    chunks: int


VALUES: Final[BindParameter[object]] = bindparam("values", expanding=True)
SOUND: Final = xorb.c.damaged_at.is_(None)
XORBS_BY_ID: Final = select(xorb).where(xorb.c.id.in_(VALUES))


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


def visible_to(namespace: str) -> ColumnElement[bool]:
    """Of a xorb: the namespace has uploaded it, or has a file of it."""
    uploaded = exists().where(holder.c.xorb_id == xorb.c.id, holder.c.namespace == namespace)
    granted = exists().where(
        edge.c.xorb_id == xorb.c.id, grant.c.file_id == edge.c.file_id, grant.c.namespace == namespace
    )
    return or_(uploaded, granted)


def usable_by(tenant: Tenant) -> ColumnElement[bool]:
    """Of a xorb: shards of the tenant may name it."""
    if not tenant.shares:
        return visible_to(tenant.namespace)
    if not tenant.private:
        return true()
    offered = exists().where(holder.c.xorb_id == xorb.c.id, holder.c.namespace.not_in(sorted(tenant.private)))
    return or_(offered, visible_to(tenant.namespace))


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


def xorb_row(row: Row[Any]) -> XorbRow:
    """The value of a row of ``xorb``."""
    return XorbRow(
        row.id,
        name_of(row.hash),
        row.region_bytes,
        row.raw_bytes,
        row.chunk_count,
        row.generation,
        row.damaged_at is not None,
    )


def file_record(row: Row[Any]) -> FileRecord:
    """The value of a row of ``file``."""
    sha256 = None if row.sha256 is None else row.sha256.hex()
    return FileRecord(name_of(row.hash), row.size, sha256, row.created_at, row.term_count, row.xorb_count)


def batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Values in parts that one IN (...) takes."""
    rest = iter(values)
    while batch := list(islice(rest, _BATCH)):
        yield batch


class Questions:
    """Queries in one snapshot of the index."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows_in(self, statement: Select[Any], values: Iterable[object], **others: object) -> Iterator[Row[Any]]:
        """The rows of a statement that has ``VALUES``, and perhaps other parameters."""
        for batch in batches(values):
            yield from self.connection.execute(statement, {"values": batch, **others})


class Changes(Questions):
    """Additions in one transaction."""

    def add_new(self, table: Table, values: Sequence[Mapping[str, object]]) -> int:
        """Insert what is not there yet; how many rows that were."""
        if not values:
            return 0
        added = 0
        for batch in batches(values):
            added += self.connection.execute(self._insert_new(table), batch).rowcount
        return added

    def _insert_new(self, table: Table) -> Insert:
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()
