"""Connection: one SQL text of a statement for every engine, with named parameters. Dialect: where engines differ.

The text is what SQLite 3.24 and PostgreSQL 14 both take: ``ON CONFLICT``, no ``INSERT OR``, no ``rowid``. A parameter
is ``:name``. Four things are written out for the engine:

- ``IN (:values)``, and ``NOT IN (:values)``, with a list as the value of the parameter;
- ``numbers(:name)`` is a table of the numbers in a list, in a column ``value``: in it each can have a limit of its own;
- ``IN few(SELECT …)`` are a few values that a query finds, each of which is then looked up;
- ``FOR KEY SHARE`` at the end of a query keeps its rows from being deleted until the transaction ends, and
  ``FOR UPDATE`` keeps them for this transaction alone: it waits for those that keep them. With ``OF`` it is the rows of
  one of the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from xetstore.batches import batches

Row = tuple[Any, ...]
Values = Mapping[str, object]

NOTHING: Final[Values] = {}
ROWS_BY_PART: Final = 64
_NUMBERS: Final = re.compile(r"\bnumbers\(:(\w+)\)")
_PARAMETER: Final = re.compile(r":(\w+)")
_LISTED: Final = re.compile(r"\b(NOT )?IN \(:(\w+)\)")
_FEW: Final = "IN few("
_KEPT: Final = re.compile(r"\s*\bFOR (?:KEY SHARE|UPDATE)\b(?: OF \w+)?")


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The words of one engine.

    ``types`` are those of a migration: ``row_id``, ``number``, ``bytes``, ``double``; ``bytewise`` behind that of a
    text whose order is that of its bytes, and ``clustered`` behind a table whose rows lie in the order of its key.
    ``numbers`` is the table of the numbers in parameter ``{}``, which ``number_list`` gives a value. ``has_table`` is a
    query that finds a row if there is a table ``:name``.
    ``batch`` is how many values one list has at most.

    ``parameter`` is how the driver has parameter ``{}``; None if as ``:name``. ``listed`` is how it has ``IN`` and
    ``NOT IN`` of a parameter that takes a list; None if a list must be written out as many parameters. ``few`` is how
    it has ``IN`` a few values that the query ``{}`` finds. ``keeps_rows`` is True if it has ``FOR KEY SHARE`` and ``FOR
    UPDATE``: writers run side by side. Where they take turns, rows need not be kept.
    """

    name: str
    types: Mapping[str, str]
    numbers: str
    number_list: Callable[[Sequence[int]], object]
    has_table: str
    batch: int
    parameter: str | None = None
    listed: tuple[str, str] | None = None
    few: str = "IN ({})"
    keeps_rows: bool = False


