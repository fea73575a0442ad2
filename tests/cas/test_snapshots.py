"""Snapshots of the index: what they have, that they are of one moment, and that one that is not whole is refused."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index.queries.snapshots import LEFT_OUT, TABLES
from xetstore.cas.lease import Lease
from xetstore.cas.snapshots.form import SnapshotHead, TableRows, read_snapshot
from xetstore.cas.snapshots.journal import journal_keys, note_deleted
from xetstore.cas.snapshots.take import (
    KEPT,
    KEPT_SECONDS,
    MARGIN_SECONDS,
    SnapshotReport,
    snapshots_in,
    take_snapshot,
    take_snapshot_if_due,
    take_snapshot_now,
)
from xetstore.cas.throttle import Throttle
from xetstore.database.connection import Row
from xetstore.errors import DamagedError, UsageError, XetError
from xetstore.hub.snapshot import NAMES
from xetstore.interfaces import BlobStore
from xetstore.testing import FakeClock, FaultPlan, Sample, upload
from xetstore.testing.faults import CRASH_EXIT_CODE

ENGINES = engines.BOTH
YEAR = 365 * 86400.0


def content(blobs: BlobStore, key: str) -> tuple[SnapshotHead, dict[str, list[Row]]]:
    """The head and the rows of a snapshot."""
    found = blobs.stat(key)
    assert found is not None
    tables: dict[str, list[Row]] = {}
    head: SnapshotHead | None = None
    with blobs.get_range(key, 0, found.size) as stream:
        for part in read_snapshot(stream):
            if isinstance(part, TableRows):
                tables.setdefault(part.table, []).extend(part.rows)
            else:
                head = part
    assert head is not None
    return head, tables


def taken(cas: EmbeddedCas) -> SnapshotReport:
    report = take_snapshot_now(cas, [NAMES])
    assert report is not None
    return report


def tables_of(cas: EmbeddedCas, engine: str) -> set[str]:
    statement = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'"
        if engine == engines.SQLITE
        else "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace(current_schema())"
    )
    with cas.index.snapshot() as reader:
        return {str(name) for (name,) in reader.connection.rows(statement)}


def test_every_table_of_the_index_is_exported_or_left_out_for_a_reason(cas: EmbeddedCas, engine: str) -> None:
    assert tables_of(cas, engine) == {table.name for table in TABLES} | LEFT_OUT.keys()
    assert not {table.name for table in TABLES} & LEFT_OUT.keys()


def test_it_has_what_objects_do_not_tell(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    file = upload(cas, sample)
    upload(cas.in_namespace("alice"), sample)
    cas.index.change(lambda writer: writer.revoke("default", [file], now=clock() + 5))
    report = taken(cas)
    head, rows = content(cas.blobs, report.key)
    with cas.index.snapshot() as reader:
        assert (head.store_id, head.at) == (reader.store_id(), clock())
    now = clock()
    assert rows["file"] == [(file.digest, now, None)]
    assert rows["file_grant"] == [("alice", file.digest, now)]
    assert rows["deleted_grant"] == [("default", file.digest, now, now + 5)]
    assert rows["xorb"] == [(sample.xorb.hash.digest, now)]
    assert rows["xorb_holder"] == [("alice", sample.xorb.hash.digest), ("default", sample.xorb.hash.digest)]
    assert len(rows["shard"]) == 1
    assert "dedup_key" not in rows
    assert report.rows == sum(map(len, rows.values()))


def test_nothing_is_written_where_nothing_has_changed(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    first = taken(cas)
    clock.advance(10)
    again = taken(cas)
    assert (again.key, again.is_new, again.at) == (first.key, False, clock())
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == [first.key]
    clock.advance(10)
    cas.index.change(lambda writer: writer.revoke_all("default", now=clock()))
    assert taken(cas).is_new
    cas.blobs.delete_many([blob.key for _, blob in snapshots_in(cas.blobs)])
    assert taken(cas).is_new


def test_the_newest_are_kept_and_the_journal_since_the_oldest_of_them(
    cas: EmbeddedCas, clock: FakeClock, sample: Sample
) -> None:
    file = upload(cas, sample)
    keys, noted = [], []
    for number in range(KEPT + 2):
        cas.index.change(lambda writer, name=f"n{number}": writer.add_grants([(file, name, clock())]))  # type: ignore[misc]
        noted.append(clock())
        note_deleted(cas, f"n{number}", [file])
        keys.append(taken(cas).key)
        clock.advance(2 * MARGIN_SECONDS)
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == keys[-KEPT:]
    assert [at for at, _ in journal_keys(cas.blobs)] == noted[-KEPT:]


def test_what_a_clock_that_was_ahead_has_written_does_not_hide_what_came_later(
    cas: EmbeddedCas, clock: FakeClock, sample: Sample
) -> None:
    file = upload(cas, sample)
    clock.advance(YEAR)
    for number in range(KEPT):
        cas.index.change(lambda writer, name=f"n{number}": writer.add_grants([(file, name, clock())]))  # type: ignore[misc]
        taken(cas)
        clock.advance(10)
    note_deleted(cas, "default", [file])
    clock.advance(-YEAR)
    last = taken(cas)  # nothing has changed, but for the clock
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == [last.key]
    assert [*journal_keys(cas.blobs)] == []
    note_deleted(cas, "n1", [file])
    clock.advance(1)
    taken(cas)
    assert [at for at, _ in journal_keys(cas.blobs)] == [clock() - 1]


def test_a_snapshot_is_due_though_the_last_one_has_a_time_to_come(
    cas: EmbeddedCas, clock: FakeClock, sample: Sample
) -> None:
    clock.advance(YEAR)
    first = taken(cas)
    clock.advance(-YEAR)
    upload(cas, sample)
    lease = Lease.take(cas.index, "snapshot")
    assert lease is not None
    with lease:
        report = take_snapshot_if_due(cas, [NAMES], lease, Throttle())
    assert report["key"] != first.key
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == [report["key"]]


def test_one_of_the_day_before_goes_once_a_newer_one_is_whole(
    cas: EmbeddedCas, clock: FakeClock, sample: Sample
) -> None:
    """So that what was deleted is gone for good, though nothing changes any more."""
    first = taken(cas).key
    clock.advance(1)
    file = upload(cas, sample)
    second = taken(cas).key
    clock.advance(1)
    note_deleted(cas, "default", [file])
    assert taken(cas).key == second
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == [first, second]
    clock.advance(KEPT_SECONDS + MARGIN_SECONDS)
    assert taken(cas).key == second
    assert [blob.key for _, blob in snapshots_in(cas.blobs)] == [second]


class Pausing(Throttle):
    """Waits when it rests first, which is when the first table has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def rest(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60)


