"""Questions about shards and the edges that follow from them, and additions of shards."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import PAGE_ROWS, Questions, ShardRow, name_of
from xetstore.cas.index.queries.superseded import SupersededChanges

if TYPE_CHECKING:
    from xetstore.database.connection import Row
    from xetstore.protocol.hashes import Hash

_DEDUP_KEYS: Final = "SELECT chunk_key FROM dedup WHERE xorb_id = :xorb_id"
SHARD: Final = "hash, size, generation, damaged_at"
"""The columns of :func:`shard_row`."""
_SHARDS_BEHIND: Final = f"SELECT {SHARD} FROM shard WHERE hash > :hash ORDER BY hash LIMIT {PAGE_ROWS}"
_SHARDS_BY_HASH: Final = f"SELECT {SHARD} FROM shard WHERE hash IN (:values)"
_ADD_SHARD: Final = """
INSERT INTO shard (hash, size, generation, created_at, checked_at, is_linked, stale_at)
VALUES (:hash, :size, :generation, :now, :now, 1, :stale_at)
ON CONFLICT (hash) DO UPDATE SET is_linked = 1 WHERE shard.is_linked = 0
"""
_THIS_OBJECT: Final = "hash = :hash AND generation = :counts"
"""Of a shard: this object of it counts."""
_REPLACE_OBJECT: Final = f"""
UPDATE shard SET generation = :generation, damaged_at = NULL, checked_at = :now WHERE {_THIS_OBJECT}
"""
_MARK: Final = f"UPDATE shard SET damaged_at = :damaged_at WHERE {_THIS_OBJECT}"
_MARK_STALE: Final = f"UPDATE shard SET stale_at = :damaged_at WHERE {_THIS_OBJECT}"
_LINK_FILES: Final = """
INSERT INTO shard_file (shard_id, file_id)
SELECT shard.id, file.id FROM shard, file WHERE shard.hash = :shard AND file.hash IN (:values)
ON CONFLICT (shard_id, file_id) DO NOTHING
"""
_LINK_XORBS: Final = """
INSERT INTO shard_xorb (shard_id, xorb_id)
SELECT shard.id, xorb.id FROM shard, xorb WHERE shard.hash = :shard AND xorb.hash IN (:values)
ON CONFLICT (shard_id, xorb_id) DO NOTHING
"""
_FILES: Final = """
SELECT file.hash FROM shard JOIN shard_file ON shard_file.shard_id = shard.id JOIN file ON file.id = shard_file.file_id
WHERE shard.hash = :shard
"""
_XORBS: Final = """
SELECT xorb.hash FROM shard JOIN shard_xorb ON shard_xorb.shard_id = shard.id JOIN xorb ON xorb.id = shard_xorb.xorb_id
WHERE shard.hash = :shard
"""
_SHARDS_OF: Final = """
SELECT shard.hash
FROM file JOIN shard_file ON shard_file.file_id = file.id JOIN shard ON shard.id = shard_file.shard_id
WHERE file.hash = :file ORDER BY shard.id
"""
_SHARDS_OF_XORB: Final = """
SELECT shard.hash FROM shard_xorb JOIN shard ON shard.id = shard_xorb.shard_id
WHERE shard_xorb.xorb_id = :xorb_id ORDER BY shard.id LIMIT 16
"""
_IS_LINKED: Final = "SELECT is_linked FROM shard WHERE hash = :shard"


class ShardQueries(Questions):
    """Questions about shards."""

    def dedup_keys_of(self, xorb_id: int) -> list[int]:
        """Keys of the eligible chunks that a xorb is said to hold."""
        return [key for (key,) in self.connection.rows(_DEDUP_KEYS, {"xorb_id": xorb_id})]

    def shards_after(self, last: Hash | None) -> list[ShardRow]:
        """The next page of all shards by hash; empty behind the last."""
        behind = b"" if last is None else last.digest
        return [shard_row(row) for row in self.connection.rows(_SHARDS_BEHIND, {"hash": behind})]

    def shards(self, names: Collection[Hash]) -> dict[Hash, ShardRow]:
        """The rows of those shards that are registered."""
        found = self.connection.rows_in(_SHARDS_BY_HASH, [name.digest for name in names])
        return {row.hash: row for row in map(shard_row, found)}

    def named_by(self, shard: Hash) -> tuple[set[Hash], set[Hash]] | None:
        """The files and the xorbs that a registered shard names, those that are there; None if its object must tell."""
        values = {"shard": shard.digest}
        if not self.connection.value(_IS_LINKED, values):
            return None
        files, xorbs = self.connection.rows(_FILES, values), self.connection.rows(_XORBS, values)
        return {name_of(digest) for (digest,) in files}, {name_of(digest) for (digest,) in xorbs}

    def shards_of(self, file: Hash) -> list[Hash]:
        """The shards that are known to name a file, in the order of their registration."""
        return [name_of(digest) for (digest,) in self.connection.rows(_SHARDS_OF, {"file": file.digest})]

    def shards_of_xorb(self, xorb_id: int) -> list[Hash]:
        """The first 16 shards that are known to name a xorb."""
        return [name_of(digest) for (digest,) in self.connection.rows(_SHARDS_OF_XORB, {"xorb_id": xorb_id})]


class ShardChanges(SupersededChanges):
    """Changes to shards."""

    def add_shard(
        self,
        name: Hash,
        size: int,
        *,
        files: Iterable[Hash],
        xorbs: Iterable[Hash],
        now: float,
        generation: str = "",
    ) -> None:
        """Record a stored shard, and the registered files and xorbs that it names.

        One that is registered keeps the object it has. One without a file is stale: no file will ever need it.
        """
        digests = [file.digest for file in files]
        row = {"hash": name.digest, "size": size, "generation": generation, "now": now}
        self.connection.change(_ADD_SHARD, {**row, "stale_at": None if digests else now})
        self.connection.change_in(_LINK_FILES, digests, {"shard": name.digest})
        self.connection.change_in(_LINK_XORBS, (xorb.digest for xorb in xorbs), {"shard": name.digest})

    def replace_shard(self, old: ShardRow, generation: str, *, now: float) -> None:
        """Let another object of a shard count, which is whole; nothing changes if the old one does not."""
        counts = {"hash": old.hash.digest, "counts": old.generation, "generation": generation, "now": now}
        if self.connection.change(_REPLACE_OBJECT, counts):
            self.supersede(old.key, now=now)

    def mark_shard(self, row: ShardRow, *, damaged_at: float | None) -> None:
        """Note that the object of a shard was found damaged, or whole (None); nothing if another one counts by now."""
        counts = {"hash": row.hash.digest, "counts": row.generation, "damaged_at": damaged_at}
        self.connection.change(_MARK, counts)
        if damaged_at is not None:  # a rewrite makes it anew from what the index has
            self.connection.change(_MARK_STALE, counts)


def shard_row(row: Row) -> ShardRow:
    """The value of the columns ``SHARD``."""
    digest, size, generation, damaged_at = row
    return ShardRow(name_of(digest), size, generation, damaged_at is not None)
