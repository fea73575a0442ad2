"""A check in parts, least recently checked first; objects without checksums get theirs; a store in use; the scrub."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cas.objects import in_format_1, in_format_2
from tests.support import engines
from tests.support.children import in_child
from tests.support.objects import put_in_place, shard_object, xorb_row
from xetstore.blobs.cached import CachedBlobStore
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import CheckReport, check, verify_invariants
from xetstore.cas.checking.pages import file_pages
from xetstore.cas.checking.scrub import AHEAD, ScrubReport, scrub
from xetstore.cas.checking.selection import Selection
from xetstore.cas.index import Index, Writer
from xetstore.cas.lease import Lease
from xetstore.cas.throttle import Throttle
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import LeaseLostError, UsageError, XetError
from xetstore.interfaces import BlobInfo, BlobStore, NewObject
from xetstore.platform.files import storage_error
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.testing import FakeClock, FaultyBlobStore, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in
from xetstore.testing.faults import CRASH_EXIT_CODE, FaultPlan, FaultyDatabase

ENGINES = engines.BOTH
START = 1_800_000_000.0
DAY = 86400.0
SAMPLES = [make_sample(random_bytes(30_000, number)) for number in range(20)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def stored(clock: FakeClock) -> Iterator[EmbeddedCas]:
    """Twenty xorbs, uploaded an hour apart."""
    with EmbeddedCas.in_memory(clock=clock) as cas:
        cas.index.clock = clock  # type: ignore[method-assign]  # leases go by it
        for sample in SAMPLES:
            upload(cas, sample)
            clock.advance(3600)
        yield cas


def checked_at(cas: EmbeddedCas) -> dict[Hash, float]:
    with cas.index.snapshot() as reader:
        return {
            Hash(digest): moment
            for digest, moment in reader.connection.rows("SELECT hash, checked_at FROM xorb ORDER BY id")
        }


def read_by(cas: EmbeddedCas, run: Callable[[], object]) -> list[int]:
    """The numbers of the samples whose check a run has noted."""
    before = checked_at(cas)
    run()
    after = checked_at(cas)
    return [number for number, (name, moment) in enumerate(before.items()) if after[name] != moment]


def flip(cas: EmbeddedCas, key: str, place: int = 1000) -> bytes:
    whole = cas.blobs.get(key)
    changed = bytearray(whole)
    changed[place] ^= 1
    put_in_place(cas.blobs, key, bytes(changed))
    return whole


# --- A part of the bytes ------------------------------------------------------------------------------------


def test_each_xorb_is_in_one_of_the_parts(stored: EmbeddedCas, clock: FakeClock) -> None:
    seen: list[int] = []
    for number in (1, 2, 3):
        report = None

        def run(number: int = number) -> None:
            nonlocal report
            report = check(stored, checksums=True, selection=Selection.parse(f"{number}/3"))

        part = read_by(stored, run)
        assert report is not None
        assert (report.xorbs, report.files, report.unread) == (20, 20, False)
        assert 0 < len(part) < 20
        seen += part
        clock.advance(1)
    assert sorted(seen) == [*range(20)]


def test_the_least_recently_checked_come_first(stored: EmbeddedCas, clock: FakeClock) -> None:
    def some() -> CheckReport:
        return check(stored, checksums=True, selection=Selection.parse("25%"))

    assert read_by(stored, some) == [0, 1, 2, 3, 4]
    clock.advance(1)
    assert read_by(stored, some) == [5, 6, 7, 8, 9]
    clock.advance(1)
    assert read_by(stored, lambda: check(stored, checksums=True)) == [*range(20)], "all without a part"
    assert read_by(stored, lambda: check(stored)) == []
    assert read_by(stored, lambda: check(stored, checksums=True, dry_run=True)) == []


def test_after_its_time_nothing_more_is_read_and_the_next_check_goes_on(stored: EmbeddedCas, clock: FakeClock) -> None:
    reports: list[CheckReport] = []
    for number in range(3):
        assert read_by(
            stored, lambda: reports.append(check(stored, read_data=True, selection=Selection.parse(None, 0)))
        ) == [number]
        clock.advance(1)
    assert [report.unread for report in reports] == [True] * 3
    assert [report.files for report in reports] == [20] * 3, "the rest of the check is not cut"


def test_damage_outside_of_the_part_is_not_read(stored: EmbeddedCas) -> None:
    flip(stored, xorb_row(stored, SAMPLES[10].xorb.hash).key)
    assert check(stored, checksums=True, selection=Selection(share=0.5)).problems == ()
    [problem] = check(stored, checksums=True, selection=Selection(share=1.0)).problems
    assert problem.files == (SAMPLES[10].file.hash,)
    assert [problem.name for problem in check(stored, checksums=True, selection=Selection(share=0.1)).problems] == [
        f"xorb {SAMPLES[10].xorb.hash}"
    ], "it is marked"


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "0%", "101%", "1/0", "-1%", "1/2/3", "", "5"])
def test_what_is_no_subset_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Selection.parse(text)


def test_the_times_of_a_batch_are_noted_by_one_transaction() -> None:
    plan = FaultPlan()
    with EmbeddedCas(MemoryBlobStore(), Index(FaultyDatabase(SqliteDatabase.in_memory(), plan))) as cas:
        for sample in SAMPLES:
            upload(cas, sample)
        plan.operations.clear()
        check(cas, checksums=True)
    assert [word for word in plan.operations if word != "SELECT"] == ["UPDATE", "UPDATE", "COMMIT"], "xorbs, shards"


def test_the_objects_are_read_and_not_what_a_cache_has_of_them(tmp_path: Path) -> None:
    """Nor are its parts driven out by those that only a check reads."""
    objects = MemoryBlobStore()
    blobs = CachedBlobStore(objects, tmp_path / "cache", 1 << 30)
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        upload(cas, SAMPLES[0])
        assert read_back(cas, SAMPLES[0].file.hash) == SAMPLES[0].data
        blobs.settle()
        key = xorb_row(cas, SAMPLES[0].xorb.hash).key
        before = blobs.parts(key)
        assert before
        changed = bytearray(objects.get(key))
        changed[1000] ^= 1
        put_in_place(objects, key, bytes(changed))
        for how in (True, False):
            [problem] = check(cas, checksums=True, read_data=how).problems
            assert problem.files == (SAMPLES[0].file.hash,)
        blobs.settle()
        assert blobs.parts(key) == before
        cas.healing.mark(xorb_row(cas, SAMPLES[0].xorb.hash), whole=True)
        cas.suspect(SAMPLES[0].xorb.hash)
        assert xorb_row(cas, SAMPLES[0].xorb.hash).is_damaged


# --- Objects without checksums ------------------------------------------------------------------------------


@pytest.fixture
def older(cas: EmbeddedCas) -> list[Sample]:
    """Three files whose xorbs have no checksums."""
    samples = SAMPLES[:3]
    for sample in samples:
        upload(cas, sample)
        put_in_place(cas.blobs, xorb_row(cas, sample.xorb.hash).key, in_format_1(sample))
    return samples


@pytest.mark.parametrize("read_data", [False, True])
def test_an_object_without_checksums_that_is_read_gets_them(
    cas: EmbeddedCas, older: list[Sample], read_data: bool
) -> None:
    before = {sample: xorb_row(cas, sample.xorb.hash) for sample in older}
    assert check(cas).renewed == 0
    report = check(cas, checksums=True, read_data=read_data)
    assert (report.problems, report.renewed) == ((), 3)
    for sample, old in before.items():
        row = xorb_row(cas, sample.xorb.hash)
        assert row.key != old.key
        assert cas.blobs.get(row.key) == in_format_2(sample)
        assert cas.blobs.get(old.key) == in_format_1(sample), "who reads it gets done"
        assert read_back(cas, sample.file.hash) == sample.data
    with cas.index.snapshot() as reader:
        assert {*reader.superseded_before(cas.now() + 1)} == {old.key for old in before.values()}
    assert check(cas, checksums=True, read_data=read_data).renewed == 0
    verify_invariants(cas)


def test_a_dry_run_tells_how_many_and_changes_nothing(cas: EmbeddedCas, older: list[Sample]) -> None:
    before = [*cas.blobs.list()]
    assert check(cas, checksums=True, dry_run=True).renewed == 3
    assert [*cas.blobs.list()] == before
    flip(cas, xorb_row(cas, older[0].xorb.hash).key)
    assert len(check(cas, checksums=True, dry_run=True).problems) == 1
    assert not any(xorb_row(cas, sample.xorb.hash).is_damaged for sample in older)


def test_a_damaged_object_without_checksums_stays_as_it_is(cas: EmbeddedCas, older: list[Sample]) -> None:
    row = xorb_row(cas, older[1].xorb.hash)
    flip(cas, row.key, 20_000)
    report = check(cas, checksums=True)
    assert [problem.name for problem in report.problems] == [f"xorb {row.hash}"]
    assert report.renewed == 2
    assert xorb_row(cas, row.hash).generation == row.generation
    assert {blob.key.rpartition("/")[2][:64] for blob in cas.blobs.list("xorbs")} == {
        str(sample.xorb.hash) for sample in older
    }


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_where_there_is_no_room_the_check_goes_on_without(older: list[Sample], cas: EmbeddedCas, error: int) -> None:
    class Full(Around):
        def create(self, key: str) -> NewObject:
            raise storage_error(OSError(error, "no"), key)

    report = check(EmbeddedCas(Full(cas.blobs), cas.index), checksums=True)
    assert (report.problems, report.renewed) == ((), 0)
    assert "stay as they are" in report.notes[0]
    verify_invariants(cas)


# --- A store in use -----------------------------------------------------------------------------------------


class Around:
    """A store of objects that does something when an object is looked at for the first time."""

    def __init__(self, inner: BlobStore, then: Callable[[str], object] = lambda _: None) -> None:
        self.inner = inner
        self._then = then
        self._seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def stat(self, key: str) -> BlobInfo | None:
        if key not in self._seen:
            self._seen.add(key)
            self._then(key)
        return self.inner.stat(key)

    def create(self, key: str) -> NewObject:
        return self.inner.create(key)


def delete(cas: EmbeddedCas, sample: Sample) -> None:
    """Delete a file, its xorb and its shard, as a collection does."""
    key = xorb_row(cas, sample.xorb.hash).key

    def drop(writer: Writer) -> None:
        change = writer.connection.change
        xorb, file = {"hash": sample.xorb.hash.digest}, {"hash": sample.file.hash.digest}
        change(
            "DELETE FROM shard WHERE id IN (SELECT shard_id FROM shard_file JOIN file ON file.id = shard_file.file_id"
            " WHERE file.hash = :hash)",
            file,
        )
        change("DELETE FROM file WHERE hash = :hash", file)
        change("DELETE FROM xorb WHERE hash = :hash", xorb)

    with cas.index.snapshot() as reader:
        shards = [row.key for row in reader.shards(reader.shards_of(sample.file.hash)).values()]
    cas.index.change(drop)
    cas.blobs.delete_many([key, *shards])


@pytest.mark.parametrize("is_older", [False, True])
def test_what_is_deleted_or_stored_anew_while_it_is_checked_is_no_problem(
    older: list[Sample], cas: EmbeddedCas, is_older: bool
) -> None:
    gone, anew, whole = older if is_older else SAMPLES[3:6]
    for sample in (gone, anew, whole):
        upload(cas, sample)
    keys = {xorb_row(cas, sample.xorb.hash).key: sample for sample in (gone, anew)}

    def then(key: str) -> None:
        sample = keys.pop(key, None)
        if sample is gone:
            delete(cas, gone)
        elif sample is anew:
            cas.blobs.delete_many([key])
            upload(cas, anew)

    report = check(EmbeddedCas(Around(cas.blobs, then), cas.index), checksums=True)
    assert not keys
    assert report.problems == ()
    verify_invariants(cas)
    assert read_back(cas, anew.file.hash) == anew.data


# --- Faults at every step -----------------------------------------------------------------------------------


def _older_store() -> tuple[MemoryBlobStore, Index]:
    blobs, index = MemoryBlobStore(), Index.in_memory()
    cas = EmbeddedCas(blobs, index)
    for sample in SAMPLES[:3]:
        upload(cas, sample)
    for sample in SAMPLES[:2]:
        put_in_place(blobs, xorb_row(cas, sample.xorb.hash).key, in_format_1(sample))
    flip(cas, shard_object(cas, _shards(cas)[0]), 60)
    flip(cas, xorb_row(cas, SAMPLES[2].xorb.hash).key)
    return blobs, index


def _shards(cas: EmbeddedCas) -> list[Hash]:
    with cas.index.snapshot() as reader:
        return [row.hash for row in reader.shards_after(None)]


def test_whichever_operation_fails_the_next_check_finds_and_does_the_same() -> None:
    """Operations of the objects and statements of the index: of marks, of times, of objects that get checksums."""
    failed = 0
    for number in range(400):
        blobs, index = _older_store()
        plan = FaultPlan()
        faulty = EmbeddedCas(FaultyBlobStore(blobs, plan), Index(FaultyDatabase(index._database, plan)))
        plan.fail_next(after=number)
        with contextlib.suppress(XetError):
            check(faulty, checksums=True)
        failed += plan.has_failed
        cas = EmbeddedCas(blobs, index)
        for sample in SAMPLES[:2]:
            assert read_back(cas, sample.file.hash) == sample.data, plan.operations[-1]
        report = check(cas, checksums=True)
        assert sorted(problem.name for problem in report.problems) == sorted(
            [f"xorb {SAMPLES[2].xorb.hash}", f"shard {_shards(cas)[0]}"]
        ), plan.operations[-1]
        for sample in SAMPLES[:2]:
            assert blobs.get(xorb_row(cas, sample.xorb.hash).key) == in_format_2(sample)
        for sample in SAMPLES[:3]:
            upload(cas, sample)
        verify_invariants(cas)
        cas.close()
        if not plan.has_failed:
            break
    assert failed > 60


@pytest.mark.slow
def test_wherever_the_process_dies_the_store_is_whole(tmp_path: Path) -> None:
    crashed = 0
    for number in range(100):
        root = tmp_path / str(number)
        with EmbeddedCas.open(root) as cas:
            for sample in SAMPLES[:2]:
                upload(cas, sample)
                put_in_place(cas.blobs, xorb_row(cas, sample.xorb.hash).key, in_format_1(sample))
        pid = in_child(partial(_check_and_die, root, number))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        crashed += code == CRASH_EXIT_CODE
        with EmbeddedCas.open(root) as cas:
            verify_invariants(cas)
            assert check(cas, checksums=True).problems == ()
            for sample in SAMPLES[:2]:
                assert read_back(cas, sample.file.hash) == sample.data
                assert cas.blobs.get(xorb_row(cas, sample.xorb.hash).key) == in_format_2(sample)
        if code != CRASH_EXIT_CODE:
            assert code == 0
            break
    assert crashed > 15


def _check_and_die(root: Path, number: int) -> None:
    with FaultPlan(number, crash=True).installed(), EmbeddedCas.open(root) as cas:
        check(cas, checksums=True)


# --- The scrub ----------------------------------------------------------------------------------------------


def run_scrub(cas: EmbeddedCas, days: float = 30.0) -> ScrubReport:
    """One run, as a server makes it."""
    lease = Lease.take(cas.index, "scrub")
    assert lease is not None
    with lease:
        report = scrub(cas, lease, Throttle(), days=days, run_seconds=60)
        lease.finish(json.dumps(asdict(report)))
    return report


def ages(cas: EmbeddedCas) -> list[float]:
    with cas.index.snapshot() as reader:
        rows = [*reader.connection.rows("SELECT checked_at FROM xorb UNION ALL SELECT checked_at FROM shard")]
    return [cas.now() - moment for (moment,) in rows]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rests."""
    monkeypatch.setattr(Throttle, "pause", lambda self, seconds: None)


