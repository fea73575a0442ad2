"""What an EditPlan promises: from it and the chunks of its windows alone follow the hash and the terms of any edit."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import TINY_SUITE, chunk_list, splitmix64
from xetstore.errors import FormatError, UsageError
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash, verification_hash, xorb_hash
from xetstore.protocol.range_edit import ByteRange, EditPlan, parse_dirty_ranges, plan_edit
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite

Edit = tuple[int, int, bytes]
"""Bytes ``[start, end)`` of a file, and what is put there instead. Nothing is lost if they are none."""


def terms_of(chunks: ChunkList, cuts: Sequence[int]) -> list[Term]:
    """Terms that end behind these numbers of chunks, each at the start of a xorb of its own."""
    edges = sorted({0, *cuts, len(chunks)})
    return [Term(Hash.ZERO, 0, end - first, chunks.slice(first, end).total_bytes) for first, end in pairwise(edges)]


def edges_of(terms: Sequence[Term]) -> list[int]:
    return list(accumulate((term.unpacked_bytes for term in terms), initial=0))


def edited(data: bytes, edits: Sequence[Edit], start: int = 0, end: int | None = None) -> bytes:
    """Bytes ``[start, end)`` of a file after the edits, all of which lie in there."""
    parts, at = [], start
    for first, last, put in edits:
        parts += [data[at:first], put]
        at = last
    return b"".join([*parts, data[at:end]])


def dirty_range(edit: Edit, size: int) -> ByteRange:
    """What a client names: what it replaces, or the byte in front of which it inserts; at the end, the last byte."""
    start, end, _ = edit
    return (start, end) if start < end else (min(start, size - 1), min(start, size - 1) + 1)


def windowed(plan: EditPlan, data: bytes, edits: Sequence[Edit], suite: AlgorithmSuite) -> list[ChunkList]:
    """The client's work: the new chunks of each window, from its old bytes and the edits in there."""
    starts = [start for start, _ in plan.windows]
    inside: list[list[Edit]] = [[] for _ in starts]
    for edit in edits:
        first, last = dirty_range(edit, len(data))
        number = bisect_right(starts, first) - 1
        assert last <= plan.windows[number][1]
        inside[number].append(edit)
    return [
        chunk_bytes(edited(data, mine, start, end), suite=suite)
        for mine, (start, end) in zip(inside, plan.windows, strict=True)
    ]


