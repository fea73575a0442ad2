"""Indexes as older releases left them, by their own SQL: each opens, with all that was in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Index, schema
from xetstore.cas.index.migrations import refuse_newer
from xetstore.cas.layout import xorb_key
from xetstore.errors import UsageError
from xetstore.testing import Sample, read_back, upload

# What `sqlite3 index.sqlite3 .schema` says of stores that these versions made. Never to be changed.

FIRST = """
CREATE TABLE dedup_key (id INTEGER NOT NULL, "key" BLOB NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (id));
CREATE TABLE file (
    id INTEGER NOT NULL, hash BLOB NOT NULL, size BIGINT NOT NULL, sha256 BLOB, term_count BIGINT NOT NULL,
    xorb_count BIGINT NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (id), UNIQUE (hash)
);
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE shard (hash BLOB NOT NULL, size BIGINT NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (hash));
CREATE TABLE xorb (
    id INTEGER NOT NULL, hash BLOB NOT NULL, region_bytes BIGINT NOT NULL, raw_bytes BIGINT NOT NULL,
    chunk_count INTEGER NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (id), UNIQUE (hash)
);
CREATE TABLE dedup (
    chunk_key BIGINT NOT NULL, xorb_id INTEGER NOT NULL, PRIMARY KEY (chunk_key, xorb_id),
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX dedup_by_xorb ON dedup (xorb_id);
CREATE TABLE edge (
    file_id INTEGER NOT NULL, first_byte BIGINT NOT NULL, xorb_id INTEGER NOT NULL, PRIMARY KEY (file_id, first_byte),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE, FOREIGN KEY(xorb_id) REFERENCES xorb (id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX edge_by_xorb ON edge (xorb_id, file_id);
CREATE TABLE file_grant (
    namespace VARCHAR(255) NOT NULL, file_id INTEGER NOT NULL, created_at DOUBLE NOT NULL,
    PRIMARY KEY (namespace, file_id), FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX file_grant_by_file ON file_grant (file_id);
CREATE TABLE file_segment (
    file_id INTEGER NOT NULL, first_byte BIGINT NOT NULL, terms BLOB NOT NULL, PRIMARY KEY (file_id, first_byte),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
);
"""
SECOND = """
CREATE TABLE xorb_holder (
    xorb_id INTEGER NOT NULL, namespace VARCHAR(255) NOT NULL, PRIMARY KEY (xorb_id, namespace),
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) WITHOUT ROWID;
"""
THIRD = """
CREATE TABLE superseded_object ("key" VARCHAR(255) NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY ("key"));
ALTER TABLE xorb ADD COLUMN generation VARCHAR(32) DEFAULT '' NOT NULL;
ALTER TABLE xorb ADD COLUMN damaged_at DOUBLE PRECISION;
"""
SCHEMAS = {1: FIRST, 2: FIRST + SECOND, 3: FIRST + SECOND + THIRD}


def age(root: Path, version: int) -> None:
    """Put the rows of a store into an index of an older release."""
    old = root / "old.sqlite3"
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMAS[version])
        connection.execute("INSERT INTO schema_version VALUES (?)", (version,))
        connection.execute("ATTACH ? AS new", (str(root / "index.sqlite3"),))
        tables = [name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table != "schema_version":
                columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA main.table_info({table})"))
                connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
    for ending in ("", "-wal", "-shm"):
        (root / f"index.sqlite3{ending}").unlink(missing_ok=True)
    old.rename(root / "index.sqlite3")


@pytest.mark.parametrize("version", SCHEMAS)
def test_a_store_of_an_older_release_opens_with_all_of_it(root: Path, sample: Sample, version: int) -> None:
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    age(root, version)
    with EmbeddedCas.open(root) as cas:
        verify_invariants(cas)
        assert read_back(cas, sample.file.hash) == sample.data
        assert not cas.put_xorb(sample.xorb.hash, sample.body)
        assert not cas.put_shard(sample.shard)
        # Its objects have no generation: they are found as they are, and one that is damaged is stored anew.
        (root / xorb_key(sample.xorb.hash)).unlink()
        assert read_back(cas, upload(cas, sample)) == sample.data
        verify_invariants(cas)


@pytest.mark.parametrize("version", SCHEMAS)
def test_a_store_that_is_migrated_while_it_is_open_elsewhere_goes_on(root: Path, sample: Sample, version: int) -> None:
    """Two processes that open it at once migrate it once."""
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    age(root, version)
    with EmbeddedCas.open(root) as one, EmbeddedCas.open(root) as two:
        assert read_back(one, sample.file.hash) == read_back(two, sample.file.hash) == sample.data


def columns_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Of each table its columns, with what is said of them; of each index its columns, in order."""
    columns: dict[str, list[tuple[object, ...]]] = {}
    with closing(sqlite3.connect(path)) as connection:
        for name, kind in connection.execute("SELECT name, type FROM sqlite_master").fetchall():
            if kind == "table":
                rows = connection.execute(f"PRAGMA table_info({name})").fetchall()
                columns[name] = sorted((row[1], row[3], row[5]) for row in rows)
            else:
                columns[name] = [(row[2],) for row in connection.execute(f"PRAGMA index_info({name})")]
    return columns


def test_the_steps_lead_to_the_tables_of_this_code(tmp_path: Path) -> None:
    """The frozen steps, from nothing and from each release, and ``schema.py``: the same columns and keys."""
    schema.metadata.create_all(create_engine(f"sqlite:///{tmp_path / 'now'}"))
    now = columns_of(tmp_path / "now")
    Index(tmp_path / "new").close()
    assert columns_of(tmp_path / "new") == now
    for version, statements in SCHEMAS.items():
        path = tmp_path / str(version)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(statements)
            connection.execute("INSERT INTO schema_version VALUES (?)", (version,))
        Index(path).close()
        assert columns_of(path) == now


def test_the_release_before_refuses_a_store_of_this_one(root: Path) -> None:
    """It would not keep the order of what a namespace has uploaded."""
    EmbeddedCas.open(root).close()
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection:
        [(version,)] = connection.execute("SELECT version FROM schema_version")
    with pytest.raises(UsageError, match="schema version 4"):
        refuse_newer(version, known=3)
