"""The id of the store, by which its index and its objects tell that they belong together."""

from __future__ import annotations

from typing import Final

from xetstore.cas.index.index import STORE_ID
from xetstore.cas.index.queries.rows import Questions

_SET_STORE_ID: Final = "INSERT INTO store (number, id) VALUES (1, :id) ON CONFLICT (number) DO NOTHING"


class StoreQueries(Questions):
    """Questions about the store itself."""

    def store_id(self) -> str | None:
        """The id of the store, or None if it has none yet."""
        store_id: str | None = self.connection.value(STORE_ID)
        return store_id


class StoreChanges(Questions):
    """Changes to the store itself."""

    def set_store_id(self, store_id: str) -> None:
        """Give the store an id, unless it has one: the first one stays."""
        self.connection.change(_SET_STORE_ID, {"id": store_id})
