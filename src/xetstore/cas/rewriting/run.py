"""Run: what all steps of a rewrite share, and what they have done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.throttle import Throttle

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas

GIB = 1 << 30


@dataclass(slots=True)
class RewriteReport:
    """The work of a rewrite; of one that is dry, what it would have been.

    Bytes are those of stored chunks. ``freed_bytes`` come back when the grace of the ``xorbs_rewritten`` has passed.
    Fetches are those of whole downloads of ``files_repacked``, before and after. ``left`` are files and shards that
    changed while they were read, for the next run; ``damaged`` is what could not be read. ``stopped`` is the reason for
    which it did not come to its end.
    """

    shards_linked: int = 0
    shards_dropped: int = 0
    shards_rewritten: int = 0
    xorbs_looked_at: int = 0
    xorbs_rewritten: int = 0
    xorbs_written: int = 0
    files_rewritten: int = 0
    copied_bytes: int = 0
    freed_bytes: int = 0
    files_repacked: int = 0
    repacked_file_bytes: int = 0
    fetches_before: int = 0
    fetches_after: int = 0
    left: int = 0
    damaged: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def fetches_per_gib(self) -> tuple[float, float]:
        """Fetches per GiB of the repacked files, before and after."""
        gib = self.repacked_file_bytes / GIB or 1.0
        return self.fetches_before / gib, self.fetches_after / gib


@dataclass(slots=True)
class Run:
    """One rewrite. Not thread-safe."""

    cas: EmbeddedCas
    lease: Lease
    grace: Grace
    throttle: Throttle
    is_dry: bool
    report: RewriteReport = field(default_factory=RewriteReport)

    def rest(self) -> None:
        """Rest after a short step. Raises InterruptedCallError when the work is to end."""
        self.throttle.rest()
