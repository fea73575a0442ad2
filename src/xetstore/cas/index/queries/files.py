"""Questions about files, their terms and grants, and additions of files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from xetstore.cas.index.queries.rows import (
    PAGE_ROWS,
    TERM,
    VALUES,
    Changes,
    PackedTerm,
    TermCount,
    XorbRow,
    batches,
    count_terms_in,
    file_record,
    first_uses,
    name_of,
    pack_terms,
    terms_of,
    too_many,
    unpack_terms,
    xorb_row,
)
from xetstore.cas.index.queries.xorbs import XorbQueries
from xetstore.cas.index.schema import (
    edge,
    file,
    file_segment,
    grant,
    xorb,
)
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord, Totals

_FILES_BY_HASH: Final = select(file.c.id, file.c.hash).where(file.c.hash.in_(VALUES))
_GRANTED_FILES: Final = (
    select(file).join(grant, grant.c.file_id == file.c.id).where(grant.c.namespace == bindparam("namespace"))
)
_GRANTED_FILE: Final = _GRANTED_FILES.where(file.c.hash == bindparam("hash"))
_XORBS_OF_FILES: Final = (
    select(file.c.hash.label("file_hash"), xorb)
    .join(edge, edge.c.file_id == file.c.id)
    .join(xorb, xorb.c.id == edge.c.xorb_id)
    .where(file.c.hash.in_(VALUES))
)
_GRANTED_TO_OTHERS: Final = (
    select(file.c.hash)
    .join(grant, grant.c.file_id == file.c.id)
    .where(file.c.hash.in_(VALUES), grant.c.namespace != bindparam("namespace"))
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
    .where(grant.c.namespace == bindparam("namespace"), file.c.hash.in_(VALUES))
    .order_by(file.c.id, file_segment.c.first_byte)
)


class FileQueries(XorbQueries):
    """Questions about files and their terms."""

    def file(self, name: Hash, namespace: str) -> FileRecord | None:
        """The record of a file that ``namespace`` may see, or None."""
        row = self.connection.execute(_GRANTED_FILE, {"namespace": namespace, "hash": name.digest}).first()
        return None if row is None else file_record(row)

    def files_after(self, last_id: int, namespace: str | None) -> list[tuple[int, FileRecord]]:
        """The next page of all files of a namespace (None: of all) by id, with these ids."""
        files, file_id = (select(file), file.c.id) if namespace is None else (_GRANTED_FILES, grant.c.file_id)
        page = files.where(file_id > last_id).order_by(file_id).limit(PAGE_ROWS).params(namespace=namespace)
        return [(row.id, file_record(row)) for row in self.connection.execute(page)]

    def terms(
        self, name: Hash, start: int, end: int, *, most: TermCount | None = None
    ) -> tuple[int, list[Term], dict[Hash, XorbRow]]:
        """The terms of a file that overlap bytes ``[start, end)``: where the first begins, all of them, their xorbs.

        Raises TooLargeError where they have more terms or chunks than ``most``, and keeps no more of them than that.
        """
        packed: list[PackedTerm] = []
        first: int | None = None
        chunks = 0
        for position, term in self._packed_terms(name, start, end):
            first = position if first is None else first
            packed.append(term)
            if most is not None:
                chunks += term[2] - term[1]
                if len(packed) > most.terms or chunks > most.chunks:
                    raise too_many(most)
        xorbs = self.xorbs_with({term[0] for term in packed})
        return first or 0, terms_of(packed, xorbs, name), {row.hash: row for row in xorbs.values()}

    def count_terms(self, name: Hash, start: int, end: int, *, enough: int | None = None) -> TermCount:
        """The sums of the terms of a file that overlap bytes ``[start, end)``: of all, or of the first ``enough``.

        Keeps none of them.
        """
        return count_terms_in(islice((term for _, term in self._packed_terms(name, start, end)), enough))

    def terms_of_files(
        self, wanted: Collection[Hash], namespace: str, *, most: TermCount | None = None
    ) -> tuple[dict[Hash, list[Term]], dict[Hash, XorbRow]]:
        """All terms of those of these files that ``namespace`` may see, and their xorbs. ``most`` as :meth:`terms`."""
        packed: dict[Hash, list[PackedTerm]] = {}
        digests = [name.digest for name in wanted]
        terms = 0
        for row in self.rows_in(_SEGMENTS_OF_FILES, digests, namespace=namespace):
            name = name_of(row.hash)
            payload = row.terms or b""
            terms += len(payload) // TERM.size
            if most is not None and terms > most.terms:
                raise too_many(most)
            packed.setdefault(name, []).extend(unpack_terms(payload, name))
        xorbs = self.xorbs_with({term[0] for listed in packed.values() for term in listed})
        found = {name: terms_of(listed, xorbs, name) for name, listed in packed.items()}
        return found, {row.hash: row for row in xorbs.values()}

    def xorbs_of_files(self, names: Collection[Hash]) -> dict[Hash, list[XorbRow]]:
        """The xorbs that those of these files are made of that are registered."""
        found: dict[Hash, list[XorbRow]] = {}
        for row in self.rows_in(_XORBS_OF_FILES, [name.digest for name in names]):
            found.setdefault(name_of(row.file_hash), []).append(xorb_row(row))
        return found

    def granted_to_others(self, names: Collection[Hash], namespace: str) -> set[Hash]:
        """Those of these files that another namespace may read, too."""
        found = self.rows_in(_GRANTED_TO_OTHERS, [name.digest for name in names], namespace=namespace)
        return {name_of(row.hash) for row in found}

    def count_terms_of_files(self, wanted: Collection[Hash], namespace: str, *, enough: int | None = None) -> TermCount:
        """The same for all terms of those of these files that ``namespace`` may see."""
        rows = self.rows_in(_SEGMENTS_OF_FILES, [name.digest for name in wanted], namespace=namespace)
        terms = (term for row in rows for term in unpack_terms(row.terms or b"", name_of(row.hash)))
        return count_terms_in(islice(terms, enough))

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

    def _packed_terms(self, name: Hash, start: int, end: int) -> Iterator[tuple[int, PackedTerm]]:
        """The terms of a file that overlap bytes ``[start, end)``, each with the byte at which it begins."""
        segments = self.connection.execute(_SEGMENTS, {"hash": name.digest, "start": start, "end": end})
        for position, payload in segments:
            for term in unpack_terms(payload, name):
                if start < position + term[3] and position < end:
                    yield position, term
                position += term[3]


class FileChanges(Changes):
    """Changes to files and their terms."""

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
        added = [self._add_files(batch, rows, namespace, now, rebound) for batch in batches(by_name.values())]
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
        known = {name_of(row.hash) for row in self.rows_in(_FILES_BY_HASH, digests)}
        new = [entry for name, entry in by_name.items() if name not in known]
        again = [entry for name, entry in by_name.items() if name in known and name in rebound]
        edges = {entry.hash: first_uses(entry) for entry in (*new, *again)}
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
        ids = {name_of(row.hash): row.id for row in self.rows_in(_FILES_BY_HASH, digests)}
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
        return self.add_new(grant, grants) > 0 or bool(edges)

    def _drop_terms(self, file_id: int, term_count: int, xorb_count: int) -> None:
        """Make room for other terms of a file, with their number and that of their xorbs."""
        for table in (file_segment, edge):
            self.connection.execute(delete(table).where(table.c.file_id == file_id))
        counts = {"term_count": term_count, "xorb_count": xorb_count}
        self.connection.execute(update(file).where(file.c.id == file_id).values(counts))
