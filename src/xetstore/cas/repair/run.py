"""Run: one repair under way, and all that its parts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from xetstore.cas.index import Writer
from xetstore.cas.lease import Lease
from xetstore.cas.repair.quarantine import set_aside
from xetstore.cas.repair.report import Repaired, RepairReport, Unrepaired
from xetstore.cas.repair.sources import Source
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle
from xetstore.errors import IntegrityError, NotFoundError, UsageError

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """A repair of ``cas``. Without ``lease`` nothing is changed: it tells what would be."""

    cas: EmbeddedCas
    lease: Lease | None
    sources: Sequence[Source] = ()
    throttle: Throttle = field(default_factory=Throttle)
    report: RepairReport = field(default_factory=RepairReport)

    @property
    def is_dry(self) -> bool:
        """True if nothing is to be changed."""
        return self.lease is None

    def require(self, writer: Writer) -> None:
        """Raise LeaseLostError if another runner has taken over."""
        assert self.lease is not None
        self.lease.require(writer)

    def change(self, work: Callable[[Writer], T]) -> T:
        """Change the index, as the one runner that may."""

        def fenced(writer: Writer) -> T:
            self.require(writer)
            return work(writer)

        return self.cas.index.change(fenced)

    def set_aside(self, key: str) -> None:
        """Move an object into quarantine. One that cannot be read, or has no key, stays where it is, which is noted."""
        try:
            aside = set_aside(self.cas.blobs, key)
        except (IntegrityError, NotFoundError, UsageError) as error:
            self.report.notes.append(f"{key} stays where it is, and no row names it: {error}")
            return
        if aside is not None:
            self.report.quarantined.append(aside)

    def mended(self, name: str, how: str) -> None:
        """Note what was mended, or would be."""
        self.report.repaired.append(Repaired(name, how))

    def left(self, name: str, why: str) -> None:
        """Note what stays as it is."""
        self.report.unrepaired.append(Unrepaired(name, why))
