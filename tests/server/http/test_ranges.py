"""What HTTP byte ranges promise: RFC 9110 where it is clear, refusal where it is not, and lengths that are exact."""

from __future__ import annotations

import email.policy
from email.parser import BytesParser
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import splitmix64
from xetstore.server.http.ranges import (
    MAX_HEADER_CHARS,
    MAX_RANGES,
    Framing,
    RangeSpec,
    UnsatisfiableRangeError,
    content_range,
    parse_range,
    resolve,
)

DATA = splitmix64(5, 100)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 0)]),
        ("bytes=0-499", [(0, 499)]),
        ("BYTES=5-", [(5, None)]),
        ("bytes=-5", [(None, 5)]),
        ("bytes=-0", [(None, 0)]),
        ("bytes=0-1,3-4,9-", [(0, 1), (3, 4), (9, None)]),
        ("bytes=0-1 ,\t3-4", [(0, 1), (3, 4)]),
        ("bytes= 0-1", [(0, 1)]),
        ("bytes=,0-1,, ,3-4,", [(0, 1), (3, 4)]),
        ("bytes=9-9,0-5", [(9, 9), (0, 5)]),
        ("bytes=0007-0008", [(7, 8)]),
        ("bytes=0-18446744073709551615", [(0, 10**19)]),
        ("bytes=0-" + "9" * 5000, [(0, 10**19)]),
        ("bytes=" + "9" * 5000 + "-", [(10**19, None)]),
    ],
)
def test_a_header_is_read_as_the_ranges_it_lists(header: str, expected: list[tuple[int | None, int | None]]) -> None:
    assert parse_range(header) == tuple(RangeSpec(*spec) for spec in expected)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes= ",
        "bytes=-",
        "bytes=1",
        "bytes=2-1",
        "bytes=0-1,2-1",
        "bytes=a-b",
        "bytes=0-1;2-3",
        "bytes=0-1 2-3",
        "bytes=0 -1",
        "bytes=0--1",
        "bytes=--1",
        "bytes=+0-1",
        "bytes=0-+1",
        "bytes=0x0-1",
        "bytes=0_0-1",
        "bytes=1e1-20",
        "bytes=٠-١",
        "bytes=0-1\r\n",
        "bytes=0-1\x00",
        "bytes =0-1",
        "bytes:0-1",
        "octets=0-1",
        "bytesbytes=0-1",
        "0-1",
        "bytes=0-1,bytes=2-3",
        "bytes=0-" + "9" * MAX_HEADER_CHARS,
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
    ],
)
def test_a_malformed_header_is_no_range_at_all(header: str) -> None:
    assert parse_range(header) is None


def test_as_many_ranges_as_a_xorb_has_chunks_may_be_listed() -> None:
    assert len(parse_range("bytes=" + ",".join(f"{at % 10}-" for at in range(MAX_RANGES))) or ()) == MAX_RANGES


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", [(0, 100)]),
        ("bytes=0-100", [(0, 100)]),
        ("bytes=0-" + "9" * 30, [(0, 100)]),
        ("bytes=99-99", [(99, 100)]),
        ("bytes=50-", [(50, 100)]),
        ("bytes=-1", [(99, 100)]),
        ("bytes=-100", [(0, 100)]),
        ("bytes=-101", [(0, 100)]),
        ("bytes=100-,5-6,100-200,-0", [(5, 7)]),
        ("bytes=90-99,0-9", [(90, 100), (0, 10)]),
    ],
)
def test_ranges_are_cut_off_at_the_end_and_those_past_it_left_out(header: str, expected: list[tuple[int, int]]) -> None:
    assert resolve(parse_range(header) or (), 100) == tuple(expected)


@pytest.mark.parametrize(
    "header", ["bytes=100-", "bytes=100-100", "bytes=-0", "bytes=100-,200-300", "bytes=" + "9" * 40 + "-"]
)
def test_ranges_that_hold_no_byte_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError) as caught:
        resolve(parse_range(header) or (), 100)
    assert (caught.value.http_status, caught.value.content_range) == (416, "bytes */100")


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_nothing_is_in_an_object_of_no_bytes(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError, match="none of them"):
        resolve(parse_range(header) or (), 0)


def test_a_short_header_cannot_ask_for_more_than_the_object_holds() -> None:
    with pytest.raises(UnsatisfiableRangeError, match="overlap"):
        resolve(parse_range("bytes=" + ",".join(["0-"] * 1000)) or (), 100)
    assert resolve(parse_range("bytes=0-49,50-99") or (), 100) == ((0, 50), (50, 100))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=5), st.integers(1, 40))
def test_a_resolved_range_holds_exactly_the_bytes_named(listed: list[tuple[int, int]], size: int) -> None:
    header = "bytes=" + ",".join(f"{start}-{start + count - 1}" for start, count in listed)
    wanted = [[at for at in range(start, start + count) if at < size] for start, count in listed]
    try:
        found = resolve(parse_range(header) or (), size)
    except UnsatisfiableRangeError:
        assert not any(wanted) or sum(map(len, wanted)) > size
        return
    assert [list(range(start, end)) for start, end in found] == [octets for octets in wanted if octets]


@given(st.text(alphabet="bytes=0123456789-, \t", max_size=40) | st.text(max_size=20))
def test_any_header_gives_ranges_or_none(header: str) -> None:
    for spec in parse_range(header) or ():
        found = spec.resolve(1000)
        assert found is None or 0 <= found[0] < found[1] <= 1000


# --- Framing --------------------------------------------------------------------------------------------


def body_of(framing: Framing) -> bytes:
    return b"".join(part if isinstance(part, bytes) else DATA[part[0] : part[1]] for part in framing.parts())


def test_a_single_range_is_sent_as_it_is() -> None:
    framing = Framing(((10, 30),), 100, "b")
    assert body_of(framing) == DATA[10:30]
    assert framing.headers() == {
        "Content-Type": "application/octet-stream",
        "Content-Length": "20",
        "Content-Range": "bytes 10-29/100",
    }


RANGE_LISTS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(1, 100)).map(lambda pair: (pair[0], min(sum(pair), 100))),
    min_size=2,
    max_size=6,
)


@given(RANGE_LISTS)
def test_several_ranges_are_parts_that_any_mime_parser_reads_in_the_order_listed(ranges: list[tuple[int, int]]) -> None:
    framing = Framing(ranges, 100, "0123456789abcdef")
    headers, body = framing.headers(), body_of(framing)
    assert headers["Content-Length"] == str(len(body)) == str(framing.length)
    assert "Content-Range" not in headers
    message = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body
    parsed = BytesParser(policy=email.policy.HTTP).parsebytes(message)
    assert parsed.get_content_type() == "multipart/byteranges"
    assert not parsed.defects
    parts = list(parsed.iter_parts())
    assert [part["Content-Range"] for part in parts] == [content_range(start, end, 100) for start, end in ranges]
    assert all(part.get_content_type() == "application/octet-stream" for part in parts)
    split = body.split(b"--0123456789abcdef")
    assert [part.partition(b"\r\n\r\n")[2][:-2] for part in split[1:-1]] == [DATA[start:end] for start, end in ranges]


def test_the_length_is_exact_whatever_the_widths_of_the_numbers() -> None:
    for size, (first, second) in product([10**3, 10**9], [((0, 1), (9, 10)), ((99, 100), (5, 999))]):
        framing = Framing((first, second), size, "x" * 70)
        sent = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in framing.parts())
        assert sent == framing.length
