"""Run: one repair under way, and all that its parts share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xetstore.cas.index import Writer
from xetstore.cas.lease import Lease
from xetstore.cas.progress import StoreProgress
from xetstore.cas.repair.quarantine import set_aside
from xetstore.cas.repair.report import Repaired, RepairReport, Unrepaired
from xetstore.cas.repair.sources import Source
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle
from xetstore.errors import IntegrityError, NotFoundError, UsageError

T = TypeVar("T")

KEPT_SECONDS: Final = 15.0
"""The time after which a lease, which lasts a minute, is renewed."""


@dataclass(slots=True)
class Run:
    """A repair of ``cas``. Without ``lease`` nothing is changed: it tells what would be."""

    cas: EmbeddedCas
    lease: Lease | None
    sources: Sequence[Source] = ()
    throttle: Throttle = field(default_factory=Throttle)
    progress: StoreProgress | None = None
    report: RepairReport = field(default_factory=RepairReport)
    _kept_at: float = field(default_factory=time.monotonic)

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
        assert self.lease is not None
        return self.lease.change(work)

    def keep(self) -> None:
        """Keep the lease, between steps that change nothing. Raises LeaseLostError, and as the throttle does."""
        self.throttle.rest()
        if self.lease is not None and time.monotonic() - self._kept_at > KEPT_SECONDS:
            self.lease.renew()
            self._kept_at = time.monotonic()

    def total(self, nbytes: int) -> None:
        """Tell the progress of the check, which comes first, how much there is to do."""
        if self.progress is not None:
            self.progress.total(nbytes)

    def advance(self, *, logical: int = 0) -> None:
        """Tell it how much of that was done; a check of all data takes longer than a lease lasts."""
        self.keep()
        if self.progress is not None:
            self.progress.advance(logical=logical)

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
