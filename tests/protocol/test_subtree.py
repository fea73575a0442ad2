"""What a MerkleSubtree promises: parts of a list, joined in any order, have the root of the whole, in few nodes."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import chunk_list, chunk_lists, hashes, splitmix64, splits
from xetstore.errors import FormatError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash, xorb_hash
from xetstore.protocol.subtree import MerkleSubtree, WireSubtree


def parts_of(chunks: ChunkList, ranges: list[tuple[int, int]]) -> list[MerkleSubtree]:
    last = len(ranges) - 1
    return [
        MerkleSubtree.of(chunks.slice(*part), at_start=number == 0, at_end=number == last)
        for number, part in enumerate(ranges)
    ]


def wire_json(subtree: MerkleSubtree) -> Any:
    return json.loads(msgspec.json.encode(subtree.to_wire()))


def read(wire: Any) -> MerkleSubtree:
    return MerkleSubtree.from_wire(msgspec.json.decode(json.dumps(wire), type=WireSubtree))


@given(chunk_lists(max_size=150), st.data())
def test_parts_joined_in_any_order_have_the_root_of_the_whole(chunks: ChunkList, data: st.DataObject) -> None:
    parts = parts_of(chunks, data.draw(splits(len(chunks))))
    while len(parts) > 1:
        first = data.draw(st.integers(0, len(parts) - 2))
        parts[first : first + 2] = [parts[first].join(parts[first + 1])]
    assert parts[0].root == xorb_hash(chunks.hashes, chunks.lengths)


@given(st.integers(0, 2**32), st.integers(1, 4000), st.data())
def test_long_runs_too(seed: int, count: int, data: st.DataObject) -> None:
    # Random hashes by the thousand: on every level something goes up.
    chunks = ChunkList(splitmix64(seed, 32 * count), struct.pack(f"={count}Q", *range(1, count + 1)))
    parts = parts_of(chunks, data.draw(splits(count, max_cuts=4)))
    middle = data.draw(st.integers(0, len(parts) - 1))
    joined = MerkleSubtree.join_all(parts[middle:])
    if middle:
        joined = MerkleSubtree.join_all(parts[:middle]).join(joined)
    assert joined.root == xorb_hash(chunks.hashes, chunks.lengths)


@given(hashes(), st.integers(2, 60), st.data())
def test_the_same_chunk_over_and_over_is_no_exception(repeated: Hash, count: int, data: st.DataObject) -> None:
    # Either every entry is a cut or none is, so nothing is firm.
    chunks = chunk_list([(repeated.digest, 131072)] * count)
    parts = parts_of(chunks, data.draw(splits(count)))
    assert MerkleSubtree.join_all(parts).root == xorb_hash(chunks.hashes, chunks.lengths)


@given(chunk_lists(max_size=80), st.booleans(), st.booleans())
def test_it_stands_for_all_its_bytes_and_survives_the_wire(chunks: ChunkList, at_start: bool, at_end: bool) -> None:
    subtree = MerkleSubtree.of(chunks, at_start=at_start, at_end=at_end)
    assert subtree.total_bytes == chunks.total_bytes
    assert read(wire_json(subtree)) == subtree


def test_the_nodes_of_a_long_run_are_few() -> None:
    chunks = ChunkList(splitmix64(1, 32 * 100_000), struct.pack("=100000Q", *([65536] * 100_000)))
    assert MerkleSubtree.of(chunks).node_count < 1000
    assert MerkleSubtree.of(chunks, at_start=True, at_end=True).node_count == 1


# Of the reference client (1.8.0): MerkleHashSubtree of chunks [first, end) of a list whose chunk i has the data hash of
# i as a little-endian u64 and 100 + i * 37 % 1000 bytes: its levels, and the SHA-256 of its nodes as compact JSON.
REFERENCE = [
    (0, 1, True, False, [[1, 0]], "893ef878b1b44181fc05a80579c68e64cef77c95a7ee2fb840b5437f8f62ab86"),
    (
        *(0, 300, True, False),
        [[0, 55], [0, 30], [3, 0]],
        "88f69ef18afb5f7998a0e2675c030c8f4075a81efe4d9870f1decdbc15cea04b",
    ),
    (300, 301, False, False, [[1, 0]], "33e7422d558caacd1f7b6be03a7abda1e422528a657bc060bd36ec3410954961"),
    (
        *(17, 400, False, False),
        [[9, 26], [10, 22], [6, 0]],
        "5d79d78dff5f036881f737834546bdba04d443a9995331f59900b100caa760c1",
    ),
    (
        *(17, 2000, False, True),
        [[9, 0], [10, 0], [13, 0], [8, 0]],
        "8cc82b00082d0e02966c1340ffb396b9155818aeed0e1c99013f95ec28ec65a7",
    ),
    (
        *(0, 2000, True, True),
        [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [1, 0]],
        "dfdd850fd960061b0204551327fa7901fe54fc6cb975d00f7fed03536c6ed72e",
    ),
    (400, 400, False, True, [[0, 0]], "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
]


def reference_chunks(count: int) -> ChunkList:
    return chunk_list([(chunk_hash(struct.pack("<Q", i)).digest, 100 + i * 37 % 1000) for i in range(count)])


@pytest.mark.parametrize(("first", "end", "at_start", "at_end", "levels", "nodes"), REFERENCE)
def test_it_is_what_the_reference_client_makes_of_the_same_chunks(
    first: int, end: int, at_start: bool, at_end: bool, levels: list[list[int]], nodes: str
) -> None:
    chunks = reference_chunks(2000).slice(first, end)
    wire = wire_json(MerkleSubtree.of(chunks, at_start=at_start, at_end=at_end))
    assert list(wire) == ["nodes", "levels", "at_start", "at_end"]
    assert (wire["levels"], wire["at_start"], wire["at_end"]) == (levels, at_start, at_end)
    assert hashlib.sha256(json.dumps(wire["nodes"], separators=(",", ":")).encode()).hexdigest() == nodes


def test_only_the_whole_list_has_a_root() -> None:
    chunks = reference_chunks(20)
    for at_start, at_end in ((True, False), (False, True), (False, False)):
        with pytest.raises(ValueError, match="no merkle root"):
            _ = MerkleSubtree.of(chunks, at_start=at_start, at_end=at_end).root
    assert MerkleSubtree.of(ChunkList.EMPTY, at_start=True, at_end=True).root == Hash.ZERO


def test_nothing_is_joined_behind_the_end_or_in_front_of_the_start() -> None:
    chunks = reference_chunks(20)
    head, middle, tail = parts_of(chunks, [(0, 5), (5, 15), (15, 20)])
    for first, second in ((tail, middle), (middle, head), (tail, head)):
        with pytest.raises(ValueError, match="follows"):
            first.join(second)


NODE = {"hash": "0" * 64, "size": 5}
WHOLE = {"nodes": [NODE], "levels": [[1, 0]], "at_start": True, "at_end": True}


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("subtree.levels", {"levels": []}),
        ("subtree.levels", {"levels": [[0, 0]] * 64 + [[1, 0]]}),
        ("subtree.levels", {"levels": [[1, 0], [0, 0]]}),
        ("subtree.edge", {"levels": [[1, 0], [1, 0]]}),
        ("subtree.edge", {"levels": [[0, 1], [1, 0]]}),
        ("subtree.edge", {"levels": [[1, 1]]}),
        ("subtree.nodes", {"levels": [[2, 0]]}),
        ("subtree.nodes", {"nodes": []}),
        ("subtree.hash", {"nodes": [{"hash": "0" * 63 + "g", "size": 5}]}),
        ("subtree.size", {"nodes": [NODE | {"size": 2**64 - 1}, NODE], "levels": [[2, 0]]}),
    ],
)
def test_a_broken_one_is_named(rule: str, change: dict[str, Any]) -> None:
    assert read(WHOLE).root == Hash.ZERO
    with pytest.raises(FormatError) as raised:
        read(WHOLE | change)
    assert raised.value.rule == rule


def test_levels_that_no_list_has_are_no_root() -> None:
    with pytest.raises(ValueError, match="whole list"):
        _ = read(WHOLE | {"nodes": [NODE, NODE], "levels": [[2, 0]]}).root
