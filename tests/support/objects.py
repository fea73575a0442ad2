"""Where the object of a xorb or shard lies: only the index tells, because each has a generation."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from xetstore.cas import EmbeddedCas
from xetstore.cas.index import ShardRow, XorbRow
from xetstore.cas.layout import shard_key, xorb_key
from xetstore.interfaces import BlobStore
from xetstore.protocol.hashes import Hash


def xorb_row(cas: EmbeddedCas, xorb: Hash) -> XorbRow:
    """The row of a registered xorb."""
    with cas.index.snapshot() as reader:
        return reader.xorbs([xorb])[xorb]


def shard_row(cas: EmbeddedCas, shard: Hash) -> ShardRow:
    """The row of a registered shard."""
    with cas.index.snapshot() as reader:
        return reader.shards([shard])[shard]


def xorb_object(cas: EmbeddedCas, xorb: Hash) -> str:
    """The key of the object of a xorb that counts."""
    return xorb_row(cas, xorb).key


def shard_object(cas: EmbeddedCas, shard: Hash) -> str:
    """The key of the object of a shard that counts."""
    return shard_row(cas, shard).key


def xorb_path(root: Path, xorb: Hash) -> Path:
    """The file of a xorb in the store at ``root``, which may be open."""
    with EmbeddedCas.open(root, create=False) as cas:
        return root / xorb_object(cas, xorb)


def shard_path(root: Path, shard: Hash) -> Path:
    """The same for a shard."""
    with EmbeddedCas.open(root, create=False) as cas:
        return root / shard_object(cas, shard)


def drop_generations(root: Path) -> None:
    """Give the objects of a closed store the keys that they had in older releases: without a generation."""
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection, connection:
        for table, key in (("xorb", xorb_key), ("shard", shard_key)):
            for digest, generation in connection.execute(f"SELECT hash, generation FROM {table}").fetchall():
                (root / key(Hash(digest), generation)).rename(root / key(Hash(digest)))
            connection.execute(f"UPDATE {table} SET generation = ''")


def put_in_place(blobs: BlobStore, key: str, data: bytes) -> None:
    """Other bytes under a key, as no store does it: damage."""
    blobs.delete_many([key])
    blobs.put_new(key, [data])
