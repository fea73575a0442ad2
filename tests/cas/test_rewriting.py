"""Rewriting: the space of deleted files within xorbs comes back, and shards follow; all that lives stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cas.deleting import (
    drop,
    expect_contents,
    expect_sound,
    file_in,
    objects,
    rewritten,
    shard_entries,
    sweep,
    xorb_of,
)
from tests.cas.test_healing import flip
from tests.support import engines
from tests.support.objects import shard_object, xorb_object, xorb_row
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.grace import Grace
from xetstore.cas.index import Index
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting import rewrite
from xetstore.errors import LeaseLostError
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, FaultPlan, FaultyBlobStore, make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH


def xorbs_of(cas: EmbeddedCas, file: Hash) -> list[Hash]:
    with cas.index.snapshot() as reader:
        return [row.hash for row in reader.xorbs_of_files([file]).get(file, [])]


def test_of_a_partly_dead_xorb_the_chunks_that_live_are_copied_and_the_old_one_goes(cas: EmbeddedCas) -> None:
    old = xorb_of(cas, 1)
    kept, data = file_in(cas, old, (3, 5), (20, 24))
    gone, _ = file_in(cas, old, (0, 40))
    before = cas.reconstruct(kept)
    drop(cas, gone)
    report = rewritten(cas)
    assert (report.xorbs_rewritten, report.xorbs_written, report.files_rewritten) == (1, 1, 1)
    assert (report.copied_bytes, report.freed_bytes) == (6 * 1008, 34 * 1008)
    expect_sound(cas)
    expect_contents(cas, {kept: data})
    [new] = xorbs_of(cas, kept)
    assert new != old.xorb.hash
    assert xorb_row(cas, new).region_bytes == report.copied_bytes
    # A download that was under way goes on.
    for fetch in before.fetches[old.xorb.hash]:
        cas.fetch_xorb(fetch).close()
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, {kept: data})
    assert objects(cas, "xorbs/") == {new}
    assert rewritten(cas).xorbs_rewritten == 0


def test_a_xorb_with_less_garbage_stays_and_is_looked_at_once(cas: EmbeddedCas, clock: FakeClock) -> None:
    old = xorb_of(cas, 1)
    file_in(cas, old, (0, 31))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)
    assert rewritten(cas, looks=0).xorbs_looked_at == 1
    assert rewritten(cas, looks=0).xorbs_looked_at == 0
    clock.advance(1)
    assert rewritten(cas, threshold=0.2).xorbs_rewritten == 1


def test_a_dry_run_tells_the_same_and_changes_nothing(cas: EmbeddedCas) -> None:
    old = xorb_of(cas, 1)
    kept, data = file_in(cas, old, (3, 5))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)
    before = {blob.key for blob in cas.blobs.list()}
    foreseen = rewritten(cas, dry_run=True)
    assert {blob.key for blob in cas.blobs.list()} == before
    assert xorbs_of(cas, kept) == [old.xorb.hash]
    done = rewritten(cas)
    assert (foreseen.xorbs_rewritten, foreseen.copied_bytes) == (done.xorbs_rewritten, done.copied_bytes)
    expect_contents(cas, {kept: data})


def test_several_xorbs_become_one_in_the_order_of_the_files_that_use_them(cas: EmbeddedCas) -> None:
    olds = [xorb_of(cas, seed) for seed in range(5)]
    files = dict(file_in(cas, old, (10, 12), (30, 31)) for old in reversed(olds))
    gone = [file_in(cas, old, (0, 40))[0] for old in olds]
    drop(cas, *gone)
    report = rewritten(cas)
    assert (report.xorbs_rewritten, report.xorbs_written) == (5, 1)
    [new] = {name for file in files for name in xorbs_of(cas, file)}
    starts = {file: cas.reconstruct(file).terms[0].chunk_start for file in files}
    assert [*starts.values()] == [0, 3, 6, 9, 12], "the file that was put first has the first chunks"
    # The two runs of each touch now, so they are one term.
    assert all(len(cas.reconstruct(file).terms) == 1 for file in files)
    assert xorb_row(cas, new).chunk_count == 15
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, files)


def test_xorbs_of_other_namespaces_do_not_become_one(cas: EmbeddedCas) -> None:
    """Each would let the namespaces of the other know of its chunks."""
    anna, bert = cas.in_namespace("anna"), cas.in_namespace("bert")
    olds = [xorb_of(anna, 1), xorb_of(anna, 2), xorb_of(bert, 3), xorb_of(anna, 4)]
    kept = [file_in(view, old, (0, 4)) for view, old in zip((anna, anna, bert, anna), olds, strict=True)]
    bert.put_xorb(olds[3].xorb.hash, olds[3].body)
    gone = [file_in(cas, old, (0, 40))[0] for old in olds]
    drop(cas, *gone)
    assert rewritten(cas).xorbs_written == 3
    expect_sound(cas)
    new = [xorbs_of(cas, name) for name, _ in kept]
    assert new[0] == new[1]
    assert len({*map(tuple, new)}) == 3
    with cas.index.snapshot() as reader:
        holders = reader.holders_of([name for names in new for name in names])
    assert holders == {
        (new[0][0], "anna"), (new[2][0], "bert"), (new[3][0], "anna"), (new[3][0], "bert")
    }  # fmt: skip
    for view, (name, data) in zip((anna, anna, bert, anna), kept, strict=True):
        assert read_back(view, name) == data


def test_answers_offer_the_copy_and_not_the_old_one(cas: EmbeddedCas) -> None:
    old = xorb_of(cas, 1)
    kept, _ = file_in(cas, old, (7, 9))
    gone, _ = file_in(cas, old, (0, 40))
    chunk = Hash(old.xorb.chunks.digest(7))  # the first of a file can be found

    def offered() -> set[Hash]:
        answer = cas.find_chunks(chunk)
        return set() if answer is None else {entry.hash for entry in answer.xorbs}

    assert offered() == {old.xorb.hash}
    drop(cas, gone)
    rewritten(cas)
    assert offered() == {*xorbs_of(cas, kept)}


def test_old_bytes_are_not_trusted(cas: EmbeddedCas, root: Path) -> None:
    olds = [xorb_of(cas, seed) for seed in (1, 2)]
    other = xorb_of(cas.in_namespace("other"), 3)
    kept = [file_in(cas, old, (10, 12)) for old in olds]
    spared = file_in(cas.in_namespace("other"), other, (10, 12))
    gone = [file_in(cas, old, (0, 40))[0] for old in (*olds, other)]
    drop(cas, *gone)
    flip(root / xorb_object(cas, olds[0].xorb.hash), 11 * 1008 + 500)
    report = rewritten(cas)
    assert (report.xorbs_rewritten, report.files_rewritten, len(report.damaged)) == (1, 1, 1)
    assert xorb_row(cas, olds[0].xorb.hash).is_damaged
    assert not xorb_row(cas, olds[1].xorb.hash).is_damaged
    assert xorbs_of(cas, kept[0][0]) == [olds[0].xorb.hash]
    assert read_back(cas.in_namespace("other"), spared[0]) == spared[1]
    # The one beside it is rewritten by the next run, and that one when it was healed.
    assert rewritten(cas).files_rewritten == 1
    cas.put_xorb(olds[0].xorb.hash, olds[0].body)
    assert rewritten(cas).files_rewritten == 1
    expect_sound(cas)
    expect_contents(cas, dict(kept))


# Shards


def test_a_shard_that_no_file_needs_goes(cas: EmbeddedCas, clock: FakeClock) -> None:
    sample = make_sample(random_bytes(20_000, 1))
    name = upload(cas, sample)
    drop(cas, name)
    assert rewritten(cas, grace=Grace()).shards_dropped == 0, "an upload may be under way"
    clock.advance(24 * 3600 + 1)
    assert rewritten(cas, grace=Grace()).shards_dropped == 1
    assert objects(cas, "shards/") != set()
    sweep(cas)
    assert objects(cas, "") == set()
    assert read_back(cas, upload(cas, sample)) == sample.data
    expect_sound(cas)


def test_a_shard_of_xorbs_alone_goes(cas: EmbeddedCas) -> None:
    sample = make_sample(random_bytes(20_000, 1))
    cas.put_xorb(sample.xorb.hash, sample.body)
    cas.put_shard(replace(sample.shard, files=()))
    assert rewritten(cas).shards_dropped == 1


def test_a_shard_that_names_a_deleted_file_too_is_written_anew_without_it(cas: EmbeddedCas) -> None:
    samples = [make_sample(random_bytes(20_000, seed)) for seed in range(3)]
    for sample in samples:
        cas.put_xorb(sample.xorb.hash, sample.body)
    entries = tuple(sample.file for sample in samples)
    cas.put_shard(replace(samples[0].shard, files=entries, xorbs=()))
    drop(cas, samples[1].file.hash)
    report = rewritten(cas)
    assert (report.shards_rewritten, report.xorbs_written) == (1, 0)
    found = {entry.hash: entry for entry in shard_entries(cas)}
    assert found == {samples[0].file.hash: samples[0].file, samples[2].file.hash: samples[2].file}
    sweep(cas)
    assert len(objects(cas, "shards/")) == 1
    expect_sound(cas)
    assert rewritten(cas).shards_rewritten == 0


def test_files_of_rewritten_xorbs_are_named_with_their_new_terms(cas: EmbeddedCas) -> None:
    old = xorb_of(cas, 1)
    kept, _ = file_in(cas, old, (3, 5), (20, 24))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)
    rewritten(cas)
    [entry] = shard_entries(cas)
    assert (entry.hash, {term.xorb for term in entry.terms}) == (kept, {*xorbs_of(cas, kept)})
    sweep(cas)
    assert len(objects(cas, "shards/")) == 1


def unlink(cas: EmbeddedCas) -> None:
    """Make all shards those of an older release."""
    with cas.index.transaction() as writer:
        for statement in ("DELETE FROM shard_file", "DELETE FROM shard_xorb", "UPDATE shard SET is_linked = 0"):
            writer.connection.change(statement)


def test_shards_of_an_older_release_are_linked_first(cas: EmbeddedCas) -> None:
    samples = [make_sample(random_bytes(20_000, seed)) for seed in range(2)]
    names = [upload(cas, sample) for sample in samples]
    unlink(cas)
    expect_sound(cas)
    drop(cas, names[0])
    report = rewritten(cas)
    assert (report.shards_linked, report.shards_dropped, report.shards_rewritten) == (2, 1, 0)
    assert {entry.hash for entry in shard_entries(cas)} == {names[1]}
    with cas.index.snapshot() as reader:
        assert len(reader.shards_of(names[1])) == 1
    expect_sound(cas)


def break_shard(cas: EmbeddedCas, root: Path, file: Hash) -> None:
    """Damage the shard that names a file, and let a check see it."""
    with cas.index.snapshot() as reader:
        [shard] = reader.shards_of(file)
    flip(root / shard_object(cas, shard), 100)
    assert len(check(cas, checksums=True).problems) == 1


def test_a_damaged_shard_is_made_anew_from_the_index(cas: EmbeddedCas, root: Path) -> None:
    sample = make_sample(random_bytes(20_000, 1))
    name = upload(cas, sample)
    break_shard(cas, root, name)
    assert rewritten(cas).shards_rewritten == 1
    expect_sound(cas)
    assert [*shard_entries(cas)] == [sample.file], "its SHA-256 too"


def test_a_file_that_no_shard_names_gets_one(cas: EmbeddedCas) -> None:
    sample = make_sample(random_bytes(20_000, 1))
    upload(cas, sample)
    with cas.index.transaction() as writer:
        writer.connection.change("DELETE FROM shard")
    assert "named by no shard" in str(check(cas).notes)
    assert rewritten(cas, looks=0).shards_rewritten == 0
    assert rewritten(cas, looks=10).shards_rewritten == 1
    expect_sound(cas)
    assert [*shard_entries(cas)] == [sample.file]


def test_a_file_that_was_healed_is_named_with_the_terms_that_count(cas: EmbeddedCas, root: Path) -> None:
    """The shard of before names a xorb that is not of use any more."""
    data = random_bytes(60_000, 1)
    sample, other = make_sample(data), make_sample(data, before=random_bytes(20_000, 2))
    upload(cas, sample)
    (root / xorb_object(cas, sample.xorb.hash)).unlink()
    upload(cas, other)  # the same file, from another xorb
    assert xorbs_of(cas, sample.file.hash) == [other.xorb.hash]
    with cas.index.snapshot() as reader:
        assert len(reader.shards_of(sample.file.hash)) == 1
    assert rewritten(cas, threshold=1).shards_dropped == 1
    assert [entry.terms for entry in shard_entries(cas)] == [other.file.terms]


def test_a_shard_that_is_put_again_while_it_is_replaced_is_stored_anew(cas: EmbeddedCas) -> None:
    sample = make_sample(random_bytes(20_000, 1))
    name = upload(cas, sample)
    drop(cas, name)
    rewritten(cas)  # its row is gone, its object is still there
    assert read_back(cas, upload(cas, sample)) == sample.data
    sweep(cas)
    expect_sound(cas)


# Beside others


class Pause(FaultPlan):
    """Calls back, once, before an operation of the objects."""

    def __init__(self, operation: str, then: Callable[[], object]) -> None:
        super().__init__()
        self._operation = operation
        self._then: Callable[[], object] | None = then

    def step(self, operation: str) -> None:
        super().step(operation)
        if self._then is not None and operation.startswith(self._operation):
            then, self._then = self._then, None
            then()

    @property
    def is_done(self) -> bool:
        return self._then is None


COPY, SHARD = "commit xorbs/", "put_new shards/"
"""Before the copy is stored, which is before files are read; and behind that, before their rows are changed."""


@pytest.fixture
def pausing(cas: EmbeddedCas, opening_index: Callable[[], Index]) -> Callable[..., Any]:
    """Rewrite the store, and do something else meanwhile."""

    def run(operation: str, then: Callable[[], object], **options: Any) -> Any:
        plan = Pause(operation, then)
        with EmbeddedCas(FaultyBlobStore(cas.blobs, plan), opening_index(), clock=cas.now) as beside:
            report = rewritten(beside, **options)
        assert plan.is_done
        return report

    return run


@pytest.fixture
def opening_index(cas: EmbeddedCas, open_store: engines.OpenStore) -> Callable[[], Index]:
    return lambda: open_store().index


@pytest.mark.parametrize("operation", [COPY, SHARD])
def test_a_file_that_is_deleted_meanwhile_does_not_come_back(
    cas: EmbeddedCas, pausing: Callable[..., Any], operation: str
) -> None:
    old = xorb_of(cas, 1)
    (kept, data), (late, _), (gone, _) = (file_in(cas, old, *one) for one in ([(3, 5)], [(7, 9)], [(0, 40)]))
    drop(cas, gone)
    assert pausing(operation, lambda: drop(cas, late)).files_rewritten == 1
    expect_sound(cas)
    expect_contents(cas, {kept: data})
    rewritten(cas)
    sweep(cas)
    expect_sound(cas)
    assert {entry.hash for entry in shard_entries(cas)} == {kept}
    assert objects(cas, "xorbs/") == {*xorbs_of(cas, kept)}


@pytest.mark.parametrize("operation", [COPY, SHARD])
def test_a_file_that_is_healed_meanwhile_keeps_the_terms_that_it_got(
    cas: EmbeddedCas, root: Path, pausing: Callable[..., Any], operation: str
) -> None:
    content = random_bytes(60_000, 1)
    hurt = make_sample(content, before=random_bytes(200_000, 2))
    healer = make_sample(content, before=random_bytes(20_000, 3))
    upload(cas, hurt)
    gone, _ = file_in(cas, hurt, (0, hurt.xorb.chunk_count))
    drop(cas, gone)

    def heal() -> None:
        (root / xorb_object(cas, hurt.xorb.hash)).unlink()
        upload(cas, healer)

    assert pausing(operation, heal).files_rewritten == 0
    assert xorbs_of(cas, hurt.file.hash) == [healer.xorb.hash]
    cas.index.change(lambda writer: writer.doom_unused([xorb_row(cas, hurt.xorb.hash).id], now=cas.now()))
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, {hurt.file.hash: content})


@pytest.mark.parametrize("operation", [COPY, SHARD])
def test_a_new_file_of_the_old_xorb_keeps_it(cas: EmbeddedCas, pausing: Callable[..., Any], operation: str) -> None:
    old = xorb_of(cas, 1)
    kept = file_in(cas, old, (3, 5))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)
    new: list[tuple[Hash, bytes]] = []
    pausing(operation, lambda: new.append(file_in(cas, old, (4, 12))))
    expect_sound(cas)
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, dict([kept, *new]))
    rewritten(cas)
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, dict([kept, *new]))


def test_a_shard_that_names_the_old_xorb_revives_it(cas: EmbeddedCas) -> None:
    old = xorb_of(cas, 1)
    kept = file_in(cas, old, (3, 5))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)
    rewritten(cas)
    again = file_in(cas, old, (0, 40))
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, dict([kept, again]))


@pytest.mark.parametrize("operation", [COPY, SHARD])
def test_a_rewriter_that_lost_its_lease_changes_nothing_more(
    cas: EmbeddedCas, pausing: Callable[..., Any], operation: str
) -> None:
    old = xorb_of(cas, 1)
    kept = file_in(cas, old, (3, 5))
    gone, _ = file_in(cas, old, (0, 40))
    drop(cas, gone)

    def take_over() -> None:
        with cas.index.transaction() as writer:
            writer.connection.change("UPDATE chore SET expires_at = 0")
        assert rewritten(cas).files_rewritten == 1

    with pytest.raises(LeaseLostError):
        pausing(operation, take_over)
    expect_sound(cas)
    sweep(cas)
    assert rewritten(cas).xorbs_rewritten == 0
    sweep(cas)
    expect_sound(cas)
    expect_contents(cas, dict([kept]))
    assert len(objects(cas, "shards/")) == 1


def test_a_run_goes_on_where_the_last_one_came_to(cas: EmbeddedCas, clock: FakeClock) -> None:
    olds = [xorb_of(cas, seed) for seed in range(6)]
    files = dict(file_in(cas, old, (0, 4)) for old in olds)
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    grace = Grace(0.0, 0.0)
    clock.advance(1)
    looked = [rewrite(cas, lease, looks=2, grace=grace).xorbs_looked_at for _ in range(3)]
    assert looked == [2, 2, 2]
    expect_contents(cas, files)
    sweep(cas)
    assert not objects(cas, "xorbs/") & {old.xorb.hash for old in olds}
