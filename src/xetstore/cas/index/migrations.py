"""The steps that bring an index from any released schema to the one of this code.

A step, once released, is never changed: each has the tables as they were when it was written, not those of
``schema.py``.
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
    text,
    update,
)

from xetstore.errors import UsageError

Migration = Callable[[Connection], None]

_RowId = BigInteger().with_variant(Integer, "sqlite")

# Versions 1 and 2: an embedded store before there were namespaces, and since.

_FIRST = MetaData()

_schema_version = Table("schema_version", _FIRST, Column("version", Integer, nullable=False))

_xorb = Table(
    "xorb",
    _FIRST,
    Column("id", _RowId, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("region_bytes", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("chunk_count", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

_file = Table(
    "file",
    _FIRST,
    Column("id", _RowId, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32)),
    Column("term_count", BigInteger, nullable=False),
    Column("xorb_count", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

_file_segment = Table(
    "file_segment",
    _FIRST,
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    Column("first_byte", BigInteger, primary_key=True),
    Column("terms", LargeBinary, nullable=False),
)

_edge = Table(
    "edge",
    _FIRST,
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    Column("first_byte", BigInteger, primary_key=True),
    Column("xorb_id", _RowId, ForeignKey("xorb.id"), nullable=False),
    Index("edge_by_xorb", "xorb_id", "file_id", unique=True),
    sqlite_with_rowid=False,
)

_dedup = Table(
    "dedup",
    _FIRST,
    Column("chunk_key", BigInteger, primary_key=True, autoincrement=False),
    Column("xorb_id", _RowId, ForeignKey("xorb.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Index("dedup_by_xorb", "xorb_id"),
    sqlite_with_rowid=False,
)

_grant = Table(
    "file_grant",
    _FIRST,
    Column("namespace", String(255), primary_key=True),
    Column("file_id", _RowId, ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", Double, nullable=False),
    Index("file_grant_by_file", "file_id"),
    sqlite_with_rowid=False,
)

_holder = Table(
    "xorb_holder",
    _FIRST,
    Column("xorb_id", _RowId, ForeignKey("xorb.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("namespace", String(255), primary_key=True),
    sqlite_with_rowid=False,
)

_shard = Table(
    "shard",
    _FIRST,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

_dedup_key = Table(
    "dedup_key",
    _FIRST,
    Column("id", _RowId, primary_key=True),
    Column("key", LargeBinary(32), nullable=False),
    Column("created_at", Double, nullable=False),
)


# Version 3: objects that are stored anew.

_THIRD = MetaData()

_superseded = Table(
    "superseded_object",
    _THIRD,
    Column("key", String(255), primary_key=True),
    Column("created_at", Double, nullable=False),
)


def _create_first_tables(connection: Connection) -> None:
    _FIRST.create_all(connection, tables=[table for table in _FIRST.sorted_tables if table is not _holder])


def _add_holders(connection: Connection) -> None:
    """Version 2: who uploaded a xorb. Until then it was the one namespace of an embedded store."""
    _FIRST.create_all(connection, tables=[_holder])
    every = select(_xorb.c.id, literal("default"))
    connection.execute(insert(_holder).from_select([_holder.c.xorb_id, _holder.c.namespace], every))


def _add_generations(connection: Connection) -> None:
    """Version 3: what is damaged, and what is stored in its place. Objects that are there have no generation."""
    connection.execute(text("ALTER TABLE xorb ADD COLUMN generation VARCHAR(32) DEFAULT '' NOT NULL"))
    connection.execute(text("ALTER TABLE xorb ADD COLUMN damaged_at DOUBLE PRECISION"))
    _THIRD.create_all(connection)


def _order_holders(connection: Connection) -> None:
    """Version 4: what a namespace has uploaded, in order."""
    connection.execute(text("CREATE INDEX xorb_holder_by_namespace ON xorb_holder (namespace, xorb_id)"))


MIGRATIONS: Final[Sequence[Migration]] = (_create_first_tables, _add_holders, _add_generations, _order_holders)
"""Step ``n`` brings a database from version ``n`` to ``n + 1``; version 0 is an empty one."""


def found_version(connection: Connection) -> int:
    """The schema version of a database; 0 for an empty one."""
    if not inspect(connection).has_table(_schema_version.name):
        return 0
    version = connection.execute(select(_schema_version.c.version)).scalar()
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
        connection.execute(insert(_schema_version).values(version=len(migrations)))
    else:
        connection.execute(update(_schema_version).values(version=len(migrations)))
