"""take_snapshot(): the state of the index at one moment, as an object of the store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from xetstore.cas.index.index import MIGRATIONS
from xetstore.cas.index.queries.snapshots import TABLES, SnapshotTable
from xetstore.cas.layout import new_generation
from xetstore.cas.lease import Lease
from xetstore.cas.snapshots.form import SnapshotHead, SnapshotWriter, read_snapshot
from xetstore.cas.snapshots.journal import JOURNAL, JournalEntry, forget_before, journal_keys
from xetstore.errors import IntegrityError, NotFoundError, TimedOutError

if TYPE_CHECKING:
    from xetstore.cas.index import Writer
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.throttle import Throttle
    from xetstore.database.migrations import Migrations
    from xetstore.interfaces import BlobInfo, BlobStore

SNAPSHOTS: Final = "snapshots/"
SNAPSHOT: Final = "snapshot"
"""The chore."""
KEPT: Final = 3
"""Snapshots that are kept, the newest ones."""
KEPT_SECONDS: Final = 24 * 3600.0
"""The longest time for which they are, beside a whole newer one."""
MARGIN_SECONDS: Final = 600.0
"""Entries of the journal from this time before a snapshot are read beside it: they may have been committed later."""
SHARE: Final = 10
"""Snapshots are apart by this many times the time that the last one took."""

_RESTING_SECONDS: Final = 60.0
_MOST_SECONDS: Final = 1800.0
_RENEW_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Room:
    """Another room with tables in the index: its steps, and what a snapshot has of its tables.

    ``replay`` is told of a namespace that was deleted as a whole, or given back, after a snapshot; ``end`` is called
    when all rows of a rebuilt index are there.
    """

    migrations: Migrations
    name: str
    tables: tuple[SnapshotTable, ...]
    replay: Callable[[Writer, JournalEntry], None] = lambda *_: None
    end: Callable[[EmbeddedCas], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """A snapshot of the index: its ``key``, the time ``at`` of the index in unix seconds, and how long it ``took``.

    ``content`` is the SHA-256 of its rows. ``is_new`` is False where nothing had changed since the last one, whose key
    it is.
    """

    key: str
    at: float
    rows: int
    stored_bytes: int
    took: float
    content: str
    is_new: bool = True


def take_snapshot(
    cas: EmbeddedCas, rooms: Sequence[Room] = (), *, lease: Lease | None = None, throttle: Throttle | None = None
) -> SnapshotReport:
    """Write a snapshot of the index among the objects, unless nothing has changed since the last one.

    All of it is of one moment: one read of the database, of at most half an hour, in which writers go on. It rests by
    ``throttle`` in the first minute of that. With ``lease`` the last report is known, and others are kept away. The
    newest three snapshots are kept, and the journal since the oldest of them. Raises what a put raises.
    """
    last, ahead = _last_report(cas), _ahead(cas)
    report = _write(cas, rooms, last, lease, throttle)
    _forget_older(cas, lease, ahead)
    return report


def take_snapshot_now(cas: EmbeddedCas, rooms: Sequence[Room] = ()) -> SnapshotReport | None:
    """:func:`take_snapshot` by the one runner at a time; None if another one is at it."""
    lease = Lease.take(cas.index, SNAPSHOT)
    if lease is None:
        return None
    with lease:
        report = take_snapshot(cas, rooms, lease=lease)
        lease.finish(json.dumps(asdict(report)))
    return report


def take_snapshot_if_due(
    cas: EmbeddedCas, rooms: Sequence[Room], lease: Lease, throttle: Throttle
) -> dict[str, object]:
    """The report of :func:`take_snapshot`, as JSON has it; of the last one, if another one now took a large share of
    the time since.
    """
    last = _last_report(cas)
    if last is None or not 0 <= cas.now() - last.at < SHARE * last.took:
        last = take_snapshot(cas, rooms, lease=lease, throttle=throttle)
    return asdict(last)


def snapshots_in(blobs: BlobStore) -> Iterator[tuple[float, BlobInfo]]:
    """The snapshots among the objects, the oldest first, each with its time in unix seconds."""
    for blob in blobs.list(SNAPSHOTS):
        if blob.key.startswith(JOURNAL):
            return  # digits come before letters
        milliseconds, _, _ = blob.key.removeprefix(SNAPSHOTS).partition("-")
        if milliseconds.isdigit():
            yield int(milliseconds) / 1000, blob


def _write(
    cas: EmbeddedCas,
    rooms: Sequence[Room],
    last: SnapshotReport | None,
    lease: Lease | None,
    throttle: Throttle | None,
) -> SnapshotReport:
    begun = time.monotonic()
    at = cas.now()
    key = f"{SNAPSHOTS}{int(at * 1000):015}-{new_generation()}"
    renewed = begun

    def rest() -> None:
        nonlocal renewed
        now = time.monotonic()
        if now - begun > _MOST_SECONDS:
            raise TimedOutError(
                f"a snapshot of the index took more than {_MOST_SECONDS / 60:.0f} minutes, and was given up"
            )
        if throttle is not None and now - begun < _RESTING_SECONDS:
            throttle.rest()
        if lease is not None and now - renewed > _RENEW_SECONDS:
            lease.renew()
            renewed = now

    with cas.blobs.create(key) as new:
        with cas.index.snapshot() as reader:
            versions = {"index": MIGRATIONS.version(reader.connection)}
            versions |= {room.name: room.migrations.version(reader.connection) for room in rooms}
            writer = SnapshotWriter(SnapshotHead(reader.store_id(), at, versions), new.write)
            for table in (*TABLES, *(table for room in rooms for table in room.tables)):
                if reader.has(table):
                    writer.table(table.name, table.columns, reader.exported(table), rest)
        took = time.monotonic() - begun
        content = writer.content()
        is_known = last is not None and last.content == content and last.key < key
        if last is not None and is_known and cas.blobs.stat(last.key) is not None:
            return SnapshotReport(last.key, at, writer.rows, last.stored_bytes, took, content, is_new=False)
        writer.finish()
        new.commit()
    return SnapshotReport(key, at, writer.rows, writer.stored_bytes, time.monotonic() - begun, content)


def _ahead(cas: EmbeddedCas) -> set[str]:
    """The snapshots and entries of the journal that have a time to come: the clock was ahead when they were written.

    All of them are of before now, so a snapshot that is taken now tells all that they do.
    """
    found = [*snapshots_in(cas.blobs), *journal_keys(cas.blobs)]
    now = cas.now()
    return {blob.key for at, blob in found if at > now}


def _forget_older(cas: EmbeddedCas, lease: Lease | None, ahead: Collection[str]) -> None:
    """Delete what is not kept, and the journal of before. What is ``ahead`` is older than the newest."""
    snapshots = [one for one in snapshots_in(cas.blobs) if one[1].key not in ahead]
    old, kept = snapshots[:-KEPT], snapshots[-KEPT:]
    # What was deleted is in them; and it is to be gone for good some day.
    late = [one for one in kept[:-1] if one[0] < cas.now() - KEPT_SECONDS]
    gone = [blob.key for _, blob in old]
    if (late or ahead) and _is_whole(cas.blobs, kept[-1][1]):
        gone += (*(blob.key for _, blob in late), *sorted(ahead))
        kept = kept[len(late) :]
    if lease is not None and gone:
        lease.renew()
    if gone:
        cas.blobs.delete_many(gone)
    forget_before(cas.blobs, kept[0][0] - MARGIN_SECONDS)


def _is_whole(blobs: BlobStore, blob: BlobInfo) -> bool:
    try:
        with blobs.get_range(blob.key, 0, blob.size) as stream:
            for _ in read_snapshot(stream):
                pass
    except (IntegrityError, NotFoundError):
        return False
    return True


def _last_report(cas: EmbeddedCas) -> SnapshotReport | None:
    with cas.index.snapshot() as reader:
        chore = reader.chore(SNAPSHOT)
    if chore is None or chore.report is None:
        return None
    with suppress(ValueError, TypeError, KeyError):
        values: dict[str, Any] = json.loads(chore.report)
        return SnapshotReport(**{name: values[name] for name in SnapshotReport.__slots__})
    return None
