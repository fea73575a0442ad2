"""object_bytes(): the object of a xorb or a shard, by its hash alone, for who owns the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xetstore.blobs.ranges import read_all

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash


def object_bytes(cas: EmbeddedCas, name: Hash) -> tuple[str, bytes] | None:
    """The key and the bytes of the object that counts, as they are stored; None if the hash is that of none.

    Of no namespace: no answer to a caller of a server is made of it. Raises DamagedError and NotFoundError where the
    object does not have the bytes that its row says.
    """
    with cas.index.snapshot() as reader:
        row = reader.xorbs([name]).get(name) or reader.shards([name]).get(name)
    if row is None:
        return None
    stat = cas.blobs.stat(row.key)
    size = row.sizes[-1] if stat is None else min(stat.size, row.sizes[-1])
    return row.key, read_all(cas.blobs.get_range(row.key, 0, size), size)
