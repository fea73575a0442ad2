"""Objects in whose place others count: a reader that has begun gets done, then they are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xetstore.cas.index.queries.rows import PAGE_ROWS, Questions
from xetstore.database.connection import batches

_SUPERSEDED: Final = f"SELECT key FROM superseded_object WHERE created_at < :moment LIMIT {PAGE_ROWS}"
_SUPERSEDE: Final = """
INSERT INTO superseded_object (key, created_at) VALUES (:key, :now) ON CONFLICT (key) DO NOTHING
"""
_FORGET_SUPERSEDED: Final = "DELETE FROM superseded_object WHERE key IN (:values)"


class SupersededQueries(Questions):
    """Questions about objects in whose place others count."""

    def superseded_before(self, moment: float) -> list[str]:
        """Keys of objects in whose place others have counted since before ``moment``."""
        return [key for (key,) in self.connection.rows(_SUPERSEDED, {"moment": moment})]


class SupersededChanges(Questions):
    """Changes to objects in whose place others count."""

    def supersede(self, key: str, *, now: float) -> None:
        """An object in whose place another one counts: to be removed later."""
        self.connection.change(_SUPERSEDE, {"key": key, "now": now})

    def forget_superseded(self, keys: Iterable[str]) -> None:
        """These objects are gone."""
        for batch in batches(keys):
            self.connection.change(_FORGET_SUPERSEDED, {"values": batch})
