"""Questions about shards and the edges that follow from them, and additions of shards."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from xetstore.cas.index.queries.rows import PAGE_ROWS, Questions, name_of
from xetstore.protocol.hashes import Hash

_EDGES: Final = """
SELECT xorb.hash, edge.first_byte
FROM file JOIN edge ON edge.file_id = file.id JOIN xorb ON xorb.id = edge.xorb_id
WHERE file.hash = :hash
"""
_DEDUP_KEYS: Final = "SELECT chunk_key FROM dedup WHERE xorb_id = :xorb_id"
_SHARDS_BEHIND: Final = f"SELECT hash, size FROM shard WHERE hash > :hash ORDER BY hash LIMIT {PAGE_ROWS}"
_SHARDS_BY_HASH: Final = "SELECT hash FROM shard WHERE hash IN (:values)"
_ADD_SHARD: Final = """
INSERT INTO shard (hash, size, created_at) VALUES (:hash, :size, :now) ON CONFLICT (hash) DO NOTHING
"""


class ShardQueries(Questions):
    """Questions about shards."""

    def edges_of(self, name: Hash) -> dict[Hash, int]:
        """Each xorb of a file with the byte at which the file first uses it, as the edges tell."""
        edges = self.connection.rows(_EDGES, {"hash": name.digest})
        return {name_of(digest): first_byte for digest, first_byte in edges}

    def dedup_keys_of(self, xorb_id: int) -> list[int]:
        """Keys of the eligible chunks that a xorb is said to hold."""
        return [key for (key,) in self.connection.rows(_DEDUP_KEYS, {"xorb_id": xorb_id})]

    def shards_after(self, last: Hash | None) -> list[tuple[Hash, int]]:
        """The next page of all shards by hash, with their sizes; empty behind the last."""
        behind = b"" if last is None else last.digest
        return [(name_of(digest), size) for digest, size in self.connection.rows(_SHARDS_BEHIND, {"hash": behind})]

    def known_shards(self, names: Collection[Hash]) -> set[Hash]:
        """Those of the shards that are registered."""
        found = self.connection.rows_in(_SHARDS_BY_HASH, [name.digest for name in names])
        return {name_of(digest) for (digest,) in found}


class ShardChanges(Questions):
    """Changes to shards."""

    def add_shard(self, name: Hash, size: int, *, now: float) -> None:
        """Record a stored shard."""
        self.connection.change(_ADD_SHARD, {"hash": name.digest, "size": size, "now": now})
