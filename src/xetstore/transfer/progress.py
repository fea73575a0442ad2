"""Progress of a transfer, told while it runs."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives byte counts from worker threads; must be quick and thread-safe."""

    def total(self, nbytes: int) -> None:
        """``nbytes`` more logical bytes will be moved."""

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Bytes moved since the last call: of the file, and how many of them were new or deduplicated."""


class NoProgress:
    """Progress that is not watched."""

    def total(self, nbytes: int) -> None:
        """Ignore."""

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Ignore."""
