"""rewrite(): gives back the space within xorbs, and lets shards name what is there and nothing that is gone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting.files import by_terms
from xetstore.cas.rewriting.repacking import LEAST_FETCHES, Locality, repack
from xetstore.cas.rewriting.run import RewriteReport, Run
from xetstore.cas.rewriting.shards import link_shards, name_files, rewrite_shards
from xetstore.cas.rewriting.xorbs import rewrite_xorbs
from xetstore.cas.throttle import Throttle
from xetstore.errors import StorageFullError

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas

THRESHOLD: Final = 0.25
"""The part of a xorb that may be garbage."""
LOOKS: Final = 2_000
"""Xorbs, and files, that one run of the background looks at beside those that lost something: a store of 1,000,000
files is gone through in three weeks of hours."""

_WALK: Final = "rewrite"
_FILES: Final = 500
_XORBS: Final = 256
"""The most that are looked at before the first of them is rewritten."""
_DEFAULT_GRACE: Final = Grace()
_DEFAULT_LOCALITY: Final = Locality()


@dataclass(slots=True)
class _Walk:
    """The places that the walks have reached: the last xorb, and the last file."""

    xorb: int = 0
    file: int = 0


def rewrite(
    cas: EmbeddedCas,
    lease: Lease,
    *,
    threshold: float = THRESHOLD,
    locality: Locality | None = _DEFAULT_LOCALITY,
    looks: int | None = None,
    grace: Grace = _DEFAULT_GRACE,
    throttle: Throttle | None = None,
    dry_run: bool = False,
) -> RewriteReport:
    """Rewrite what collections and new terms of files have left, while the store is in use.

    Files that no shard names get one, fragmented files are repacked unless ``locality`` is None, xorbs of which more
    than ``threshold`` is garbage are packed anew, and shards that name what is gone are written anew. Of xorbs and
    files ``looks`` are walked through, from where the last run came to; without it, all of them. Xorbs and shards that
    lost something are looked at in any case.

    It can end at any moment, and goes on with the next call. Raises LeaseLostError when another runner has taken over,
    and InterruptedCallError when ``throttle`` is told to end. A full disk is in the report: reads and deletions go on.
    """
    run = Run(cas, lease, grace, throttle or Throttle(), dry_run)
    with cas.index.snapshot() as reader:
        walk = _Walk(**json.loads(reader.walked(_WALK) or "{}")) if looks is not None else _Walk()
    try:
        link_shards(run)
        _walk_files(run, walk, locality, looks)
        _rewrite_garbage(run, threshold)
        _walk_xorbs(run, walk, threshold, looks)
        rewrite_shards(run)
    except StorageFullError as error:
        run.report.stopped = str(error)
    return run.report


def _walk_files(run: Run, walk: _Walk, locality: Locality | None, looks: int | None) -> None:
    """Look at files: is each named by a shard, is it fragmented?"""
    left = looks
    while left is None or left > 0:
        with run.cas.index.snapshot() as reader:
            page = reader.long_files(walk.file, _FILES if left is None else min(_FILES, left))
        for ids in by_terms((file.id, file.terms) for file in page if file.is_unnamed):
            name_files(run, ids)
        for file in page:
            if locality is not None and file.terms > LEAST_FETCHES and not locality.allows(file.terms, file.size):
                repack(run, file.id, locality)
            run.rest()
        walk.file = page[-1].id if page else 0
        _note(run, walk)
        if not page:
            return
        left = None if left is None else left - len(page)


def _rewrite_garbage(run: Run, threshold: float) -> None:
    """Rewrite xorbs that lost a file since they were last looked at."""
    behind = 0
    while True:
        with run.cas.index.snapshot() as reader:
            page = reader.xorbs_with_garbage(behind, _XORBS)
        if not page:
            return
        rewrite_xorbs(run, page, threshold)
        behind = page[-1][1].id


def _walk_xorbs(run: Run, walk: _Walk, threshold: float, looks: int | None) -> None:
    """Look at xorbs of which nothing is known to be garbage: an upload that ended early leaves some.

    But for those of which clients may still make files, because they were uploaded or offered within the grace.
    """
    left = looks
    while left is None or left > 0:
        with run.cas.index.snapshot() as reader:
            before = run.cas.now() - run.grace.unused
            page = reader.xorbs_to_look_at(walk.xorb, _XORBS if left is None else min(_XORBS, left), before=before)
        rewrite_xorbs(run, [(None, row) for is_due, row in page if is_due], threshold)
        walk.xorb = page[-1][1].id if page else 0
        _note(run, walk)
        if not page:
            return
        left = None if left is None else left - len(page)


def _note(run: Run, walk: _Walk) -> None:
    if not run.is_dry:
        position = json.dumps({"xorb": walk.xorb, "file": walk.file})
        run.lease.change(lambda writer: writer.note_walk(_WALK, position))
