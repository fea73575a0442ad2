"""copy_store(): all that a store has into another one: objects, files and grants, and then the names of them."""

from __future__ import annotations

from dataclasses import dataclass

from xetstore.access.secrets import Secrets
from xetstore.cancellation import Cancellation
from xetstore.cas.check import Problem
from xetstore.cas.copying.copy_store import DEFAULT_JOBS, CopyReport
from xetstore.cas.copying.copy_store import copy_store as copy_objects
from xetstore.cas.progress import StoreProgress
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.snapshots.take import take_snapshot_now
from xetstore.hub.copying.names import NamesCopier
from xetstore.hub.copying.rows import NamesTally
from xetstore.hub.snapshot import NAMES


@dataclass(frozen=True, slots=True)
class FullReport:
    """The outcome of a copy: that of ``objects``, with files and grants; the names that were added to the target, or
    would be; and what could not be copied, of both.
    """

    objects: CopyReport
    names: NamesTally
    problems: tuple[Problem, ...]


def copy_store(
    source: EmbeddedCas,
    target: EmbeddedCas,
    *,
    since_last: bool = False,
    dry_run: bool = False,
    jobs: int = DEFAULT_JOBS,
    tokens: bool = False,
    secrets: tuple[Secrets, Secrets] | None = None,
    progress: StoreProgress | None = None,
    cancellation: Cancellation | None = None,
) -> FullReport:
    """Copy a store with its names, as :func:`xetstore.cas.copying.copy_store.copy_store` does without them.

    ``tokens`` are those of users. The target gets a snapshot of its index, so its objects alone can be restored from.
    Raises what that function raises.
    """
    names = NamesCopier(since_last, tokens)
    report = copy_objects(
        source,
        target,
        since_last=since_last,
        dry_run=dry_run,
        jobs=jobs,
        secrets=secrets,
        names=names,
        progress=progress,
        cancellation=cancellation,
    )
    if not dry_run:
        take_snapshot_now(target, [NAMES])
    return FullReport(report, names.tally, (*report.problems, *names.problems.values()))
