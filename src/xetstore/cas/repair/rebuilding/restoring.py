"""Rows that objects do not tell: from the newest snapshot that is whole, less what the journal says was deleted since.

Files that came later have no grant in it. Where the store had one namespace, ``default``, they are granted to that;
otherwise to one that no caller has a token for, ``lost-found``: the admin sees them there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from xetstore.access.tenant import DEFAULT_NAMESPACE
from xetstore.cancellation import Cancellation
from xetstore.cas.check import Problem
from xetstore.cas.index import Writer
from xetstore.cas.index.index import MIGRATIONS
from xetstore.cas.index.queries.rebuilding import RebuildRows
from xetstore.cas.index.queries.snapshots import FILES, QUOTAS, SHARDS, SUPERSEDED, TABLES, SnapshotTable
from xetstore.cas.layout import named_by
from xetstore.cas.repair.found import LOST_FOUND
from xetstore.cas.repair.rebuilding.run import RebuildRun
from xetstore.cas.snapshots.form import SnapshotHead, TableRows, read_snapshot
from xetstore.cas.snapshots.journal import JournalEntry, journal_keys, read_entry
from xetstore.cas.snapshots.take import MARGIN_SECONDS, Room, snapshots_in
from xetstore.database.connection import Values
from xetstore.errors import DamagedError, IntegrityError, NotFoundError, UsageError
from xetstore.interfaces import BlobInfo, BlobStore
from xetstore.protocol.hashes import Hash

_FILES_AT_A_TIME: Final = 500
_XORBS_AT_A_TIME: Final = 5000
_OLDER_SECONDS: Final = 24 * 3600.0  # clocks of objects and of the database differ
_NAMED_IN: Final = ("file_grant", "deleted_grant", "xorb_holder", "quota")


@dataclass(slots=True)
class Restored:
    """The snapshot that was taken, if there was one that is whole, and the others, each with what is wrong with it."""

    key: str | None = None
    head: SnapshotHead | None = None
    refused: list[Problem] = field(default_factory=list)


def newest_snapshot(
    blobs: BlobStore, store_id: str | None, rooms: Sequence[Room], cancellation: Cancellation
) -> Restored:
    """The newest snapshot of this store that is whole: it is read to its end."""
    known = {"index": MIGRATIONS.newest} | {room.name: room.migrations.newest for room in rooms}
    restored = Restored()
    for _, blob in reversed([*snapshots_in(blobs)]):
        try:
            head = _verified(blobs, blob, cancellation)
            if head.store_id != store_id:
                raise DamagedError(f"it is a snapshot of store {head.store_id}")
            if any(version > known.get(name, 0) for name, version in head.versions.items()):
                raise UsageError("it has tables of a newer xetstore: rebuild with that one")
        except (IntegrityError, NotFoundError, UsageError) as error:
            restored.refused.append(Problem(f"snapshot {blob.key}", str(error)))
            continue
        restored.key, restored.head = blob.key, head
        break
    return restored


def put_superseded_last(run: RebuildRun, key: str) -> None:
    """Let shards in whose place others count be read behind these: a file gets the terms that it had last."""
    found = run.cas.blobs.stat(key)
    for part in _parts(run.cas.blobs, key, 0 if found is None else found.size, run.cancellation):
        if isinstance(part, TableRows):
            if part.table != SUPERSEDED.name:
                return  # it is the first table
            run.change(lambda _, rows, part=part: rows.put_last(row[0] for row in part.rows))  # type: ignore[misc]


def import_snapshot(run: RebuildRun, key: str, head: SnapshotHead, rooms: Sequence[Room]) -> list[Values]:
    """Add the rows of a snapshot that is whole. May be done again.

    Returns those of quotas, which come last: none may refuse what is given back.
    """
    quotas: list[Values] = []
    tables = {table.name: table for table in TABLES}
    for room in rooms:
        if head.versions.get(room.name):
            run.cas.index.migrate(room.migrations)
            tables |= {table.name: table for table in room.tables}
    for table in tables.values():
        if table.is_keyless:
            run.change(lambda writer, _, table=table: writer.clear(table))  # type: ignore[misc]
    found = run.cas.blobs.stat(key)
    for part in _parts(run.cas.blobs, key, 0 if found is None else found.size, run.cancellation):
        if isinstance(part, TableRows) and (known := tables.get(part.table)) is not None:
            rows = _values(known, part)
            if known is QUOTAS:
                quotas += rows
            else:
                _import(run, known, part, rows)
    return quotas


def find_new_files(run: RebuildRun, namespace: str, restored: Restored) -> None:
    """Grant a namespace the files that came after the snapshot, and let it hold the xorbs that no other one holds.

    An older shard that the snapshot does not know is what an upload left that was cut off.
    """
    behind = 0
    since = 0.0
    if restored.head is not None and restored.key is not None:
        # By the clock of the objects, too: that of the database may have been ahead.
        found = run.cas.blobs.stat(restored.key)
        since = min(restored.head.at, restored.head.at if found is None else found.modified_at) - _OLDER_SECONDS
    while True:
        with run.cas.index.snapshot() as reader:
            page = RebuildRows(reader.connection).new_files(behind, _FILES_AT_A_TIME, since)
        if not page:
            break
        run.change(lambda _, rows, ids=[number for number, _ in page]: rows.grant(namespace, ids))  # type: ignore[misc]
        run.tally.found += len(page)
        behind = page[-1][0]
    with run.cas.index.snapshot() as reader:
        last = RebuildRows(reader.connection).last_xorb()
    for first in range(0, last, _XORBS_AT_A_TIME):
        run.change(lambda _, rows, first=first: rows.hold(namespace, first, first + _XORBS_AT_A_TIME))  # type: ignore[misc]


def namespace_of_new_files(run: RebuildRun, restored: Restored, entries: Collection[str], *, was_served: bool) -> str:
    """The namespace of files that came after the snapshot: ``default`` if the store had no other, as far as it is
    known. ``entries`` are the namespaces of the journal.
    """
    tables = [*_NAMED_IN]
    with run.cas.index.snapshot() as reader:
        if reader.connection.has_table("used_namespace"):
            tables.append("used_namespace")
        others = RebuildRows(reader.connection).has_others_than(DEFAULT_NAMESPACE, tables)
    if restored.head is None and was_served:
        return LOST_FOUND
    return LOST_FOUND if others or any(name != DEFAULT_NAMESPACE for name in entries) else DEFAULT_NAMESPACE


def journal_of(run: RebuildRun, restored: Restored, store_id: str | None) -> Iterator[JournalEntry]:
    """The entries of the journal since the snapshot, in order. What cannot be read is reported."""
    since = 0.0 if restored.head is None else restored.head.at - MARGIN_SECONDS
    for at, blob in journal_keys(run.cas.blobs):
        if at < since:
            continue
        try:
            yield read_entry(run.cas.blobs, blob, store_id)
        except (IntegrityError, NotFoundError) as error:
            run.report(Problem(f"journal {blob.key}", f"{error}: what was deleted then may be back"))


def replay(run: RebuildRun, entry: JournalEntry, namespace: str, rooms: Sequence[Room]) -> None:
    """Do what an entry of the journal says. Of files that came after the snapshot, in ``namespace``, too: whose they
    were is not known.
    """
    run.tally.entries += 1
    if entry.files is None:
        _replay_all(run, entry, rooms)
    for at in range(0, len(entry.files or ()), _FILES_AT_A_TIME):
        part = (entry.files or ())[at : at + _FILES_AT_A_TIME]

        def change(writer: Writer, rows: RebuildRows, part: Sequence[Hash] = part) -> int:
            new = rows.only_new(part) if namespace != entry.namespace else set[Hash]()
            if entry.is_deletion:
                files = rows.deletable(entry.namespace, part, entry.at)
                writer.revoke(entry.namespace, files, now=entry.at)
                writer.revoke(namespace, new, now=entry.at)
                return len(files | new)
            writer.restore(entry.namespace, part, now=entry.at)
            writer.restore(namespace, new, now=entry.at)
            return 0

        run.tally.deleted += run.change(change)


def _replay_all(run: RebuildRun, entry: JournalEntry, rooms: Sequence[Room]) -> None:
    def change(writer: Writer, rows: RebuildRows) -> int:
        files = rows.all_deletable(entry.namespace, entry.at, _FILES_AT_A_TIME)
        writer.revoke(entry.namespace, files, now=entry.at)
        return len(files)

    def give_back(writer: Writer, rows: RebuildRows) -> None:
        deleted_at = rows.last_deletion(entry.namespace)
        if deleted_at is not None:
            writer.restore_all(entry.namespace, deleted_at=deleted_at)

    if entry.is_deletion:
        while count := run.change(change):
            run.tally.deleted += count
    else:
        run.change(give_back)
    for room in rooms:
        run.change(lambda writer, _, replay=room.replay: replay(writer, entry))  # type: ignore[misc]


def _values(table: SnapshotTable, part: TableRows) -> list[Values]:
    """Rows by the columns that the table has now."""
    rows = [dict(zip(part.columns, row, strict=True)) for row in part.rows]
    return [{name: row.get(name) for name in table.columns} for row in rows]


def _import(run: RebuildRun, table: SnapshotTable, part: TableRows, values: Sequence[Values]) -> None:
    def change(writer: Writer, rows: RebuildRows) -> list[bytes]:
        writer.import_rows(table, values)
        if table is FILES:
            return rows.know_files([row[0] for row in part.rows])
        if table is SHARDS:
            rows.know_shards((row[0], row[1]) for row in part.rows)
        elif table is SUPERSEDED:
            named = [found for row in part.rows if (found := named_by(row[0])) is not None]
            rows.know_shards((name.digest, generation) for name, generation in named)
        return []

    missing = run.change(change)
    run.tally.rows += len(values)
    run.tally.lost_files += len(missing)
    for digest in missing:
        file = Hash(digest)
        run.report(Problem(f"file {file}", "no shard that is whole tells how it is made", (file,)))


def _verified(blobs: BlobStore, blob: BlobInfo, cancellation: Cancellation) -> SnapshotHead:
    head: SnapshotHead | None = None
    for part in _parts(blobs, blob.key, blob.size, cancellation):
        if isinstance(part, SnapshotHead):
            head = part
    assert head is not None
    return head


def _parts(blobs: BlobStore, key: str, size: int, cancellation: Cancellation) -> Iterator[SnapshotHead | TableRows]:
    if not size:
        raise DamagedError("the snapshot is empty")
    with blobs.get_range(key, 0, size) as stream:
        for part in read_snapshot(stream):
            cancellation.check()
            yield part