class Connection:
    """A connection in a transaction or a snapshot. Not thread-safe; of no use once the block that gave it has ended.

    ``driver`` is the connection of the driver beneath.
    """

    def __init__(self, driver: Any, dialect: Dialect) -> None:
        self.driver = driver
        self.dialect = dialect
        self._cursors: list[Any] = []

    def rows(self, statement: str, values: Values = NOTHING) -> Iterator[Row]:
        """The rows of a query, as they are asked for."""
        cursor = self._run(statement, values)
        self._cursors.append(cursor)
        rows: Iterator[Row] = cursor
        return rows

    def row(self, statement: str, values: Values = NOTHING) -> Row | None:
        """The first row of a query, or None."""
        cursor = self._run(statement, values)
        row: Row | None = cursor.fetchone()
        cursor.close()
        return row

    def value(self, statement: str, values: Values = NOTHING) -> Any:
        """The first value of the first row of a query, or None."""
        row = self.row(statement, values)
        return None if row is None else row[0]

    def rows_by_part(
        self,
        statement: str,
        values: Values = NOTHING,
        *,
        at_a_time: int = ROWS_BY_PART,  # noqa: ARG002  # of engines that send them in parts
    ) -> Iterator[Row]:
        """The rows of a query that may have very many: ``at_a_time`` of them are in memory."""
        return self.rows(statement, values)

    def rows_in(self, statement: str, values: Iterable[object], others: Values = NOTHING) -> Iterator[Row]:
        """The rows of a query with ``IN (:values)``, and perhaps other parameters; of each value once."""
        for batch in batches(dict.fromkeys(values), self.dialect.batch):
            yield from self.rows(statement, {"values": batch, **others})

    def change(self, statement: str, values: Values = NOTHING) -> int:
        """Change rows by one statement; how many it were."""
        changed: int = self._run(statement, values).rowcount
        return changed

    def change_in(self, statement: str, values: Iterable[object], others: Values = NOTHING) -> int:
        """Change rows by a statement with ``IN (:values)``, and perhaps other parameters; how many it were."""
        some = batches(dict.fromkeys(values), self.dialect.batch)
        return sum(self.change(statement, {"values": batch, **others}) for batch in some)

    def change_many(self, statement: str, each: Sequence[Values]) -> None:
        """Run a statement once for each of these values. How many rows it changed, drivers do not agree to tell."""
        if each:
            cursor = self.driver.cursor()
            cursor.executemany(written(statement, self.dialect), each)
            cursor.close()

    def add_many(self, statement: str, each: Sequence[Values], key: str) -> list[Any]:
        """Run ``INSERT … ON CONFLICT DO NOTHING`` for each of these values, whose ``key`` is a column of that name.

        Returns the keys of those that added a row, in no particular order.
        """
        if not each:
            return []
        text = written(statement, self.dialect)
        cursor = self.driver.cursor()
        added = [values[key] for values in each if cursor.execute(text, values).rowcount]
        cursor.close()
        return added

    def alone_with(self, name: str, *, for_long: bool = False) -> None:
        """Be the only writer at what goes by ``name`` until the transaction ends; ``for_long`` lifts limits of time.

        Nothing needs to be done for it where writers take turns anyway.
        """

    def keep_out(self, *tables: str) -> None:
        """Keep other writers from these tables until the transaction ends, also those that keep rows of them.

        It waits for those that have begun. What they read of these tables before holds to their end.
        """

    def numbers(self, values: Iterable[int]) -> object:
        """The value of a parameter in ``numbers(:name)``."""
        return self.dialect.number_list([*values])

    def has_table(self, name: str) -> bool:
        """True if there is a table of that name."""
        return self.row(self.dialect.has_table, {"name": name}) is not None

    def end(self) -> None:
        """Let go of queries that were not read to their end: they would keep the snapshot."""
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()

    def _run(self, statement: str, values: Values) -> Any:
        cursor = self.driver.cursor()
        cursor.execute(*bound(statement, values, self.dialect))
        return cursor


def bound(statement: str, values: Values, dialect: Dialect) -> tuple[str, Values]:
    """A statement as the driver takes it, with its values: lists are written out."""
    lists = () if dialect.listed else [name for name, value in values.items() if type(value) is list]
    if not lists:
        return written(statement, dialect), values
    flat = {name: value for name, value in values.items() if type(value) is not list}
    for name in lists:
        listed: Any = values[name]
        # Its last value again, up to a power of two: ten texts are prepared, not hundreds, and none finds more rows.
        count = 1 << (len(listed) - 1).bit_length()
        statement = _with_list(statement, name, count)
        flat.update(zip(_names(name, count), [*listed, *listed[-1:] * (count - len(listed))], strict=True))
    return written(statement, dialect), flat


@lru_cache(maxsize=1024)
def written(statement: str, dialect: Dialect) -> str:
    """A statement as the driver takes it."""
    statement = _NUMBERS.sub(lambda match: dialect.numbers.format(f":{match[1]}"), statement)
    while _FEW in statement:
        before, _, rest = statement.partition(_FEW)
        end = _closing(rest)
        statement = before + dialect.few.format(rest[:end]) + rest[end + 1 :]
    if not dialect.keeps_rows:
        statement = _KEPT.sub("", statement)
    if (listed := dialect.listed) is not None:
        statement = _LISTED.sub(lambda match: listed[bool(match[1])].format(f":{match[2]}"), statement)
    if (parameter := dialect.parameter) is not None:
        statement = _PARAMETER.sub(lambda match: parameter.format(match[1]), statement)
    return statement


def _closing(text: str) -> int:
    """The place of the parenthesis that closes one which was opened before ``text``."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return place
    raise ValueError(f"a parenthesis is not closed: {text}")


@lru_cache(maxsize=1024)
def _with_list(statement: str, name: str, count: int) -> str:
    return re.sub(rf":{name}\b", ", ".join(f":{each}" for each in _names(name, count)), statement)


@lru_cache(maxsize=64)
def _names(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{number}" for number in range(count))
