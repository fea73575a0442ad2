"""What a Reconstruction promises: JSON both ways, ranges cut to chunks, and a plan that fetches nothing twice."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import mutations, splitmix64
from xetstore.errors import FormatError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import (
    BatchReconstruction,
    FetchRange,
    Placement,
    PlannedFetch,
    Reconstruction,
    Term,
    chunk_ranges,
    coalesce,
    plan_fetches,
    trim,
)


def named(byte: int) -> Hash:
    return Hash(bytes([byte]) * 32)


A, B = named(0xAA), named(0xBB)

# Two ranges of A behind one URL, one of B behind another.
SAMPLE = Reconstruction(
    5,
    (Term(A, 0, 2, 300), Term(B, 7, 8, 50), Term(A, 4, 6, 400)),
    {
        A: (FetchRange(A, "https://x/a", 0, 2, 0, 200), FetchRange(A, "https://x/a", 4, 6, 500, 900)),
        B: (FetchRange(B, "https://x/b", 7, 9, 1000, 1100),),
    },
)

V2: dict[str, Any] = {
    "offset_into_first_range": 5,
    "terms": [
        {"hash": "aa" * 32, "unpacked_length": 300, "range": {"start": 0, "end": 2}},
        {"hash": "bb" * 32, "unpacked_length": 50, "range": {"start": 7, "end": 8}},
        {"hash": "aa" * 32, "unpacked_length": 400, "range": {"start": 4, "end": 6}},
    ],
    "xorbs": {
        "aa" * 32: [
            {
                "url": "https://x/a",
                "ranges": [
                    {"chunks": {"start": 0, "end": 2}, "bytes": {"start": 0, "end": 199}},
                    {"chunks": {"start": 4, "end": 6}, "bytes": {"start": 500, "end": 899}},
                ],
            }
        ],
        "bb" * 32: [
            {
                "url": "https://x/b",
                "ranges": [{"chunks": {"start": 7, "end": 9}, "bytes": {"start": 1000, "end": 1099}}],
            }
        ],
    },
}

V1: dict[str, Any] = {
    "offset_into_first_range": 5,
    "terms": V2["terms"],
    "fetch_info": {
        "aa" * 32: [
            {"range": {"start": 0, "end": 2}, "url": "https://x/a", "url_range": {"start": 0, "end": 199}},
            {"range": {"start": 4, "end": 6}, "url": "https://x/a", "url_range": {"start": 500, "end": 899}},
        ],
        "bb" * 32: [{"range": {"start": 7, "end": 9}, "url": "https://x/b", "url_range": {"start": 1000, "end": 1099}}],
    },
}


# --- JSON -----------------------------------------------------------------------------------------------


def test_the_v1_form_has_inclusive_byte_ends_and_one_entry_a_range() -> None:
    assert json.loads(SAMPLE.to_v1_json()) == V1


def test_the_v2_form_puts_ranges_of_one_url_into_one_entry() -> None:
    assert json.loads(SAMPLE.to_v2_json()) == V2


@pytest.mark.parametrize("form", [V1, V2], ids=["v1", "v2"])
def test_both_forms_are_read_as_the_same_value(form: dict[str, Any]) -> None:
    assert Reconstruction.from_json(json.dumps(form).encode()) == SAMPLE


def test_unknown_keys_are_ignored_everywhere() -> None:
    def decorated(value: Any) -> Any:
        if isinstance(value, dict) and not any(len(key) == 64 for key in value):
            return {key: decorated(item) for key, item in value.items()} | {"new": [{"x": None}]}
        if isinstance(value, dict):
            return {key: decorated(item) for key, item in value.items()}
        return [decorated(item) for item in value] if isinstance(value, list) else value

    for form in (V1, V2):
        assert Reconstruction.from_json(json.dumps(decorated(form)).encode()) == SAMPLE


def test_hashes_may_be_upper_case() -> None:
    assert Reconstruction.from_json(json.dumps(V2).replace("aa" * 32, "AA" * 32).encode()) == SAMPLE


def test_the_empty_file_has_no_terms_and_no_fetches() -> None:
    empty = Reconstruction(0, (), {})
    assert Reconstruction.from_json(empty.to_v1_json()) == empty
    assert Reconstruction.from_json(empty.to_v2_json()) == empty
    assert plan_fetches(empty, 0) == ()
    assert empty.unpacked_bytes == 0


def changed(form: dict[str, Any], path: str, value: object) -> bytes:
    """The JSON of ``form`` with one value replaced, or removed where the new value is None."""
    copy = json.loads(json.dumps(form))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    node = copy
    for step in parents:
        node = node["aa" * 32 if step == "A" else step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "reconstruction.json"),
        (b"[]", "reconstruction.json"),
        (b"[" * 100_000, "reconstruction.json"),
        (b'{"a":' * 100_000, "reconstruction.json"),
        (json.dumps(V2).encode()[:-1], "reconstruction.json"),
        (json.dumps(V2).encode() + b"x", "reconstruction.json"),
        (json.dumps(V2).encode().replace(b"x/a", b"x/\xff"), "reconstruction.json"),
        (json.dumps(V2).encode().replace(b"x/a", b"x/\\ud800"), "reconstruction.json"),
        (changed(V2, "xorbs", None), "reconstruction.json"),
        (changed(V1, "fetch_info", None), "reconstruction.json"),
        (changed(V1, "terms", None), "reconstruction.json"),
        (changed(V1, "offset_into_first_range", None), "reconstruction.json"),
        (changed(V1, "offset_into_first_range", -1), "reconstruction.json"),
        (changed(V1, "offset_into_first_range", 1.5), "reconstruction.json"),
        (changed(V1, "offset_into_first_range", "5"), "reconstruction.json"),
        (changed(V1, "offset_into_first_range", 300), "reconstruction.offset"),
        (changed(V1, "offset_into_first_range", 2**64), "reconstruction.offset"),
        (changed(V1, "terms", []), "reconstruction.offset"),
        (changed(V1, "terms/1/hash", "bb" * 31), "reconstruction.hash"),
        (changed(V1, "terms/1/hash", "g" * 64), "reconstruction.hash"),
        (changed(V1, "terms/1/hash", "bb" * 32 + "\n"), "reconstruction.hash"),
        (changed(V1, "fetch_info/nonsense", []), "reconstruction.hash"),
        (changed(V2, "xorbs/nonsense", []), "reconstruction.hash"),
        (changed(V1, "terms/0/range/end", 0), "term.range"),
        (changed(V1, "terms/0/range/start", 3), "term.range"),
        (changed(V1, "terms/0/range/end", 8193), "term.range"),
        (changed(V1, "terms/0/range/end", -1), "reconstruction.json"),
        (changed(V1, "terms/0/unpacked_length", 1), "term.length"),
        (changed(V1, "terms/0/unpacked_length", 2 * 131072 + 1), "term.length"),
        (changed(V1, "terms/0/unpacked_length", 2**32), "term.length"),
        (changed(V1, "fetch_info/A/0/range/end", 0), "fetch.range"),
        (changed(V1, "fetch_info/A/0/range/end", 8193), "fetch.range"),
        (changed(V1, "fetch_info/A/0/url_range/end", 16), "fetch.bytes"),
        (changed(V1, "fetch_info/A/0/url_range/start", 200), "fetch.bytes"),
        (changed(V1, "fetch_info/A/0/url_range/end", 2 * (131072 + 8)), "fetch.bytes"),
        (changed(V1, "fetch_info/A/0/url_range", {"start": 2**64 - 100, "end": 2**64 - 1}), "fetch.bytes"),
        (changed(V1, "fetch_info/A/0/url", 7), "reconstruction.json"),
        (changed(V2, "xorbs/A/0/ranges/1/chunks/start", 6), "fetch.range"),
        (changed(V2, "xorbs/A/0/ranges/1/bytes/end", 499), "fetch.bytes"),
    ],
)
def test_json_that_breaks_a_rule_is_refused(data: bytes, rule: str) -> None:
    with pytest.raises(FormatError) as caught:
        Reconstruction.from_json(data)
    assert caught.value.rule == rule


def test_a_chunk_range_may_be_as_small_and_as_big_as_chunks_are() -> None:
    Reconstruction.from_json(changed(V1, "fetch_info/A/0/url_range/end", 17))
    Reconstruction.from_json(changed(V1, "fetch_info/A/0/url_range/end", 2 * (131072 + 8) - 1))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("aa" * 32),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["offset_into_first_range", "terms", "xorbs", "fetch_info", "range", "hash", "start", "end", "aa" * 32]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.one_of(
        st.binary(max_size=100),
        JSON_VALUES.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([SAMPLE.to_v1_json(), SAMPLE.to_v2_json()]).flatmap(mutations),
    )
)
def test_any_bytes_give_a_reconstruction_or_a_format_error(data: bytes) -> None:
    try:
        found = Reconstruction.from_json(data)
    except FormatError:
        return
    assert Reconstruction.from_json(found.to_v1_json()) == found
    assert Reconstruction.from_json(found.to_v2_json()) == found


# --- Chunk hashes of terms ------------------------------------------------------------------------------

HASHED = replace(SAMPLE, term_hashes=(splitmix64(1, 64), splitmix64(2, 32), splitmix64(3, 64)))


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_chunk_hashes_of_terms_survive_both_forms(form: str) -> None:
    data = HASHED.to_v1_json() if form == "v1" else HASHED.to_v2_json()
    assert Reconstruction.from_json(data) == HASHED
    listed = [base64.b64decode(term["chunk_hashes"], validate=True) for term in json.loads(data)["terms"]]
    assert tuple(listed) == HASHED.term_hashes


def test_without_chunk_hashes_the_json_is_that_of_any_other_server() -> None:
    assert b"chunk_hashes" not in SAMPLE.to_v1_json() + SAMPLE.to_v2_json()
    assert Reconstruction.from_json(SAMPLE.to_v2_json()).term_hashes is None


HASHED_V1: dict[str, Any] = json.loads(HASHED.to_v1_json())


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("terms/0/chunk_hashes", None, "reconstruction.chunk_hashes"),
        ("terms/2/chunk_hashes", None, "reconstruction.chunk_hashes"),
        ("terms/0/chunk_hashes", "", "reconstruction.chunk_hashes"),
        ("terms/0/chunk_hashes", base64.b64encode(bytes(63)).decode(), "reconstruction.chunk_hashes"),
        ("terms/0/chunk_hashes", base64.b64encode(bytes(96)).decode(), "reconstruction.chunk_hashes"),
        ("terms/0/chunk_hashes", "?" * 88, "reconstruction.json"),
        ("terms/0/chunk_hashes", ["aa" * 32] * 2, "reconstruction.json"),
        ("terms/0/chunk_hashes", 5, "reconstruction.json"),
    ],
)
def test_chunk_hashes_are_32_bytes_for_each_chunk_of_each_term(path: str, value: object, rule: str) -> None:
    with pytest.raises(FormatError) as caught:
        Reconstruction.from_json(changed(HASHED_V1, path, value))
    assert caught.value.rule == rule


# --- URLs -----------------------------------------------------------------------------------------------


def test_a_url_is_shared_by_as_many_ranges_as_it_may_name() -> None:
    ranges = tuple(FetchRange(A, "", at, at + 1, at * 100, at * 100 + 50) for at in range(0, 10, 2))
    other = FetchRange(B, "", 0, 9, 0, 900)
    asked: list[tuple[Hash, tuple[FetchRange, ...]]] = []

    def url_of(xorb: Hash, group: Sequence[FetchRange]) -> str:
        asked.append((xorb, tuple(group)))
        return f"https://x/{len(asked)}"

    located = Reconstruction(0, (), {A: ranges, B: (other,)}).with_urls(url_of, 2)
    assert asked == [(A, ranges[:2]), (A, ranges[2:4]), (A, ranges[4:]), (B, (other,))]
    assert [fetch.url[-1] for fetch in located.fetches[A]] == ["1", "1", "2", "2", "3"]
    assert located.fetches[B] == (replace(other, url="https://x/4"),)
    assert tuple(replace(fetch, url="") for fetch in located.fetches[A]) == ranges
    assert [len(entry["ranges"]) for entry in json.loads(located.to_v2_json())["xorbs"]["aa" * 32]] == [2, 2, 1]


def test_urls_change_nothing_else() -> None:
    assert replace(HASHED.with_urls(lambda xorb, ranges: "u", 64), fetches=SAMPLE.fetches) == HASHED


# --- Several files at once ------------------------------------------------------------------------------


def test_a_batch_lists_the_terms_of_each_file_and_the_ranges_of_all() -> None:
    batch = BatchReconstruction({named(1): SAMPLE.terms, Hash.ZERO: ()}, SAMPLE.fetches)
    assert json.loads(batch.to_json()) == {
        "files": {"01" * 32: V1["terms"], "00" * 32: []},
        "fetch_info": V1["fetch_info"],
    }
    located = json.loads(batch.with_urls(lambda xorb, ranges: f"https://y/{xorb}", 64).to_json())
    assert {entry["url"] for entry in located["fetch_info"]["aa" * 32]} == {"https://y/" + "aa" * 32}


def test_a_batch_is_read_as_it_was_written() -> None:
    batch = BatchReconstruction({named(1): SAMPLE.terms, Hash.ZERO: ()}, SAMPLE.fetches)
    assert BatchReconstruction.from_json(batch.to_json(), [Hash.ZERO, named(1)]) == batch


@pytest.mark.parametrize("asked", [[], [named(1)], [named(1), Hash.ZERO, named(2)], [named(1), named(2)]])
def test_a_batch_of_other_files_than_were_asked_for_is_refused(asked: list[Hash]) -> None:
    batch = BatchReconstruction({named(1): SAMPLE.terms, Hash.ZERO: ()}, SAMPLE.fetches)
    with pytest.raises(FormatError, match=r"reconstruction\.files"):
        BatchReconstruction.from_json(batch.to_json(), asked)


def test_a_file_that_a_batch_names_in_two_ways_is_refused() -> None:
    name = str(Hash(bytes([0xAB]) * 32))
    body = json.dumps({"files": {name: [], name.upper(): []}, "fetch_info": {}}).encode()
    with pytest.raises(FormatError, match=r"reconstruction\.files"):
        BatchReconstruction.from_json(body, [Hash.parse(name)])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        BatchReconstruction.from_json(data, [])


@pytest.mark.parametrize("change", [("unpacked_length", 0), ("range", {"start": 5, "end": 5}), ("hash", "no hash")])
def test_a_term_of_a_batch_follows_the_rules_of_terms(change: tuple[str, object]) -> None:
    told = json.loads(BatchReconstruction({named(1): SAMPLE.terms}, SAMPLE.fetches).to_json())
    told["files"][str(named(1))][0][change[0]] = change[1]
    with pytest.raises(FormatError):
        BatchReconstruction.from_json(json.dumps(told).encode(), [named(1)])


# --- Trimming and coalescing ----------------------------------------------------------------------------


def sizes_of(sizes: dict[Hash, list[int]]) -> Callable[[Term], memoryview[int]]:
    def chunk_sizes(term: Term) -> memoryview[int]:
        wanted = sizes[term.xorb][term.chunk_start : term.chunk_end]
        return memoryview(struct.pack(f"={len(wanted)}Q", *wanted)).cast("Q")

    return chunk_sizes


# Chunks of A: [0, 10), [10, 30), [30, 60), [60, 100); of B: [0, 5), [5, 10).
SIZES = {A: [10, 20, 30, 40], B: [5, 5]}
# 100 bytes of A, 10 of B, 50 of A.
TERMS = (Term(A, 0, 4, 100), Term(B, 0, 2, 10), Term(A, 1, 3, 50))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 160, (0, TERMS)),
        (0, 1, (0, (Term(A, 0, 1, 10),))),
        (0, 10, (0, (Term(A, 0, 1, 10),))),
        (0, 11, (0, (Term(A, 0, 2, 30),))),
        (9, 10, (9, (Term(A, 0, 1, 10),))),
        (10, 11, (0, (Term(A, 1, 2, 20),))),
        (29, 61, (19, (Term(A, 1, 4, 90),))),
        (99, 101, (39, (Term(A, 3, 4, 40), Term(B, 0, 1, 5)))),
        (100, 110, (0, (Term(B, 0, 2, 10),))),
        (104, 160, (4, (Term(B, 0, 2, 10), Term(A, 1, 3, 50)))),
        (105, 131, (0, (Term(B, 1, 2, 5), Term(A, 1, 3, 50)))),
        (35, 130, (5, (Term(A, 2, 4, 70), Term(B, 0, 2, 10), Term(A, 1, 2, 20)))),
        (159, 160, (29, (Term(A, 2, 3, 30),))),
    ],
)
def test_a_range_is_cut_to_the_chunks_that_hold_it(
    start: int, end: int, expected: tuple[int, tuple[Term, ...]]
) -> None:
    assert trim(TERMS, sizes_of(SIZES), start, end) == expected


@pytest.mark.parametrize(("start", "end"), [(0, 161), (160, 161), (5, 5), (6, 5), (-1, 5)])
def test_a_range_that_is_not_in_the_file_is_the_callers_mistake(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="160 bytes"):
        trim(TERMS, sizes_of(SIZES), start, end)


def test_chunk_sizes_are_asked_for_the_terms_at_the_ends_only() -> None:
    asked: list[Term] = []

    def chunk_sizes(term: Term) -> memoryview[int]:
        asked.append(term)
        return sizes_of(SIZES)(term)

    trim(TERMS * 3, chunk_sizes, 50, 350)
    assert asked == [TERMS[0], TERMS[0]]
    asked.clear()
    trim(TERMS, chunk_sizes, 100, 160)
    assert asked == []


def test_chunk_sizes_that_contradict_the_term_are_not_used() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        trim(TERMS, sizes_of({A: [10, 20, 30, 41], B: [5, 5]}), 1, 2)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)).map(lambda run: (run[0], sum(run)))))
def test_coalescing_keeps_every_chunk_and_leaves_gaps_between_ranges(ranges: list[tuple[int, int]]) -> None:
    merged = coalesce(ranges)
    chunks = {chunk for start, end in ranges for chunk in range(start, end)}
    assert [chunk for start, end in merged for chunk in range(start, end)] == sorted(chunks)
    assert all(left[1] < right[0] for left, right in pairwise(merged))


def test_chunk_ranges_are_coalesced_for_each_xorb() -> None:
    terms = (Term(B, 4, 6, 2), Term(A, 0, 2, 2), Term(B, 0, 4, 4), Term(A, 3, 4, 1), Term(A, 0, 2, 2))
    assert chunk_ranges(terms) == {B: ((0, 6),), A: ((0, 2), (3, 4))}
    assert list(chunk_ranges(terms)) == [B, A]


# --- Plans ----------------------------------------------------------------------------------------------


def test_a_plan_says_for_each_range_what_it_is_good_for() -> None:
    first, second = SAMPLE.fetches[A]
    assert plan_fetches(SAMPLE, 700) == (
        PlannedFetch(first, (Placement(0, 2, 5, 295, 0),)),
        PlannedFetch(SAMPLE.fetches[B][0], (Placement(7, 8, 0, 50, 295),)),
        PlannedFetch(second, (Placement(4, 6, 0, 355, 345),)),
    )


def test_nothing_is_planned_for_terms_behind_the_requested_bytes() -> None:
    first = SAMPLE.fetches[A][0]
    assert plan_fetches(SAMPLE, 295) == (PlannedFetch(first, (Placement(0, 2, 5, 295, 0),)),)
    assert plan_fetches(SAMPLE, 0) == ()


def test_a_range_that_serves_many_terms_is_planned_once() -> None:
    fetch = FetchRange(A, "u", 0, 8, 0, 1000)
    terms = (Term(A, 0, 2, 20), Term(A, 5, 6, 10), Term(A, 0, 2, 20))
    assert plan_fetches(Reconstruction(0, terms, {A: (fetch,)}), 50) == (
        PlannedFetch(fetch, (Placement(0, 2, 0, 20, 0), Placement(5, 6, 0, 10, 20), Placement(0, 2, 0, 20, 30))),
    )


def test_the_first_listed_range_that_holds_a_term_serves_it() -> None:
    ranges = tuple(FetchRange(A, "u", start, end, 0, 1000) for start, end in [(3, 9), (0, 4), (1, 3), (0, 9)])
    served = {
        term: plan_fetches(Reconstruction(0, (Term(A, *term, 10),), {A: ranges}), 10)[0].fetch
        for term in [(3, 4), (1, 3), (1, 4), (0, 9)]
    }
    assert served == {(3, 4): ranges[0], (1, 3): ranges[1], (1, 4): ranges[1], (0, 9): ranges[3]}


def test_a_range_that_is_listed_twice_is_fetched_once() -> None:
    first, again = FetchRange(A, "u", 0, 2, 0, 1000), FetchRange(A, "v", 0, 2, 0, 1000)
    terms = (Term(A, 0, 2, 20), Term(A, 1, 2, 10))
    (planned,) = plan_fetches(Reconstruction(0, terms, {A: (first, again)}), 30)
    assert planned.fetch == first


@pytest.mark.parametrize(
    ("ranges", "length", "rule"),
    [
        ([], 30, "reconstruction.fetch"),
        ([(0, 2), (2, 4)], 30, "reconstruction.fetch"),
        ([(2, 4)], 30, "reconstruction.fetch"),
        ([(0, 1), (4, 9)], 30, "reconstruction.fetch"),
        ([(0, 4)], 31, "reconstruction.length"),
        ([(0, 4)], 29, None),
    ],
)
def test_a_reconstruction_that_cannot_be_followed_is_refused(
    ranges: list[tuple[int, int]], length: int, rule: str | None
) -> None:
    listed = tuple(FetchRange(A, "u", start, end, 0, 1000) for start, end in ranges)
    reconstruction = Reconstruction(0, (Term(A, 1, 3, 30),), {A: listed})
    if rule is None:
        assert plan_fetches(reconstruction, length)
        return
    with pytest.raises(FormatError) as caught:
        plan_fetches(reconstruction, length)
    assert caught.value.rule == rule


def test_an_offset_past_the_first_term_is_refused() -> None:
    fetches = {A: (FetchRange(A, "u", 0, 4, 0, 1000),)}
    with pytest.raises(FormatError, match=r"reconstruction\.offset"):
        plan_fetches(Reconstruction(20, (Term(A, 0, 2, 20), Term(A, 2, 4, 20)), fetches), 10)


# --- The whole way: terms, range, JSON, plan, download --------------------------------------------------


@dataclass(frozen=True)
class Model:
    """Xorbs of small chunks, the way they are stored: eight bytes of length, then the data."""

    xorbs: dict[Hash, list[bytes]]
    terms: tuple[Term, ...]

    @property
    def file(self) -> bytes:
        return b"".join(
            chunk for term in self.terms for chunk in self.xorbs[term.xorb][term.chunk_start : term.chunk_end]
        )

    @property
    def sizes(self) -> dict[Hash, list[int]]:
        return {xorb: [len(chunk) for chunk in chunks] for xorb, chunks in self.xorbs.items()}

    def offer(self, xorb: Hash, start: int, end: int, url: str) -> FetchRange:
        ends = [0, *accumulate(8 + len(chunk) for chunk in self.xorbs[xorb])]
        return FetchRange(xorb, url, start, end, ends[start], ends[end])

    def download(self, plan: tuple[PlannedFetch, ...], length: int) -> bytes:
        """Follow the plan, byte range by byte range, and see that every byte of output is written once."""
        output = bytearray(length)
        written = bytearray(length)
        for planned in plan:
            fetch = planned.fetch
            body = b"".join(struct.pack("<Q", len(chunk)) + chunk for chunk in self.xorbs[fetch.xorb])
            rest = body[fetch.byte_start : fetch.byte_end]
            chunks: list[bytes] = []
            while rest:
                size = struct.unpack_from("<Q", rest)[0]
                chunks.append(rest[8 : 8 + size])
                rest = rest[8 + size :]
            assert len(chunks) == fetch.chunk_end - fetch.chunk_start
            for placement in planned.placements:
                first = placement.chunk_start - fetch.chunk_start
                raw = b"".join(chunks[first : first + placement.chunk_end - placement.chunk_start])
                span = slice(placement.output_offset, placement.output_offset + placement.length)
                assert not any(written[span])
                output[span] = raw[placement.skip : placement.skip + placement.length]
                written[span] = b"\1" * placement.length
        assert len(output) == length
        assert all(written)
        return bytes(output)


@st.composite
def models(draw: st.DrawFn) -> Model:
    xorbs = {}
    for index in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
        data = splitmix64(index + 1, sum(sizes))
        ends = [0, *accumulate(sizes)]
        xorbs[named(index)] = [data[start:end] for start, end in pairwise(ends)]
    terms = []
    for _ in range(draw(st.integers(1, 6))):
        xorb = draw(st.sampled_from(list(xorbs)))
        start = draw(st.integers(0, len(xorbs[xorb]) - 1))
        end = draw(st.integers(start + 1, len(xorbs[xorb])))
        terms.append(Term(xorb, start, end, sum(map(len, xorbs[xorb][start:end]))))
    return Model(xorbs, tuple(terms))


@given(st.data(), models())
def test_following_the_plan_of_any_range_gives_exactly_its_bytes_and_fetches_nothing_twice(
    data: st.DataObject, model: Model
) -> None:
    file = model.file
    start = data.draw(st.integers(0, len(file) - 1))
    end = data.draw(st.integers(start + 1, len(file)))
    offset, terms = trim(model.terms, sizes_of(model.sizes), start, end)
    # A server lists the coalesced ranges, in ascending order or not, perhaps one of them twice.
    fetches = {}
    for xorb, ranges in chunk_ranges(terms).items():
        listed = data.draw(st.permutations(ranges)) + data.draw(st.lists(st.sampled_from(ranges), max_size=1))
        fetches[xorb] = tuple(model.offer(xorb, *chunks, f"u{index // 2}") for index, chunks in enumerate(listed))
    reconstruction = Reconstruction(offset, terms, fetches)
    assert Reconstruction.from_json(reconstruction.to_v1_json()) == reconstruction
    assert Reconstruction.from_json(reconstruction.to_v2_json()) == reconstruction

    plan = plan_fetches(reconstruction, end - start)
    assert model.download(plan, end - start) == file[start:end]
    fetched = sorted((planned.fetch.xorb, planned.fetch.byte_start, planned.fetch.byte_end) for planned in plan)
    assert all(left[0] != right[0] or left[2] <= right[1] for left, right in pairwise(fetched))
    # Only what the range needs: every fetch serves a term, and no chunk is fetched that none holds.
    needed = {(term.xorb, chunk) for term in terms for chunk in range(term.chunk_start, term.chunk_end)}
    assert needed == {
        (planned.fetch.xorb, chunk)
        for planned in plan
        for chunk in range(planned.fetch.chunk_start, planned.fetch.chunk_end)
    }
    assert [planned.placements[0].output_offset for planned in plan] == sorted(
        planned.placements[0].output_offset for planned in plan
    )


@given(st.data(), models())
def test_untrimmed_terms_and_whole_xorbs_are_followed_too(data: st.DataObject, model: Model) -> None:
    file = model.file
    offset = data.draw(st.integers(0, model.terms[0].unpacked_bytes - 1))
    length = data.draw(st.integers(1, len(file) - offset))
    fetches = {xorb: (model.offer(xorb, 0, len(chunks), f"u/{xorb}"),) for xorb, chunks in model.xorbs.items()}
    plan = plan_fetches(Reconstruction(offset, model.terms, fetches), length)
    assert model.download(plan, length) == file[offset : offset + length]
    assert len({planned.fetch.xorb for planned in plan}) == len(plan)
    skips = [placement.skip for planned in plan for placement in planned.placements]
    assert (skips[0], set(skips[1:]) <= {0}) == (offset, True)


@given(models())
def test_trimming_twice_is_trimming_once(model: Model) -> None:
    size = len(model.file)
    start, end = size // 3, size - size // 4
    offset, terms = trim(model.terms, sizes_of(model.sizes), start, end)
    assert trim(terms, sizes_of(model.sizes), offset, offset + end - start) == (offset, terms)