def test_it_is_of_one_moment(cas: EmbeddedCas, sample: Sample) -> None:
    """A grant that comes while the tables are read is not there."""
    file = upload(cas, sample)
    pausing = Pausing()
    reports: list[SnapshotReport] = []
    thread = threading.Thread(target=lambda: reports.append(take_snapshot(cas, throttle=pausing)))
    thread.start()
    assert pausing.reached.wait(60)
    cas.index.change(lambda writer: writer.add_grants([(file, "late", 1.0)]))
    pausing.go_on.set()
    thread.join(60)
    _, rows = content(cas.blobs, reports[0].key)
    assert [namespace for namespace, *_ in rows["file_grant"]] == ["default"]


def test_snapshots_are_as_far_apart_as_they_take_long(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    def in_the_background() -> object:
        with Lease.take(cas.index, "snapshot") as lease:  # type: ignore[union-attr]
            report = take_snapshot_if_due(cas, [NAMES], lease, Throttle())
            lease.finish(json.dumps({**report, "seconds": 0.0}))
        return report["key"]

    first = in_the_background()
    upload(cas, sample)
    assert in_the_background() == first
    clock.advance(100)
    assert in_the_background() != first


def test_one_runner_at_a_time(cas: EmbeddedCas) -> None:
    with Lease.take(cas.index, "snapshot"):  # type: ignore[union-attr]
        assert take_snapshot_now(cas) is None
    assert take_snapshot_now(cas) is not None


@pytest.mark.usefixtures("on_sqlite")
def test_one_that_is_not_as_it_was_written_is_refused(cas: EmbeddedCas, sample: Sample, root: Path) -> None:
    upload(cas, sample)
    key = taken(cas).key
    data = (root / key).read_bytes()
    for place in range(0, len(data), 7):
        blobs = MemoryBlobStore()
        blobs.put_new(key, [data[:place], bytes([data[place] ^ 16]), data[place + 1 :]])
        with pytest.raises((DamagedError, UsageError)):
            content(blobs, key)
    for end in (0, 1, len(data) // 2, len(data) - 1):
        blobs = MemoryBlobStore()
        blobs.put_new(key, [data[:end]])
        with pytest.raises(DamagedError):
            content(blobs, key)


@pytest.mark.usefixtures("on_sqlite")
@pytest.mark.parametrize("crash", [False, True], ids=["fails", "dies"])
def test_at_whichever_operation_it_fails_or_dies_the_one_before_is_whole(
    root: Path, sample: Sample, clock: FakeClock, crash: bool
) -> None:
    failed = 0
    with EmbeddedCas.open(root, clock=clock) as cas:
        file = upload(cas, sample)
        take_snapshot_now(cas)
    for number in range(0, 200, 4 if crash else 1):
        clock.advance(2 * MARGIN_SECONDS)
        with EmbeddedCas.open(root, clock=clock) as cas:
            cas.index.change(lambda writer, name=f"n{number}": writer.add_grants([(file, name, clock())]))  # type: ignore[misc]
            note_deleted(cas, f"n{number}", [file])
        if crash:
            child = os.fork()
            if child == 0:
                with FaultPlan(fail_at=number, crash=True).installed(), EmbeddedCas.open(root, clock=clock) as cas:
                    take_snapshot_now(cas)
                os._exit(0)
            has_failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CRASH_EXIT_CODE
        else:
            plan = FaultPlan(fail_at=number)
            with plan.installed(), suppress(XetError), EmbeddedCas.open(root, clock=clock) as cas:
                take_snapshot_now(cas)
            has_failed = plan.has_failed
        with EmbeddedCas.open(root, clock=clock) as cas:
            kept = [*snapshots_in(cas.blobs)]
            for _, blob in kept:
                content(cas.blobs, blob.key)
            assert kept
            # The time of a lease that could not be given back is over.
            cas.index.change(lambda writer: writer.connection.change("UPDATE chore SET expires_at = 0"))
        if not has_failed:
            break
        failed += 1
    assert not has_failed
    assert len(kept) == KEPT
    assert failed > 5
