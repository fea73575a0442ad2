"""Objects that no row names any more, or that none ever named."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

from xetstore.cas.audit import audit
from xetstore.cas.collecting.run import Run
from xetstore.cas.grace import ABANDONED_SECONDS, DAY_SECONDS
from xetstore.cas.index import ObjectRow, Writer
from xetstore.cas.layout import PROBES, SHARDS, STORES, XORBS, named_by, new_generation, store_key
from xetstore.interfaces import BlobInfo
from xetstore.protocol.hashes import Hash

BATCH: Final = 100
"""Objects that are removed by one call."""
LISTED: Final = 500
"""Objects that are compared with the index together."""

_log = logging.getLogger("xetstore.care")


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
        while batch := list(islice(listed, LISTED)):
            unnamed = _unnamed(run, prefix, batch)
            old = [blob for blob in unnamed if blob.modified_at < moment]
            if old and not is_compared:
                moment, is_compared = moment - _ahead(run), True
                old = [blob for blob in old if blob.modified_at < moment]
            run.tally.abandoned_objects += len(unnamed) - len(old)
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


def _ahead(run: Run) -> float:
    """The seconds by which the clock of the index is ahead of that of the objects, of which a new object tells."""
    blobs, key = run.cas.blobs, f"{PROBES}{new_generation()}"
    run.cas.index.with_reserve(partial(blobs.put_new, key, [b"a clock"]))
    now, found = run.cas.index.clock(), blobs.stat(key)
    theirs = now if found is None else found.modified_at
    left = [blob.key for blob in blobs.list(PROBES) if blob.modified_at < theirs - DAY_SECONDS]
    blobs.delete_many([key, *left])  # and those of runs that were cut off here
    return max(0.0, now - theirs)


def _unnamed(run: Run, prefix: str, batch: Sequence[BlobInfo]) -> list[BlobInfo]:
    """Those of these objects that no row names. A key that is none of ours is left alone."""
    named = {blob.key: found[0] for blob in batch if (found := named_by(blob.key)) is not None}
    with run.cas.index.snapshot() as reader:
        rows: Mapping[Hash, ObjectRow] = (
            reader.xorbs(named.values()) if prefix == XORBS else reader.shards(named.values())
        )
        replaced = reader.superseded_of(named)
    kept = replaced | {row.key for row in rows.values()}
    return [blob for blob in batch if blob.key in named and blob.key not in kept]


def _forget(keys: Sequence[str], writer: Writer) -> None:
    writer.forget_superseded(keys)


def _count(run: Run, removed: Sequence[BlobInfo], kind: str) -> None:
    tally = run.tally
    tally.objects += len(removed)
    tally.bytes += sum(blob.size for blob in removed)
    tally.shards += sum(blob.key.startswith(SHARDS) for blob in removed)
    tally.abandoned += len(removed) if kind == "abandoned" else 0
    if not run.is_dry:
        for blob in removed:
            audit(kind, blob.key, blob.size)
