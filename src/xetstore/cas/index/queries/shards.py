"""Questions about shards and the edges that follow from them, and additions of shards."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
INSERT INTO shard (hash, size, created_at, is_linked) VALUES (:hash, :size, :now, 1)
ON CONFLICT (hash) DO UPDATE SET is_linked = 1 WHERE shard.is_linked = 0
"""
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
_IS_LINKED: Final = "SELECT is_linked FROM shard WHERE hash = :shard"


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


class ShardChanges(Questions):
    """Changes to shards."""

    def add_shard(self, name: Hash, size: int, *, files: Iterable[Hash], xorbs: Iterable[Hash], now: float) -> None:
        """Record a stored shard, and the registered files and xorbs that it names."""
        self.connection.change(_ADD_SHARD, {"hash": name.digest, "size": size, "now": now})
        for statement, named in ((_LINK_FILES, files), (_LINK_XORBS, xorbs)):
            self.connection.change_in(statement, (one.digest for one in named), {"shard": name.digest})
