"""collect_names(): the steps of a collection of names, in their order.

A repository that is done is noted in its row, so one that was cut off is gone on with by the next. A walk through a
history is begun anew then.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle
from xetstore.errors import DamagedError
from xetstore.hub.collecting.deleted import drop_bucket_files, drop_parts, end_namespaces, end_repositories
from xetstore.hub.collecting.grants import collect_grants
from xetstore.hub.collecting.history import HistoryCollector
from xetstore.hub.collecting.run import NamesReport, NamesRun
from xetstore.hub.queries.collecting import PAGE_ROWS, CollectedRow
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.tables import MIGRATIONS

if TYPE_CHECKING:
    from xetstore.cas.collecting import Names

__all__ = ["NamesReport", "collect_names", "names_to_collect"]

DEFAULT: Final = Grace()
_log = logging.getLogger("xetstore.care")


def names_to_collect(cas: EmbeddedCas) -> Names | None:
    """The part of a collection that is about names, for :func:`~xetstore.cas.collecting.together.collect_all`; None for
    a store that has none.
    """
    if not cas.index.version_of(MIGRATIONS):
        return None
    hub = EmbeddedHub(cas)
    return lambda lease, grace, throttle: asdict(collect_names(hub, lease, grace, throttle))


def collect_names(
    hub: EmbeddedHub,
    lease: Lease | None,
    grace: Grace = DEFAULT,
    throttle: Throttle | None = None,
    *,
    dry_run: bool = False,
) -> NamesReport:
    """Take names away that were deleted longer than ``grace.undelete`` ago, and what nothing leads to.

    Then the grants of files that nothing names, and that are as old, are taken away too, as by deleting these files. A
    repository is looked through when something of it was deleted as long ago, and else as often as that time passes.
    The store may be in use. With ``dry_run``, or without a lease, nothing is changed. Raises LeaseLostError once
    another runner has the chore, InterruptedCallError when the throttle is to end.
    """
    run = NamesRun(hub, None if dry_run else lease, grace, throttle or Throttle())
    end_repositories(run)
    end_namespaces(run)
    drop_bucket_files(run)
    drop_parts(run)
    behind = 0
    while True:
        with hub.snapshot() as reader:
            page = reader.due_repositories(run.before, run.before, behind)
        for row in page:
            _look_through(run, row)
        if len(page) < PAGE_ROWS:
            return run.report
        behind = page[-1].id


def _look_through(run: NamesRun, row: CollectedRow) -> None:
    history = None
    with run.hub.snapshot() as reader:
        is_walked = row.name.kind.is_git and reader.has_expired_refs(row.id, run.before)
    if is_walked:
        history = HistoryCollector(run, row)
        try:
            history.collect()
        except DamagedError as damage:
            run.report.skipped += 1
            _log.warning("nothing of the history of %s is collected: %s", row.name, damage)
            history = None
    collect_grants(run, row, history)
    run.report.looked_through += 1
    if not run.is_dry:
        run.change(lambda writer, _: writer.note_collected(row.id, run.began_at))
