"""SeenRows: the rows of xorbs that were read lately, for the time in which the index does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.protocol.hashes import Hash

MOST_ROWS: Final = 16_384
"""Rows that are remembered, of some 400 bytes: those of files of 1 TB."""


class SeenRows:
    """Rows of xorbs, of which the older half is forgotten at a time. Thread-safe.

    One that is remembered tells of an object all that it ever told, because no key is written twice; but not that it
    still counts.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._half = most // 2
        self._young: dict[Hash, XorbRow] = {}
        self._old: dict[Hash, XorbRow] = {}

    def note(self, rows: Mapping[Hash, XorbRow]) -> None:
        """Remember rows that were read just now. One step, however many these are: every reconstruction calls it."""
        if len(self._young) + len(rows) > self._half:
            self._old, self._young = self._young, {}
            rows = dict(islice(rows.items(), self._half))
        self._young.update(rows)

    def get(self, xorb: Hash, generation: str) -> XorbRow | None:
        """The row of this object, or None."""
        row = self._young.get(xorb) or self._old.get(xorb)
        return row if row is not None and row.generation == generation else None
