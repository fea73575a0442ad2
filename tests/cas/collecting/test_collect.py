"""A collection: what nothing names any more goes, step by step, and what a client may rely on stays."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples, put_file_of
from tests.support import engines
from tests.support.collecting import DAY, GRACE, collected, registered, revoke, xorb_objects
from tests.support.objects import xorb_object
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.collecting import collect, collect_all
from xetstore.cas.grace import ABANDONED_SECONDS, Grace
from xetstore.cas.lease import Lease
from xetstore.cas.throttle import Throttle
from xetstore.errors import InterruptedCallError, LeaseLostError, MissingXorbError, NotFoundError, UnavailableError
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.testing import FakeClock, Sample, read_back, upload

ENGINES = engines.BOTH


@pytest.fixture(autouse=True)
def whole(cas: EmbeddedCas) -> Iterator[None]:
    """After each test the invariants hold."""
    yield
    verify_invariants(cas)


def test_a_deleted_file_goes_step_by_step(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    nothing = collected(cas)
    assert (nothing.files, nothing.xorbs, nothing.objects, nothing.doomed_xorbs) == (0, 0, 0, 0)
    revoke(cas, sample.file.hash)
    clock.advance(GRACE.undelete - 1)
    assert collected(cas).files == 0
    clock.advance(2)
    report = collected(cas)
    assert (report.grants, report.files, report.doomed, report.doomed_xorbs, report.xorbs) == (1, 1, 1, 1, 0)
    assert report.doomed_bytes == len(sample.body)
    assert report.first_due == pytest.approx(clock() + GRACE.unused + GRACE.offer)
    assert cas.totals().files == 0
    clock.advance(GRACE.unused + GRACE.offer - 1)
    assert collected(cas).xorbs == 0
    clock.advance(2)
    report = collected(cas)
    assert (report.xorbs, report.objects, report.doomed_xorbs, report.first_due) == (1, 0, 0, None)
    assert registered(cas, [sample.xorb.hash]) == {}
    [key] = xorb_objects(cas)
    size = cas.blobs.stat(key)
    clock.advance(GRACE.replaced + 1)
    report = collected(cas)
    assert size is not None
    assert (report.objects, report.bytes) == (1, size.size)
    assert xorb_objects(cas) == set()
    assert check(cas).problems == ()


def test_a_file_that_is_given_back_in_time_stays(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    revoke(cas, sample.file.hash)
    clock.advance(GRACE.undelete - 1)
    collected(cas)
    cas.index.change(lambda writer: writer.restore("default", [sample.file.hash], now=clock()))
    clock.advance(100 * DAY)
    assert collected(cas).files == 0
    assert read_back(cas, sample.file.hash) == sample.data


def test_a_file_that_another_namespace_has_stays(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    other = cas.in_namespace("other")
    upload(other, sample)
    revoke(cas, sample.file.hash)
    for _ in range(3):
        clock.advance(50 * DAY)
        report = collected(cas)
        assert (report.files, report.doomed) == (0, 0)
    assert read_back(other, sample.file.hash) == sample.data
    with pytest.raises(NotFoundError):
        cas.reconstruct(sample.file.hash)


def test_a_file_that_is_put_again_stays(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    revoke(cas, sample.file.hash)
    clock.advance(GRACE.undelete - 1)
    cas.put_shard(sample.shard)
    clock.advance(100 * DAY)
    assert collected(cas).files == 0
    assert read_back(cas, sample.file.hash) == sample.data


def test_xorbs_that_another_file_is_made_of_stay(cas: EmbeddedCas, clock: FakeClock) -> None:
    samples = one_chunk_samples(3)
    upload(cas, samples[0])
    put_file_of(cas, samples)
    [long] = [record.hash for record in cas.files() if record.hash != samples[0].file.hash]
    revoke(cas, long)
    clock.advance(8 * DAY)
    report = collected(cas)
    assert (report.files, report.doomed) == (1, 2)
    assert registered(cas, [sample.xorb.hash for sample in samples]) == {
        sample.xorb.hash: sample is not samples[0] for sample in samples
    }


def test_a_xorb_without_a_file_goes(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    """An upload that was given up."""
    cas.put_xorb(sample.xorb.hash, sample.body)
    clock.advance(DAY - 1)
    assert collected(cas).doomed == 0
    clock.advance(2)
    assert collected(cas).doomed == 1
    clock.advance(23 * DAY)
    assert collected(cas).xorbs == 1
    clock.advance(2 * DAY)
    assert collected(cas).objects == 1


def lose(cas: EmbeddedCas, clock: FakeClock, *samples: Sample) -> None:
    """Doom the xorbs of samples, of which no other file is made."""
    revoke(cas, *(sample.file.hash for sample in samples))
    clock.advance(8 * DAY)
    collected(cas)
    assert registered(cas, [sample.xorb.hash for sample in samples]) == {sample.xorb.hash: True for sample in samples}


def test_no_answer_offers_a_doomed_xorb(cas: EmbeddedCas, clock: FakeClock) -> None:
    doomed, used, last = one_chunk_samples(3)
    upload(cas, doomed)
    upload(cas, used)
    upload(cas, last)
    offer = cas.find_offer(first_chunk(doomed), first_chunk(used))
    assert offer is not None
    lose(cas, clock, doomed)
    for answer in (
        cas.find_chunks(first_chunk(doomed), first_chunk(used)),
        cas.find_recent(100_000),
        cas.answer_with(offer),  # which was found before
    ):
        assert answer is not None
        assert doomed.xorb.hash not in {entry.hash for entry in answer.xorbs}
    assert cas.find_chunks(first_chunk(doomed)) is None
    assert cas.lacks_chunk(first_chunk(doomed)) or cas.find_offer(first_chunk(doomed)) is None


def test_no_answer_offers_a_xorb_that_is_deleted_meanwhile(cas: EmbeddedCas, clock: FakeClock) -> None:
    deleted, used = one_chunk_samples(2)
    upload(cas, used)
    upload(cas, deleted)
    offer = cas.find_offer(first_chunk(deleted), first_chunk(used))
    assert offer is not None
    lose(cas, clock, deleted)
    clock.advance(24 * DAY)
    assert collected(cas).xorbs == 1
    # On SQLite it gets the id of the one that was deleted.
    [other] = one_chunk_samples(1, seed=7)
    upload(cas, other)
    answer = cas.answer_with(offer)
    assert answer is not None
    assert {entry.hash for entry in answer.xorbs} == {used.xorb.hash}


REVIVALS: dict[str, Callable[[EmbeddedCas, Sample], object]] = {
    "its upload": lambda cas, sample: cas.put_xorb(sample.xorb.hash, sample.body),
    "the upload of another": lambda cas, sample: cas.in_namespace("other").put_xorb(sample.xorb.hash, sample.body),
    "a shard": lambda cas, sample: cas.put_shard(sample.shard),
    "a shard that lists it": lambda cas, sample: cas.put_shard(
        Shard(xorbs=(XorbEntry(sample.xorb.hash, sample.xorb.chunks),))
    ),
}


@pytest.mark.parametrize("how", REVIVALS)
def test_a_doomed_xorb_is_kept_once_a_client_comes_to_rely_on_it(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, how: str
) -> None:
    upload(cas, sample)
    lose(cas, clock, sample)
    clock.advance(22 * DAY)
    REVIVALS[how](cas, sample)
    assert registered(cas, [sample.xorb.hash]) == {sample.xorb.hash: False}
    clock.advance(22 * DAY)
    assert collected(cas).xorbs == 0
    cas.put_shard(sample.shard)
    assert read_back(cas, sample.file.hash) == sample.data


def test_a_shard_that_names_a_deleted_xorb_is_told_which_and_goes_when_that_was_put_again(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock
) -> None:
    upload(cas, sample)
    before = xorb_object(cas, sample.xorb.hash)
    lose(cas, clock, sample)
    clock.advance(24 * DAY)
    assert collected(cas).xorbs == 1
    with pytest.raises(MissingXorbError) as caught:
        cas.put_shard(sample.shard)
    assert caught.value.xorb == str(sample.xorb.hash)
    assert cas.put_xorb(sample.xorb.hash, sample.body)
    cas.put_shard(sample.shard)
    assert xorb_object(cas, sample.xorb.hash) != before
    clock.advance(2 * DAY)
    assert collected(cas).objects == 1, "that of before"
    assert read_back(cas, sample.file.hash) == sample.data


def test_objects_that_no_row_names_go_when_they_are_old(cas: EmbeddedCas, root: Path, clock: FakeClock) -> None:
    sample, other = one_chunk_samples(2)
    upload(cas, sample)
    clock.advance(time.time() - clock())
    abandoned = [f"xorbs/{str(name)[:2]}/{name}-{'0' * 16}" for name in (sample.xorb.hash, other.xorb.hash)]
    abandoned.append(f"shards/{other.xorb.hash}-{'1' * 16}")
    foreign = f"xorbs/{'a' * 10}"
    for key in (*abandoned, foreign):
        cas.blobs.put_new(key, [b"of an upload that was cut off"])
    before = xorb_objects(cas)
    clock.advance(ABANDONED_SECONDS - 60)
    report = collected(cas)
    assert (report.objects, report.abandoned_objects) == (0, 3)
    os.utime(root / abandoned[0], (0, 0))
    report = collected(cas)
    assert (report.objects, report.abandoned, report.abandoned_objects) == (1, 1, 2)
    clock.advance(120)
    report = collected(cas)
    assert (report.abandoned, report.shards, report.bytes) == (2, 1, 2 * 29)
    assert xorb_objects(cas) == before - set(abandoned)
    assert read_back(cas, sample.file.hash) == sample.data


def test_an_object_of_an_upload_under_way_stays_though_the_clock_of_the_index_is_ahead(
    cas: EmbeddedCas, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a year: the object has no row yet, and is young by the clock of the objects alone."""
    year = 365 * DAY
    clock.advance(time.time() - clock() + year)
    key = f"xorbs/ab/{'ab' * 32}-{'1' * 16}"
    cas.blobs.put_new(key, [b"of an upload that is under way"])
    monkeypatch.setattr(cas.index, "clock", lambda: time.time() + year)
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    with lease:
        assert collect(cas, lease, GRACE).abandoned == 0
    assert xorb_objects(cas) == {key}
    assert [*cas.blobs.list("probes/")] == []


