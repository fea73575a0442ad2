"""Numbered steps: one after the other, all or none, and never back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from xetstore.database.migrations import Migrations
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import DamagedError, UsageError

FIRST = """-- Colours; and {row_id} in a remark.
CREATE TABLE colour (id {row_id} NOT NULL, name {bytes} NOT NULL, PRIMARY KEY (id));
-- The version.
CREATE TABLE version_of_colours (version INTEGER NOT NULL);
"""
SECOND = "INSERT INTO colour (name) VALUES ('red');\nINSERT INTO colour (name) VALUES ('blue');\n"


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "0001_first.sql").write_text(FIRST)
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    with closing(SqliteDatabase(tmp_path / "colours.sqlite3")) as database:
        yield database


def migrated(steps: Path, database: SqliteDatabase) -> int:
    """The version to which the steps of a folder have brought a database."""
    migrations = Migrations(steps, "version_of_colours", "the list of colours")
    migrations.run(database)
    with database.snapshot() as connection:
        return migrations.version(connection)


def test_steps_are_taken_once_and_in_order(steps: Path, database: SqliteDatabase) -> None:
    assert migrated(steps, database) == 1
    (steps / "0002_two.sql").write_text(SECOND)
    (steps / "0003_three.sql").write_text("DELETE FROM colour WHERE name = 'red';")
    for _ in range(2):
        assert migrated(steps, database) == 3
        with database.snapshot() as connection:
            assert [*connection.rows("SELECT id, name FROM colour")] == [(2, "blue")]


def test_a_step_that_fails_leaves_the_version_before(steps: Path, database: SqliteDatabase) -> None:
    assert migrated(steps, database) == 1
    (steps / "0002_two.sql").write_text(SECOND)
    broken = steps / "0003_three.sql"
    broken.write_text("CREATE TABLE shape (name TEXT);\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(DamagedError):
        migrated(steps, database)
    with database.snapshot() as connection:
        assert connection.value("SELECT version FROM version_of_colours") == 1
        assert connection.value("SELECT count(*) FROM colour") == 0
        assert not connection.has_table("shape")
    broken.write_text("CREATE TABLE shape (name TEXT);\n")
    assert migrated(steps, database) == 3


def test_a_newer_version_is_refused(steps: Path, database: SqliteDatabase) -> None:
    migrated(steps, database)
    with database.transaction() as connection:
        connection.change("UPDATE version_of_colours SET version = 7")
    with pytest.raises(UsageError, match="list of colours has schema version 7; this xetstore knows up to 1"):
        migrated(steps, database)
