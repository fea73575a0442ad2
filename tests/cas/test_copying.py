"""Copies of whole stores: everything arrives and is verified, nothing is read twice, and the target keeps its own."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cas.copies import content, copy, expect_readable, fill, sample
from tests.cas.test_answers import first_chunk
from tests.support.stored import file_of, scattered
from xetstore.access.secrets import DOCUMENTS, FileSecrets
from xetstore.blobs.memory import MemoryBlobStore, MemoryStream
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.check import check
from xetstore.cas.copying.copy_store import CopyReport, copy_store
from xetstore.cas.copying.kept import COPIES
from xetstore.cas.copying.position import MARGIN_SECONDS, Position, write_position
from xetstore.cas.index import Index
from xetstore.cas.index.queries.copying import LastIds
from xetstore.cas.layout import xorb_key
from xetstore.errors import InterruptedCallError, NotFoundError, UnavailableError, UsageError
from xetstore.interfaces import BlobInfo, BlobStore, RangeAnswer, RangeRequest
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, FaultPlan, Sample, make_sample, random_bytes, read_back, upload

HOUR = 3600.0


class CountingStore(MemoryBlobStore):
    """A store that remembers which objects were read, looked at and made."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.looked_at: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)

    def get_range(self, key: str, start: int, end: int) -> MemoryStream:
        self.read.append(key)
        return super().get_range(key, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        self.read += [key for key, _, _ in requests]
        return super().get_ranges(requests)

    def stat(self, key: str) -> BlobInfo | None:
        self.looked_at.append(key)
        return super().stat(key)


def store(clock: FakeClock, blobs: BlobStore | None = None) -> EmbeddedCas:
    cas = EmbeddedCas(blobs or CountingStore(), Index.in_memory(), clock=clock)
    cas.index.change(lambda writer: writer.set_store_id(secrets.token_hex(16)))
    return cas


@pytest.fixture
def source(clock: FakeClock) -> Iterator[EmbeddedCas]:
    with store(clock) as cas:
        yield cas


@pytest.fixture
def target(clock: FakeClock) -> Iterator[EmbeddedCas]:
    with store(clock) as cas:
        yield cas
        verify_invariants(cas)


def counting(cas: EmbeddedCas) -> CountingStore:
    assert isinstance(cas.blobs, CountingStore)
    return cas.blobs


# --- Everything arrives ----------------------------------------------------------------------------------


def test_everything_that_was_acknowledged_is_in_the_copy(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    found = fill(source, clock)
    clock.advance(HOUR)
    added = copy(source, target).added
    assert content(target) == content(source)
    expect_readable(target, found)
    sums = {what: len(rows) for what, rows in content(source).items()}
    assert (added.xorbs, added.files, added.shards) == (sums["xorbs"], sums["files"], sums["shards"])
    assert (added.grants, added.holders) == (sums["grants"], sums["holders"])
    shards = [{cas.blobs.get(blob.key) for blob in cas.blobs.list("shards/")} for cas in (source, target)]
    assert shards[0] == shards[1]


def test_dedup_finds_in_the_copy_what_it_finds_in_the_source(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    samples = [sample(i, 300_000) for i in range(4)]
    for one in samples:
        upload(source.in_namespace("anna"), one)
    copy(source, target)
    for one in samples:
        answer = target.in_namespace("anna").find_chunks(first_chunk(one))
        assert answer is not None
        assert one.xorb.hash in {entry.hash for entry in answer.xorbs}


def test_a_second_copy_reads_rows_and_no_object(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    copy(source, target)
    before = content(target)
    for cas in (source, target):
        counting(cas).read.clear()
        counting(cas).looked_at.clear()
    report = copy(source, target)
    assert report.added == type(report.added)()
    assert counting(source).read == counting(source).looked_at == counting(target).looked_at == []
    assert all(key.startswith(COPIES) for key in counting(target).read)
    assert content(target) == before


def test_only_what_is_new_is_read(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    copy(source, target)
    new = sample(1000)
    upload(source.in_namespace("anna"), new)
    counting(source).read.clear()
    added = copy(source, target).added
    assert (added.xorbs, added.files, added.shards, added.grants, added.holders) == (1, 1, 1, 1, 1)
    assert len(set(counting(source).read)) == 2
    assert content(target) == content(source)


def test_a_grant_and_a_holder_of_what_is_there_are_copied(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    one = sample(1)
    upload(source.in_namespace("anna"), one)
    copy(source, target)
    clock.advance(HOUR)
    upload(source.in_namespace("bert"), one)
    counting(source).read.clear()
    added = copy(source, target).added
    assert (added.xorbs, added.files, added.shards, added.grants, added.holders) == (0, 0, 0, 1, 1)
    assert counting(source).read == []
    assert content(target) == content(source)


def test_a_sha256_that_was_told_later_is_copied(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one = sample(1)
    source.put_xorb(one.xorb.hash, one.body)
    source.put_shard(replace(one.shard, files=(replace(one.file, sha256=None),)))
    copy(source, target)
    assert target.stat(one.file.hash).sha256 is None
    source.put_shard(one.shard)
    copy(source, target)
    assert target.stat(one.file.hash).sha256 == hashlib.sha256(one.data).hexdigest()
    assert content(target) == content(source)


def test_what_was_computed_and_what_is_claimed_is_copied_as_such(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one, other = sample(1), sample(2)
    digests = {each.file.hash: each.file.sha256 or b"" for each in (one, other)}
    claims = {("anna", one.file.sha256), ("anna", bytes(32)), ("bert", bytes(32))}
    for each in (one, other):
        for namespace, sha256 in claims:
            upload(source.in_namespace(namespace), replace(each, file=replace(each.file, sha256=sha256)))
    source.index.change(lambda writer: writer.note_sha256(one.file.hash, digests[one.file.hash]))
    copy(source, target)
    assert content(target) == content(source)
    with target.index.snapshot() as reader:
        told = reader.files_by_sha256("anna", digests.values())
        assert {record.hash: is_checked for record, is_checked in told.values()} == {one.file.hash: True}
    # Either may come to know it first; no claim changes it then.
    target.index.change(lambda writer: writer.note_sha256(other.file.hash, digests[other.file.hash]))
    source.index.change(lambda writer: writer.note_sha256(other.file.hash, digests[other.file.hash]))
    later = sample(3)
    for cas, sha256 in ((target, later.file.sha256), (source, bytes(32))):
        upload(cas.in_namespace("anna"), replace(later, file=replace(later.file, sha256=sha256)))
    target.index.change(lambda writer: writer.note_sha256(later.file.hash, later.file.sha256 or b""))
    copy(source, target)
    with target.index.snapshot() as reader:
        assert reader.claims_of([other.file.hash]) == {
            (other.file.hash, namespace, other.file.sha256) for namespace in ("anna", "bert")
        }
        assert reader.claims_of([later.file.hash]) == {(later.file.hash, "anna", later.file.sha256)}


def test_a_target_keeps_its_own_and_gets_the_rest(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    theirs = fill(source, clock)
    clock.advance(HOUR)
    shared = sample(3)  # the source has it, too
    mine = {("carl", upload(target.in_namespace("carl"), shared)): shared.data}
    own = sample(2000)
    mine["anna", upload(target.in_namespace("anna"), own)] = own.data
    before = content(target)
    copy(source, target)
    after = content(target)
    assert all(before[what] <= after[what] for what in before)
    expect_readable(target, {**theirs, **{one: data for one, data in mine.items() if one[0] == "anna"}})
    assert read_back(target.in_namespace("carl"), shared.file.hash) == shared.data
    assert {record.hash for record in target.in_namespace("carl").files()} == {shared.file.hash}
    for what in ("xorbs", "holders", "edges", "dedup", "shards", "shard files", "shard xorbs"):
        assert after[what] == before[what] | content(source)[what]


def test_back_and_forth_gives_the_same_store(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    found = fill(source, clock)
    copy(source, target)
    with store(clock) as restored:
        clock.advance(HOUR)
        copy(target, restored)
        assert content(restored) == content(source)
        expect_readable(restored, found)
        assert check(restored, read_data=True).problems == ()


def test_a_dry_run_counts_and_changes_nothing(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    counting(source).read.clear()
    told = copy(source, target, dry_run=True).added
    assert content(target)["xorbs"] == content(target)["files"] == set()
    assert list(target.blobs.list()) == []
    assert counting(source).read == []
    assert copy(source, target).added == told


# --- Damage ----------------------------------------------------------------------------------------------


def damage(cas: EmbeddedCas, name: Hash, data: bytes | None = None) -> None:
    """Flip a bit in a xorb's object, as a disk does."""
    with cas.index.snapshot() as reader:
        row = reader.xorb(name)
    assert row is not None
    key = xorb_key(name, row.generation)
    stored = bytearray(cas.blobs.get(key))
    stored[len(stored) // 3] ^= 1
    cas.blobs.delete_many([key])
    if data is None or data:
        cas.blobs.put_new(key, [data or bytes(stored)])


@pytest.mark.parametrize("how", ["flipped", "missing", "short"])
def test_damage_in_the_source_is_told_with_its_files_and_the_rest_is_copied(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock, how: str
) -> None:
    found = fill(source, clock)
    bad = sample(1)
    damage(source, bad.xorb.hash, {"flipped": None, "missing": b"", "short": b"short"}[how])
    for _ in range(2):
        [problem] = copy_store(source, target).problems
        assert problem.name == f"xorb {bad.xorb.hash}"
        assert problem.files == (bad.file.hash,)
    expect_readable(target, {one: data for one, data in found.items() if one[1] != bad.file.hash})
    with pytest.raises(NotFoundError):
        target.in_namespace("anna").stat(bad.file.hash)
    # Put again, it is whole, and so is the next copy.
    source.in_namespace("anna").put_xorb(bad.xorb.hash, bad.body)
    copy(source, target, since_last=True)
    expect_readable(target, found)
    assert content(target) == content(source)


def test_a_file_of_two_shards_of_which_one_is_damaged_is_copied(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one = sample(1)
    upload(source, one)
    for blob in list(source.blobs.list("shards/")):
        source.blobs.delete_many([blob.key])
    [problem] = copy_store(source, target).problems
    assert problem.name.startswith("shard ")
    assert read_back(target, one.file.hash) == one.data


def test_terms_that_make_another_file_are_not_copied(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one, other = sample(1), sample(2)
    upload(source, one)
    upload(source, other)
    with source.index.transaction() as writer:
        segments = list(writer.connection.rows("SELECT file_id, terms FROM file_segment ORDER BY file_id"))
        swapped = {"terms": segments[1][1], "file_id": segments[0][0]}
        writer.connection.change("UPDATE file_segment SET terms = :terms WHERE file_id = :file_id", swapped)
    report = copy_store(source, target)
    assert [problem.files for problem in report.problems] == [(one.file.hash,)]
    assert read_back(target, other.file.hash) == other.data
    assert [record.hash for record in target.files()] == [other.file.hash]


def test_what_was_healed_is_copied_from_its_new_object(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one = sample(1)
    upload(source, one)
    copy(source, target)
    damage(source, one.xorb.hash)
    assert check(source, checksums=True).problems
    source.put_xorb(one.xorb.hash, one.body)
    counting(source).read.clear()
    added = copy(source, target).added
    assert added.xorbs == 0
    assert counting(source).read == []  # the target's is whole
    with store(FakeClock()) as other:
        copy(source, other)
        assert read_back(other, one.file.hash) == one.data


@pytest.mark.parametrize("since_last", [False, True])
def test_what_was_found_damaged_in_the_target_is_copied_again(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock, since_last: bool
) -> None:
    found = fill(source, clock)
    clock.advance(10 * MARGIN_SECONDS)
    copy(source, target)
    damage(target, sample(1).xorb.hash)
    assert check(target, checksums=True).problems
    assert copy(source, target, since_last=since_last).added.xorbs == 1
    assert check(target, read_data=True).problems == ()
    expect_readable(target, found)


@pytest.mark.parametrize("since_last", [False, True])
def test_a_shard_that_was_found_damaged_in_the_target_is_copied_again(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock, since_last: bool
) -> None:
    fill(source, clock)
    clock.advance(10 * MARGIN_SECONDS)
    copy(source, target)
    lost = next(target.blobs.list("shards/"))
    target.blobs.delete_many([lost.key])
    assert check(target).problems
    assert copy(source, target, since_last=since_last).added.shards == 1
    assert check(target, read_data=True).problems == ()


def in_two_ways(anna: EmbeddedCas, bert: EmbeddedCas) -> tuple[Sample, Sample]:
    """A file that one store has in one xorb, and another in another one."""
    data = random_bytes(60_000, 7)
    one, other = make_sample(data), make_sample(data, before=random_bytes(50_000, 8))
    assert one.file.hash == other.file.hash
    upload(anna, one)
    upload(bert, other)
    return one, other


@pytest.mark.parametrize("since_last", [False, True])
def test_a_file_that_is_damaged_in_the_target_gets_the_terms_of_the_source(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock, since_last: bool
) -> None:
    one, other = in_two_ways(source, target)
    copy(source, target)
    damage(target, other.xorb.hash)
    assert check(target, checksums=True).problems
    copy(source, target, since_last=since_last)
    assert read_back(target, one.file.hash) == one.data
    assert [problem.files for problem in check(target).problems] == [()]  # no file needs the damaged xorb any more
    forget_damage(target)


def test_a_namespace_learns_of_no_xorb_of_files_that_it_has_not_in_the_source(
    source: EmbeddedCas, target: EmbeddedCas
) -> None:
    one, other = in_two_ways(source.in_namespace("anna"), target.in_namespace("bert"))
    copy(source, target)
    damage(target, other.xorb.hash)
    assert check(target, checksums=True).problems
    copy(source, target)
    terms = target.in_namespace("bert").reconstruct(one.file.hash).terms
    assert {term.xorb for term in terms} == {other.xorb.hash}
    forget_damage(target)


def forget_damage(cas: EmbeddedCas) -> None:
    """Put the damaged xorb again, so that the target is in order."""
    whole = make_sample(random_bytes(60_000, 7), before=random_bytes(50_000, 8))
    cas.put_xorb(whole.xorb.hash, whole.body)


def test_a_xorb_that_the_target_lost_is_seen_when_a_file_leans_on_it(source: EmbeddedCas, target: EmbeddedCas) -> None:
    one = scattered(10)
    upload(source, one)
    copy(source, target)
    damage(target, one.xorb.hash, b"")
    name, data, shard = file_of(one, [(2, 5)])
    source.put_shard(shard)
    assert copy(source, target).added.xorbs == 1
    assert read_back(target, name) == data
    assert read_back(target, one.file.hash) == one.data


# --- Since the last copy ---------------------------------------------------------------------------------


def test_since_the_last_copy_only_new_rows_are_read(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    clock.advance(2 * MARGIN_SECONDS)
    assert copy(source, target).compared > 10
    clock.advance(2 * MARGIN_SECONDS)
    upload(source.in_namespace("anna"), sample(1000))
    clock.advance(2 * MARGIN_SECONDS)
    report = copy(source, target, since_last=True)
    assert not report.compared_all
    assert report.compared == 3  # a xorb, a file, a shard
    assert content(target) == content(source)
    clock.advance(2 * MARGIN_SECONDS)
    assert copy(source, target, since_last=True).compared == 0


def test_since_the_last_copy_old_rows_that_changed_are_read(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    fill(source, clock)
    clock.advance(2 * MARGIN_SECONDS)
    copy(source, target)
    clock.advance(2 * MARGIN_SECONDS)
    upload(source.in_namespace("carl"), sample(0))
    added = copy(source, target, since_last=True).added
    assert (added.xorbs, added.grants, added.holders) == (0, 1, 1)
    assert content(target) == content(source)


def test_a_file_that_was_given_back_since_the_last_copy_is_copied(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    """Its rows are old, and the grant is new. While it was deleted, no copy had it."""
    file = upload(source, sample(1))
    source.delete([file])
    clock.advance(2 * MARGIN_SECONDS)
    copy(source, target)
    assert [*target.files()] == []
    clock.advance(2 * MARGIN_SECONDS)
    source.undelete([file])
    copy(source, target, since_last=True)
    assert read_back(target, file) == sample(1).data


def test_a_row_that_was_committed_late_is_read(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    """A writer beside others had taken its ids before the last copy began, and committed after that had ended."""
    late = sample(5)
    upload(source, late)
    upload(source, sample(6))
    with source.index.snapshot() as reader:
        last, source_id = reader.last_ids(), reader.store_id()
    assert source_id is not None
    clock.advance(HOUR)
    write_position(target.blobs, source_id, Position(clock(), last, LastIds()))
    assert not copy(source, target, since_last=True).compared_all
    assert read_back(target, late.file.hash) == late.data
    assert content(target) == content(source)


def test_a_clock_that_was_wrong_hides_nothing(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    copy(source, target)
    clock.advance(-100 * MARGIN_SECONDS)  # slow for a while, in which a file is put
    upload(source, sample(1000))
    clock.advance(101 * MARGIN_SECONDS)
    copy(source, target, since_last=True)
    assert content(target) == content(source)
    clock.advance(1000 * MARGIN_SECONDS)  # fast, in which it is copied
    copy(source, target)
    clock.advance(-1000 * MARGIN_SECONDS)
    upload(source.in_namespace("carl"), sample(1000))
    assert copy(source, target, since_last=True).compared_all
    assert content(target) == content(source)


def test_a_position_of_other_stores_is_not_believed(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    copy(source, target)
    clock.advance(2 * MARGIN_SECONDS)
    with store(clock) as emptied:  # the objects of the target are there, and its index is an older one
        [blob] = target.blobs.list(COPIES)
        emptied.blobs.put_new(blob.key, [target.blobs.get(blob.key)])
        assert copy(source, emptied, since_last=True).compared_all
        assert content(emptied) == content(source)


NONSENSE = [
    *("", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "source": 5}'),
    '{"version": 1, "started_at": 1, "source": {"xorb": "many"}, "target": {}}',
    '{"version": 1, "started_at": 1, "source": {"other": 1}, "target": {}}',
]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_position_that_makes_no_sense_is_none(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock, text: str
) -> None:
    fill(source, clock)
    copy(source, target)
    [blob] = target.blobs.list(COPIES)
    target.blobs.delete_many([blob.key])
    target.blobs.put_new(blob.key, [text.encode()])
    assert copy(source, target, since_last=True).compared_all
    assert not copy(source, target, since_last=True).compared_all
    assert len(list(target.blobs.list(COPIES))) == 1


def test_a_copy_with_a_problem_is_not_the_last_one(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    damage(source, sample(1).xorb.hash)
    assert copy_store(source, target).problems
    assert list(target.blobs.list(COPIES)) == []


# --- In use, and interrupted -----------------------------------------------------------------------------


def test_a_source_that_is_filled_meanwhile_gives_whole_files(
    source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock
) -> None:
    fill(source, clock)
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            upload(source.in_namespace("bert"), sample(3000 + number, 20_000))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while not done.is_set():
            copy(source, target, since_last=True)
            verify_invariants(target)
    finally:
        thread.join()
    copy(source, target, since_last=True)
    assert content(target) == content(source)


class StoppingStore(CountingStore):
    """A store that cancels a call after some number of reads."""

    def __init__(self, cancellation: Cancellation, after: int) -> None:
        super().__init__()
        self._cancellation, self._left = cancellation, after

    def get_range(self, key: str, start: int, end: int) -> MemoryStream:
        self._left -= 1
        if self._left < 0:
            self._cancellation.cancel()
        return super().get_range(key, start, end)


def test_a_copy_that_is_cancelled_ends_and_goes_on_where_it_was(target: EmbeddedCas, clock: FakeClock) -> None:
    cancellation = Cancellation()
    blobs = StoppingStore(cancellation, 4)
    with store(clock, blobs) as source:
        fill(source, clock)
        blobs.read.clear()
        with pytest.raises(InterruptedCallError):
            copy_store(source, target, cancellation=cancellation, jobs=1)
        verify_invariants(target)
        already = {hash_ for hash_, *_ in content(target)["xorbs"]}
        assert already
        blobs.read.clear()
        copy(source, target)
        assert not {xorb_key(Hash(digest)) for digest in already} & set(blobs.read)
        assert content(target) == content(source)


def test_two_copies_at_once_make_one(source: EmbeddedCas, target: EmbeddedCas, clock: FakeClock) -> None:
    fill(source, clock)
    reports: list[CopyReport] = []
    threads = [threading.Thread(target=lambda: reports.append(copy(source, target))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3
    assert content(target) == content(source)


@pytest.mark.slow
def test_whichever_operation_fails_the_target_is_in_order_and_the_next_copy_goes_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    with EmbeddedCas.open(tmp_path / "source", clock=clock) as source:
        source.index.change(lambda writer: writer.set_store_id("ab" * 16))
        for number in range(2):
            upload(source.in_namespace("anna"), sample(number, 30_000))
        upload(source.in_namespace("bert"), sample(1, 30_000))
        every = content(source)
        failed = 0
        for number in range(300):
            root = tmp_path / str(number)
            with FaultPlan(fail_at=number).installed() as plan:
                try:
                    with EmbeddedCas.open(root, clock=clock) as target:
                        copy_store(source, target, jobs=1)
                except UnavailableError:
                    failed += 1
            if not plan.has_failed:
                break
            with EmbeddedCas.open(root, clock=clock) as target:
                verify_invariants(target)
                for what, rows in content(target).items():
                    assert rows <= every[what], plan.operations[number]
                copy(source, target, since_last=True)
                assert content(target) == every, plan.operations[number]
                verify_invariants(target)
            shutil.rmtree(root)
        assert not plan.has_failed
        assert failed > 80


# --- Secrets ---------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[FileSecrets, FileSecrets]:
    return tuple(FileSecrets.open(tmp_path / name, create=True) for name in ("one", "two"))  # type: ignore[return-value]


def give(to: FileSecrets, name: str, data: bytes) -> None:
    to.change(name, lambda _: data)


def documents(of: FileSecrets) -> dict[str, bytes]:
    return {name: found[0] for name in DOCUMENTS if (found := of.read(name)) is not None}


def test_secrets_are_copied_where_that_is_asked_for_and_again_when_they_change(
    source: EmbeddedCas, target: EmbeddedCas, folders: tuple[FileSecrets, FileSecrets]
) -> None:
    one, two = folders
    for name in DOCUMENTS:
        give(one, name, f"{name} of the source".encode())
    copy(source, target)
    assert documents(two) == {}
    copy(source, target, secrets=folders)
    assert documents(two) == documents(one)
    give(one, "revoked", b"another")
    copy(source, target)  # without: the last ones are not forgotten
    copy(source, target, secrets=folders, since_last=True)
    assert documents(two) == documents(one)


def test_keys_of_the_target_are_not_replaced(
    source: EmbeddedCas, target: EmbeddedCas, folders: tuple[FileSecrets, FileSecrets], clock: FakeClock
) -> None:
    one, two = folders
    give(one, "keys.json", b"mine")
    give(one, "revoked", b"mine")
    give(two, "keys.json", b"theirs")
    fill(source, clock)
    with pytest.raises(UsageError, match="its own"):
        copy(source, target, secrets=folders)
    assert documents(two) == {"keys.json": b"theirs"}
    assert content(target)["files"] == set()


def test_secrets_go_on_after_copies_that_did_not_come_to_their_end(
    source: EmbeddedCas, target: EmbeddedCas, folders: tuple[FileSecrets, FileSecrets], clock: FakeClock
) -> None:
    fill(source, clock)
    damage(source, sample(1).xorb.hash)
    for number in range(3):
        give(folders[0], "revoked", b"%d" % number)
        assert copy_store(source, target, secrets=folders).problems
        assert documents(folders[1]) == documents(folders[0])


def test_no_object_has_a_secret_in_it(
    source: EmbeddedCas, target: EmbeddedCas, folders: tuple[FileSecrets, FileSecrets]
) -> None:
    give(folders[0], "keys.json", b"very secret")
    copy(source, target, secrets=folders)
    kept = [target.blobs.get(blob.key) for blob in target.blobs.list(COPIES)]
    assert hashlib.sha256(b"very secret").hexdigest() in json.dumps([json.loads(document) for document in kept])
    assert not any(b"very secret" in document for document in kept)
