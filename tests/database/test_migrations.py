"""Numbered steps: one after the other, each whole or not at all, and never back. On both engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.database.connection import Connection
from xetstore.database.database import Database
from xetstore.database.migrations import Migrations
from xetstore.errors import DamagedError, UsageError

ENGINES = engines.BOTH

FIRST = """-- Colours; and {row_id} in a remark.
CREATE TABLE colour (id {row_id} NOT NULL, name VARCHAR(9) NOT NULL, PRIMARY KEY (id));
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
def database(opening: engines.Opening) -> Iterator[Database]:
    with closing(opening()) as database:
        yield database


def migrated(steps: Path, database: Database) -> int:
    """The version to which the steps of a folder have brought a database."""
    migrations = Migrations(steps, "version_of_colours", "the list of colours")
    migrations.run(database)
    with database.snapshot() as connection:
        return migrations.version(connection)


def test_steps_are_taken_once_and_in_order(steps: Path, database: Database) -> None:
    assert migrated(steps, database) == 1
    (steps / "0002_two.sql").write_text(SECOND)
    (steps / "0003_three.sql").write_text("DELETE FROM colour WHERE name = 'red';")
    for _ in range(2):
        assert migrated(steps, database) == 3
        with database.snapshot() as connection:
            assert [*connection.rows("SELECT id, name FROM colour")] == [(2, "blue")]


def test_an_empty_database_takes_all_steps_in_one_transaction_and_none_where_one_fails(
    steps: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[AbstractContextManager[Connection]] = []
    transaction = database.transaction

    def counted() -> AbstractContextManager[Connection]:
        begun.append(transaction())
        return begun[-1]

    monkeypatch.setattr(database, "transaction", counted)
    (steps / "0002_two.sql").write_text(SECOND)
    broken = steps / "0003_three.sql"
    broken.write_text("INSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(DamagedError):
        migrated(steps, database)
    with database.snapshot() as connection:
        assert not connection.has_table("colour")
    begun.clear()
    broken.write_text("DELETE FROM colour WHERE name = 'red';\n")
    assert migrated(steps, database) == 3
    assert len(begun) == 1


def test_a_step_that_fails_is_not_begun_and_those_before_it_are_done(steps: Path, database: Database) -> None:
    assert migrated(steps, database) == 1
    (steps / "0002_two.sql").write_text(SECOND)
    broken = steps / "0003_three.sql"
    broken.write_text("CREATE TABLE shape (name TEXT);\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(DamagedError):
        migrated(steps, database)
    with database.snapshot() as connection:
        assert connection.value("SELECT version FROM version_of_colours") == 2
        assert connection.value("SELECT count(*) FROM colour") == 2
        assert not connection.has_table("shape")
    broken.write_text("CREATE TABLE shape (name TEXT);\n")
    assert migrated(steps, database) == 3


def test_a_newer_version_is_refused(steps: Path, database: Database) -> None:
    migrated(steps, database)
    with database.transaction() as connection:
        connection.change("UPDATE version_of_colours SET version = 7")
    with pytest.raises(UsageError, match="list of colours has schema version 7; this xetstore knows up to 1"):
        migrated(steps, database)


def test_of_many_who_start_at_once_one_takes_each_step(steps: Path, opening: engines.Opening) -> None:
    (steps / "0002_two.sql").write_text(SECOND)
    start = threading.Barrier(8)
    versions: list[int] = []

    def open_it() -> None:
        with closing(opening()) as database:
            start.wait(60)
            versions.append(migrated(steps, database))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [2] * 8
    with closing(opening()) as database, database.snapshot() as connection:
        assert [*connection.rows("SELECT id, name FROM colour ORDER BY id")] == [(1, "red"), (2, "blue")]
