"""collect(): the steps of a collection, in their order.

What is deleted by one step waits for the end of its grace before a later one goes on with it: the grants of a file,
the file, the xorbs that were of no other, their objects. So each collection does a part, and the next one the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from xetstore.cas.collecting import objects, rows
from xetstore.cas.collecting.run import CollectReport, Run
from xetstore.cas.grace import Grace
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle

DEFAULT: Final = Grace()

_STEPS: Final[dict[str, Callable[[Run, str], None]]] = {
    "grants": rows.expire_grants,
    "files": rows.delete_files,
    "xorbs": rows.doom_xorbs,
    "due": rows.delete_xorbs,
    "replaced": objects.remove_replaced,
    "abandoned": objects.remove_abandoned,
}


def collect(
    cas: EmbeddedCas,
    lease: Lease | None,
    grace: Grace = DEFAULT,
    throttle: Throttle | None = None,
    *,
    dry_run: bool = False,
    listing_seconds: float = 0.0,
) -> CollectReport:
    """Delete what nothing names any more, in all namespaces, while the store is in use.

    ``lease`` is that of the chore ``collect``; it may be None with ``dry_run``, which tells what would go now, and
    changes nothing. Where objects were last listed less than ``listing_seconds`` ago, they are not listed again: it
    takes a request for each thousand of them, to find what uploads left behind that were cut off.

    Raises LeaseLostError once another runner has taken over, and InterruptedCallError as the throttle does: what is
    left is for the next collection, which goes on where this one was.
    """
    run = Run(cas, None if dry_run else lease, grace, throttle or Throttle())
    report, last = run.report, _last_report(cas)
    is_listed = run.began_at - float(last.get("listed_at") or 0.0) < listing_seconds
    steps = [*_STEPS]
    step, behind = run.begin()
    for name in steps[steps.index(step) if step in steps else 0 :]:
        if name == "abandoned" and is_listed:
            report.abandoned_objects = int(last.get("abandoned_objects") or 0)
            continue
        run.came_to(name, "")
        _STEPS[name](run, behind)
        behind = ""
    run.end()
    with cas.index.snapshot() as reader:
        report.doomed_xorbs, report.doomed_bytes, report.first_due = reader.doomed(
            unused=grace.unused, offered=grace.unused + grace.offer
        )
        report.deleted_grants, deleted_at = reader.deleted_grants()
    report.first_expiry = None if deleted_at is None else deleted_at + grace.undelete
    report.listed_at = float(last.get("listed_at") or 0.0) if is_listed else run.began_at
    return report


def _last_report(cas: EmbeddedCas) -> dict[str, Any]:
    """The report of the last collection."""
    with cas.index.snapshot() as reader:
        row = reader.chore(COLLECT)
    report: dict[str, Any] = json.loads(row.report) if row is not None and row.report else {}
    return report
