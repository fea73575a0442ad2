"""The id of the store."""

from __future__ import annotations

from typing import Final

from xetstore.cas.index.queries.rows import Questions

_ID: Final = "SELECT id FROM store"
_SET_ID: Final = "INSERT INTO store (one, id) VALUES (1, :id) ON CONFLICT (one) DO NOTHING"


class StoreIdQueries(Questions):
    """The question for the id."""

    def store_id(self) -> str | None:
        """The random id of the store; None if it has none yet."""
        found: str | None = self.connection.value(_ID)
        return found


class StoreIdChanges(Questions):
    """The change of it."""

    def set_store_id(self, store_id: str) -> None:
        """Give the store its id, if it has none."""
        self.connection.change(_SET_ID, {"id": store_id})
