"""Run: one collection, the moments that it goes by, what it has deleted, and how far it has come."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xetstore.cas.grace import Grace
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.collecting import Due
from xetstore.cas.lease import Lease
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle

T = TypeVar("T")

NOTE_SECONDS: Final = 10.0
"""The time after which the lease is renewed, and the position noted."""


@dataclass(slots=True)
class CollectReport:
    """The result of a collection: what it deleted for good, or would delete.

    ``grants`` that can be given back no more, ``files``, and ``xorbs`` are rows. ``objects`` were removed, with
    ``bytes`` in all; ``shards`` of them were of shards, and ``abandoned`` of uploads that were cut off. ``doomed`` are
    the xorbs of which it saw first that no file is made of them; ``doomed_xorbs`` all that wait for the end of their
    grace, with ``doomed_bytes``; the first of them goes at ``first_due``, in unix seconds. ``deleted_grants`` can still
    be given back, the first of them until ``first_expiry``. ``abandoned_objects`` are named by no row, and too young to
    go, when the objects were listed, at ``listed_at``.
    """

    grants: int = 0
    files: int = 0
    xorbs: int = 0
    shards: int = 0
    objects: int = 0
    bytes: int = 0
    abandoned: int = 0
    doomed: int = 0
    abandoned_objects: int = 0
    doomed_xorbs: int = 0
    doomed_bytes: int = 0
    first_due: float | None = None
    deleted_grants: int = 0
    first_expiry: float | None = None
    listed_at: float = 0.0


@dataclass(slots=True)
class Run:
    """One collection. ``lease`` is None where it only tells what would go. Not thread-safe."""

    cas: EmbeddedCas
    lease: Lease | None
    grace: Grace
    throttle: Throttle
    report: CollectReport = field(default_factory=CollectReport)
    began_at: float = 0.0
    _noted_at: float = 0.0

    def __post_init__(self) -> None:
        self.began_at = self.cas.now()
        self._noted_at = time.monotonic()

    @property
    def is_dry(self) -> bool:
        """True if nothing is to be changed."""
        return self.lease is None

    @property
    def due(self) -> Due:
        """The moments before which rows are due. What is deleted or doomed by this collection itself is not."""
        return Due(
            deleted_before=self.began_at - self.grace.undelete,
            doomed_before=self.began_at - self.grace.unused,
            offered_before=self.began_at - self.grace.unused - self.grace.offer,
        )

    def change(self, work: Callable[[Writer], T]) -> T:
        """Change rows, if the lease is this one's still. Raises LeaseLostError."""
        assert self.lease is not None
        return self.lease.change(work)

    def begin(self) -> tuple[str, str]:
        """The step, and the place in it, to go on from: of a collection that was cut off, or the first."""
        if self.lease is None or self.lease.position is None:
            return "", ""
        try:
            position = json.loads(self.lease.position)
            return str(position["step"]), str(position["behind"])
        except (ValueError, TypeError, KeyError):  # of another part of the chore
            return "", ""

    def end(self) -> None:
        """Note that all steps are done: what follows under the lease may be cut off, and the next run begins anew."""
        if self.lease is not None and self.lease.position is not None:
            self.lease.note(None)

    def came_to(self, step: str, behind: str) -> None:
        """Rest. Note now and then how far it has come, behind which a step goes on."""
        now = time.monotonic()
        if self.lease is not None and now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self.lease.note(json.dumps({"step": step, "behind": behind}))
        self.throttle.rest()