def test_nothing_is_collected_while_the_clock_of_the_index_is_days_ahead(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a jump of it every grace would be over, and what was deleted a minute ago gone."""
    clock.advance(time.time() - clock())
    upload(cas, sample)
    cas.delete([sample.file.hash])
    clock.advance(10 * DAY)
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    with lease:
        with monkeypatch.context() as jump, pytest.raises(UnavailableError, match=r"10\.0 days ahead"):
            jump.setattr(cas.index, "clock", clock)
            collect_all(cas, lease, GRACE)
        cas.undelete([sample.file.hash])
        assert read_back(cas, sample.file.hash) == sample.data
        assert collect_all(cas, lease, GRACE)["grants"] == 0


def test_objects_that_are_of_another_store_too_stay(cas: EmbeddedCas, clock: FakeClock) -> None:
    """Two indexes were made for one place at the same moment: each sees objects of the other, without a row."""
    clock.advance(time.time() - clock())
    key = f"xorbs/ab/{'ab' * 32}-{'1' * 16}"
    cas.blobs.put_new(key, [b"of the other store"])
    cas.blobs.put_new("stores/" + "0" * 32, [b"the other store"])
    clock.advance(30 * DAY)
    assert collected(cas).abandoned == 0
    assert xorb_objects(cas) == {key}
    cas.blobs.delete_many(["stores/" + "0" * 32])
    assert collected(cas).abandoned == 1


def test_objects_are_not_listed_again_too_soon(cas: EmbeddedCas, clock: FakeClock) -> None:
    clock.advance(time.time() - clock())
    cas.blobs.put_new(f"shards/{'ab' * 32}-{'1' * 16}", [b"of an upload that was cut off"])
    seen = []
    for _ in range(3):
        lease = Lease.take(cas.index, "collect")
        assert lease is not None
        with lease:
            report = collect(cas, lease, GRACE, listing_seconds=10 * DAY)
            lease.finish(json.dumps(asdict(report)))
        seen.append((report.abandoned_objects, report.abandoned))
        clock.advance(8 * DAY)
    assert seen == [(1, 0), (1, 0), (0, 1)]


def test_each_thing_deleted_is_a_line_of_the_audit(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    upload(cas, sample)
    key = xorb_object(cas, sample.xorb.hash)
    revoke(cas, sample.file.hash)
    assert not logging.getLogger("xetstore").isEnabledFor(logging.INFO)
    for _ in range(4):
        clock.advance(24 * DAY)
        collected(cas)
    lines = [(record.kind, record.what) for record in caplog.records if record.name == "xetstore.audit"]  # type: ignore[attr-defined]
    assert lines == [
        ("grant", f"default/{sample.file.hash}"),
        ("file", str(sample.file.hash)),
        ("xorb", str(sample.xorb.hash)),
        ("object", key),
    ]


class Stopping(Throttle):
    """Interrupts the work at one of its rests."""

    def __init__(self, after: int) -> None:
        super().__init__(1.0, Cancellation())
        self.left = after

    def rest(self) -> None:
        if self.left == 0:
            raise InterruptedCallError("now")
        self.left -= 1


def test_one_that_did_all_steps_is_begun_anew_though_what_follows_is_cut_off(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and rewriting have the same lease: it does not go on in the last step for ever."""
    monkeypatch.setattr("xetstore.cas.collecting.run.NOTE_SECONDS", 0)
    upload(cas, sample)
    for expected in (0, 1):
        lease = Lease.take(cas.index, "collect")
        assert lease is not None
        with lease:
            assert collect(cas, lease, GRACE).files == expected
        if not expected:
            revoke(cas, sample.file.hash)
            clock.advance(GRACE.undelete + 1)


def test_wherever_it_is_cut_off_the_next_one_gets_done(
    cas: EmbeddedCas, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("rows.PAGE", "rows.BATCH", "objects.BATCH", "objects.LISTED"):
        monkeypatch.setattr(f"xetstore.cas.collecting.{module}", 2)
    monkeypatch.setattr("xetstore.cas.collecting.run.NOTE_SECONDS", 0)
    samples = one_chunk_samples(9)
    for sample in samples:
        upload(cas, sample)
    revoke(cas, *(sample.file.hash for sample in samples[:7]))
    cut = 0
    for _ in range(5):
        clock.advance(24 * DAY)
        after, done = 0, False
        while not done:
            lease = Lease.take(cas.index, "collect")
            assert lease is not None
            with lease:
                try:
                    collect(cas, lease, GRACE, Stopping(after))
                except InterruptedCallError:
                    cut += 1
                    after = (after + 1) % 6 or 6
                else:
                    lease.finish("{}")
                    done = True
            verify_invariants(cas)
    assert cut > 20
    assert len(xorb_objects(cas)) == 2
    for sample in samples[7:]:
        assert read_back(cas, sample.file.hash) == sample.data


def test_one_that_lost_its_lease_deletes_nothing(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    revoke(cas, sample.file.hash)
    clock.advance(8 * DAY)
    late = Lease.take(cas.index, "collect", seconds=-1)
    assert late is not None
    with Lease.take(cas.index, "collect") or late as lease:
        assert lease is not late
        with pytest.raises(LeaseLostError):
            collect(cas, late, GRACE)
    assert collected(cas).files == 1


def test_with_no_grace_at_all_a_collection_deletes_what_was_doomed_before_it(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock
) -> None:
    grace = Grace(unused=0, undelete=0)
    upload(cas, sample)
    revoke(cas, sample.file.hash)
    seen = []
    for _ in range(4):
        clock.advance(1)
        report = collected(cas, grace)
        seen.append((report.files, report.xorbs, report.objects))
    assert seen == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]


def test_clocks_that_jump_back_delete_nothing_early(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    clock.advance(1000 * DAY)
    revoke(cas, sample.file.hash)
    clock.advance(-1000 * DAY)
    for _ in range(3):
        assert collected(cas).files == 0
        clock.advance(10 * DAY)
    cas.index.change(lambda writer: writer.restore("default", [sample.file.hash], now=clock()))
    assert read_back(cas, sample.file.hash) == sample.data


def test_an_upload_that_slept_for_a_day_registers_nothing(
    cas: EmbeddedCas, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its object may have been removed meanwhile, as one of an upload that was cut off."""
    clock, times = cas.index.clock, iter([0.0])
    monkeypatch.setattr(cas.index, "clock", lambda: clock() + next(times, 2 * DAY))
    with pytest.raises(UnavailableError, match="slept"):
        cas.put_xorb(sample.xorb.hash, sample.body)
    assert xorb_objects(cas) == set()
    monkeypatch.undo()
    assert cas.put_xorb(sample.xorb.hash, sample.body)
