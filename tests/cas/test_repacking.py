"""Repacking: the parts of a fragmented file get xorbs of their own, within bounds; and what holds of any rewrite."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cas.deleting import (
    drop,
    expect_contents,
    expect_sound,
    file_across,
    file_in,
    made_of,
    rewritten,
    sweep,
    xorb_of,
)
from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.cas.rewriting import Locality
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction, plan_fetches
from xetstore.protocol.shard import Shard
from xetstore.testing import FakeClock

ENGINES = engines.BOTH


def fetches(cas: EmbeddedCas, file: Hash) -> int:
    """The fetches of a download of a whole file."""
    answer = cas.reconstruct(file)
    return len(plan_fetches(answer, cas.stat(file).size))


def stored(cas: EmbeddedCas) -> int:
    """Bytes of the chunks of all xorbs."""
    with cas.index.snapshot() as reader:
        return sum(row.region_bytes for row in reader.xorbs_after(0))


EASY = Locality(fetches_per_gib=1.0, space=1.0)


def test_a_fragmented_file_is_read_by_few_fetches_afterwards(cas: EmbeddedCas) -> None:
    olds = [xorb_of(cas, seed) for seed in range(3)]
    whole = dict(file_in(cas, old, (0, 40)) for old in olds)
    name, data = file_across(cas, *[(olds[at % 3], at, at + 1) for at in range(39)])
    before = fetches(cas, name)
    assert before == 39
    report = rewritten(cas, locality=EASY)
    assert (report.files_repacked, report.fetches_before, report.fetches_after) == (1, before, 1)
    assert fetches(cas, name) == 1
    expect_sound(cas)
    expect_contents(cas, whole | {name: data})
    # Others are as they were: their xorbs are whole still, so nothing of them was rewritten.
    assert report.xorbs_rewritten == 0
    assert all(fetches(cas, one) == 1 for one in whole)
    assert rewritten(cas, locality=EASY).files_repacked == 0


def test_a_file_that_takes_too_many_copies_stays_as_it_is(cas: EmbeddedCas) -> None:
    olds = [xorb_of(cas, seed) for seed in range(2)]
    name, _ = file_across(cas, *[(olds[at % 2], at, at + 1) for at in range(40)])
    before = stored(cas)
    assert rewritten(cas, locality=Locality(1.0, 0.125), threshold=1).files_repacked == 0
    assert stored(cas) == before
    assert fetches(cas, name) == 40


def test_long_runs_stay_where_they_are(cas: EmbeddedCas) -> None:
    long, short = xorb_of(cas, 1, chunks=400), [xorb_of(cas, seed) for seed in (2, 3)]
    keep = [file_in(cas, one, (0, one.xorb.chunk_count)) for one in (long, *short)]
    parts = [(long, 0, 300), *[(short[at % 2], at, at + 1) for at in range(30)], (long, 310, 400)]
    name, data = file_across(cas, *parts)
    report = rewritten(cas, locality=Locality(1.0, 0.125))
    assert (report.files_repacked, report.copied_bytes) == (1, 30 * 1008)
    assert fetches(cas, name) == 3
    expect_sound(cas)
    expect_contents(cas, dict([*keep, (name, data)]))


def test_a_repacked_file_shows_none_of_the_others_chunks(cas: EmbeddedCas) -> None:
    """Those who may read the file have its new xorb, and not those who have uploaded the old ones."""
    anna, bert = cas.in_namespace("anna"), cas.in_namespace("bert")
    olds = [xorb_of(view, seed) for seed, view in enumerate((anna, bert))]
    name, _ = file_across(anna, *[(olds[at % 2], at, at + 1) for at in range(40)])
    assert rewritten(cas, locality=EASY).files_repacked == 1
    with cas.index.snapshot() as reader:
        [row] = reader.xorbs_of_files([name])[name]
        assert reader.holders_of([row.hash]) == {(row.hash, "anna")}


CHUNKS = 12
ranges = st.tuples(st.integers(0, 3), st.integers(0, CHUNKS - 1), st.integers(1, CHUNKS)).map(
    lambda one: (one[0], one[1], min(CHUNKS, one[1] + one[2]))
)
files = st.lists(st.lists(ranges, min_size=1, max_size=24), min_size=1, max_size=8)


@settings(max_examples=60)
@given(files, st.sets(st.integers(0, 7)), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), st.booleans())
def test_after_any_deletions_the_rest_is_the_same_and_close_to_what_it_takes(
    made: list[list[tuple[int, int, int]]], deleted: set[int], threshold: float, repacks: bool
) -> None:
    clock = FakeClock()
    with EmbeddedCas.in_memory(clock=clock) as cas:
        xorbs = [xorb_of(cas, seed, chunks=CHUNKS, chunk_bytes=50) for seed in range(4)]
        every = [made_of(*((xorbs[number], start, end) for number, start, end in parts)) for parts in made]
        cas.put_shard(Shard(tuple(entry for _, _, entry in every)))
        gone = {every[number][0] for number in deleted if number < len(every)}
        kept = {name: data for name, data, _ in every if name not in gone}
        drop(cas, *gone)
        clock.advance(1)
        cas.index.change(lambda writer: writer.doom_unused([row.id for row in writer.xorbs_after(0)], now=clock()))
        sweep(cas)
        before = stored(cas)
        locality = Locality(1.0, 0.5) if repacks else None
        report = rewritten(cas, threshold=threshold, locality=locality)
        sweep(cas)
        expect_sound(cas)
        expect_contents(cas, kept)
        used: set[tuple[Hash, int]] = set()
        ideal = 0
        for name in kept:
            answer: Reconstruction = cas.reconstruct(name)
            used |= {(term.xorb, at) for term in answer.terms for at in range(term.chunk_start, term.chunk_end)}
        with cas.index.snapshot() as reader:
            rows = reader.xorbs([xorb for xorb, _ in used])
        for xorb, at in used:
            bounds = [0, *accumulate(1 for _ in range(rows[xorb].chunk_count))]
            start, end = cas.footers.get(rows[xorb]).byte_range(bounds[at], bounds[at] + 1)
            ideal += end - start
        assert stored(cas) * (1 - threshold) <= ideal
        copies = 0.5 * sum(map(len, kept.values())) * 58 / 50 if repacks else 0
        assert stored(cas) <= before + copies
        # It comes to rest.
        clock.advance(1)
        again = rewritten(cas, threshold=threshold, locality=locality)
        assert (again.xorbs_written, again.shards_rewritten, again.left, report.left) == (0, 0, 0, 0)
