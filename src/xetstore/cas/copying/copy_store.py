"""copy_store(): everything that a store has acknowledged, into another store, verified on the way in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xetstore.access.secrets import Secrets
from xetstore.cancellation import Cancellation
from xetstore.cas.check import Problem
from xetstore.cas.copying.files import FileCopier
from xetstore.cas.copying.position import Position, read_position, write_position
from xetstore.cas.copying.run import CopyTally, Run
from xetstore.cas.copying.secrets import copy_secrets
from xetstore.cas.copying.shards import ShardCopier
from xetstore.cas.copying.xorbs import XorbCopier
from xetstore.cas.index.queries.copying import NewRows
from xetstore.cas.progress import StoreProgress
from xetstore.cas.service import EmbeddedCas
from xetstore.platform.threads import Threads

DEFAULT_JOBS: Final = max(4, os.cpu_count() or 1)
"""The xorbs that are copied at a time, 1 MiB of each in memory."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The outcome of a copy: what was added to the target, or would be, and what could not be copied.

    ``compared`` rows of the source were read, of its xorbs, files and shards; ``compared_all`` is False if these were
    only the ones that are new since the last copy.
    """

    added: CopyTally
    problems: tuple[Problem, ...]
    compared: int
    compared_all: bool


def copy_store(
    source: EmbeddedCas,
    target: EmbeddedCas,
    *,
    since_last: bool = False,
    dry_run: bool = False,
    jobs: int = DEFAULT_JOBS,
    secrets: tuple[Secrets, Secrets] | None = None,
    names: Callable[[Run, FileCopier], None] | None = None,
    progress: StoreProgress | None = None,
    cancellation: Cancellation | None = None,
) -> CopyReport:
    """Copy a store into another one, which keeps all that it has: afterwards it has both.

    The copy is of the source as it was when the call began, and it may be in use meanwhile; so may the target. Xorbs
    are decoded and hashed as they come in, each file's hash is recomputed, and a file is registered after all its
    xorbs are durable: killed at any moment, the target is in order, and the same call goes on where this one was. Of
    that which the target has, rows are compared and nothing is read.

    What is damaged in the source is a problem of the report, with the files that need it; all else is copied. With
    ``since_last`` only rows are read that are new since the last copy that had no problem. ``secrets`` are those of
    both stores, to be copied too. ``names`` is called when all else is there, to copy what names the files: see
    :class:`~xetstore.hub.copying.names.NamesCopier`. Raises what the two stores raise, and InterruptedCallError.
    """
    # Of its own: one xorb that fails ends the others of this copy, and nothing else of the caller's.
    ending = Cancellation() if cancellation is None else cancellation.child()
    run = Run(source, target, Threads(jobs, "copy-store"), ending, is_dry=dry_run, progress=progress)
    started_at = source.now()
    with source.index.snapshot() as reader:
        last, source_id = reader.last_ids(), reader.store_id()
    with target.index.snapshot() as reader:
        target_last = reader.last_ids()
    # A store from before there were ids, which cannot be written to, has none: it is compared as a whole each time.
    earlier = read_position(target.blobs, source_id) if source_id is not None else None
    new = NewRows(last)
    if since_last and earlier is not None:
        new = earlier.rows_behind(last, target=target_last, now=started_at)
    try:
        if secrets is not None and not dry_run:
            copy_secrets(*secrets, target.blobs, source_id, now=started_at)
        xorbs = XorbCopier(run)
        files = FileCopier(run, xorbs)
        shards = ShardCopier(run, xorbs, files)
        xorbs.copy_marked()
        files.copy_broken()
        shards.copy_marked()
        xorbs.copy_new(new)
        # The shards bring their files; then come files whose shards are damaged, and grants of those that are there.
        shards.copy_new(new)
        files.copy_new(new)
        if source_id is not None and not run.problems and not dry_run:
            with target.index.snapshot() as reader:
                target_last = reader.last_ids()
            write_position(target.blobs, source_id, Position(started_at, last, target_last))
        if names is not None:
            names(run, files)
    finally:
        run.threads.shutdown(wait=False, cancel_futures=True)
    return CopyReport(run.tally, tuple(run.problems.values()), run.compared, compared_all=new == NewRows(last))
