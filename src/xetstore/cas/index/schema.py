"""The tables of the index, and the migrations that bring a database to the schema of this code.

One row per xorb, file, eligible chunk, grant and edge, and one per few hundred terms of a file: never one
per chunk. Types are those that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    literal,
    select,
    update,
)

from xetstore.cas.access import DEFAULT_NAMESPACE
from xetstore.errors import UsageError

metadata = MetaData()

# SQLite numbers rows by itself only where the key's type is INTEGER, which holds 64 bits there.
_RowId = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

xorb = Table(
    "xorb",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("region_bytes", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("chunk_count", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

file = Table(
    "file",
    metadata,
    # Ids grow in the order of registration: "most recent first" is a walk down the key.
    Column("id", _RowId, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32)),
    Column("term_count", BigInteger, nullable=False),
    Column("xorb_count", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

file_segment = Table(
    "file_segment",
    metadata,
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    # Where in the file the first term of the segment begins.
    Column("first_byte", BigInteger, primary_key=True),
    # Packed terms, see queries.pack_terms.
    Column("terms", LargeBinary, nullable=False),
)

edge = Table(
    "edge",
    metadata,
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    # Where in the file the xorb is used first: no two terms begin at one byte, and the key is in file order.
    Column("first_byte", BigInteger, primary_key=True),
    Column("xorb_id", _RowId, ForeignKey("xorb.id"), nullable=False),
    Index("edge_by_xorb", "xorb_id", "file_id", unique=True),
    sqlite_with_rowid=False,
)

dedup = Table(
    "dedup",
    metadata,
    # The first 8 bytes of an eligible chunk's hash, as a number. Which chunk it is, the xorb's footer tells.
    Column("chunk_key", BigInteger, primary_key=True, autoincrement=False),
    Column("xorb_id", _RowId, ForeignKey("xorb.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Index("dedup_by_xorb", "xorb_id"),
    sqlite_with_rowid=False,
)

grant = Table(
    "file_grant",
    metadata,
    Column("namespace", String(255), primary_key=True),
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", Double, nullable=False),
    Index("file_grant_by_file", "file_id"),
    sqlite_with_rowid=False,
)

holder = Table(
    "xorb_holder",
    metadata,
    # Which namespaces have uploaded the xorb, and so have shown that they possess it.
    Column("xorb_id", _RowId, ForeignKey("xorb.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("namespace", String(255), primary_key=True),
    sqlite_with_rowid=False,
)

shard = Table(
    "shard",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

dedup_key = Table(
    "dedup_key",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("key", LargeBinary(32), nullable=False),
    Column("created_at", Double, nullable=False),
)

Migration = Callable[[Connection], None]


def _create_first_tables(connection: Connection) -> None:
    """Version 1: what an embedded store had before there were namespaces."""
    metadata.create_all(connection, tables=[table for table in metadata.sorted_tables if table is not holder])


def _add_holders(connection: Connection) -> None:
    """Version 2: who uploaded a xorb. Until then it was the one namespace of an embedded store."""
    metadata.create_all(connection, tables=[holder])
    every = select(xorb.c.id, literal(DEFAULT_NAMESPACE))
    connection.execute(insert(holder).from_select([holder.c.xorb_id, holder.c.namespace], every))


MIGRATIONS: Final[Sequence[Migration]] = (_create_first_tables, _add_holders)
"""Step ``n`` brings a database from version ``n`` to ``n + 1``; version 0 is an empty one.

A step, once released, is never changed. When tables change, the first step gets the old tables as they were.
"""


def found_version(connection: Connection) -> int:
    """The schema version of a database; 0 for an empty one."""
    if not inspect(connection).has_table(schema_version.name):
        return 0
    version = connection.execute(select(schema_version.c.version)).scalar()
    return version or 0


def refuse_newer(version: int, known: int = len(MIGRATIONS)) -> None:
    """Raises UsageError for a database that newer code has written."""
    if version > known:
        raise UsageError(
            f"the index of this store has schema version {version}; this xetstore knows up to {known}",
            hint="open the store with the xetstore that wrote it, or a newer one",
        )


def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest schema, in the transaction of ``connection``: all steps or none."""
    version = found_version(connection)
    refuse_newer(version, len(migrations))
    if version == len(migrations):
        return
    for step in migrations[version:]:
        step(connection)
    if version == 0:
        connection.execute(insert(schema_version).values(version=len(migrations)))
    else:
        connection.execute(update(schema_version).values(version=len(migrations)))
