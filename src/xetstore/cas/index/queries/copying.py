"""Questions of a copy of the store: which rows are new since another one, and grants and holders with their times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.cas.index.queries.rows import (
    FILE,
    PAGE_ROWS,
    XORB,
    Questions,
    ShardRow,
    XorbRow,
    file_record,
    name_of,
    xorb_row,
)
from xetstore.cas.index.queries.shards import SHARD, shard_row
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.database.connection import Row
    from xetstore.records import FileRecord

_LAST_IDS: Final = """
SELECT coalesce((SELECT max(id) FROM xorb), 0), coalesce((SELECT max(id) FROM file), 0),
    coalesce((SELECT max(id) FROM shard), 0)
"""
_PAGE: Final = "id > :behind AND id <= :last AND (id > :known OR {}) ORDER BY id LIMIT {}"
# A xorb that is uploaded again, by another namespace too, has that time in `offered_at`.
_NEW_XORBS: Final = f"SELECT {XORB} FROM xorb WHERE " + _PAGE.format(
    "coalesce(offered_at, created_at) >= :since", PAGE_ROWS
)
_NEW_FILES: Final = f"SELECT {FILE} FROM file WHERE " + _PAGE.format(
    "created_at >= :since OR EXISTS (SELECT 1 FROM file_grant"
    " WHERE file_grant.file_id = file.id AND file_grant.created_at >= :since)",
    PAGE_ROWS,
)
_NEW_SHARDS: Final = f"SELECT id, {SHARD} FROM shard WHERE " + _PAGE.format("created_at >= :since", PAGE_ROWS)
_MARKED: Final = f"WHERE id > :behind AND damaged_at IS NOT NULL ORDER BY id LIMIT {PAGE_ROWS}"
_MARKED_XORBS: Final = f"SELECT {XORB} FROM xorb {_MARKED}"
_MARKED_SHARDS: Final = f"SELECT id, {SHARD} FROM shard {_MARKED}"
_FILES: Final = f"SELECT {FILE} FROM file WHERE hash IN (:values)"
_HOLDERS: Final = """
SELECT xorb.hash, xorb_holder.namespace FROM xorb JOIN xorb_holder ON xorb_holder.xorb_id = xorb.id
WHERE xorb.hash IN (:values)
"""
_GRANTS: Final = """
SELECT file.hash, file_grant.namespace, file_grant.created_at
FROM file JOIN file_grant ON file_grant.file_id = file.id WHERE file.hash IN (:values)
"""
_HOLD: Final = """
INSERT INTO xorb_holder (xorb_id, namespace) SELECT id, :namespace FROM xorb WHERE hash = :hash
ON CONFLICT (xorb_id, namespace) DO NOTHING
"""
_GRANT: Final = """
INSERT INTO file_grant (namespace, file_id, created_at) SELECT :namespace, id, :created_at FROM file WHERE hash = :hash
ON CONFLICT (namespace, file_id) DO NOTHING
"""
_IDS: Final = "SELECT id FROM file WHERE hash IN (:values)"
_CLAIMS: Final = """
SELECT file.hash, sha256_claim.namespace, sha256_claim.sha256
FROM file JOIN file_grant ON file_grant.file_id = file.id
JOIN sha256_claim ON sha256_claim.namespace = file_grant.namespace AND sha256_claim.file_id = file.id
WHERE file.hash IN (:values)
"""
_CLAIM: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT :namespace, id, coalesce(checked_sha256, :sha256) FROM file WHERE hash = :hash
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class LastIds:
    """The largest ids of an index: of its xorbs, files and shards."""

    xorb: int = 0
    file: int = 0
    shard: int = 0


@dataclass(frozen=True, slots=True)
class NewRows:
    """Which rows are asked for: those up to ``last`` that are behind ``known``, or were changed at ``since`` or later.

    By default all rows.
    """

    last: LastIds
    known: LastIds = LastIds()
    since: float = 0.0


Held = tuple[Hash, str]
"""A xorb, and a namespace that has uploaded it."""

Granted = tuple[Hash, str, float]
"""A file, a namespace that may read it, and since when, in unix seconds."""

Claimed = tuple[Hash, str, bytes]
"""A file, a namespace that may read it, and a SHA-256 that it claims for it."""


class CopyQueries(Questions):
    """Questions of a copy. Pages are in the order of ids; an empty one is behind the last."""

    def last_ids(self) -> LastIds:
        """The largest ids."""
        return LastIds(*(self.connection.row(_LAST_IDS) or ()))

    def new_xorbs(self, new: NewRows, behind: int) -> list[XorbRow]:
        """The next page of xorbs that are new, or were uploaded or offered again."""
        page = self._page(_NEW_XORBS, behind, new.last.xorb, new.known.xorb, new.since)
        return [xorb_row(row) for row in page]

    def new_files(self, new: NewRows, behind: int) -> list[tuple[int, FileRecord]]:
        """The next page of files that are new, or newly granted, with their ids."""
        page = self._page(_NEW_FILES, behind, new.last.file, new.known.file, new.since)
        return [(row[0], file_record(row)) for row in page]

    def new_shards(self, new: NewRows, behind: int) -> list[tuple[int, ShardRow]]:
        """The next page of new shards, with their ids."""
        page = self._page(_NEW_SHARDS, behind, new.last.shard, new.known.shard, new.since)
        return [(row[0], shard_row(row[1:])) for row in page]

    def marked_xorbs(self, behind: int) -> list[XorbRow]:
        """The next page of xorbs whose objects were found damaged."""
        return [xorb_row(row) for row in self.connection.rows(_MARKED_XORBS, {"behind": behind})]

    def marked_shards(self, behind: int) -> list[tuple[int, ShardRow]]:
        """The next page of shards whose objects were found damaged, with their ids."""
        return [(row[0], shard_row(row[1:])) for row in self.connection.rows(_MARKED_SHARDS, {"behind": behind})]

    def file_records(self, names: Collection[Hash]) -> dict[Hash, FileRecord]:
        """The records of those of these files that are registered, in any namespace."""
        rows = self.connection.rows_in(_FILES, [name.digest for name in names])
        return {record.hash: record for record in map(file_record, rows)}

    def holders_of(self, names: Collection[Hash]) -> set[Held]:
        """Which namespaces have uploaded these xorbs."""
        rows = self.connection.rows_in(_HOLDERS, [name.digest for name in names])
        return {(name_of(digest), namespace) for digest, namespace in rows}

    def grants_of(self, names: Collection[Hash]) -> list[Granted]:
        """Which namespaces may read these files."""
        rows = self.connection.rows_in(_GRANTS, [name.digest for name in names])
        return [(name_of(digest), namespace, created_at) for digest, namespace, created_at in rows]

    def claims_of(self, names: Collection[Hash]) -> set[Claimed]:
        """Which SHA-256 namespaces claim for these files."""
        rows = self.connection.rows_in(_CLAIMS, [name.digest for name in names])
        return {(name_of(digest), namespace, sha256) for digest, namespace, sha256 in rows}

    def _page(self, statement: str, behind: int, last: int, known: int, since: float) -> Iterator[Row]:
        values = {"behind": behind, "last": last, "known": known, "since": since}
        return self.connection.rows(statement, values)


class CopyChanges(QuotaChanges):
    """Rows that come from another store."""

    def add_holders(self, held: Iterable[Held]) -> None:
        """These namespaces have uploaded these xorbs, which are registered."""
        values = [{"hash": name.digest, "namespace": namespace} for name, namespace in held]
        self.connection.change_many(_HOLD, values)

    def add_grants(self, granted: Iterable[Granted]) -> None:
        """These namespaces may read these files, which are registered. A grant that is there keeps its time.

        No quota stands in the way of a copy, which counts all the same.
        """
        granted = [*granted]
        by_namespace: dict[str, list[bytes]] = {}
        for name, namespace, _ in granted:
            by_namespace.setdefault(namespace, []).append(name.digest)
        for namespace, digests in sorted(by_namespace.items()):
            if self.is_counted(namespace):
                ids = [file_id for (file_id,) in self.connection.rows_in(_IDS, digests)]
                self.charge(namespace, ids, refuses=False)
        values = [
            {"hash": name.digest, "namespace": namespace, "created_at": created_at}
            for name, namespace, created_at in granted
        ]
        self.connection.change_many(_GRANT, values)

    def copy_claims(self, claims: Iterable[Claimed]) -> None:
        """These namespaces, which may read these files, claim these SHA-256, for files of which none was computed."""
        values = [{"hash": name.digest, "namespace": namespace, "sha256": sha256} for name, namespace, sha256 in claims]
        self.connection.change_many(_CLAIM, values)
