"""Questions and changes of a repair: rows that contradict their objects, and files that no shard names."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import FILE, Questions, ShardRow, XorbRow, file_record
from xetstore.cas.index.queries.shards import SHARD, shard_row

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.xorb import XorbInfo
    from xetstore.records import FileRecord

REPAIRED_ROWS: Final = 500
"""Rows of a page."""

_SUPERSEDED: Final = "SELECT key FROM superseded_object WHERE key IN (:values)"
_UNSHARDED: Final = f"""
SELECT {FILE} FROM file
WHERE id > :last_id AND size > 0 AND NOT EXISTS (SELECT 1 FROM shard_file WHERE shard_file.file_id = file.id)
ORDER BY id LIMIT {REPAIRED_ROWS}
"""
_UNLINKED: Final = f"SELECT {SHARD} FROM shard WHERE is_linked = 0 AND hash > :hash ORDER BY hash LIMIT {REPAIRED_ROWS}"

_MEND_XORB: Final = """
UPDATE xorb SET region_bytes = :region_bytes, raw_bytes = :raw_bytes, chunk_count = :chunk_count, damaged_at = NULL
WHERE id = :id AND generation = :counts
"""
_RENAME_XORB: Final = "UPDATE xorb SET hash = :hash, damaged_at = NULL WHERE id = :id AND generation = :counts"
_ADD_XORB: Final = """
INSERT INTO xorb (hash, region_bytes, raw_bytes, chunk_count, created_at, generation, offered_at, checked_at)
VALUES (:hash, :region_bytes, :raw_bytes, :chunk_count, :now, :generation, :now, :now)
ON CONFLICT (hash) DO UPDATE SET offered_at = excluded.offered_at
"""
_DROP_DEDUP: Final = "DELETE FROM dedup WHERE xorb_id = :xorb_id AND chunk_key IN (:values)"
_SET_SIZE: Final = "UPDATE file SET size = :size WHERE hash = :hash"
_RENAME_FILE: Final = "UPDATE file SET hash = :new WHERE hash = :hash"
_MEND_SHARD: Final = "UPDATE shard SET size = :size, damaged_at = NULL WHERE hash = :hash AND generation = :counts"
_RENAME_SHARD: Final = "UPDATE shard SET hash = :new, damaged_at = NULL WHERE hash = :hash AND generation = :counts"
_FORGET_SHARD: Final = "DELETE FROM shard WHERE hash = :hash AND generation = :counts"


class RepairQueries(Questions):
    """Questions of a repair."""

    def superseded_of(self, keys: Collection[str]) -> set[str]:
        """Those of these objects that are to be removed, because others count in their place."""
        return {key for (key,) in self.connection.rows_in(_SUPERSEDED, keys)}

    def unsharded_after(self, last_id: int) -> list[tuple[int, FileRecord]]:
        """The next page of files that no shard is known to name, with their ids; empty behind the last."""
        return [(row[0], file_record(row)) for row in self.connection.rows(_UNSHARDED, {"last_id": last_id})]

    def unlinked_shards_after(self, last: Hash | None) -> list[ShardRow]:
        """The next page of shards of which only their objects tell what they name; empty behind the last."""
        behind = b"" if last is None else last.digest
        return [shard_row(row) for row in self.connection.rows(_UNLINKED, {"hash": behind})]


class RepairChanges(Questions):
    """Changes of a repair. Each of them is nothing where another object counts by now."""

    def mend_xorb(self, row: XorbRow, info: XorbInfo) -> None:
        """Let the row of a xorb tell what its object, which is whole, holds."""
        self.connection.change(_MEND_XORB, {**_sizes(info), "id": row.id, "counts": row.generation})

    def rename_xorb(self, row: XorbRow, name: Hash) -> None:
        """Let the row of a xorb have the name of its object, which is whole."""
        self.connection.change(_RENAME_XORB, {"id": row.id, "counts": row.generation, "hash": name.digest})

    def add_xorb_of_none(self, info: XorbInfo, *, now: float, generation: str) -> None:
        """Register a xorb that no namespace has uploaded; one that is registered keeps the object it has."""
        values = {**_sizes(info), "hash": info.hash.digest, "now": now, "generation": generation}
        self.connection.change(_ADD_XORB, values)

    def drop_dedup(self, xorb_id: int, keys: Collection[int]) -> None:
        """Let these chunks not be found in a xorb any more."""
        self.connection.change_in(_DROP_DEDUP, keys, {"xorb_id": xorb_id})

    def set_size(self, file: Hash, size: int) -> None:
        """Let a file have the size that its terms make."""
        self.connection.change(_SET_SIZE, {"hash": file.digest, "size": size})

    def rename_file(self, file: Hash, name: Hash) -> None:
        """Let a file have the name that its terms make."""
        self.connection.change(_RENAME_FILE, {"hash": file.digest, "new": name.digest})

    def mend_shard(self, row: ShardRow, size: int) -> None:
        """Let the row of a shard tell the size of its object, which is whole."""
        values = {"hash": row.hash.digest, "counts": row.generation, "size": size}
        self.connection.change(_MEND_SHARD, values)

    def rename_shard(self, row: ShardRow, name: Hash) -> None:
        """Let the row of a shard have the name of its object, which is whole."""
        values = {"hash": row.hash.digest, "counts": row.generation, "new": name.digest}
        self.connection.change(_RENAME_SHARD, values)

    def forget_shard(self, row: ShardRow) -> None:
        """Forget a shard: others name what it named."""
        self.connection.change(_FORGET_SHARD, {"hash": row.hash.digest, "counts": row.generation})


def _sizes(info: XorbInfo) -> dict[str, object]:
    return {"region_bytes": info.region_bytes, "raw_bytes": info.raw_bytes, "chunk_count": info.chunk_count}
