"""Progress: where care for a store counts the bytes that it goes through."""

from __future__ import annotations

from typing import Protocol


class StoreProgress(Protocol):
    """Receives counts of stored bytes: those to be checked, copied or registered, and those that were."""

    def total(self, nbytes: int) -> None:
        """Announce bytes."""

    def advance(self, *, logical: int = 0) -> None:
        """Count bytes that were done since the last call."""
