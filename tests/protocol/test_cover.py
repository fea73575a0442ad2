"""Few xorbs that hold many chunks: all chunks, in their order, and no more xorbs than the obvious choice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xetstore.protocol.cover import cover
from xetstore.protocol.hashes import chunk_hash

CHUNKS = [chunk_hash(b"%d" % number) for number in range(12)]


def covered(holders: dict[int, list[int]], most: int = 99) -> dict[int, list[int]]:
    """The cover of chunks, each with the numbers of the xorbs that hold it."""
    taken = cover({CHUNKS[chunk]: ids for chunk, ids in holders.items()}, most)
    return {xorb_id: [CHUNKS.index(chunk) for chunk in chunks] for xorb_id, chunks in taken}


def test_the_one_that_holds_most_is_taken_for_all_that_it_holds() -> None:
    assert covered({0: [1, 9], 1: [2, 9], 2: [3, 9], 3: [4]}) == {9: [0, 1, 2], 4: [3]}


def test_of_equals_the_newest_is_taken() -> None:
    assert covered({0: [1, 3, 2], 1: [2, 3, 1]}) == {3: [0, 1]}


def test_what_is_left_counts_and_not_what_was_taken() -> None:
    """Xorb 2 holds three, but two of them are in 1 already; 3 holds as many of what is left, and is newer."""
    assert covered({0: [1], 1: [1], 2: [1, 2], 3: [1, 2], 4: [2, 3]}) == {1: [0, 1, 2, 3], 3: [4]}


def test_they_are_in_the_order_of_the_chunks() -> None:
    assert list(covered({3: [1], 0: [2], 2: [3], 1: [3]})) == [1, 2, 3]


def test_nothing_is_covered_by_nothing() -> None:
    assert cover({}, 5) == []


def test_of_many_the_best_are_taken() -> None:
    holders = {0: [1], 1: [2], 2: [2], 3: [3], 4: [3], 5: [3]}
    assert [covered(holders, most) for most in range(4)] == [
        {},
        {3: [3, 4, 5]},
        {2: [1, 2], 3: [3, 4, 5]},
        {1: [0], 2: [1, 2], 3: [3, 4, 5]},
    ]


@given(st.dictionaries(st.integers(0, 11), st.sets(st.integers(1, 8), min_size=1, max_size=4).map(list)))
def test_each_chunk_is_covered_once_by_one_that_holds_it(holders: dict[int, list[int]]) -> None:
    taken = covered(holders)
    assert sorted(chunk for chunks in taken.values() for chunk in chunks) == sorted(holders)
    assert all(xorb in holders[chunk] for xorb, chunks in taken.items() for chunk in chunks)
    order = list(holders)
    firsts = [order.index(chunks[0]) for chunks in taken.values()]
    assert firsts == sorted(firsts)
