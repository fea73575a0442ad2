"""The names of a store as a snapshot of its index has them: which tables and columns, and which not."""

from __future__ import annotations

from typing import Final

from xetstore.cas.index import Writer
from xetstore.cas.index.queries.snapshots import SnapshotTable
from xetstore.cas.snapshots.journal import JournalEntry
from xetstore.cas.snapshots.take import Room
from xetstore.hub.queries import HubWriter
from xetstore.hub.quotas import recount
from xetstore.hub.tables import MIGRATIONS

_OBJECTS_AT_A_TIME: Final = 8  # of at most some MiB each


def _table(name: str, key: str, others: str = "", *, is_keyless: bool = False, at_a_time: int = 1000) -> SnapshotTable:
    """A table whose rows are told apart, and ordered, by ``key``."""
    columns = (*key.split(), *others.split())
    listed, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
    return SnapshotTable(
        name,
        columns,
        f"SELECT {listed} FROM {name} ORDER BY {', '.join(key.split())}",
        f"INSERT INTO {name} ({listed}) VALUES ({values}) ON CONFLICT DO NOTHING",
        is_keyless=is_keyless,
        at_a_time=at_a_time,
    )


_BUCKET_FILE: Final = "file size modified_ms uploaded_at content_type"

TABLES: Final = (
    _table("account", "id", "name name_key kind fullname created_at"),
    _table("member", "org_id user_id", "role"),
    _table("used_namespace", "namespace", "ended_at"),
    _table(
        "repository",
        "id",
        "kind owner owner_key name name_key namespace visibility gated sdk creator created_at updated_at next_number"
        " next_line deleted_at shrunk_at",
    ),
    _table("former_name", "name_key", "repository_id"),
    # In the order of their numbers, which are drawn anew in this order.
    SnapshotTable(
        "git_object",
        ("repository_id", "oid", "kind", "size", "sha256", "file_size", "file", "data"),
        "SELECT repository_id, oid, kind, size, sha256, file_size, file, data FROM git_object ORDER BY id",
        "INSERT INTO git_object (repository_id, oid, kind, size, sha256, file_size, file, data)"
        " VALUES (:repository_id, :oid, :kind, :size, :sha256, :file_size, :file, :data) ON CONFLICT DO NOTHING",
        at_a_time=_OBJECTS_AT_A_TIME,
    ),
    _table("ref", "repository_id name", "oid"),
    _table("line", "repository_id line", "base fork"),
    _table("revision", "repository_id line number", "oid tree title message author created_at digest"),
    _table("changed_path", "repository_id path line number"),
    _table("lfs_part", "repository_id sha256 number", "file size created_at"),
    _table("bucket_file", "repository_id path", _BUCKET_FILE),
    _table(
        "discussion",
        "repository_id number",
        "title is_pull_request status author base fork merge_oid created_at next_event",
    ),
    _table(
        "discussion_event",
        "repository_id number position",
        "kind author created_at content former edited_at is_hidden",
    ),
    _table("access_request", "repository_id user_id", "status asked_at"),
    _table("copied_account", "source account_id"),
    _table("copied_repository", "source repository_id", "namespace last_object state refs shrunk_at"),
    _table("deleted_ref", "repository_id deleted_at name oid", is_keyless=True),
    _table("deleted_bucket_file", "repository_id path deleted_at", _BUCKET_FILE, is_keyless=True),
)
"""In an order in which rows can be added. A column that is not here, of a table or as a whole, is in no snapshot."""

LEFT_OUT: Final = {
    "hub_version": "of the code",
    "access_token": "secrets: tokens are issued anew",
}
"""The other tables, and why each is in no snapshot."""

LEFT_OUT_COLUMNS: Final = {
    "git_object.id": "drawn anew",
    "deleted_ref.id": "drawn anew",
    "deleted_bucket_file.id": "drawn anew",
    "repository.collected_at": "looked through anew",
}
"""Columns that are in no snapshot, and why."""

_OF_NAMESPACE: Final = "SELECT id, deleted_at FROM repository WHERE namespace = :namespace"


def replay(writer: Writer, entry: JournalEntry) -> None:
    """Delete the repository of a namespace that was deleted after the snapshot, or give it back."""
    if not writer.connection.has_table("repository"):
        return
    found = writer.connection.row(_OF_NAMESPACE, {"namespace": entry.namespace})
    if found is None:  # created after the snapshot, or it is no namespace of a repository
        return
    hub, (number, deleted_at) = HubWriter(writer.connection), found
    if entry.is_deletion:
        hub.delete_repository(number, entry.at)
    elif deleted_at is not None:
        row = hub.deleted_repository(number)
        if row is not None and hub.repository(row.name.key) is None:
            hub.undelete_repository(row, row.name, deleted_at=deleted_at)


NAMES: Final = Room(MIGRATIONS, "names", TABLES, replay, recount)
"""For :func:`~xetstore.cas.snapshots.take.take_snapshot`."""
