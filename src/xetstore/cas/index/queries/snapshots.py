"""Rows of the index in a snapshot of it, for each table: they name hashes, because ids are the index's own.

Left out is what objects tell (terms, edges, what can be found), what is drawn or counted anew (keys of dedup answers,
chores, use), and every secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import Questions

if TYPE_CHECKING:
    from xetstore.database.connection import Row, Values

_ROWS_AT_A_TIME: Final = 1000


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """A table as a snapshot has it: ``select`` gives rows of ``columns``, in an order that does not change.

    ``add`` adds a row to an index whose objects are registered, by these columns as parameters; it changes nothing
    where the row is there, or names what is not. Where it is empty no row is added, and a rebuild only knows of them.
    A table that ``is_keyless`` has rows that are only told apart by the index's own numbers: it is emptied before rows
    are added. ``at_a_time`` rows of it fit into memory.
    """

    name: str
    columns: tuple[str, ...]
    select: str
    add: str
    is_keyless: bool = False
    at_a_time: int = _ROWS_AT_A_TIME


def _by_file(name: str, *others: str) -> SnapshotTable:
    """A table with a row for each namespace and file."""
    columns, values = (", ".join(("", *(f"{mark}{other}" for other in others))) for mark in (f"{name}.", ":"))
    return SnapshotTable(
        name,
        ("namespace", "file", *others),
        f"SELECT {name}.namespace, file.hash{columns} FROM {name} JOIN file ON file.id = {name}.file_id"
        f" ORDER BY {name}.namespace, {name}.file_id",
        f"INSERT INTO {name} (namespace, file_id, {', '.join(others)})"
        f" SELECT :namespace, id{values} FROM file WHERE hash = :file ON CONFLICT DO NOTHING",
    )


def _of_claims(name: str, grants: str) -> SnapshotTable:
    """Claims of SHA-256, each of which belongs to a grant."""
    return SnapshotTable(
        name,
        ("namespace", "file", "sha256"),
        f"SELECT {name}.namespace, file.hash, {name}.sha256 FROM {name} JOIN file ON file.id = {name}.file_id"
        f" ORDER BY {name}.namespace, {name}.file_id, {name}.sha256",
        f"INSERT INTO {name} (namespace, file_id, sha256) SELECT {grants}.namespace, file.id, :sha256"
        f" FROM file JOIN {grants} ON {grants}.file_id = file.id"
        f" WHERE file.hash = :file AND {grants}.namespace = :namespace ON CONFLICT DO NOTHING",
    )


XORBS: Final = SnapshotTable(
    "xorb",
    ("hash", "created_at"),
    "SELECT hash, created_at FROM xorb ORDER BY id",
    "UPDATE xorb SET created_at = :created_at WHERE hash = :hash",
)
HOLDERS: Final = SnapshotTable(
    "xorb_holder",
    ("namespace", "xorb"),
    "SELECT xorb_holder.namespace, xorb.hash FROM xorb_holder JOIN xorb ON xorb.id = xorb_holder.xorb_id"
    " ORDER BY xorb_holder.namespace, xorb_holder.xorb_id",
    "INSERT INTO xorb_holder (xorb_id, namespace) SELECT id, :namespace FROM xorb WHERE hash = :xorb"
    " ON CONFLICT DO NOTHING",
)
SHARDS: Final = SnapshotTable(
    "shard",
    ("hash", "generation", "created_at"),
    "SELECT hash, generation, created_at FROM shard ORDER BY id",
    "UPDATE shard SET created_at = :created_at WHERE hash = :hash",
)
FILES: Final = SnapshotTable(
    "file",
    ("hash", "created_at", "checked_sha256"),
    "SELECT hash, created_at, checked_sha256 FROM file ORDER BY id",
    "UPDATE file SET created_at = :created_at, checked_sha256 = :checked_sha256 WHERE hash = :hash",
)
GRANTS: Final = _by_file("file_grant", "created_at")
CLAIMS: Final = _of_claims("sha256_claim", "file_grant")
DELETED_GRANTS: Final = _by_file("deleted_grant", "created_at", "deleted_at")
DELETED_CLAIMS: Final = _of_claims("deleted_claim", "deleted_grant")
QUOTAS: Final = SnapshotTable(
    "quota",
    ("namespace", "max_bytes", "max_files"),
    "SELECT namespace, max_bytes, max_files FROM quota ORDER BY namespace",
    "INSERT INTO quota (namespace, max_bytes, max_files, used_bytes, used_files)"
    " VALUES (:namespace, :max_bytes, :max_files, 0, 0) ON CONFLICT DO NOTHING",
)

# Objects of shards that do not count any more: the files that they name are not new for that.
SUPERSEDED: Final = SnapshotTable(
    "superseded_object",
    ("key",),
    "SELECT key FROM superseded_object WHERE substr(key, 1, 7) = 'shards/' ORDER BY key",
    "",
)

TABLES: Final = (SUPERSEDED, XORBS, HOLDERS, SHARDS, FILES, GRANTS, CLAIMS, DELETED_GRANTS, DELETED_CLAIMS, QUOTAS)
"""In an order in which rows can be added."""

LEFT_OUT: Final = {
    "schema_version": "of the code",
    "store": "its id is in the head of a snapshot, and among the objects",
    "file_segment": "told by shards",
    "edge": "told by shards",
    "dedup": "told by shards and footers",
    "shard_file": "told by shards",
    "shard_xorb": "told by shards",
    "quota_namespace": "counted anew",
    "dedup_key": "a secret, drawn anew",
    "chore": "of the processes that do them",
}
"""The other tables of the index, and why each is in no snapshot."""


class SnapshotQueries(Questions):
    """Questions of a snapshot of the index."""

    def has(self, table: SnapshotTable) -> bool:
        """True if the index has this table: those of other rooms may never have been made."""
        return self.connection.has_table(table.name)

    def exported(self, table: SnapshotTable) -> Iterator[Row]:
        """All rows of a table, some of which are in memory at a time."""
        return self.connection.rows_by_part(table.select, at_a_time=table.at_a_time)


class SnapshotChanges(SnapshotQueries):
    """Rows that come from a snapshot."""

    def clear(self, table: SnapshotTable) -> None:
        """Remove all rows of a table."""
        self.connection.change(f"DELETE FROM {table.name}")

    def import_rows(self, table: SnapshotTable, rows: Sequence[Values]) -> None:
        """Add rows by their columns."""
        if table.add:
            self.connection.change_many(table.add, rows)
