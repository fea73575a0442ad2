"""Rows that were read lately: of one object each, and a bounded number of them."""

from __future__ import annotations

from xetstore.cas.index import XorbRow
from xetstore.cas.seen_rows import SeenRows
from xetstore.protocol.hashes import Hash


def row(number: int, generation: str = "") -> XorbRow:
    return XorbRow(number, Hash(number.to_bytes(32, "little")), 100, 200, 1, generation)


def noted(seen: SeenRows, *rows: XorbRow) -> None:
    seen.note({row.hash: row for row in rows})


def test_a_row_is_that_of_one_object() -> None:
    seen = SeenRows()
    noted(seen, row(1), row(2, "ab"))
    assert seen.get(row(1).hash, "") == row(1)
    assert seen.get(row(2).hash, "ab") == row(2, "ab")
    assert seen.get(row(2).hash, "") is None
    assert seen.get(row(3).hash, "") is None
    noted(seen, row(2, "cd"))
    assert seen.get(row(2).hash, "ab") is None


def test_the_number_is_bounded_and_the_oldest_go() -> None:
    seen = SeenRows(10)
    for number in range(100):
        noted(seen, row(number))
    known = [number for number in range(100) if seen.get(row(number).hash, "") is not None]
    assert 5 <= len(known) <= 10
    assert known == list(range(100 - len(known), 100))
    noted(seen, *map(row, range(200, 300)))
    assert sum(seen.get(row(number).hash, "") is not None for number in range(300)) <= 10
