"""The tables of the index as they are now; ``migrations.py`` has the steps that lead there.

One row per xorb, file, eligible chunk, grant and edge, and one per few hundred terms of a file: never one
per chunk. Types are those that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

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
    # Which of the objects stored under this hash counts: the end of its key. Empty for the first one.
    Column("generation", String(32), nullable=False, server_default=""),
    # When the object was found damaged; nothing new leans on it from then on, until it is stored anew.
    Column("damaged_at", Double),
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
    # What a namespace uploaded last, and next: of millions of xorbs it may have uploaded three.
    Index("xorb_holder_by_namespace", "namespace", "xorb_id"),
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

superseded = Table(
    "superseded_object",
    metadata,
    # Objects in whose place another one counts now. They are removed when those who read them are done.
    Column("key", String(255), primary_key=True),
    Column("created_at", Double, nullable=False),
)
