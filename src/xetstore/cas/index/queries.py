"""Every query of the index: Reader asks, Writer adds. One set of them for SQLite and PostgreSQL."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, zip_longest
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    String,
    Table,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from xetstore.access.tenant import Tenant
from xetstore.cas.index.schema import (
    dedup,
    dedup_key,
    edge,
    file,
    file_segment,
    grant,
    holder,
    shard,
    superseded,
    xorb,
)
from xetstore.errors import DamagedError, MissingXorbError, TooLargeError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.protocol.suite import HASH_BYTES
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord, Totals

# Terms kept in one row of file_segment: a range query reads at most this many that it does not need.
SEGMENT_TERMS: Final = 512
# Values in one IN (...): SQLite before 3.32 takes 999 variables a statement.
_BATCH: Final = 500
# Rows that a listing keeps in memory.
PAGE_ROWS: Final = 1000

# A term as it is packed: xorb id, first chunk, end chunk, unpacked bytes.
_TERM: Final = struct.Struct("<QIII")
_XORB_ID: Final = struct.Struct("<Q")  # with which a term begins
_PackedTerm = tuple[int, int, int, int]

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


# Statements that are executed often are built once: building one takes longer than its answer.

_VALUES: Final[BindParameter[object]] = bindparam("values", expanding=True)
_XORB_BY_HASH: Final = select(xorb).where(xorb.c.hash == bindparam("hash"))
_XORBS_BY_HASH: Final = select(xorb).where(xorb.c.hash.in_(_VALUES))
_SOUND: Final = xorb.c.damaged_at.is_(None)
_XORBS_BY_ID: Final = select(xorb).where(xorb.c.id.in_(_VALUES))
_FILES_BY_HASH: Final = select(file.c.id, file.c.hash).where(file.c.hash.in_(_VALUES))
_SHARDS_BY_HASH: Final = select(shard.c.hash).where(shard.c.hash.in_(_VALUES))
_HELD: Final = select(holder.c.xorb_id).where(
    holder.c.xorb_id == bindparam("xorb_id"), holder.c.namespace == bindparam("namespace")
)
_GRANTED_FILES: Final = (
    select(file).join(grant, grant.c.file_id == file.c.id).where(grant.c.namespace == bindparam("namespace"))
)
_GRANTED_FILE: Final = _GRANTED_FILES.where(file.c.hash == bindparam("hash"))
_XORBS_OF_FILES: Final = (
    select(file.c.hash.label("file_hash"), xorb)
    .join(edge, edge.c.file_id == file.c.id)
    .join(xorb, xorb.c.id == edge.c.xorb_id)
    .where(file.c.hash.in_(_VALUES))
)
_GRANTED_TO_OTHERS: Final = (
    select(file.c.hash)
    .join(grant, grant.c.file_id == file.c.id)
    .where(file.c.hash.in_(_VALUES), grant.c.namespace != bindparam("namespace"))
)
_SET_SHA256: Final = (
    update(file).where(file.c.id == bindparam("file_id"), file.c.sha256.is_(None)).values(sha256=bindparam("digest"))
)
_FILE_ID: Final = select(file.c.id).where(file.c.hash == bindparam("hash")).scalar_subquery()
_FIRST_SEGMENT: Final = (
    select(func.max(file_segment.c.first_byte))
    .where(file_segment.c.file_id == _FILE_ID, file_segment.c.first_byte <= bindparam("start"))
    .scalar_subquery()
)
_SEGMENTS: Final = (
    select(file_segment.c.first_byte, file_segment.c.terms)
    .where(
        file_segment.c.file_id == _FILE_ID,
        file_segment.c.first_byte < bindparam("end"),
        file_segment.c.first_byte >= _FIRST_SEGMENT,
    )
    .order_by(file_segment.c.first_byte)
)
_SEGMENTS_OF_FILES: Final = (
    select(file.c.hash, file_segment.c.terms)
    .join(grant, grant.c.file_id == file.c.id)
    .outerjoin(file_segment, file_segment.c.file_id == file.c.id)
    .where(grant.c.namespace == bindparam("namespace"), file.c.hash.in_(_VALUES))
    .order_by(file.c.id, file_segment.c.first_byte)
)
_USERS: Final = (
    select(edge.c.file_id, edge.c.first_byte)
    .join(grant, grant.c.file_id == edge.c.file_id)
    .where(edge.c.xorb_id == bindparam("xorb_id"), grant.c.namespace == bindparam("namespace"))
    .order_by(edge.c.file_id.desc())
)
# Numbers that are asked for, a JSON list of them, as a table: what is asked of each can have a limit of its own. In an
# IN (...) it could not, and one chunk that thousands of xorbs hold would be as many rows.
_ASKED: Final = func.json_each(bindparam("asked", type_=String)).table_valued(column("value", BigInteger), name="asked")
_NUMBER: Final[ColumnElement[int]] = _ASKED.c.value
_USER: Final = edge.alias("user")
_NEWEST_USERS: Final = select(edge.c.xorb_id, edge.c.file_id, edge.c.first_byte).where(
    edge.c.xorb_id == _NUMBER,
    edge.c.file_id.in_(
        select(_USER.c.file_id)
        .join(grant, grant.c.file_id == _USER.c.file_id)
        .where(_USER.c.xorb_id == _NUMBER, grant.c.namespace == bindparam("namespace"))
        .order_by(_USER.c.file_id.desc())
        .limit(bindparam("most"))
        .correlate(_ASKED)
    ),
)
_FOLLOWING: Final = (
    select(xorb)
    .join(edge, edge.c.xorb_id == xorb.c.id)
    .where(edge.c.file_id == bindparam("file_id"), edge.c.first_byte >= bindparam("first_byte"), _SOUND)
    .order_by(edge.c.first_byte)
    .limit(bindparam("most"))
)
_NEWEST_USER: Final = _USERS.with_only_columns(edge.c.file_id).limit(1)
_NEWEST_FILE: Final = (
    select(grant.c.file_id).where(grant.c.namespace == bindparam("namespace")).order_by(grant.c.file_id.desc()).limit(1)
)
_USES: Final = (
    select(edge.c.file_id, edge.c.first_byte, edge.c.xorb_id)
    .join(grant, grant.c.file_id == edge.c.file_id)
    .where(grant.c.namespace == bindparam("namespace"))
    .limit(bindparam("most"))
)
_USES_BEFORE: Final = _USES.where(grant.c.file_id <= bindparam("file_id")).order_by(grant.c.file_id.desc())
_USES_BEHIND: Final = _USES.where(grant.c.file_id > bindparam("file_id")).order_by(grant.c.file_id)
_HELD_AFTER: Final = (
    select(xorb)
    .join(holder, holder.c.xorb_id == xorb.c.id)
    .where(holder.c.namespace == bindparam("namespace"), holder.c.xorb_id > bindparam("last_id"), _SOUND)
    .order_by(holder.c.xorb_id)
    .limit(bindparam("most"))
)
_NEWEST_HELD: Final = (
    select(xorb)
    .join(holder, holder.c.xorb_id == xorb.c.id)
    .where(holder.c.namespace == bindparam("namespace"), _SOUND)
    .order_by(holder.c.xorb_id.desc())
    .limit(bindparam("most"))
)
_SUPERSEDED: Final = select(superseded.c.key).where(superseded.c.created_at < bindparam("moment")).limit(PAGE_ROWS)
_NEWEST_DEDUP_KEY: Final = select(dedup_key.c.key, dedup_key.c.created_at).order_by(dedup_key.c.id.desc()).limit(1)


def _holding(tenant: Tenant, chunk_key: ColumnElement[int]) -> Select[Any]:
    """Ids of the sound xorbs usable by a tenant that hold an eligible chunk."""
    holding = select(dedup.c.xorb_id).join(xorb, xorb.c.id == dedup.c.xorb_id)
    return holding.where(dedup.c.chunk_key == chunk_key, _usable(tenant), _SOUND)


@lru_cache(maxsize=256)
def _newest_holders(tenant: Tenant) -> Select[Any]:
    newest = _holding(tenant, _NUMBER).order_by(dedup.c.xorb_id.desc()).limit(bindparam("most")).correlate(_ASKED)
    holding = xorb.alias("holding")
    return select(_NUMBER, holding.c.id).select_from(_ASKED.join(holding, holding.c.id.in_(newest)))


def any_holder(tenant: Tenant) -> Select[Any]:
    """The question of :meth:`Reader.holders`, for one row and nothing in it. It has the parameter ``chunk_key``."""
    return _holding(tenant, bindparam("chunk_key")).with_only_columns(true()).limit(1)


class Reader:
    """Queries in one snapshot of the index."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    # Xorbs

    def xorb(self, name: Hash) -> XorbRow | None:
        """The row of a xorb, or None."""
        row = self.connection.execute(_XORB_BY_HASH, {"hash": name.digest}).first()
        return None if row is None else _xorb_row(row)

    def xorbs(self, names: Collection[Hash]) -> dict[Hash, XorbRow]:
        """The rows of those xorbs that are registered."""
        found = self._rows_in(_XORBS_BY_HASH, [name.digest for name in names])
        return {row.hash: row for row in map(_xorb_row, found)}

    def xorbs_with(self, ids: Iterable[int]) -> dict[int, XorbRow]:
        """The rows of the xorbs that have these ids."""
        return {row.id: _xorb_row(row) for row in self._rows_in(_XORBS_BY_ID, ids)}

    def require_xorbs(self, names: Collection[Hash], tenant: Tenant) -> dict[Hash, XorbRow]:
        """The rows of all these xorbs. Raises MissingXorbError for the first that is not usable by ``tenant``, or was
        found damaged: to what is built anew it is not there.
        """
        usable = self._rows_in(_XORBS_BY_HASH.where(_usable(tenant), _SOUND), [name.digest for name in names])
        found = {row.hash: row for row in map(_xorb_row, usable)}
        for name in names:
            if name not in found:
                raise MissingXorbError(str(name))
        return found

    def xorbs_after(self, last_id: int, limit: int = PAGE_ROWS) -> list[XorbRow]:
        """The next page of all xorbs by id; empty behind the last."""
        page = select(xorb).where(xorb.c.id > last_id).order_by(xorb.c.id).limit(limit)
        return [_xorb_row(row) for row in self.connection.execute(page)]

    def is_held(self, xorb_id: int, namespace: str) -> bool:
        """True if a namespace has uploaded a xorb."""
        return self.connection.execute(_HELD, {"xorb_id": xorb_id, "namespace": namespace}).first() is not None

    def visible_xorb(self, name: Hash, namespace: str) -> XorbRow | None:
        """The row of a xorb that a namespace has uploaded or has a file of, or None."""
        row = self.connection.execute(select(xorb).where(xorb.c.hash == name.digest, _visible(namespace))).first()
        return None if row is None else _xorb_row(row)

    def users_of(self, xorb_id: int) -> list[Hash]:
        """Every file that a xorb is part of."""
        users = select(file.c.hash).join(edge, edge.c.file_id == file.c.id).where(edge.c.xorb_id == xorb_id)
        return [_name(digest) for digest in self.connection.execute(users.order_by(file.c.id)).scalars()]

    def superseded_before(self, moment: float) -> list[str]:
        """Keys of objects in whose place others have counted since before ``moment``."""
        return list(self.connection.execute(_SUPERSEDED, {"moment": moment}).scalars())

    # Files

    def file(self, name: Hash, namespace: str) -> FileRecord | None:
        """The record of a file that ``namespace`` may see, or None."""
        row = self.connection.execute(_GRANTED_FILE, {"namespace": namespace, "hash": name.digest}).first()
        return None if row is None else _file_record(row)

    def files_after(self, last_id: int, namespace: str | None) -> list[tuple[int, FileRecord]]:
        """The next page of all files of a namespace (None: of all) by id, with these ids."""
        files, file_id = (select(file), file.c.id) if namespace is None else (_GRANTED_FILES, grant.c.file_id)
        page = files.where(file_id > last_id).order_by(file_id).limit(PAGE_ROWS).params(namespace=namespace)
        return [(row.id, _file_record(row)) for row in self.connection.execute(page)]

    def terms(
        self, name: Hash, start: int, end: int, *, most: TermCount | None = None
    ) -> tuple[int, list[Term], dict[Hash, XorbRow]]:
        """The terms of a file that overlap bytes ``[start, end)``: where the first begins, all of them, their xorbs.

        Raises TooLargeError where they have more terms or chunks than ``most``, and keeps no more of them than that.
        """
        packed: list[_PackedTerm] = []
        first: int | None = None
        chunks = 0
        for position, term in self._packed_terms(name, start, end):
            first = position if first is None else first
            packed.append(term)
            if most is not None:
                chunks += term[2] - term[1]
                if len(packed) > most.terms or chunks > most.chunks:
                    raise _too_many(most)
        xorbs = self.xorbs_with({term[0] for term in packed})
        return first or 0, _terms(packed, xorbs, name), {row.hash: row for row in xorbs.values()}

    def count_terms(self, name: Hash, start: int, end: int, *, enough: int | None = None) -> TermCount:
        """The sums of the terms of a file that overlap bytes ``[start, end)``: of all, or of the first ``enough``.

        Keeps none of them.
        """
        return _count(islice((term for _, term in self._packed_terms(name, start, end)), enough))

    def terms_of_files(
        self, wanted: Collection[Hash], namespace: str, *, most: TermCount | None = None
    ) -> tuple[dict[Hash, list[Term]], dict[Hash, XorbRow]]:
        """All terms of those of these files that ``namespace`` may see, and their xorbs. ``most`` as :meth:`terms`."""
        packed: dict[Hash, list[_PackedTerm]] = {}
        digests = [name.digest for name in wanted]
        terms = 0
        for row in self._rows_in(_SEGMENTS_OF_FILES, digests, namespace=namespace):
            name = _name(row.hash)
            payload = row.terms or b""
            terms += len(payload) // _TERM.size
            if most is not None and terms > most.terms:
                raise _too_many(most)
            packed.setdefault(name, []).extend(_unpack_terms(payload, name))
        xorbs = self.xorbs_with({term[0] for listed in packed.values() for term in listed})
        found = {name: _terms(listed, xorbs, name) for name, listed in packed.items()}
        return found, {row.hash: row for row in xorbs.values()}

    def xorbs_of_files(self, names: Collection[Hash]) -> dict[Hash, list[XorbRow]]:
        """The xorbs that those of these files are made of that are registered."""
        found: dict[Hash, list[XorbRow]] = {}
        for row in self._rows_in(_XORBS_OF_FILES, [name.digest for name in names]):
            found.setdefault(_name(row.file_hash), []).append(_xorb_row(row))
        return found

    def granted_to_others(self, names: Collection[Hash], namespace: str) -> set[Hash]:
        """Those of these files that another namespace may read, too."""
        found = self._rows_in(_GRANTED_TO_OTHERS, [name.digest for name in names], namespace=namespace)
        return {_name(row.hash) for row in found}

    def count_terms_of_files(self, wanted: Collection[Hash], namespace: str, *, enough: int | None = None) -> TermCount:
        """The same for all terms of those of these files that ``namespace`` may see."""
        rows = self._rows_in(_SEGMENTS_OF_FILES, [name.digest for name in wanted], namespace=namespace)
        terms = (term for row in rows for term in _unpack_terms(row.terms or b"", _name(row.hash)))
        return _count(islice(terms, enough))

    def totals(self) -> Totals:
        """Sums over all files and xorbs; looks at each row."""
        files = self.connection.execute(select(func.count(), func.sum(file.c.size)).select_from(file)).one()
        columns = (xorb.c.raw_bytes, xorb.c.region_bytes, xorb.c.chunk_count)
        sums = select(func.count(), *(func.sum(column) for column in columns)).select_from(xorb)
        xorbs, raw, region, chunks = (int(value or 0) for value in self.connection.execute(sums).one())
        # A footer is as long as its chunk count says, so the sum needs no row but the sums.
        per_chunk = XorbInfo.footer_bytes(1) - XorbInfo.footer_bytes(0)
        footers = xorbs * XorbInfo.footer_bytes(0) + chunks * per_chunk
        return Totals(files[0], int(files[1] or 0), raw, region + footers, xorbs, chunks)

    # Dedup

    def holders(self, chunk_keys: Iterable[int], tenant: Tenant, *, most: int) -> dict[int, list[int]]:
        """For each of these keys the ids of xorbs usable by ``tenant`` that hold an eligible chunk with it: the newest
        ``most`` of them. Keys that no such xorb holds are left out.
        """
        asked = {"asked": json.dumps([*set(chunk_keys)]), "most": most}
        found: dict[int, list[int]] = {}
        for key, xorb_id in self.connection.execute(_newest_holders(tenant), asked):
            found.setdefault(key, []).append(xorb_id)
        return found

    def companions(self, xorb_ids: Sequence[int], namespace: str, *, files: int, xorbs: int) -> Iterator[XorbRow]:
        """Xorbs that come with these in files of a namespace, at most ``files`` of them: the newest of each xorb first.
        Of a file those from the first of these xorbs on, in file order, at most ``xorbs`` of them.
        """
        asked = {"asked": json.dumps([*xorb_ids]), "namespace": namespace, "most": files}
        users: dict[int, list[int]] = {xorb_id: [] for xorb_id in xorb_ids}
        begin: dict[int, int] = {}
        for xorb_id, file_id, first_byte in self.connection.execute(_NEWEST_USERS, asked):
            users[xorb_id].append(file_id)
            begin[file_id] = min(first_byte, begin.get(file_id, first_byte))
        ranked = zip_longest(*(sorted(found, reverse=True) for found in users.values()))
        chosen = dict.fromkeys(file_id for rank in ranked for file_id in rank if file_id is not None)
        for file_id in islice(chosen, files):
            window = {"file_id": file_id, "first_byte": begin[file_id], "most": xorbs}
            yield from map(_xorb_row, self.connection.execute(_FOLLOWING, window))

    def newest_user(self, xorb_id: int, namespace: str) -> int | None:
        """The newest file of a namespace that has a xorb, by its id."""
        return self.connection.execute(_NEWEST_USER, {"xorb_id": xorb_id, "namespace": namespace}).scalar()

    def newest_file(self, namespace: str) -> int | None:
        """The newest file of a namespace, by its id."""
        return self.connection.execute(_NEWEST_FILE, {"namespace": namespace}).scalar()

    def siblings(self, file_id: int, namespace: str, *, uses: int, xorbs: int) -> list[XorbRow]:
        """At most ``xorbs`` xorbs of a file of a namespace and of those that were registered next to it: the nearest
        files first, each in file order.

        Looked at are ``uses`` of a xorb in a file, in that file and before, and as many in those behind it.
        """
        around = {"namespace": namespace, "file_id": file_id, "most": uses}
        found = [tuple(use) for side in (_USES_BEFORE, _USES_BEHIND) for use in self.connection.execute(side, around)]
        found.sort(key=lambda use: (abs(use[0] - file_id), use))
        ids = list(dict.fromkeys(used for _, _, used in found))[:xorbs]
        rows = {row.id: _xorb_row(row) for row in self._rows_in(_XORBS_BY_ID, ids)}
        return [row for used in ids if not (row := rows[used]).is_damaged]

    def held_after(self, last_id: int, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded after one, in the order of registration."""
        page = self.connection.execute(_HELD_AFTER, {"last_id": last_id, "namespace": namespace, "most": limit})
        return [_xorb_row(row) for row in page]

    def newest_held(self, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded last, the newest first."""
        page = self.connection.execute(_NEWEST_HELD, {"namespace": namespace, "most": limit})
        return [_xorb_row(row) for row in page]

    def dedup_key(self) -> tuple[bytes, float] | None:
        """The newest key for dedup answers and its age's beginning, or None."""
        row = self.connection.execute(_NEWEST_DEDUP_KEY).first()
        return None if row is None else (row[0], row[1])

    # Who may read which part of a xorb

    def granted_terms(self, xorb_id: int, namespace: str) -> Iterator[set[tuple[int, int]]]:
        """The chunk ranges of a xorb that the files of a namespace are made of: a set for each file."""
        used_bytes = _XORB_ID.pack(xorb_id)
        for file_id, first_byte in self.connection.execute(_USERS, {"xorb_id": xorb_id, "namespace": namespace}):
            before = select(func.max(file_segment.c.first_byte)).where(
                file_segment.c.file_id == file_id, file_segment.c.first_byte <= first_byte
            )
            segments = select(file_segment.c.terms).where(
                file_segment.c.file_id == file_id, file_segment.c.first_byte >= before.scalar_subquery()
            )
            packed = self.connection.execute(segments).scalars()
            # Most segments of a long file do not name the xorb, which is seen without taking them apart.
            terms = (term for payload in packed if used_bytes in payload for term in _TERM.iter_unpack(payload))
            yield {(start, end) for used, start, end, _ in terms if used == xorb_id}

    # For check

    def edges_of(self, name: Hash) -> dict[Hash, int]:
        """Each xorb of a file with the byte at which the file first uses it, as the edges tell."""
        edges = select(xorb.c.hash, edge.c.first_byte).join(edge, edge.c.xorb_id == xorb.c.id)
        mine = edges.join(file, edge.c.file_id == file.c.id).where(file.c.hash == name.digest)
        return {_name(digest): first_byte for digest, first_byte in self.connection.execute(mine)}

    def dedup_keys_of(self, xorb_id: int) -> list[int]:
        """Keys of the eligible chunks that a xorb is said to hold."""
        return list(self.connection.execute(select(dedup.c.chunk_key).where(dedup.c.xorb_id == xorb_id)).scalars())

    def shards_after(self, last: Hash | None) -> list[tuple[Hash, int]]:
        """The next page of all shards by hash, with their sizes; empty behind the last."""
        page = select(shard.c.hash, shard.c.size).order_by(shard.c.hash).limit(PAGE_ROWS)
        if last is not None:
            page = page.where(shard.c.hash > last.digest)
        return [(_name(digest), size) for digest, size in self.connection.execute(page)]

    def known_shards(self, names: Collection[Hash]) -> set[Hash]:
        """Those of the shards that are registered."""
        found = self._rows_in(_SHARDS_BY_HASH, [name.digest for name in names])
        return {_name(row.hash) for row in found}

    def _packed_terms(self, name: Hash, start: int, end: int) -> Iterator[tuple[int, _PackedTerm]]:
        """The terms of a file that overlap bytes ``[start, end)``, each with the byte at which it begins."""
        segments = self.connection.execute(_SEGMENTS, {"hash": name.digest, "start": start, "end": end})
        for position, payload in segments:
            for term in _unpack_terms(payload, name):
                if start < position + term[3] and position < end:
                    yield position, term
                position += term[3]

    def _rows_in(self, statement: Select[Any], values: Iterable[object], **others: object) -> Iterator[Row[Any]]:
        """The rows of a statement that has ``_VALUES``, and perhaps other parameters."""
        for batch in _batches(values):
            yield from self.connection.execute(statement, {"values": batch, **others})


class Writer(Reader):
    """Additions in one transaction, beside all that a Reader can ask."""

    def add_xorb(self, info: XorbInfo, *, namespace: str, now: float, generation: str = "") -> bool:
        """Register a xorb that a namespace has uploaded. True if it is new to this namespace.

        One that is registered keeps the object it has.
        """
        values = {
            "hash": info.hash.digest,
            "region_bytes": info.region_bytes,
            "raw_bytes": info.raw_bytes,
            "chunk_count": info.chunk_count,
            "created_at": now,
            "generation": generation,
        }
        self._add_new(xorb, [values])
        xorb_id = self.connection.execute(select(xorb.c.id).where(xorb.c.hash == info.hash.digest)).scalar_one()
        return self._add_new(holder, [{"xorb_id": xorb_id, "namespace": namespace}]) == 1

    def replace_object(self, old: XorbRow, info: XorbInfo, generation: str) -> bool:
        """Let another object of a xorb count, which is whole. False, and nothing changes, if the old one does not."""
        values = {
            "generation": generation,
            "region_bytes": info.region_bytes,
            "raw_bytes": info.raw_bytes,
            "chunk_count": info.chunk_count,
            "damaged_at": None,
        }
        return self.connection.execute(update(xorb).where(*_is_object(old)).values(values)).rowcount > 0

    def supersede(self, key: str, *, now: float) -> None:
        """An object in whose place another one counts: to be removed later."""
        self._add_new(superseded, [{"key": key, "created_at": now}])

    def mark(self, row: XorbRow, *, damaged_at: float | None) -> None:
        """Note that the object of a xorb was found damaged, or whole (None); nothing if another one counts by now."""
        self.connection.execute(update(xorb).where(*_is_object(row)).values(damaged_at=damaged_at))

    def forget_superseded(self, keys: Iterable[str]) -> None:
        """These objects are gone."""
        for batch in _batches(keys):
            self.connection.execute(delete(superseded).where(superseded.c.key.in_(batch)))

    def add_files(
        self,
        entries: Sequence[FileEntry],
        rows: Mapping[Hash, XorbRow],
        *,
        namespace: str,
        now: float,
        rebound: Collection[Hash] = (),
    ) -> bool:
        """Register files and grant them to a namespace. True if a file, its terms or a grant is new.

        A file that is known keeps the terms it has, but for those in ``rebound``, which get these ones: they make the
        same bytes. It takes a SHA-256 if it had none.
        """
        by_name: dict[Hash, FileEntry] = {}
        for entry in entries:
            by_name.setdefault(entry.hash, entry)
        # Rows are many times as large as what they come from: in memory there are those of a few hundred files.
        added = [self._add_files(batch, rows, namespace, now, rebound) for batch in _batches(by_name.values())]
        return any(added)

    def _add_files(
        self,
        entries: Sequence[FileEntry],
        rows: Mapping[Hash, XorbRow],
        namespace: str,
        now: float,
        rebound: Collection[Hash],
    ) -> bool:
        by_name = {entry.hash: entry for entry in entries}
        digests = [name.digest for name in by_name]
        known = {_name(row.hash) for row in self._rows_in(_FILES_BY_HASH, digests)}
        new = [entry for name, entry in by_name.items() if name not in known]
        again = [entry for name, entry in by_name.items() if name in known and name in rebound]
        edges = {entry.hash: _first_uses(entry) for entry in (*new, *again)}
        if new:
            self.connection.execute(
                insert(file),
                [
                    {
                        "hash": entry.hash.digest,
                        "size": entry.size,
                        "sha256": entry.sha256,
                        "term_count": len(entry.terms),
                        "xorb_count": len(edges[entry.hash]),
                        "created_at": now,
                    }
                    for entry in new
                ],
            )
        ids = {_name(row.hash): row.id for row in self._rows_in(_FILES_BY_HASH, digests)}
        for entry in again:
            self._drop_terms(ids[entry.hash], len(entry.terms), len(edges[entry.hash]))
        segments = [
            {"file_id": ids[entry.hash], "first_byte": first, "terms": payload}
            for entry in (*new, *again)
            for first, payload in pack_terms(entry.terms, rows)
        ]
        uses = [
            {"file_id": ids[name], "first_byte": first, "xorb_id": rows[used].id}
            for name, firsts in edges.items()
            for used, first in firsts.items()
        ]
        for table, values in ((file_segment, segments), (edge, uses)):
            if values:
                self.connection.execute(insert(table), values)
        told = [{"file_id": ids[name], "digest": digest} for name in known if (digest := by_name[name].sha256)]
        if told:
            self.connection.execute(_SET_SHA256, told)
        grants = [{"namespace": namespace, "file_id": ids[name], "created_at": now} for name in by_name]
        return self._add_new(grant, grants) > 0 or bool(edges)

    def _drop_terms(self, file_id: int, term_count: int, xorb_count: int) -> None:
        """Make room for other terms of a file, with their number and that of their xorbs."""
        for table in (file_segment, edge):
            self.connection.execute(delete(table).where(table.c.file_id == file_id))
        counts = {"term_count": term_count, "xorb_count": xorb_count}
        self.connection.execute(update(file).where(file.c.id == file_id).values(counts))

    def add_shard(self, name: Hash, size: int, *, now: float) -> None:
        """Record a stored shard."""
        self._add_new(shard, [{"hash": name.digest, "size": size, "created_at": now}])

    def add_dedup(self, keys: Iterable[tuple[int, int]]) -> None:
        """Let eligible chunks be found: (chunk key, xorb id)."""
        self._add_new(dedup, [{"chunk_key": key, "xorb_id": xorb_id} for key, xorb_id in keys])

    def replace_dedup_key(self, key: bytes, *, now: float) -> None:
        """Use a new key for dedup answers from now on."""
        self.connection.execute(delete(dedup_key))
        self.connection.execute(insert(dedup_key).values(key=key, created_at=now))

    def _add_new(self, table: Table, values: Sequence[Mapping[str, object]]) -> int:
        """Insert what is not there yet; how many rows that were."""
        if not values:
            return 0
        added = 0
        for batch in _batches(values):
            added += self.connection.execute(self._insert_new(table), batch).rowcount
        return added

    def _insert_new(self, table: Table) -> Insert:
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()


def pack_terms(terms: Sequence[Term], rows: Mapping[Hash, XorbRow]) -> Iterator[tuple[int, bytes]]:
    """The segments of a file: where each begins, and its packed terms."""
    position = 0
    for at in range(0, len(terms), SEGMENT_TERMS):
        segment = terms[at : at + SEGMENT_TERMS]
        yield (
            position,
            b"".join(
                _TERM.pack(rows[term.xorb].id, term.chunk_start, term.chunk_end, term.unpacked_bytes)
                for term in segment
            ),
        )
        position += sum(term.unpacked_bytes for term in segment)


def chunk_key(digest: bytes) -> int:
    """The number under which an eligible chunk is found in the index."""
    return int.from_bytes(digest[:8], "little", signed=True)


def _count(packed: Iterable[_PackedTerm]) -> TermCount:
    terms = chunks = 0
    xorbs: set[int] = set()
    for term in packed:
        terms += 1
        chunks += term[2] - term[1]
        xorbs.add(term[0])
    return TermCount(terms, len(xorbs), chunks)


def _too_many(most: TermCount) -> TooLargeError:
    return TooLargeError(
        f"the answer has more than {most.terms} terms, or {most.chunks} chunks", hint="ask for ranges of the file"
    )


def _first_uses(entry: FileEntry) -> dict[Hash, int]:
    """Each xorb of a file and the first byte that comes from it."""
    uses: dict[Hash, int] = {}
    position = 0
    for term in entry.terms:
        uses.setdefault(term.xorb, position)
        position += term.unpacked_bytes
    return uses


def _is_object(row: XorbRow) -> tuple[ColumnElement[bool], ...]:
    """Of a xorb: this object of it counts."""
    return xorb.c.id == row.id, xorb.c.generation == row.generation


def _visible(namespace: str) -> ColumnElement[bool]:
    """Of a xorb: the namespace has uploaded it, or has a file of it."""
    uploaded = exists().where(holder.c.xorb_id == xorb.c.id, holder.c.namespace == namespace)
    granted = exists().where(
        edge.c.xorb_id == xorb.c.id, grant.c.file_id == edge.c.file_id, grant.c.namespace == namespace
    )
    return or_(uploaded, granted)


def _usable(tenant: Tenant) -> ColumnElement[bool]:
    """Of a xorb: shards of the tenant may name it."""
    if not tenant.shares:
        return _visible(tenant.namespace)
    if not tenant.private:
        return true()
    offered = exists().where(holder.c.xorb_id == xorb.c.id, holder.c.namespace.not_in(sorted(tenant.private)))
    return or_(offered, _visible(tenant.namespace))


def _name(digest: object) -> Hash:
    """A hash as it is in a row. SQLite does not hold a damaged file to the schema."""
    if not isinstance(digest, bytes) or len(digest) != HASH_BYTES:
        raise DamagedError("the index is damaged: a row has no hash", hint="put the index back from a backup")
    return Hash(digest)


def _unpack_terms(payload: bytes, file: Hash) -> Iterator[_PackedTerm]:
    if len(payload) % _TERM.size:
        raise DamagedError(f"the index holds a broken list of terms for file {file}")
    return _TERM.iter_unpack(payload)


def _terms(packed: Iterable[_PackedTerm], xorbs: Mapping[int, XorbRow], file: Hash) -> list[Term]:
    try:
        return [Term(xorbs[xorb_id].hash, *rest) for xorb_id, *rest in packed]
    except KeyError as error:
        raise DamagedError(f"the index names an unknown xorb {error} in file {file}") from None


def _xorb_row(row: Row[Any]) -> XorbRow:
    return XorbRow(
        row.id,
        _name(row.hash),
        row.region_bytes,
        row.raw_bytes,
        row.chunk_count,
        row.generation,
        row.damaged_at is not None,
    )


def _file_record(row: Row[Any]) -> FileRecord:
    sha256 = None if row.sha256 is None else row.sha256.hex()
    return FileRecord(_name(row.hash), row.size, sha256, row.created_at, row.term_count, row.xorb_count)


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, _BATCH)):
        yield batch
