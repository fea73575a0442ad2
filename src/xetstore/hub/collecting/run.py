"""NamesRun: one collection of names, the moments that it goes by, and what it has taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from xetstore.cas.grace import Grace
from xetstore.cas.index import Writer
from xetstore.cas.lease import Lease
from xetstore.cas.throttle import Throttle
from xetstore.hub.queries import HubWriter
from xetstore.hub.service import EmbeddedHub

T = TypeVar("T")


@dataclass(slots=True)
class NamesReport:
    """The names that a collection took away for good, or would.

    ``repositories`` ended; ``git_objects``, of which ``commits``, that nothing leads to; ``bucket_files`` that can be
    given back no more; ``parts`` of uploads that were given up; ``grants`` of files that nothing names, which can be
    given back for a while yet. ``looked_through`` are repositories, ``skipped`` those whose history cannot be read.
    """

    repositories: int = 0
    git_objects: int = 0
    commits: int = 0
    bucket_files: int = 0
    parts: int = 0
    grants: int = 0
    looked_through: int = 0
    skipped: int = 0


@dataclass(slots=True)
class NamesRun:
    """One collection. ``lease`` is None where it only tells what would go. Not thread-safe."""

    hub: EmbeddedHub
    lease: Lease | None
    grace: Grace
    throttle: Throttle
    report: NamesReport = field(default_factory=NamesReport)
    began_at: float = 0.0

    def __post_init__(self) -> None:
        self.began_at = self.hub.now()

    @property
    def is_dry(self) -> bool:
        """True if nothing is to be changed."""
        return self.lease is None

    @property
    def before(self) -> float:
        """The time before which something was deleted that cannot be given back any more."""
        return self.began_at - self.grace.undelete

    def change(self, work: Callable[[HubWriter, Writer], T]) -> T:
        """Write by a short transaction, as the one runner that has the lease, and rest. Raises LeaseLostError."""
        assert self.lease is not None
        done = self.lease.change(lambda writer: work(HubWriter(writer.connection), writer))
        self.throttle.rest()
        return done
