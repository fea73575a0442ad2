"""A look into a database that must not wait: it gives up where it would, and counts each look for itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from xetstore.database.glance import Glance
from xetstore.database.sqlite import SqliteDatabase
from xetstore.database.sqlite_file import glancing_connection

# Of a thousand rows it takes some ten steps each to find none.
WALK = "SELECT 1 FROM chunk WHERE number + :more < 0"
SEARCH = "SELECT 1 FROM chunk WHERE number = :more"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "chunks.sqlite3"
    with closing(SqliteDatabase(path)) as database:
        with database.transaction() as connection:
            connection.change("CREATE TABLE chunk (number INTEGER PRIMARY KEY)")
            connection.change_many("INSERT INTO chunk VALUES (:number)", [{"number": n} for n in range(1000)])
        yield path


def glance_at(path: Path, **options: float) -> Glance:
    return Glance(lambda: glancing_connection(path), **{"slow_seconds": math.inf, **options})  # type: ignore[arg-type]


def test_a_look_tells_what_is_there_now(path: Path) -> None:
    with closing(SqliteDatabase(path, slow_look_seconds=math.inf)) as database:
        assert not database.finds_nothing(SEARCH, {"more": 7})
        assert database.finds_nothing(SEARCH, {"more": 7000})
        with database.transaction() as connection:
            connection.change("INSERT INTO chunk VALUES (7000)")
            assert database.finds_nothing(SEARCH, {"more": 7000})
        assert not database.finds_nothing(SEARCH, {"more": 7000})
        assert not database.finds_nothing("SELECT 1 FROM nowhere", {})
        assert database.finds_nothing(f"{SEARCH} AND number IN (:some)", {"more": 7, "some": [8, 9, 10]})


def test_where_no_look_can_be_had_it_tells_nothing(path: Path) -> None:
    database = SqliteDatabase(path)
    database.close()
    for other in (database, SqliteDatabase.in_memory()):
        assert not other.finds_nothing("SELECT 1 WHERE 1 = 0", {})


def test_a_look_that_takes_long_is_followed_by_none_for_a_while(path: Path) -> None:
    glance = glance_at(path, slow_seconds=-1, pause_seconds=60)
    assert glance.finds_nothing(SEARCH, {"more": -1})
    assert not glance.finds_nothing(SEARCH, {"more": -1})
    glance.close()


def test_a_look_that_would_read_many_rows_is_given_up(path: Path) -> None:
    hasty = glance_at(path, most_steps=100)
    assert not any(hasty.finds_nothing(WALK, {"more": 1}) for _ in range(5))
    # A step counts for the look it is in alone.
    assert all(hasty.finds_nothing(SEARCH, {"more": -1}) for _ in range(200))
    hasty.close()
