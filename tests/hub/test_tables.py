"""The tables of the hub."""

from __future__ import annotations

from contextlib import closing

from xetstore.cas.index import Index
from xetstore.hub.tables import MIGRATIONS


def test_rows_that_go_with_another_are_found_by_an_index() -> None:
    """Where one is deleted, a database looks for those that name it, and walks through a table that has no index."""
    unindexed = []
    with closing(Index.in_memory()) as index:
        index.migrate(MIGRATIONS)
        with index.snapshot() as reader:
            ask = reader.connection.driver.execute
            tables = [name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                indexes = [name for _, name, *_ in ask(f"PRAGMA index_list({table})")]
                keys = [[column[2] for column in ask(f"PRAGMA index_info({name})")] for name in indexes]
                references: dict[int, list[str]] = {}
                for number, _, _, column, *_ in ask(f"PRAGMA foreign_key_list({table})"):
                    references.setdefault(number, []).append(column)
                for columns in references.values():
                    if not any(set(key[: len(columns)]) == set(columns) for key in keys):
                        unindexed.append((table, columns))
    assert len(tables) > 15
    assert unindexed == []