def hash_of(data: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    chunks = chunk_bytes(data, suite=suite)
    return file_hash(xorb_hash(chunks.hashes, chunks.lengths, suite), suite)


def header_of(ranges: Sequence[ByteRange]) -> str:
    return "bytes=" + ",".join(f"{start}-{end - 1}" for start, end in ranges)


@dataclass(frozen=True)
class Case:
    """A file of up to 12 KB with about 100 chunks, and some edits of it, which do not touch each other."""

    data: bytes
    chunks: ChunkList
    terms: list[Term]
    edits: list[Edit]


def case_of(seed: int) -> Case:
    # Drawn from a seed rather than by Hypothesis: what matters are chunks of all lengths, by the hundred thousand.
    rng = random.Random(seed)
    size = rng.randrange(1, 12_000)
    data = b""
    while len(data) < size:
        length = rng.randrange(1, 4000)
        data += rng.choice([rng.randbytes(length), bytes(length), rng.randbytes(7) * (length // 7 + 1)])
    data = data[:size]
    chunks = chunk_bytes(data, suite=TINY_SUITE)
    places = sorted(rng.sample(range(size + 1), min(2 * rng.randrange(1, 4), (size + 1) // 2 * 2)))
    edits = [
        (start, rng.choice([start, min(start + 3, end), end]), rng.randbytes(rng.choice([0, 3, 500])))
        for start, end in zip(places[::2], places[1::2], strict=True)
    ]
    return Case(data, chunks, terms_of(chunks, [rng.randrange(len(chunks) + 1) for _ in range(4)]), edits)


def snapped(ranges: Sequence[ByteRange], terms: Sequence[Term]) -> list[ByteRange]:
    """The ranges as a client names them that composes by terms."""
    edges = edges_of(terms)
    return [
        (max(edge for edge in edges if edge <= start), min(edge for edge in edges if edge >= end))
        for start, end in ranges
    ]


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_an_edited_files_hash_follows_from_the_plan_and_the_windows_alone(seed: int) -> None:
    for number in range(3):
        case = case_of(seed + number)
        ranges = [dirty_range(edit, len(case.data)) for edit in case.edits]
        expected = hash_of(edited(case.data, case.edits), TINY_SUITE)
        for named in (ranges, snapped(ranges, case.terms)):
            dirty = parse_dirty_ranges(header_of(named[::-1]))
            plan = EditPlan.from_json(plan_edit(case.chunks, case.terms, dirty, TINY_SUITE).to_json())
            assert plan.edited_hash(windowed(plan, case.data, case.edits, TINY_SUITE), TINY_SUITE) == expected


@given(SEEDS)
def test_the_terms_in_the_gaps_can_be_named_again_with_the_hashes_given(seed: int) -> None:
    case = case_of(seed)
    ranges = [dirty_range(edit, len(case.data)) for edit in case.edits]
    for named in (ranges, snapped(ranges, case.terms)):
        plan = plan_edit(case.chunks, case.terms, parse_dirty_ranges(header_of(named)), TINY_SUITE)
        expected, first = [], 0
        for term, (start, end) in zip(case.terms, pairwise(edges_of(case.terms)), strict=True):
            mine = case.chunks.slice(first, first + term.chunk_end)
            first += term.chunk_end
            if all(end <= window_start or window_end <= start for window_start, window_end in plan.windows):
                expected.append(verification_hash(mine.hashes, TINY_SUITE))
        assert list(plan.gap_verification) == expected
        if named is not ranges:
            # All of the new file is then in whole terms and in windows.
            assert {edge for window in plan.windows for edge in window} <= set(edges_of(case.terms))


def test_edits_of_a_file_of_megabytes() -> None:
    data = splitmix64(1, 5_000_000) + bytes(3_000_000) + splitmix64(2, 2_000_000)
    chunks = chunk_bytes(data)
    terms = terms_of(chunks, range(0, len(chunks), 20))
    edits = [(10, 20, b"x"), (1_000_000, 1_000_000, splitmix64(3, 200_000)), (9_500_000, 9_900_000, b"")]
    plan = plan_edit(chunks, terms, [dirty_range(edit, len(data)) for edit in edits])
    assert sum(end - start for start, end in plan.windows) < 2_000_000
    assert plan.edited_hash(windowed(plan, data, edits, XET_GEARHASH_BLAKE3)) == hash_of(edited(data, edits))


@pytest.mark.parametrize("put", [b"", b"!", splitmix64(9, 400_000)])
def test_appending_and_cutting_short(put: bytes) -> None:
    data = splitmix64(1, 3_000_000)
    chunks = chunk_bytes(data)
    for edit in ((len(data), len(data), put), (1_234_567, len(data), put), (0, len(data), put)):
        plan = plan_edit(chunks, terms_of(chunks, []), [dirty_range(edit, len(data))])
        assert plan.windows[-1][1] == len(data)
        assert plan.gaps[-1] is None
        assert plan.edited_hash(windowed(plan, data, [edit], XET_GEARHASH_BLAKE3)) == hash_of(edited(data, [edit]))


# --- How far windows reach ------------------------------------------------------------------------------

STABLE, SHORT, LONG = 60_000, 16_383, 122_880
"""Lengths of chunks: 16,384 to 122,879 bytes are stable."""


def sized(*sizes: int) -> ChunkList:
    return chunk_list([(chunk_hash(struct.pack("<Q", number)).digest, size) for number, size in enumerate(sizes)])


def window_of(chunks: ChunkList, first: int, last: int, cuts: Sequence[int] = ()) -> tuple[int, int]:
    """The window, in chunks, of the dirty bytes from the first of one chunk to the first of another."""
    starts = list(accumulate(chunks.sizes, initial=0))
    plan = plan_edit(chunks, terms_of(chunks, cuts), [(starts[first], starts[last] + 1)])
    [(start, end)] = plan.windows
    return starts.index(start), starts.index(end)


def test_a_window_ends_behind_two_stable_chunks_in_a_row() -> None:
    assert window_of(sized(*[STABLE] * 9), 2, 3) == (2, 6)
    assert window_of(sized(STABLE, STABLE, SHORT, STABLE, LONG, STABLE, STABLE, STABLE), 0, 0) == (0, 7)
    assert window_of(sized(STABLE, 16_384, 122_879, STABLE), 0, 0) == (0, 3)


def test_a_window_runs_to_the_end_of_a_file_without_stable_chunks() -> None:
    assert window_of(sized(*[131_072] * 9), 2, 2) == (2, 9)
    assert window_of(sized(STABLE, STABLE), 0, 0) == (0, 2)


def test_dirty_ranges_share_a_window_until_it_has_ended() -> None:
    chunks = sized(*[STABLE] * 12)
    terms = terms_of(chunks, [])
    near = plan_edit(chunks, terms, [(5, 6), (7, 8), (2 * STABLE, 2 * STABLE + 1)])
    assert near.windows == ((0, 5 * STABLE),)
    # Behind three chunks, in a window of its own, with nothing in between.
    far = plan_edit(chunks, terms, [(5, 6), (3 * STABLE, 3 * STABLE + 1)])
    assert far.windows == ((0, 3 * STABLE), (3 * STABLE, 6 * STABLE))
    assert [gap is None for gap in far.gaps] == [True, True, False]


def test_a_window_that_is_asked_for_by_whole_terms_ends_with_one() -> None:
    chunks = sized(*[STABLE] * 12)
    terms = terms_of(chunks, [2, 3, 9])
    by_terms = plan_edit(chunks, terms, [(2 * STABLE, 3 * STABLE)])
    assert by_terms.windows == ((2 * STABLE, 9 * STABLE),)
    assert len(by_terms.gap_verification) == 2
    by_bytes = plan_edit(chunks, terms, [(2 * STABLE, 3 * STABLE - 1)])
    assert by_bytes.windows == ((2 * STABLE, 5 * STABLE),)
    assert len(by_bytes.gap_verification) == 2
    # A range in the term that was added to the window is in the window, too.
    both = plan_edit(chunks, terms, [(2 * STABLE, 3 * STABLE), (9 * STABLE, 12 * STABLE)])
    assert both.windows == ((2 * STABLE, 9 * STABLE), (9 * STABLE, 12 * STABLE))


# Of the reference client's own simulation of the service (1.8.0): chunk i has the data hash of i as a little-endian
# u64, and 8192 + i * 40503 % 122881 bytes; the terms end behind 1, 100, 350, 351, 999 and 1000 chunks. What is dirty,
# the windows, and the SHA-256 of the answer as compact JSON with sorted keys.
REFERENCE = [
    ("bytes=0-0", [[0, 146085]], "64bf8388de7e2cd54078a39d3f0341e47dac2ccf7cf8f08cc94cdfc91078b4a5"),
    (
        "bytes=69630278-69630284",
        [[69587439, 69630279]],
        "fc1b28445663f44067e19ca0971d29bbb8322381266c0b14421a98079f45382d",
    ),
    (
        "bytes=30000000-30000000,29000000-29000001,50000000-51000000",
        [[28921283, 29116509], [29973141, 30298318], [49970762, 51127399]],
        "1b3bef8c74972673a2deafe4adff6a31f34a6067585061777b74d74e7e963ad3",
    ),
]


@pytest.mark.parametrize(("header", "windows", "digest"), REFERENCE)
def test_the_answer_is_that_of_the_reference(header: str, windows: list[list[int]], digest: str) -> None:
    chunks = sized(*(8192 + i * 40503 % 122881 for i in range(1000)))
    terms = terms_of(chunks, [1, 100, 350, 351, 999])
    answer = json.loads(plan_edit(chunks, terms, parse_dirty_ranges(header)).to_json())
    assert list(answer) == ["totalChunks", "fileSize", "windows", "hashRanges", "gapVerification"]
    assert [window["dirtyByteRange"] for window in answer["windows"]] == windows
    canonical = json.dumps(answer, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest


# --- What is asked --------------------------------------------------------------------------------------


def test_dirty_ranges_come_in_any_order_and_may_overlap() -> None:
    assert parse_dirty_ranges("bytes=0-0") == ((0, 1),)
    assert parse_dirty_ranges("Bytes=90-99, 0-9\t,5-19,20-29") == ((0, 30), (90, 100))
    assert parse_dirty_ranges("bytes=0-18446744073709551615") == ((0, 2**64),)
    assert len(parse_dirty_ranges(header_of([(3 * i, 3 * i + 1) for i in range(4096)]))) == 4096


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=1-2,",
        "bytes=1-",
        "bytes=-5",
        "bytes=-",
        "bytes=5-4",
        "bytes=0-18446744073709551616",
        "bytes=99999999999999999999-99999999999999999999",
        "bytes=0-000000000000000000001",
        "bytes=1-2;3-4",
        "bytes=1 - 2",
        "bytes=0x1-0x2",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=١-٢",  # digits, but not those of HTTP
        "bytes=1-2\n",
        "octets=1-2",
        "1-2",
        "bytes=" + ",".join(["1-2"] * 4097),
        "bytes=" + " " * 65_536 + "1-2",
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(UsageError, match="X-Range-Dirty is malformed"):
        parse_dirty_ranges(header)


@given(st.text(max_size=40).map("bytes={}".format) | st.from_regex(r"bytes=[0-9,\- ]{0,40}", fullmatch=True))
def test_whatever_is_sent_is_ranges_in_order_or_refused(header: str) -> None:
    try:
        ranges = parse_dirty_ranges(header)
    except UsageError:
        return
    edges = [edge for bounds in ranges for edge in bounds]
    assert edges == sorted(set(edges))


def test_dirty_ranges_end_with_the_file_and_something_has_to_be_left() -> None:
    chunks = sized(STABLE)
    terms = terms_of(chunks, [])
    assert plan_edit(chunks, terms, [(STABLE - 1, 2**64)]).windows == ((0, STABLE),)
    with pytest.raises(UsageError, match="no dirty range"):
        plan_edit(chunks, terms, [(STABLE, STABLE + 5)])
    with pytest.raises(UsageError, match="no dirty range"):
        plan_edit(ChunkList.EMPTY, [], [(0, 1)])


def test_terms_and_chunks_have_to_be_of_the_same_file() -> None:
    chunks = sized(STABLE, STABLE, STABLE)
    terms = terms_of(chunks, [1])
    shifted = [replace(terms[0], unpacked_bytes=STABLE + 1), replace(terms[1], unpacked_bytes=2 * STABLE - 1)]
    for wrong in (terms[:1], [], shifted):
        with pytest.raises(ValueError, match="same file"):
            plan_edit(chunks, wrong, [(0, 1)])


# --- What is answered -----------------------------------------------------------------------------------


def answer() -> dict[str, Any]:
    chunks = sized(*[STABLE] * 9)
    plan = plan_edit(chunks, terms_of(chunks, [1, 8]), [(3 * STABLE, 3 * STABLE + 1)])
    found: dict[str, Any] = json.loads(plan.to_json())
    return found


def gap_like(**change: object) -> dict[str, Any]:
    found: dict[str, Any] = answer()["hashRanges"][0]
    return found | change


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("range_edit.json", {"windows": [{"dirtyByteRange": [1]}]}),
        ("range_edit.json", {"windows": [{"dirtyByteRange": [-1, 5]}]}),
        ("range_edit.json", {"fileSize": "540000"}),
        ("range_edit.size", {"fileSize": 2**64}),
        ("range_edit.hash", {"gapVerification": ["0" * 63]}),
        ("range_edit.windows", {"windows": []}),
        ("range_edit.windows", {"hashRanges": [None]}),
        ("range_edit.windows", {"windows": [{"dirtyByteRange": [360_000, 180_000]}]}),
        ("range_edit.windows", {"fileSize": 359_999}),
        ("range_edit.gap", {"fileSize": 540_001}),
        ("range_edit.gap", {"hashRanges": [None, answer()["hashRanges"][1]]}),
        ("range_edit.gap", {"hashRanges": [gap_like(at_start=False), answer()["hashRanges"][1]]}),
        ("range_edit.gap", {"hashRanges": [gap_like(at_end=True), answer()["hashRanges"][1]]}),
        ("subtree.nodes", {"hashRanges": [gap_like(nodes=[]), answer()["hashRanges"][1]]}),
    ],
)
def test_a_broken_answer_is_named(rule: str, change: dict[str, Any]) -> None:
    assert EditPlan.from_json(json.dumps(answer() | {"unknown": 1}).encode()).windows == ((180_000, 360_000),)
    with pytest.raises(FormatError) as raised:
        EditPlan.from_json(json.dumps(answer() | change).encode())
    assert raised.value.rule == rule


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_no_answer_at_all_is_named_too(body: bytes) -> None:
    with pytest.raises(FormatError, match=r"range_edit\.json"):
        EditPlan.from_json(body)


def test_every_window_needs_its_chunks() -> None:
    chunks = sized(*[STABLE] * 9)
    plan = plan_edit(chunks, terms_of(chunks, []), [(0, 1)])
    with pytest.raises(ValueError, match="zip"):
        plan.edited_hash([])
