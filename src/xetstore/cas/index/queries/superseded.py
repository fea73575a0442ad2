"""Objects in whose place others count: a reader that has begun gets done, then they are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xetstore.cas.index.queries.rows import PAGE_ROWS, Questions

_SUPERSEDED: Final = f"""
SELECT key FROM superseded_object WHERE created_at < :moment AND key > :behind ORDER BY key LIMIT {PAGE_ROWS}
"""
_LISTED: Final = "SELECT key FROM superseded_object WHERE key IN (:values)"
_SUPERSEDE: Final = """
INSERT INTO superseded_object (key, created_at) VALUES (:key, :now) ON CONFLICT (key) DO NOTHING
"""
_FORGET_SUPERSEDED: Final = "DELETE FROM superseded_object WHERE key IN (:values)"


class SupersededQueries(Questions):
    """Questions about objects in whose place others count."""

    def superseded_before(self, moment: float, behind: str = "") -> list[str]:
        """The next page of keys of objects in whose place others, or none, have counted since before ``moment``."""
        return [key for (key,) in self.connection.rows(_SUPERSEDED, {"moment": moment, "behind": behind})]

    def superseded_of(self, keys: Iterable[str]) -> set[str]:
        """Those of these keys that are of such objects, however long."""
        return {key for (key,) in self.connection.rows_in(_LISTED, keys)}


class SupersededChanges(Questions):
    """Changes to objects in whose place others count."""

    def supersede(self, key: str, *, now: float) -> None:
        """An object in whose place another one counts: to be removed later."""
        self.connection.change(_SUPERSEDE, {"key": key, "now": now})

    def forget_superseded(self, keys: Iterable[str]) -> None:
        """These objects are gone."""
        self.connection.change_in(_FORGET_SUPERSEDED, keys)
