"""A database of any engine: one text of a statement, and a transaction that is whole or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.database.connection import Connection
from xetstore.database.database import Database
from xetstore.database.sqlite import SqliteDatabase


@pytest.fixture(params=[*engines.BOTH, "memory"])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    is_in_memory = request.param == "memory"
    opened = SqliteDatabase.in_memory() if is_in_memory else engines.opening(request.param, tmp_path, request)()
    with closing(opened) as database:
        with database.transaction() as connection:
            types = connection.dialect.types
            connection.change("CREATE TABLE one (number INTEGER PRIMARY KEY, name {bytes} UNIQUE)".format_map(types))
            rows = [{"number": number, "name": bytes([number])} for number in range(10)]
            connection.change_many("INSERT INTO one (number, name) VALUES (:number, :name)", rows)
        yield database


def numbers(connection: Connection, condition: str, **values: object) -> list[int]:
    return [number for (number,) in connection.rows(f"SELECT number FROM one WHERE {condition} ORDER BY 1", values)]


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        assert connection.change("DELETE FROM one WHERE number < :end", {"end": 7}) == 7
        raise ZeroDivisionError
    with database.snapshot() as connection:
        assert numbers(connection, "TRUE") == [*range(10)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_a_list_of_any_length_is_that_list(database: SqliteDatabase, count: int) -> None:
    some = [*range(1, 1 + count)]
    with database.snapshot() as connection:
        assert numbers(connection, "number IN (:some)", some=some) == some
        others = sorted({*range(10)} - {*some})
        assert numbers(connection, "number NOT IN (:some) AND number < :end", some=some, end=10) == others
        asked = connection.rows(
            "SELECT asked.value, one.number FROM numbers(:some) AS asked JOIN one ON one.number = asked.value + 1",
            {"some": connection.numbers([0, 4])},
        )
        assert [*asked] == [(0, 1), (4, 5)]


def test_of_many_values_each_is_found_once(database: Database) -> None:
    names = [bytes([number % 256, number // 256]) for number in range(2000)]
    with database.snapshot() as connection:
        found = connection.rows_in("SELECT number FROM one WHERE name IN (:values)", [*names, b"\3", b"\4", b"\3"])
        assert sorted(found) == [(3,), (4,)]


def test_of_many_rows_those_are_told_that_were_added(database: Database) -> None:
    statement = "INSERT INTO one (number, name) VALUES (:number, :name) ON CONFLICT (number) DO NOTHING"
    rows = [{"number": number, "name": None} for number in range(5, 15)]
    with database.transaction() as connection:
        assert sorted(connection.add_many(statement, rows, "number")) == [10, 11, 12, 13, 14]
        assert connection.add_many(statement, rows, "number") == []
        assert connection.change_in("DELETE FROM one WHERE number IN (:values)", range(12, 3000)) == 3
        connection.change_many("UPDATE one SET name = :name WHERE number = :number", rows[:2])
    with database.snapshot() as connection:
        assert numbers(connection, "name IS NULL") == [5, 6, 10, 11]


def test_a_few_values_that_a_query_finds_are_looked_up(database: Database) -> None:
    statement = """
        SELECT asked.value, one.number FROM numbers(:asked) AS asked JOIN one ON one.number IN few(
            SELECT other.number FROM one AS other WHERE other.number > asked.value ORDER BY other.number LIMIT :most
        )
    """
    with database.snapshot() as connection:
        asked = {"asked": connection.numbers([0, 7, 9]), "most": 2}
        assert sorted(connection.rows(statement, asked)) == [(0, 1), (0, 2), (7, 8), (7, 9)]
        assert [*connection.rows(statement, asked | {"asked": connection.numbers([])})] == []
    with database.transaction() as connection:
        kept = connection.rows_in("SELECT number FROM one WHERE number IN (:values) FOR KEY SHARE", [3, 4, 3])
        assert sorted(kept) == [(3,), (4,)]
        assert [*connection.rows_by_part("SELECT number FROM one WHERE number < 2 ORDER BY 1")] == [(0,), (1,)]
