"""Dedup planning: known runs are found, new chunks packed, short runs refused, queries kept apart."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import (
    REPEATS_BEFORE_STRETCH,
    STRETCH_CHUNKS,
    WIRE_QUERIES,
    DedupPlanner,
    FragmentationGuard,
    QueryRule,
)
from xetstore.protocol.hashes import Hash
from xetstore.protocol.known_chunks import ChunkIndex, KnownXorb, Run
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3

KEY = b"k" * 32


def chunks(*names: int, size: int = 50_000) -> ChunkList:
    """Chunks told apart by number; none of them is eligible by its hash."""
    digests = b"".join(hashlib.sha256(str(n).encode()).digest()[:24] + struct.pack("<Q", 2 * n + 1) for n in names)
    return ChunkList(digests, struct.pack(f"={len(names)}Q", *[size] * len(names)))


def eligible(name: int) -> ChunkList:
    digest = hashlib.sha256(str(name).encode()).digest()[:24] + struct.pack("<Q", 1024 * name)
    return ChunkList(digest, struct.pack("=Q", 50_000))


def shape(runs: list[Run]) -> list[tuple[int, int, int, bool]]:
    return [(run.block_start, run.xorb_start, run.count, run.new) for run in runs]


def answer(name: str, found: ChunkList, key: bytes | None = KEY) -> Shard:
    plain = Shard(xorbs=(XorbEntry(hash_of(name), found),))
    return plain if key is None else plain.keyed(key, 0, 0)


def hash_of(name: str) -> Hash:
    return Hash(hashlib.sha256(name.encode()).digest())


def test_new_chunks_are_one_run_and_seen_ones_are_referenced() -> None:
    planner = DedupPlanner()
    assert shape(planner.plan(chunks(1, 2, 3))) == [(0, 0, 3, True)]
    assert shape(planner.plan(chunks(1, 2, 4))) == [(0, 0, 2, False), (2, 3, 1, True)]


def test_a_chunk_repeated_within_a_block_is_stored_once() -> None:
    assert shape(DedupPlanner().plan(chunks(1, 2, 1, 2))) == [(0, 0, 2, True), (2, 0, 2, False)]


def test_a_run_goes_on_where_the_last_block_ended_it() -> None:
    planner = DedupPlanner()
    planner.plan(chunks(1, 2, 3, 4))
    planner.start_file()
    assert shape(planner.plan(chunks(1, 2))) == [(0, 0, 2, False)]
    assert shape(planner.plan(chunks(3, 4, 5))) == [(0, 2, 2, False), (2, 4, 1, True)]


def test_a_keyed_answer_is_matched_without_knowing_raw_hashes() -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(1, 2, 3, 4)))
    [known, new] = planner.plan(chunks(2, 3, 9))
    assert (known.xorb_start, known.count, known.new, new.new) == (1, 2, False, True)
    assert known.xorb.key == KEY
    assert known.xorb.name == hash_of("stored")


def test_answers_under_two_keys_and_cached_plain_shards_all_match() -> None:
    planner = DedupPlanner()
    planner.learn(answer("one", chunks(1, 2)))
    planner.learn(answer("two", chunks(3, 4), key=b"q" * 32))
    planner.learn(answer("three", chunks(5), key=None))
    assert [run.new for run in planner.plan(chunks(1, 2, 3, 4, 5))] == [False, False, False]


def test_the_longer_of_two_known_runs_wins() -> None:
    planner = DedupPlanner()
    planner.learn(answer("short", chunks(1, 2)))
    planner.learn(answer("long", chunks(1, 2, 3), key=b"q" * 32))
    [run] = planner.plan(chunks(1, 2, 3))
    assert run.count == 3


def test_a_full_xorb_gives_way_to_the_next() -> None:
    planner = DedupPlanner()
    limit = XET_GEARHASH_BLAKE3.max_xorb_bytes // 131_072
    runs = planner.plan(chunks(*range(limit + 3), size=131_072))
    assert shape(runs) == [(0, 0, limit, True), (limit, 0, 3, True)]
    assert runs[0].xorb.raw_bytes == XET_GEARHASH_BLAKE3.max_xorb_bytes


def test_a_xorb_takes_8192_chunks_and_no_more() -> None:
    runs = DedupPlanner().plan(chunks(*range(8193), size=10))
    assert [run.count for run in runs] == [8192, 1]


def test_the_first_chunk_of_each_file_is_worth_asking_unless_known() -> None:
    planner = DedupPlanner()
    assert [h.digest for h in planner.worth_asking(chunks(1, 2))] == [chunks(1).hashes]
    planner.plan(chunks(1, 2))
    planner.start_file()
    assert list(planner.worth_asking(chunks(1, 2))) == []
    planner.start_file()
    assert len(list(planner.worth_asking(chunks(7)))) == 1


def test_eligible_chunks_are_asked_at_least_256_chunks_apart() -> None:
    planner = DedupPlanner()
    block = ChunkList.concat([eligible(1), chunks(*range(200)), eligible(2), chunks(*range(300, 400)), eligible(3)])
    asked = [h.digest for h in planner.worth_asking(block)]
    assert asked == [eligible(1).hashes, eligible(3).hashes]


def test_the_wire_rule_asks_for_every_1024th_value_of_the_last_u64() -> None:
    values = range(1, 4097)
    block = ChunkList(b"".join(bytes(24) + n.to_bytes(8, "little") for n in values), bytes(8 * len(values)))
    first, *others = DedupPlanner(queries=QueryRule(WIRE_QUERIES.modulus, 0)).worth_asking(block)
    assert first.last_u64 == 1, "the first chunk of a file is always asked"
    assert [h.last_u64 for h in others] == [1024, 2048, 3072, 4096]


def test_short_runs_are_refused_once_a_file_is_fragmented() -> None:
    guard = FragmentationGuard()
    for _ in range(128):
        assert guard.accepts(1)
        guard.record(2, continues=False)
    assert not guard.accepts(1)
    assert guard.accepts(2), "as long as the mean: no worse than what is there"
    for _ in range(128):
        guard.record(20, continues=False)
    assert guard.accepts(1), "the mean has recovered"


def test_what_continues_a_term_does_not_count_as_a_run() -> None:
    guard = FragmentationGuard()
    guard.record(1, continues=False)
    for _ in range(500):
        guard.record(1, continues=True)
    assert guard.accepts(1)


def test_a_chunk_repeated_for_long_gets_a_stretch_of_copies_and_long_terms() -> None:
    planner = DedupPlanner()
    first = 1 + REPEATS_BEFORE_STRETCH
    shapes = shape(planner.plan(chunks(*[1] * (first + 4 * STRETCH_CHUNKS + 5), 2)))
    assert shapes[0] == (0, 0, 1, True)
    assert shapes[1:first] == [(i, 0, 1, False) for i in range(1, first)]
    stretch, *rest, end = shapes[first:]
    assert stretch == (first, 1, STRETCH_CHUNKS, True)
    assert [(start, count, new) for _, start, count, new in rest] == [(1, STRETCH_CHUNKS, False)] * 3 + [(1, 5, False)]
    assert end[3]


def test_the_index_forgets_its_oldest_xorbs_and_nothing_else() -> None:
    index = ChunkIndex(max_chunks=4)
    first, second = index.open_xorb(), index.open_xorb()
    for i in range(3):
        index.add(first, chunks(i).hashes, 1)
    for i in range(10, 13):
        index.add(second, chunks(i).hashes, 1)
    assert index.find(None, chunks(0).hashes) is None
    assert index.find(None, chunks(12).hashes) == (second, 2)


def test_the_xorb_being_filled_is_not_forgotten_however_much_is_learned() -> None:
    planner = DedupPlanner(max_known=100)
    planner.plan(chunks(1, 2))
    for i in range(10):
        planner.learn(answer(str(i), chunks(*range(1000 * i + 1000, 1000 * i + 1090))))
    planner.start_file()
    assert shape(planner.plan(chunks(1, 2, 3))) == [(0, 0, 2, False), (2, 2, 1, True)]
    assert [run.new for run in planner.plan(chunks(*range(10_000, 10_050)))] == [False], "the last answer is known too"


def test_queries_of_a_session_are_some_bytes_apart_but_for_files_as_large_as_that() -> None:
    planner = DedupPlanner(queries=QueryRule(1024, 0, spacing_bytes=120_000))
    asked = []
    for name in range(8):
        planner.start_file(50_000)
        asked.append(len(list(planner.worth_asking(chunks(name)))))
        planner.plan(chunks(name))
    assert asked == [1, 0, 0, 1, 0, 0, 1, 0]
    planner.start_file(120_000)
    assert len(list(planner.worth_asking(chunks(100)))) == 1


def test_within_a_file_queries_are_some_bytes_apart_too() -> None:
    planner = DedupPlanner(queries=QueryRule(1024, 0, spacing_bytes=100_000))
    planner.start_file(1 << 40)
    block = ChunkList.concat([eligible(1), eligible(2), eligible(3), eligible(4)])
    assert [h.digest for h in planner.worth_asking(block)] == [eligible(1).hashes, eligible(3).hashes]
    planner.plan(block)
    assert [h.digest for h in planner.worth_asking(eligible(5))] == [eligible(5).hashes]


def test_what_is_unknown_is_told_once_each_whatever_its_key() -> None:
    planner = DedupPlanner()
    planner.learn(answer("keyed", chunks(1, 2)))
    planner.learn(answer("plain", chunks(3), key=None))
    planner.plan(chunks(4))
    assert planner.unknown(chunks(9, 1, 2, 3, 4, 8, 9)) == chunks(9, 8).hashes
    assert planner.unknown(chunks(1, 2, 3, 4)) == b""


def test_xorbs_can_be_kept_smaller_but_never_larger_than_the_suite_has_them() -> None:
    runs = DedupPlanner(max_xorb_bytes=120_000).plan(chunks(1, 2, 3, 4, 5))
    assert [run.count for run in runs] == [2, 2, 1]
    limit = XET_GEARHASH_BLAKE3.max_xorb_bytes // 131_072
    runs = DedupPlanner(max_xorb_bytes=1 << 40).plan(chunks(*range(limit + 1), size=131_072))
    assert [run.count for run in runs] == [limit, 1]


def test_what_was_learned_is_a_hint_and_what_is_new_is_not() -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(1, 2)))
    assert [run.xorb.is_hint for run in planner.plan(chunks(1, 2, 3))] == [True, False]


def test_what_the_index_has_forgotten_takes_no_memory_and_continues_no_term() -> None:
    planner = DedupPlanner(max_known=4, max_xorb_bytes=150_000)
    [first, *_] = planner.plan(chunks(*range(12)))
    assert first.xorb.hashes == b""
    assert [run.new for run in planner.plan(chunks(0, 1, 2))] == [True]


@given(st.lists(st.lists(st.integers(0, 12), max_size=40), max_size=6))
def test_every_chunk_is_placed_once_and_where_it_really_is(files: list[list[int]]) -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(0, 1, 2, 3)))
    for names in files:
        planner.start_file()
        block = chunks(*names)
        position = 0
        for run in planner.plan(block):
            assert run.block_start == position
            for i in range(run.count):
                assert _digest_in(run.xorb, run.xorb_start + i, block.digest(position))
                position += 1
        assert position == len(names)


def _digest_in(xorb: KnownXorb, index: int, digest: bytes) -> bool:
    if xorb.key is not None:
        digest = (
            Shard(xorbs=(XorbEntry(Hash.ZERO, ChunkList(digest, bytes(8))),)).keyed(KEY, 0, 0).xorbs[0].chunks.hashes
        )
    return bytes(xorb.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]) == digest


# Chunks that turn out to be stored already


def test_what_is_learned_late_is_dropped_from_the_xorb_that_is_being_filled() -> None:
    planner = DedupPlanner()
    [new] = planner.plan(chunks(1, 2, 3, 4, 5))
    assert planner.revise(whole_xorb=False) is None, "nothing was learned"
    assert planner.learn(answer("stored", chunks(9, 3, 4, 5, 6, 7)))
    revision = planner.revise(whole_xorb=False)
    assert revision is not None
    assert revision.dropped == [(2, 5)]
    kept, dropped = revision.runs
    assert (kept.xorb, kept.xorb_start, kept.count) == (new.xorb, 0, 2)
    assert (dropped.xorb.name, dropped.xorb_start, dropped.count) == (hash_of("stored"), 1, 3)
    assert bytes(new.xorb.hashes) == chunks(1, 2).hashes
    assert new.xorb.raw_bytes == 100_000
    [known, after] = planner.plan(chunks(6, 7, 8))
    assert (known.xorb, known.xorb_start) == (dropped.xorb, 4), "the term goes on"
    assert (after.xorb, after.xorb_start) == (new.xorb, 2)


def test_what_is_behind_dropped_chunks_moves_up_and_is_found_there() -> None:
    planner = DedupPlanner()
    planner.plan(chunks(1, 2, 3, 4))
    planner.learn(answer("stored", chunks(1, 2)))
    revision = planner.revise(whole_xorb=False)
    assert revision is not None
    assert [(run.xorb_start, run.count) for run in revision.runs_of(1, 4)] == [(1, 1), (0, 2)]
    planner.start_file()
    assert shape(planner.plan(chunks(3, 4, 5))) == [(0, 0, 2, False), (2, 2, 1, True)]
    assert [run.xorb.is_hint for run in planner.plan(chunks(1, 2))] == [True]


def test_in_the_middle_of_a_file_its_own_chunks_are_looked_at_and_at_the_end_of_a_xorb_all() -> None:
    planner = DedupPlanner()
    planner.plan(chunks(1, 2))
    planner.start_file()
    planner.plan(chunks(3, 4))
    planner.learn(answer("stored", chunks(1, 2, 3)))
    own, whole = planner.revise(whole_xorb=False), planner.revise(whole_xorb=True)
    assert own is not None
    assert own.dropped == [(2, 3)]
    assert whole is not None
    assert whole.dropped == [(0, 2)]
    assert planner.revise(whole_xorb=True) is None


def test_a_file_that_is_stored_as_it_is_takes_back_what_it_brought_and_no_more() -> None:
    planner = DedupPlanner()
    [first] = planner.plan(chunks(1, 2))
    planner.start_file()
    assert planner.withdraw_file() is None
    planner.plan(chunks(2, 3, 4))
    revision = planner.withdraw_file()
    assert revision is not None
    assert revision.dropped == [(2, 4)]
    planner.start_file()
    assert shape(planner.plan(chunks(1, 2, 5))) == [(0, 0, 2, False), (2, 2, 1, True)]
    assert bytes(first.xorb.hashes) == chunks(1, 2, 5).hashes


def test_the_guard_stores_again_a_64th_of_what_is_new_and_says_how_much() -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(*[n for i in range(1000) for n in (i, 100_000 + i)])))
    planner.plan(chunks(*range(500)))
    assert planner.again_bytes == 0, "nothing of it is new: there is nothing that terms could be spared for"
    names = [n for i in range(500, 1000) for n in (200_000 + i, 300_000 + i, i)]
    stored = sum(run.count for run in planner.plan(chunks(*names)) if run.new)
    assert planner.again_bytes == 50_000 * (stored - 1000)
    assert 10 <= stored - 1000 <= stored / 64


def test_what_the_guard_stored_again_stays() -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(*[n for i in range(1000) for n in (i, 100_000 + i)])))
    runs = planner.plan(chunks(*[n for i in range(1000) for n in (200_000 + i, 300_000 + i, i)], size=1000))
    again = planner.again_bytes
    assert again
    planner.learn(answer("other", chunks(200_001, 400_000)))
    revision = planner.revise(whole_xorb=True)
    assert revision is not None
    assert sum(end - start for start, end in revision.dropped) == 1
    assert planner.again_bytes == again
    [filled] = {run.xorb for run in runs if run.new}
    assert filled.chunk_count == 2000 + again // 1000 - 1


def test_of_a_file_that_turns_out_to_be_stored_the_guard_has_nothing_stored_again() -> None:
    planner = DedupPlanner()
    planner.learn(answer("stored", chunks(*[n for i in range(1000) for n in (i, 100_000 + i)])))
    file = [n for i in range(1000) for n in (200_000 + i, 300_000 + i, i)]
    runs = planner.plan(chunks(*file, size=1000))
    [filled] = {run.xorb for run in runs if run.new}
    assert planner.again_bytes
    assert planner.drop_guarded() is None, "others of its chunks are new"
    planner.learn(answer("other", chunks(*[n for n in file if n >= 200_000])))
    assert planner.revise(whole_xorb=False) is not None
    assert filled.chunk_count == planner.again_bytes // 1000 > 0
    revision = planner.drop_guarded()
    assert revision is not None
    assert (filled.chunk_count, planner.again_bytes) == (0, 0)
    assert planner.drop_guarded() is None


def test_a_stretch_of_copies_is_dropped_where_all_of_it_is_stored_and_only_there() -> None:
    for stored, dropped in ((STRETCH_CHUNKS + 1, STRETCH_CHUNKS + 1), (STRETCH_CHUNKS - 1, 1)):
        planner = DedupPlanner()
        runs = planner.plan(chunks(*[1] * (REPEATS_BEFORE_STRETCH + 3 * STRETCH_CHUNKS), 2))
        [filled] = {run.xorb for run in runs}
        again = planner.again_bytes
        planner.learn(answer("stored", chunks(*[1] * stored)))
        revision = planner.revise(whole_xorb=True)
        assert revision is not None
        assert sum(end - start for start, end in revision.dropped) == dropped
        assert again == 50_000 * STRETCH_CHUNKS == revision.again_bytes(0, 1000)
        assert planner.again_bytes == (again if dropped == 1 else 0)
        assert filled.chunk_count == 1 + STRETCH_CHUNKS + 1 - dropped


def test_of_a_chunk_that_an_answer_has_several_times_the_longest_stretch_is_found() -> None:
    planner = DedupPlanner()
    planner.learn(answer("lone", chunks(1, 2, 3)))
    planner.learn(answer("stretch", chunks(4, 1, 5, 1, 1, 1, 6, 1, 1)))
    planner.learn(answer("other", chunks(1, 1)))
    assert shape(planner.plan(chunks(1, 1, 1, 6))) == [(0, 3, 4, False)]
    assert shape(planner.plan(chunks(5, 1))) == [(0, 2, 2, False)]


def test_of_a_long_answer_what_comes_first_is_remembered() -> None:
    planner = DedupPlanner(max_known=100)
    xorbs = [XorbEntry(hash_of(str(i)), chunks(*range(20 * i, 20 * i + 20))) for i in range(10)]
    planner.learn(Shard(xorbs=tuple(xorbs)).keyed(KEY, 0, 0))
    assert [run.new for run in planner.plan(chunks(*range(40)))] == [False, False]
    planner.start_file()
    assert [run.new for run in planner.plan(chunks(*range(150, 170)))] == [True]


def test_chunks_that_take_room_are_not_copied_however_often_they_are_repeated() -> None:
    planner = DedupPlanner()
    runs = planner.plan(chunks(*[1] * 1000), may_copy=lambda _: False)
    assert sum(run.count for run in runs if run.new) == 1


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=30), st.lists(st.integers(0, 30), max_size=6)), max_size=5)
)
def test_after_any_revisions_every_chunk_is_where_it_is_said_to_be(files: list[tuple[list[int], list[int]]]) -> None:
    planner = DedupPlanner()
    placed: list[tuple[bytes, KnownXorb, int]] = []
    for number, (names, told) in enumerate(files):
        planner.start_file()
        block = chunks(*names)
        for run in planner.plan(block):
            for i in range(run.count):
                placed.append((block.digest(run.block_start + i), run.xorb, run.xorb_start + i))
        planner.learn(answer(str(number), chunks(*dict.fromkeys(told))))
        for whole in (False, True):
            revision = planner.revise(whole_xorb=whole)
            if revision is None:
                continue
            for at, (digest, xorb, index) in enumerate(placed):
                if xorb is revision.xorb:
                    [run] = revision.runs_of(index, index + 1)
                    placed[at] = digest, run.xorb, run.xorb_start
    assert all(_digest_in(xorb, index, digest) for digest, xorb, index in placed)


def test_a_known_chunk_is_asked_for_once_where_an_answer_of_several_xorbs_ended() -> None:
    planner = DedupPlanner(queries=QueryRule(1024, 0))
    names = ("first", "last")
    held = [ChunkList.concat([eligible(10 * i + 1), chunks(i), eligible(10 * i + 2)]) for i in range(2)]
    xorbs = tuple(XorbEntry(hash_of(name), found) for name, found in zip(names, held, strict=True))
    planner.learn(Shard(xorbs=xorbs).keyed(KEY, 0, 0))
    assert list(planner.worth_asking(held[0])) == []
    planner.plan(held[0])
    assert [chunk.digest for chunk in planner.worth_asking(held[1])] == [eligible(11).hashes]
    planner.start_file()
    assert list(planner.worth_asking(held[1])) == []


def test_what_is_learned_between_two_questions_of_a_block_counts() -> None:
    planner = DedupPlanner(queries=QueryRule(1024, 0))
    block = ChunkList.concat([eligible(1), chunks(1), eligible(2), chunks(2), eligible(3)])
    asked = []
    for chunk in planner.worth_asking(block):
        asked.append(chunk.digest)
        planner.learn(answer("stored", block.slice(0, 4)))
    assert asked == [eligible(1).hashes, eligible(3).hashes]
