"""Questions about shards and the edges that follow from them, and additions of shards."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import (
    select,
)

from xetstore.cas.index.queries.rows import PAGE_ROWS, VALUES, Changes, Questions, name_of
from xetstore.cas.index.schema import (
    dedup,
    edge,
    file,
    shard,
    xorb,
)
from xetstore.protocol.hashes import Hash

_SHARDS_BY_HASH: Final = select(shard.c.hash).where(shard.c.hash.in_(VALUES))


class ShardQueries(Questions):
    """Questions about shards."""

    def edges_of(self, name: Hash) -> dict[Hash, int]:
        """Each xorb of a file with the byte at which the file first uses it, as the edges tell."""
        edges = select(xorb.c.hash, edge.c.first_byte).join(edge, edge.c.xorb_id == xorb.c.id)
        mine = edges.join(file, edge.c.file_id == file.c.id).where(file.c.hash == name.digest)
        return {name_of(digest): first_byte for digest, first_byte in self.connection.execute(mine)}

    def dedup_keys_of(self, xorb_id: int) -> list[int]:
        """Keys of the eligible chunks that a xorb is said to hold."""
        return list(self.connection.execute(select(dedup.c.chunk_key).where(dedup.c.xorb_id == xorb_id)).scalars())

    def shards_after(self, last: Hash | None) -> list[tuple[Hash, int]]:
        """The next page of all shards by hash, with their sizes; empty behind the last."""
        page = select(shard.c.hash, shard.c.size).order_by(shard.c.hash).limit(PAGE_ROWS)
        if last is not None:
            page = page.where(shard.c.hash > last.digest)
        return [(name_of(digest), size) for digest, size in self.connection.execute(page)]

    def known_shards(self, names: Collection[Hash]) -> set[Hash]:
        """Those of the shards that are registered."""
        found = self.rows_in(_SHARDS_BY_HASH, [name.digest for name in names])
        return {name_of(row.hash) for row in found}


class ShardChanges(Changes):
    """Changes to shards."""

    def add_shard(self, name: Hash, size: int, *, now: float) -> None:
        """Record a stored shard."""
        self.add_new(shard, [{"hash": name.digest, "size": size, "created_at": now}])
