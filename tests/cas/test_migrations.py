"""Indexes as older releases left them, by their own SQL: each opens, with all that was in it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest

from tests.cas.objects import in_format_1, in_format_2
from tests.support.objects import drop_generations, shard_path, xorb_path
from xetstore.cas import EmbeddedCas, index
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.index import MIGRATIONS, Index
from xetstore.cas.layout import shard_key, xorb_key
from xetstore.database.migrations import Migrations
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import StorageFullError
from xetstore.testing import FaultPlan, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in
from xetstore.testing.faults import CRASH_EXIT_CODE

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
FOURTH = """
CREATE INDEX xorb_holder_by_namespace ON xorb_holder (namespace, xorb_id);
"""
FIFTH = """
ALTER TABLE xorb ADD COLUMN offered_at DOUBLE PRECISION;
DROP TABLE shard;
CREATE TABLE shard (
    id INTEGER NOT NULL, hash BLOB NOT NULL, size BIGINT NOT NULL, created_at DOUBLE NOT NULL,
    is_linked INTEGER DEFAULT 0 NOT NULL, PRIMARY KEY (id), UNIQUE (hash)
);
CREATE TABLE shard_file (
    shard_id INTEGER NOT NULL, file_id INTEGER NOT NULL, PRIMARY KEY (shard_id, file_id),
    FOREIGN KEY(shard_id) REFERENCES shard (id) ON DELETE CASCADE,
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX shard_file_by_file ON shard_file (file_id);
CREATE TABLE shard_xorb (
    shard_id INTEGER NOT NULL, xorb_id INTEGER NOT NULL, PRIMARY KEY (shard_id, xorb_id),
    FOREIGN KEY(shard_id) REFERENCES shard (id) ON DELETE CASCADE,
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX shard_xorb_by_xorb ON shard_xorb (xorb_id);
"""
SIXTH = """
ALTER TABLE shard ADD COLUMN generation VARCHAR(32) DEFAULT '' NOT NULL;
ALTER TABLE shard ADD COLUMN damaged_at DOUBLE PRECISION;
CREATE TABLE store (number INTEGER NOT NULL, id VARCHAR(64) NOT NULL, PRIMARY KEY (number), CHECK (number = 1));
"""
SEVENTH = """
ALTER TABLE file ADD COLUMN checked_sha256 BLOB;
CREATE TABLE sha256_claim (
    namespace VARCHAR(255) NOT NULL, file_id INTEGER NOT NULL, sha256 BLOB NOT NULL,
    PRIMARY KEY (namespace, file_id, sha256),
    FOREIGN KEY(namespace, file_id) REFERENCES file_grant (namespace, file_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX sha256_claim_by_sha256 ON sha256_claim (namespace, sha256);
"""
SCHEMAS = {1: FIRST, 2: FIRST + SECOND, 3: FIRST + SECOND + THIRD, 4: FIRST + SECOND + THIRD + FOURTH}
SCHEMAS[5] = SCHEMAS[4] + FIFTH
SCHEMAS[6] = SCHEMAS[5] + SIXTH
SCHEMAS[7] = SCHEMAS[6] + SEVENTH


def age(root: Path, version: int) -> None:
    """Leave a store as an older release would have: its rows in an index of that time, and no key with a generation."""
    drop_generations(root)
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


@pytest.mark.parametrize("version", range(1, 7))
def test_a_sha256_of_an_older_release_is_a_claim_of_all_who_have_the_file(
    root: Path, sample: Sample, version: int
) -> None:
    """It was the word of the first uploader. Nothing that such a release knew counts as computed."""
    with EmbeddedCas.open(root) as cas:
        for namespace in ("anna", "bert"):
            upload(cas.in_namespace(namespace), sample)
    age(root, version)
    word = bytes(range(32))
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection, connection:
        connection.execute("UPDATE file SET sha256 = ?", (word,))
    with EmbeddedCas.open(root) as cas, cas.index.snapshot() as reader:
        record = reader.file(sample.file.hash, "anna")
        assert record is not None
        assert record.sha256 == word.hex()
        for namespace in ("anna", "bert"):
            assert reader.file_by_sha256(namespace, word) == (record, False)
        assert reader.file_by_sha256("carl", word) is None


@pytest.mark.parametrize("version", SCHEMAS)
def test_objects_of_an_older_release_are_served_as_they_are_and_healed(
    root: Path, sample: Sample, version: int
) -> None:
    """They have no generation and no checksums; new ones beside them, and those in place of damaged ones, have both."""
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
        with cas.index.snapshot() as reader:
            [shard] = [row.hash for row in reader.shards_after(None)]
    age(root, version)
    old_xorb, old_shard = root / xorb_key(sample.xorb.hash), root / shard_key(shard)
    old_xorb.write_bytes(in_format_1(sample))
    old = {old_xorb: old_xorb.read_bytes(), old_shard: old_shard.read_bytes()}
    with EmbeddedCas.open(root) as cas:
        for read_data in (False, True):
            assert check(cas, checksums=True, read_data=read_data, dry_run=True).problems == ()
        assert check(cas).notes == ()
        assert read_back(cas, sample.file.hash) == sample.data
        upload(cas, sample)
        assert {path: path.read_bytes() for path in old} == old
        assert len(data_in(cas.blobs)) == 2, "nothing was added"
        new = make_sample(random_bytes(50_000, 7))
        assert read_back(cas, upload(cas, new)) == new.data
        assert len(data_in(cas.blobs)) == 4
        for path in old:
            path.unlink()
        assert read_back(cas, upload(cas, sample)) == sample.data
        verify_invariants(cas)
        assert not any(path.exists() for path in old), "no key is written twice"
        healed = xorb_path(root, sample.xorb.hash), shard_path(root, shard)
        assert [path.read_bytes() for path in healed] == [in_format_2(sample), old[old_shard]]
        with cas.index.snapshot() as reader:
            superseded = reader.superseded_before(cas.now() + 1)
        assert {root / key for key in superseded} == {*old}


@pytest.mark.parametrize("version", SCHEMAS)
def test_a_store_that_is_migrated_while_it_is_open_elsewhere_goes_on(root: Path, sample: Sample, version: int) -> None:
    """Two processes that open it at once migrate it once."""
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    age(root, version)
    with EmbeddedCas.open(root) as one, EmbeddedCas.open(root) as two:
        assert read_back(one, sample.file.hash) == read_back(two, sample.file.hash) == sample.data


def schema_of(path: Path) -> dict[str, str]:
    """The statements that make the tables and indexes of a database, in one spelling."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: re.sub(r"\s*([(),])\s*", r"\1", " ".join(sql.split())).replace('"', "") for name, sql in found}


def make(path: Path, version: int) -> None:
    """An empty index of an older release."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMAS[version])
        connection.execute("INSERT INTO schema_version VALUES (?)", (version,))


def test_the_steps_lead_from_each_release_to_the_tables_of_this_one(tmp_path: Path) -> None:
    new = tmp_path / "new"
    Index(SqliteDatabase(new)).close()
    for version in SCHEMAS:
        path = tmp_path / str(version)
        make(path, version)
        Index(SqliteDatabase(path)).close()
        assert schema_of(path) == schema_of(new)


def test_the_released_steps_make_what_the_releases_made(tmp_path: Path) -> None:
    """They are frozen: a step that is changed would make another table than stores have."""
    folder = tmp_path / "steps"
    folder.mkdir()
    steps = sorted(Path(index.__file__).parent.glob("migrations/*.sql"))
    for version, step in enumerate(steps[: len(SCHEMAS)], 1):
        shutil.copy(step, folder)
        made, released = tmp_path / f"made{version}", tmp_path / f"released{version}"
        with closing(SqliteDatabase(made)) as database:
            Migrations(folder, "schema_version", "the index").run(database)
        make(released, version)
        assert schema_of(made) == schema_of(released)


@pytest.mark.parametrize("crash", [False, True])
def test_wherever_a_migration_ends_the_next_start_goes_on(tmp_path: Path, crash: bool) -> None:
    with Dying() as dying:
        expect_whole_steps(tmp_path, dying.at if crash else _fails)


def expect_whole_steps(tmp_path: Path, fails_at: Callable[[Path, int], bool]) -> None:
    """Migrate a store, and let that fail at its first, its second, … operation; the next start goes on."""
    Index(SqliteDatabase(tmp_path / "new")).close()
    versions = set()
    for number in range(200):
        path = tmp_path / str(number)
        make(path, 1)
        if not (fails := fails_at(path, number)):
            break
        with closing(sqlite3.connect(path)) as connection:
            [(version,)] = connection.execute("SELECT version FROM schema_version").fetchall()
        if version not in versions:
            versions.add(version)
            make(reached := tmp_path / f"version {version}", version)
        assert schema_of(path) == schema_of(reached), "a step is whole, or not begun"
        Index(SqliteDatabase(path)).close()
        assert schema_of(path) == schema_of(tmp_path / "new")
    assert not fails
    assert versions == set(range(1, MIGRATIONS.newest))


def _fails(path: Path, number: int) -> bool:
    """True if a migration did not end, because its operation of this number failed."""
    with FaultPlan(fail_at=number).installed() as plan, suppress(StorageFullError):
        Index(SqliteDatabase(path)).close()
    return plan.has_failed


class Dying:
    """A process that forks one for each migration, which dies at an operation of it. A context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CRASHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def at(self, path: Path, number: int) -> bool:
        """True if the migration died, at its operation of this number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(number, path, file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        assert code in (0, CRASH_EXIT_CODE)
        return code != 0


CRASHES = """
import os
import sys
from pathlib import Path
from typing import Self
from xetstore.cas.index import Index
from xetstore.database.sqlite import SqliteDatabase
from xetstore.testing import FaultPlan
for line in sys.stdin:
    number, path = line.rstrip("\\n").split(" ", 1)
    child = os.fork()
    if child == 0:
        with FaultPlan(fail_at=int(number), crash=True).installed():
            Index(SqliteDatabase(Path(path))).close()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_the_release_before_refuses_a_store_of_this_one(root: Path) -> None:
    """It would not find the object of a shard, which has a generation."""
    EmbeddedCas.open(root).close()
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchone() == (MIGRATIONS.newest,)
    assert MIGRATIONS.newest == 8
