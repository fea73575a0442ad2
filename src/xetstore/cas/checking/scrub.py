"""scrub(): a check of all stored bytes that never ends, a few at a time, the least recently checked ones first."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xetstore.cas.checking.objects import ObjectCheck
from xetstore.cas.index import NOWHERE, Place, ShardRow, XorbRow

if TYPE_CHECKING:
    from xetstore.cas.lease import Lease
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.throttle import Throttle

RUN_SECONDS: Final = 20.0
"""The longest run: other chores wait for their turn meanwhile."""
COUNT_SECONDS: Final = 3600.0
"""The time for which the size of the store is taken for the same: to count it, each row is looked at."""
AHEAD: Final = 1.1
"""The scrub is that much faster than it must be, so that it comes round in time."""

_PAGE_ROWS: Final = 16
_RENEW_SECONDS: Final = 15.0
_log = logging.getLogger("xetstore.cas")


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """The work of one run, in objects and bytes; ``renewed`` objects got checksums.

    ``due_bytes`` are those that should have been read by now, and were not; negative where more was read.
    ``stored_bytes`` is the size of the store, as it was counted at ``counted_at``.
    """

    objects: int
    bytes_read: int
    problems: int
    renewed: int
    due_bytes: float
    stored_bytes: int
    counted_at: float


def scrub(
    cas: EmbeddedCas, lease: Lease, throttle: Throttle, *, days: float, run_seconds: float = RUN_SECONDS
) -> ScrubReport:
    """Read as many bytes as are due since the last run, so that all are read within ``days``; at most half of the time.

    How far it is, rows and the last report tell: one that is cut off is gone on with by any runner. Damage is marked,
    and told in the log; what is marked already is not read. Raises LeaseLostError, InterruptedCallError.
    """
    now = cas.now()
    last, ended_at = _last(cas, lease.name)
    stored, counted_at = int(last.get("stored_bytes", 0)), float(last.get("counted_at", 0.0))
    if not now - COUNT_SECONDS < counted_at <= now:
        with cas.index.snapshot() as reader:
            stored, counted_at = reader.object_bytes(), now
    rate = AHEAD * stored / (days * 86400)
    due = min(float(last.get("due_bytes", 0.0)) + rate * max(now - ended_at, 0.0), float(stored))
    objects = ObjectCheck(cas, threads=1, lease=lease)
    pace = due / run_seconds
    begun = renewed_at = time.monotonic()
    looked = problems = 0
    try:
        for row in _due(cas, objects, now):
            if due <= 0 or time.monotonic() - begun >= run_seconds:
                break
            if time.monotonic() - renewed_at > _RENEW_SECONDS:
                lease.renew()
                renewed_at = time.monotonic()
            before, began = objects.bytes_read, time.monotonic()
            problem = objects.xorb(row, read=True) if isinstance(row, XorbRow) else objects.shard(row, read=True)
            if problem is not None:
                problems += 1
                _log.error("%s", problem)
            looked += 1
            nbytes, worked = objects.bytes_read - before, time.monotonic() - began
            due -= max(nbytes, 1)
            throttle.pause(max(worked, nbytes / pace - worked))
    finally:
        objects.note()
    return ScrubReport(looked, objects.bytes_read, problems, objects.renewed, due, stored, counted_at)


def _due(cas: EmbeddedCas, objects: ObjectCheck, until: float) -> Iterator[XorbRow | ShardRow]:
    """Xorbs and shards, those that were checked least recently first, each once."""
    xorbs_behind = shards_behind = NOWHERE
    while True:
        with cas.index.snapshot() as reader:
            xorbs = reader.xorbs_due(xorbs_behind, until=until, most=_PAGE_ROWS)
            shards = reader.shards_due(shards_behind, until=until, most=_PAGE_ROWS)
        page: list[tuple[Place, XorbRow | ShardRow]] = [*xorbs, *shards]
        page = sorted(page, key=lambda due: due[0][0])[:_PAGE_ROWS]
        if not page:
            return
        for place, row in page:
            if isinstance(row, XorbRow):
                xorbs_behind = place
            else:
                shards_behind = place
            yield row
        objects.note()


def _last(cas: EmbeddedCas, name: str) -> tuple[dict[str, Any], float]:
    """The last report of a chore, and when it ended; now where there is none."""
    with cas.index.snapshot() as reader:
        row = reader.chore(name)
    if row is None or row.ended_at is None or row.report is None:
        return {}, cas.now()
    return json.loads(row.report), row.ended_at