def test_all_bytes_are_read_within_the_days(quick: None, stored: EmbeddedCas, clock: FakeClock) -> None:
    nbytes = sum(blob.size for blob in data_in(stored.blobs))
    assert run_scrub(stored).objects == 0, "nothing is due yet"
    read: list[int] = []
    for _ in range(60):
        clock.advance(DAY)
        read.append(run_scrub(stored).bytes_read)
        assert max(read) < nbytes / 8, "a little each day"
    assert max(ages(stored)) < 30 * DAY
    assert 60 / 30 * nbytes < sum(read) <= 60 / 30 * AHEAD * nbytes + max(read)


def test_a_scrub_that_was_away_catches_up_once_round(quick: None, stored: EmbeddedCas, clock: FakeClock) -> None:
    run_scrub(stored)
    clock.advance(365 * DAY)
    report = run_scrub(stored)
    assert report.bytes_read == report.stored_bytes == sum(blob.size for blob in data_in(stored.blobs))
    assert ages(stored) == [0.0] * 40


def test_a_scrub_marks_damage_tells_of_it_once_and_goes_on(
    quick: None, stored: EmbeddedCas, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    row = xorb_row(stored, SAMPLES[0].xorb.hash)
    flip(stored, row.key)
    flip(stored, shard_object(stored, _shards(stored)[3]), 60)
    run_scrub(stored)
    for _ in range(3):
        clock.advance(60 * DAY)
        run_scrub(stored)
    assert xorb_row(stored, row.hash).is_damaged
    with stored.index.snapshot() as reader:
        found = reader.soundness()
    assert (found.damaged_xorbs, found.damaged_shards) == (1, 1)
    assert sorted(age == 0 for age in ages(stored)) == [False] * 2 + [True] * 38
    assert len(caplog.records) == 2
    assert len(check(stored).problems) == 2


def test_one_that_was_overtaken_notes_nothing(quick: None, stored: EmbeddedCas, clock: FakeClock) -> None:
    run_scrub(stored)
    clock.advance(365 * DAY)
    old = Lease.take(stored.index, "scrub")
    assert old is not None
    assert Lease.take(stored.index, "scrub") is None
    clock.advance(3600)
    new = Lease.take(stored.index, "scrub")
    assert new is not None
    with new:
        before = checked_at(stored)
        with pytest.raises(LeaseLostError):
            scrub(stored, old, Throttle(), days=30, run_seconds=1)
        assert checked_at(stored) == before


def test_a_run_rests_at_least_as_long_as_it_works(stored: EmbeddedCas, clock: FakeClock) -> None:
    rests: list[float] = []

    class Recorded(Throttle):
        def pause(self, seconds: float) -> None:
            rests.append(seconds)

    run_scrub(stored)
    clock.advance(3 * DAY)
    lease = Lease.take(stored.index, "scrub")
    assert lease is not None
    report = scrub(stored, lease, Recorded(), days=30, run_seconds=10)
    assert len(rests) == report.objects > 1
    assert sum(rests) == pytest.approx(10, rel=0.6), "spread over the run"


def test_a_scrub_gives_older_objects_checksums(
    quick: None, older: list[Sample], cas: EmbeddedCas, clock: FakeClock
) -> None:
    cas.index.clock = clock  # type: ignore[method-assign]  # leases go by it
    run_scrub(cas)
    clock.advance(365 * DAY)
    assert run_scrub(cas).renewed == 3
    verify_invariants(cas)
    assert check(cas, checksums=True).renewed == 0


# --- Pages of files -----------------------------------------------------------------------------------------


def test_pages_of_files_have_all_of_them_and_a_bounded_number_of_terms(cas: EmbeddedCas) -> None:
    upload(cas, SAMPLES[0])
    term = Term(SAMPLES[0].xorb.hash, 0, 1, 5)
    counts = [1, 30_000, *[4_000] * 12, 1, 30_000]
    entries = [
        FileEntry(chunk_hash(b"%d" % number), (term,) * count, (term.xorb,) * count)
        for number, count in enumerate(counts)
    ]

    def add(writer: Writer) -> None:
        writer.add_files(entries, writer.xorbs([term.xorb]), namespace="default", now=1.0)

    cas.index.change(add)
    pages = [page for _, page in file_pages(cas.index) if page is not None]
    terms = [[file.term_count for file in page.files] for page in pages]
    assert terms == [[1, 1], [30_000], [4_000] * 5, [4_000] * 5, [4_000, 4_000, 1], [30_000]]
