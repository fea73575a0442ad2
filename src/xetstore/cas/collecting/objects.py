"""Objects that no row names any more, or that none ever named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from xetstore.batches import batches
from xetstore.cas.audit import audit
from xetstore.cas.collecting.run import Run
from xetstore.cas.grace import ABANDONED_SECONDS, DAY_SECONDS
from xetstore.cas.index import Writer
from xetstore.cas.layout import PROBES, SHARDS, STORES, XORBS, new_generation, store_key
from xetstore.cas.object_rows import object_rows
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import AccessDeniedError, StorageFullError
from xetstore.interfaces import BlobInfo

BATCH: Final = 100
"""Objects that are removed by one call."""
LISTED: Final = 500
"""Objects that are compared with the index together."""

_log = logging.getLogger("xetstore.care")


def seconds_ahead(cas: EmbeddedCas) -> float:
    """The seconds by which the clock of the index is ahead of that of the objects, of which a new object tells.

    0 where none can be written: then nothing is uploaded either.
    """
    blobs, key = cas.blobs, f"{PROBES}{new_generation()}"
    try:
        blobs.put_new(key, [b"a clock"])
    except (StorageFullError, AccessDeniedError):
        return 0.0
    now, found = cas.index.clock(), blobs.stat(key)
    theirs = now if found is None else found.modified_at
    left = [blob.key for blob in blobs.list(PROBES) if blob.modified_at < theirs - DAY_SECONDS]
    blobs.delete_many([key, *left])  # and those of runs that were cut off here
    return max(0.0, now - theirs)


def remove_replaced(run: Run, behind: str) -> None:
    """Remove the objects in whose place others, or none, have counted for long, and forget them."""
    moment = run.began_at - run.grace.replaced
    blobs = run.cas.blobs
    while True:
        with run.cas.index.snapshot() as reader:
            page = reader.superseded_before(moment, behind)
        if not page:
            return
        for at in range(0, len(page), BATCH):
            keys = page[at : at + BATCH]
            found = [blob for key in keys if (blob := blobs.stat(key)) is not None]
            if not run.is_dry:
                blobs.delete_many(keys)
            _count(run, found, "object")
            if not run.is_dry:
                run.change(partial(_forget, keys))
            run.came_to("replaced", keys[-1])
        behind = page[-1]


def remove_abandoned(run: Run, behind: str) -> None:
    """Remove the objects that no row names, and that are so old that no upload is at them any more.

    They are as old as by the clock of the index and by that of the objects. None is removed where the objects are those
    of another store, too.
    """
    if _has_stranger(run):
        return
    moment = run.began_at - ABANDONED_SECONDS
    is_compared = run.is_dry
    for prefix in (SHARDS, XORBS):
        if behind.startswith(XORBS) and prefix == SHARDS:
            continue
        listed = run.cas.blobs.list(prefix, after=behind if behind.startswith(prefix) else "")
        for batch in batches(listed, LISTED):
            unnamed = _unnamed(run, batch)
            old = [blob for blob in unnamed if blob.modified_at < moment]
            if old and not is_compared:
                moment, is_compared = moment - seconds_ahead(run.cas), True
                old = [blob for blob in old if blob.modified_at < moment]
            run.report.abandoned_objects += len(unnamed) - len(old)
            for at in range(0, len(old), BATCH):
                part = old[at : at + BATCH]
                if not run.is_dry:
                    run.cas.blobs.delete_many([blob.key for blob in part])
                _count(run, part, "abandoned")
            run.came_to("abandoned", batch[-1].key)


def _has_stranger(run: Run) -> bool:
    """True if the objects have the mark of another store: two indexes were made at once for one place."""
    with run.cas.index.snapshot() as reader:
        store_id = reader.store_id()
    ours = None if store_id is None else store_key(store_id)
    stranger = next((blob.key for blob in run.cas.blobs.list(STORES) if blob.key != ours), None)
    if stranger is not None:
        _log.warning("objects that no row names are left: %s says that they are of another store, too", stranger)
    return stranger is not None


def _unnamed(run: Run, batch: Sequence[BlobInfo]) -> list[BlobInfo]:
    """Those of these objects that no row names. A key that is none of ours is left alone."""
    with run.cas.index.snapshot() as reader:
        rows = object_rows(reader, [blob.key for blob in batch])
        replaced = reader.superseded_of(rows)
    kept = replaced | {row.key for row in rows.values() if row is not None}
    return [blob for blob in batch if blob.key in rows and blob.key not in kept]


def _forget(keys: Sequence[str], writer: Writer) -> None:
    writer.forget_superseded(keys)


def _count(run: Run, removed: Sequence[BlobInfo], kind: str) -> None:
    report = run.report
    report.objects += len(removed)
    report.bytes += sum(blob.size for blob in removed)
    report.shards += sum(blob.key.startswith(SHARDS) for blob in removed)
    report.abandoned += len(removed) if kind == "abandoned" else 0
    if not run.is_dry:
        for blob in removed:
            audit(kind, blob.key, blob.size)
