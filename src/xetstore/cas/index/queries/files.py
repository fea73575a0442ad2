"""Questions about files, their terms and grants, and additions of files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from xetstore.batches import sized_batches
from xetstore.cas.index.queries.quotas import IS_COUNTED, QuotaChanges
from xetstore.cas.index.queries.rows import (
    FILE,
    FILE_OF_NAMESPACE,
    PAGE_ROWS,
    TERM,
    XORB,
    PackedTerm,
    TermCount,
    XorbRow,
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
from xetstore.cas.index.queries.sha256 import Sha256Changes
from xetstore.cas.index.queries.xorbs import XorbQueries
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord, Totals

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import Term
    from xetstore.protocol.shard import FileEntry

# A file that is known here gets a grant: it must still be there then.
_FILES_BY_HASH: Final = f"""
SELECT id, hash, checked_sha256, {IS_COUNTED} FROM file WHERE hash IN (:values) FOR KEY SHARE
"""
_GRANTED: Final = "FROM file JOIN file_grant ON file_grant.file_id = file.id WHERE file_grant.namespace = :namespace"
_GRANTED_FILE: Final = f"SELECT {FILE_OF_NAMESPACE} {_GRANTED} AND file.hash = :hash"
_GRANTED_BEHIND: Final = f"""
SELECT {FILE_OF_NAMESPACE} {_GRANTED} AND file_grant.file_id > :last_id ORDER BY file_grant.file_id LIMIT {PAGE_ROWS}
"""
_PLACE: Final = """
SELECT file.id FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file.hash = :hash AND file_grant.namespace = :namespace
UNION
SELECT file.id FROM file JOIN deleted_grant ON deleted_grant.file_id = file.id
WHERE file.hash = :hash AND deleted_grant.namespace = :namespace
"""
_FILES_BEHIND: Final = f"SELECT {FILE} FROM file WHERE id > :last_id ORDER BY id LIMIT {PAGE_ROWS}"
# A hash as text has the bytes of each eight in reverse order.
_GRANTED_BEGINNING: Final = f"""
SELECT file.hash {_GRANTED}
AND substr(file.hash, CAST(:first AS INTEGER), CAST(:length AS INTEGER)) = :part
ORDER BY file.id LIMIT {PAGE_ROWS}
"""
_XORBS_OF_FILES: Final = f"""
SELECT file.hash, {XORB}
FROM file JOIN edge ON edge.file_id = file.id JOIN xorb ON xorb.id = edge.xorb_id
WHERE file.hash IN (:values)
"""
_GRANTED_TO_OTHERS: Final = """
SELECT file.hash FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file.hash IN (:values) AND file_grant.namespace <> :namespace
"""
_NAMESPACES_OF: Final = """
SELECT file_grant.namespace FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file.hash = :hash ORDER BY file_grant.namespace LIMIT :most
"""
_SEGMENTS: Final = """
SELECT file_segment.first_byte, file_segment.terms
FROM file JOIN file_segment ON file_segment.file_id = file.id
WHERE file.hash = :hash AND file_segment.first_byte < :end AND file_segment.first_byte >= (
    SELECT max(before.first_byte) FROM file_segment AS before
    WHERE before.file_id = file.id AND before.first_byte <= :start
)
ORDER BY file_segment.first_byte
"""
_SEGMENTS_OF_FILES: Final = """
SELECT file.hash, file_segment.terms
FROM file
JOIN file_grant ON file_grant.file_id = file.id
LEFT JOIN file_segment ON file_segment.file_id = file.id
WHERE file_grant.namespace = :namespace AND file.hash IN (:values)
ORDER BY file.id, file_segment.first_byte
"""
_TOTAL_FILES: Final = "SELECT count(*), sum(size) FROM file"
_TOTAL_XORBS: Final = "SELECT count(*), sum(raw_bytes), sum(region_bytes), sum(chunk_count) FROM xorb"

_ADD_FILE: Final = """
INSERT INTO file (hash, size, checked_sha256, term_count, xorb_count, created_at)
VALUES (:hash, :size, :sha256, :term_count, :xorb_count, :now)
ON CONFLICT (hash) DO NOTHING
"""
_ADD_SEGMENT: Final = "INSERT INTO file_segment (file_id, first_byte, terms) VALUES (:file_id, :first_byte, :terms)"
_ADD_EDGE: Final = "INSERT INTO edge (file_id, first_byte, xorb_id) VALUES (:file_id, :first_byte, :xorb_id)"
_COUNT: Final = "UPDATE file SET term_count = :term_count, xorb_count = :xorb_count WHERE id = :file_id"
_EDGES_OF_FILES: Final = "SELECT file_id, xorb_id FROM edge WHERE file_id IN (:values)"
_LOSE_XORBS: Final = "UPDATE xorb SET offered_at = :now, garbage_at = :now WHERE id IN (:values)"
_STALE_SHARDS: Final = """
UPDATE shard SET stale_at = :now WHERE id IN (SELECT shard_id FROM shard_file WHERE file_id IN (:values))
"""
_UNLINK: Final = "DELETE FROM shard_file WHERE file_id IN (:values)"
_DROP_SEGMENTS: Final = "DELETE FROM file_segment WHERE file_id IN (:values)"
_DROP_EDGES: Final = "DELETE FROM edge WHERE file_id IN (:values)"
_GRANT: Final = """
INSERT INTO file_grant (namespace, file_id, created_at)
SELECT :namespace, id, :now FROM file WHERE id IN (:values) ORDER BY id
ON CONFLICT (namespace, file_id) {}
"""
_ADD_GRANT: Final = _GRANT.format("DO NOTHING")
_RENEW_GRANT: Final = _GRANT.format("DO UPDATE SET created_at = excluded.created_at")

_DELETED_BEFORE: Final = """
SELECT file.hash FROM deleted_grant JOIN file ON file.id = deleted_grant.file_id
WHERE deleted_grant.namespace = :namespace AND file.hash IN (:values)
"""

_FILES_AT_A_TIME: Final = 4096
_TERMS_AT_A_TIME: Final = 50_000


class FileQueries(XorbQueries):
    """Questions about files and their terms."""

    def file(self, name: Hash, namespace: str) -> FileRecord | None:
        """The record of a file that ``namespace`` may see, or None."""
        row = self.connection.row(_GRANTED_FILE, {"namespace": namespace, "hash": name.digest})
        return None if row is None else file_record(row)

    def files_after(self, last_id: int, namespace: str | None) -> list[tuple[int, FileRecord]]:
        """The next page of all files of a namespace (None: of all) by id, with these ids.

        Pages have all files that were there when they began. A writer may commit a smaller id than one that was read
        before, if others write beside it: of files that are registered meanwhile, pages may have some and not others.
        """
        statement = _FILES_BEHIND if namespace is None else _GRANTED_BEHIND
        page = self.connection.rows(statement, {"last_id": last_id, "namespace": namespace})
        return [(row[0], file_record(row)) for row in page]

    def files_beginning(self, prefix: str, namespace: str) -> list[Hash]:
        """Files of a namespace whose hashes, as text, begin with at least two hexadecimal digits; no more than a page.

        Reads the hashes of all files.
        """
        part = bytes.fromhex(prefix[: min(len(prefix) // 2 * 2, 16)])[::-1]
        asked = {"namespace": namespace, "first": 9 - len(part), "length": len(part), "part": part}
        hashes = [name_of(row[0]) for row in self.connection.rows(_GRANTED_BEGINNING, asked)]
        return [each for each in hashes if str(each).startswith(prefix)]

    def place_of(self, name: Hash, namespace: str) -> int | None:
        """The id of a file that a namespace has, or has deleted and can have back; None for any other."""
        value = self.connection.value(_PLACE, {"namespace": namespace, "hash": name.digest})
        return None if value is None else int(value)

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
        for digest, segment in self.connection.rows_in(_SEGMENTS_OF_FILES, digests, {"namespace": namespace}):
            name = name_of(digest)
            payload = segment or b""
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
        for digest, *row in self.connection.rows_in(_XORBS_OF_FILES, [name.digest for name in names]):
            found.setdefault(name_of(digest), []).append(xorb_row(tuple(row)))
        return found

    def granted_to_others(self, names: Collection[Hash], namespace: str) -> set[Hash]:
        """Those of these files that another namespace may read, too."""
        digests = [name.digest for name in names]
        found = self.connection.rows_in(_GRANTED_TO_OTHERS, digests, {"namespace": namespace})
        return {name_of(digest) for (digest,) in found}

    def namespaces_with(self, name: Hash, most: int) -> list[str]:
        """The namespaces that may read a file, at most this many of them."""
        rows = self.connection.rows(_NAMESPACES_OF, {"hash": name.digest, "most": most})
        return [namespace for (namespace,) in rows]

    def count_terms_of_files(self, wanted: Collection[Hash], namespace: str, *, enough: int | None = None) -> TermCount:
        """The same for all terms of those of these files that ``namespace`` may see."""
        digests = [name.digest for name in wanted]
        rows = self.connection.rows_in(_SEGMENTS_OF_FILES, digests, {"namespace": namespace})
        terms = (term for digest, segment in rows for term in unpack_terms(segment or b"", name_of(digest)))
        return count_terms_in(islice(terms, enough))

    def totals(self) -> Totals:
        """Sums over all files and xorbs; looks at each row."""
        files, size = (int(value or 0) for value in self.connection.row(_TOTAL_FILES) or (0, 0))
        sums = self.connection.row(_TOTAL_XORBS) or (0, 0, 0, 0)
        xorbs, raw, region, chunks = (int(value or 0) for value in sums)
        # A footer is as long as its chunk count says, so the sum needs no row but the sums.
        per_chunk = XorbInfo.footer_bytes(1) - XorbInfo.footer_bytes(0)
        footers = xorbs * XorbInfo.footer_bytes(0) + chunks * per_chunk
        return Totals(files, size, raw, region + footers, xorbs, chunks)

    def _packed_terms(self, name: Hash, start: int, end: int) -> Iterator[tuple[int, PackedTerm]]:
        """The terms of a file that overlap bytes ``[start, end)``, each with the byte at which it begins."""
        segments = self.connection.rows(_SEGMENTS, {"hash": name.digest, "start": start, "end": end})
        for position, payload in segments:
            for term in unpack_terms(payload, name):
                if start < position + term[3] and position < end:
                    yield position, term
                position += term[3]


class FileChanges(Sha256Changes, QuotaChanges):
    """Changes to files and their terms."""

    def add_files(
        self,
        entries: Sequence[FileEntry],
        rows: Mapping[Hash, XorbRow],
        *,
        namespace: str | None,
        now: float,
        rebound: Collection[Hash] = (),
        is_checked: bool = False,
        returned: set[Hash] | None = None,
    ) -> bool:
        """Register files and grant them to a namespace, or to none yet. True if a file, its terms or a grant is new.

        A file that is known keeps the terms it has, but for those in ``rebound``, which get these ones: they make the
        same bytes. A SHA-256 is a claim of the namespace; with ``is_checked`` this process computed it from the bytes.
        ``returned`` gets those that had been deleted from the namespace.
        """
        by_name: dict[Hash, FileEntry] = {}
        for entry in entries:
            by_name.setdefault(entry.hash, entry)
        # Their rows are many times as large as what they come from.
        parts = sized_batches(by_name.values(), lambda entry: len(entry.terms), _TERMS_AT_A_TIME, most=_FILES_AT_A_TIME)
        added = [self._add_files(part, rows, namespace, now, rebound, is_checked, returned) for part in parts]
        return any(added)

    def _add_files(
        self,
        entries: Sequence[FileEntry],
        rows: Mapping[Hash, XorbRow],
        namespace: str | None,
        now: float,
        rebound: Collection[Hash],
        is_checked: bool,
        returned: set[Hash] | None,
    ) -> bool:
        by_digest = {entry.hash.digest: entry for entry in entries}
        asked = {"namespace": namespace or ""}
        found = [*self.connection.rows_in(_FILES_BY_HASH, by_digest, asked)]
        known = {digest for _, digest, *_ in found}
        # A writer beside this one may register a file that was not known just now: then the file has its terms.
        rest = [_new_file(entry, now, is_checked) for digest, entry in by_digest.items() if digest not in known]
        new = set(self.connection.add_many(_ADD_FILE, rest, "hash"))
        if rest:
            found = [*self.connection.rows_in(_FILES_BY_HASH, by_digest, asked)]
        ids = {digest: file_id for file_id, digest, *_ in found}
        again = {ids[digest]: by_digest[digest] for digest in known if by_digest[digest].hash in rebound}
        self._drop_terms(again, rows, now)
        written = again | {ids[digest]: by_digest[digest] for digest in by_digest if digest in new}
        self._add_terms(written, rows)
        told = {file_id: checked or by_digest[digest].sha256 for file_id, digest, checked, _ in found}
        if is_checked:
            self.note_computed({file_id: told[file_id] for file_id, _, checked, _ in found if checked is None})
        if namespace is None:
            return bool(written)
        if any(is_counted for *_, is_counted in found):
            self.charge(namespace, sorted(ids.values()))
        grants = {"namespace": namespace, "now": now}
        granted = self.connection.change_in(_ADD_GRANT, ids.values(), grants)
        if granted < len(ids):  # an upload gives a name to it later, and is given the time for that anew
            self.connection.change_in(_RENEW_GRANT, ids.values(), grants)
        self.add_claims(namespace, told)
        if returned is not None and known and granted:
            deleted = self.connection.rows_in(_DELETED_BEFORE, known, {"namespace": namespace})
            returned |= {name_of(digest) for (digest,) in deleted}
        return granted > 0 or bool(written)

    def _add_terms(self, entries: Mapping[int, FileEntry], rows: Mapping[Hash, XorbRow]) -> None:
        """The segments and edges of files, by their ids."""
        segments = [
            {"file_id": file_id, "first_byte": first, "terms": payload}
            for file_id, entry in entries.items()
            for first, payload in pack_terms(entry.terms, rows)
        ]
        edges = [
            {"file_id": file_id, "first_byte": first, "xorb_id": rows[used].id}
            for file_id, entry in entries.items()
            for used, first in first_uses(entry).items()
        ]
        self.connection.change_many(_ADD_SEGMENT, segments)
        self.connection.change_many(_ADD_EDGE, edges)

    def _drop_terms(self, entries: Mapping[int, FileEntry], rows: Mapping[Hash, XorbRow], now: float) -> None:
        """Make room for other terms of files, which are known by these ids, and count them.

        No shard is known to name the files any more: one that does so with the new terms is to be added.
        """
        if not entries:
            return
        # Their rows first: a writer beside this one, who drops the same terms, waits there.
        counts = [{"file_id": file_id, **_counts(entry)} for file_id, entry in sorted(entries.items())]
        self.connection.change_many(_COUNT, counts)
        # It may be the last file of the xorbs that it leaves, of which clients know.
        kept = {(file_id, rows[name].id) for file_id, entry in entries.items() for name in first_uses(entry)}
        left = {
            xorb_id
            for file_id, xorb_id in self.connection.rows_in(_EDGES_OF_FILES, entries)
            if (file_id, xorb_id) not in kept
        }
        self.connection.change_in(_LOSE_XORBS, sorted(left), {"now": now})
        self.connection.change_in(_STALE_SHARDS, entries, {"now": now})
        for statement in (_UNLINK, _DROP_SEGMENTS, _DROP_EDGES):
            self.connection.change_in(statement, entries)


def _new_file(entry: FileEntry, now: float, is_checked: bool) -> dict[str, object]:
    sha256 = entry.sha256 if is_checked else None
    return {"hash": entry.hash.digest, "size": entry.size, "sha256": sha256, "now": now} | _counts(entry)


def _counts(entry: FileEntry) -> dict[str, object]:
    return {"term_count": len(entry.terms), "xorb_count": len(first_uses(entry))}
