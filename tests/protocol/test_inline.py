"""The frame of an inline answer, beside its slow twin; and whatever is no frame is told apart."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.errors import FormatError, IntegrityError
from xetstore.protocol import reference
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.inline import INLINE_HEAD_BYTES, InlineHead, inline_ranges, listed, told_ranges
from xetstore.protocol.reconstruction import (
    FetchRange,
    Reconstruction,
    Term,
    ranges_body,
    ranges_from_json,
    ranges_to_json,
)

XORBS = [chunk_hash(b"%d" % number) for number in range(3)]

fetches = st.builds(
    lambda xorb, start, length: FetchRange(XORBS[xorb], "u", start, start + 1, start, start + length),
    st.integers(0, 2),
    st.integers(0, 1000),
    st.integers(1, 1000),
)


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.text(max_size=40), st.binary(max_size=100))
def test_a_head_is_read_as_its_slow_twin_reads_it(json: bytes, ranges: int, question: str, body: bytes) -> None:
    head = InlineHead.of(question, json, ranges)
    frame = head.serialize() + json + body
    assert len(head.serialize()) == INLINE_HEAD_BYTES
    assert InlineHead.parse(frame[:INLINE_HEAD_BYTES]) == head
    head.check(question, json)
    assert reference.read_inline(frame, question) == (json, ranges, body)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_head_or_an_error_of_ours(data: bytes) -> None:
    try:
        head = InlineHead.parse(data)
    except FormatError:
        return
    assert head.serialize() == data


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_bit_that_is_another_is_found(json: bytes, data: st.DataObject) -> None:
    """In the magic, in either number, in the digest, in the JSON."""
    frame = bytearray(InlineHead.of("q", json, 3).serialize() + json)
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((FormatError, IntegrityError)):
        InlineHead.parse(frame[:INLINE_HEAD_BYTES]).check("q", bytes(frame[INLINE_HEAD_BYTES:]))
    with pytest.raises(FormatError):
        reference.read_inline(bytes(frame), "q")


def test_an_answer_is_bound_to_its_question() -> None:
    with pytest.raises(IntegrityError, match="another question"):
        InlineHead.of("this", b"{}", 1).check("that", b"{}")


@given(st.lists(fetches, max_size=6), st.integers(0, 4000))
def test_the_ranges_that_come_along_are_the_first_that_fit(found: list[FetchRange], most: int) -> None:
    taken = inline_ranges(found, most)
    lengths = [fetch.byte_end - fetch.byte_start for fetch in found]
    assert taken == found[: len(taken)]
    assert sum(lengths[: len(taken)]) <= most
    assert len(taken) == len(found) or sum(lengths[: len(taken) + 1]) > most
    assert told_ranges(InlineHead.of("q", b"", len(taken)), found, most) == taken


@given(st.lists(fetches, min_size=1, max_size=6))
def test_more_than_may_come_is_refused_before_it_is_read(found: list[FetchRange]) -> None:
    nbytes = sum(fetch.byte_end - fetch.byte_start for fetch in found)
    with pytest.raises(FormatError, match="ranges are said to come"):
        told_ranges(InlineHead.of("q", b"", len(found) + 1), found, nbytes)
    with pytest.raises(FormatError, match="bytes are said to come"):
        told_ranges(InlineHead.of("q", b"", len(found)), found, nbytes - 1)


def some(xorb: Hash) -> Reconstruction:
    fetch = FetchRange(xorb, "https://x/y", 2, 4, 100, 300)
    return Reconstruction(7, (Term(xorb, 2, 4, 150),), {xorb: (fetch,)}, (bytes(64),))


def test_several_reconstructions_are_one_answer() -> None:
    told = (some(XORBS[0]), None, some(XORBS[1]))
    assert ranges_from_json(ranges_to_json(told), 3) == told
    assert [fetch.xorb for one in told if one for fetch in listed(one.fetches)] == XORBS[:2]
    for asked in (2, 4):
        with pytest.raises(FormatError, match="ranges were asked for"):
            ranges_from_json(ranges_to_json(told), asked)


@given(st.binary(max_size=100))
def test_any_bytes_are_such_an_answer_or_an_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        ranges_from_json(data, 1)


def test_the_question_for_ranges_is_json() -> None:
    assert ranges_body([(Hash.ZERO, 5, 7)]) == b'{"ranges":[{"hash":"%s","start":5,"end":7}]}' % (b"0" * 64)
