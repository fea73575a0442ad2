"""RebuildRun: a store whose index is being made anew, and all that a rebuild has found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.cas.check import Problem
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.rebuilding import RebuildRows
from xetstore.cas.lease import Lease
from xetstore.cas.progress import StoreProgress
from xetstore.cas.service import EmbeddedCas
from xetstore.platform.threads import Threads

T = TypeVar("T")

MOST_LISTED: Final = 10_000
"""The most problems that a report lists; more are only counted."""


@dataclass(slots=True)
class RebuildTally:
    """Counts of a rebuild: what was registered and restored, and what could not be.

    ``found`` files came after the snapshot; ``deleted`` were deleted after it, by ``entries`` of the journal.
    """

    xorbs: int = 0
    shards: int = 0
    files: int = 0
    bytes_read: int = 0
    rows: int = 0
    found: int = 0
    entries: int = 0
    deleted: int = 0
    lost_files: int = 0
    problems: int = 0


@dataclass(slots=True)
class RebuildRun:
    """One rebuild. Threads of the pool read objects; everything else is done by the calling thread."""

    cas: EmbeddedCas
    lease: Lease
    threads: Threads
    cancellation: Cancellation
    checksums: bool = False
    read_data: bool = False
    progress: StoreProgress | None = None
    tally: RebuildTally = field(default_factory=RebuildTally)
    problems: list[Problem] = field(default_factory=list)

    def change(self, work: Callable[[Writer, RebuildRows], T]) -> T:
        """Change the index, as long as no other process has taken over."""
        self.cancellation.check()
        return self.lease.change(lambda writer: work(writer, RebuildRows(writer.connection)))

    def report(self, problem: Problem) -> None:
        """Note something that could not be restored."""
        self.tally.problems += 1
        if len(self.problems) < MOST_LISTED:
            self.problems.append(problem)
