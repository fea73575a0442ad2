"""Xorbs that are not as they should be: every one of them is refused, with the rule and the offset."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.test_xorb import old_footer
from tests.support.strategies import encode, hashed_chunks, mutations, small_xorb, splitmix64, text, unpacked
from xetstore import _kernel
from xetstore.errors import FormatError, HashMismatchError, IntegrityError
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

T = TypeVar("T")

SUITE = XET_GEARHASH_BLAKE3
INFO, BODY = small_xorb()
FOOTER = INFO.serialize_footer()


def read_or_none(data: bytes) -> XorbInfo | None:
    try:
        return XorbInfo.read(data)
    except IntegrityError:
        return None


def refused_at(data: bytes) -> tuple[str, int]:
    with pytest.raises(FormatError) as caught:
        XorbInfo.read(data)
    return caught.value.rule, caught.value.offset


# --- Headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 127, 255])
def test_an_unknown_chunk_version_is_refused(version: int) -> None:
    start = unpacked(INFO.ends)[0]
    body = bytearray(BODY)
    body[start] = version
    assert refused_at(bytes(body)) == ("chunk.version", start)


@pytest.mark.parametrize("scheme", [3, 4, 128, 255])
def test_an_unknown_compression_scheme_is_refused(scheme: int) -> None:
    start = unpacked(INFO.ends)[1]
    body = bytearray(BODY)
    body[start + 4] = scheme
    assert refused_at(bytes(body)) == ("chunk.scheme", start + 4)


@pytest.mark.parametrize("raw_bytes", [0, 131_073, 0xFFFFFF])
@pytest.mark.parametrize("scheme", [0, 1, 2])
def test_a_raw_size_out_of_bounds_is_refused(scheme: int, raw_bytes: int) -> None:
    body = encode([b"first"]) + reference.encode_chunk(scheme, lz4.frame.compress(b"abc"), raw_bytes)
    assert refused_at(body) == ("chunk.raw_size", 13 + 5)


@pytest.mark.parametrize("payload_bytes", [0, 131_073, 0xFFFFFF])
@pytest.mark.parametrize("scheme", [0, 1, 2])
def test_a_payload_size_out_of_bounds_is_refused(scheme: int, payload_bytes: int) -> None:
    header = bytes([0]) + payload_bytes.to_bytes(3, "little") + bytes([scheme]) + bytes([100, 0, 0])
    body = encode([b"first"]) + header + bytes(payload_bytes)
    assert refused_at(body) == ("chunk.payload_size", 13 + 1)


def test_a_stored_chunk_is_as_long_as_it_says() -> None:
    for raw_bytes in (9, 11):
        assert refused_at(reference.encode_chunk(0, bytes(10), raw_bytes))[0] == "chunk.payload"


def test_a_payload_longer_than_the_rest_is_refused() -> None:
    body = reference.encode_stored_chunk(bytes(100))
    assert refused_at(body[:-1]) == ("chunk.payload_size", 1)


def test_a_broken_payload_is_reported_where_it_begins_whatever_the_threads() -> None:
    chunks = [text(2000)] * 300
    body = bytearray(encode(chunks, _kernel.LZ4))
    starts = [0, *unpacked(_kernel.walk_chunks(SUITE.kernel, body)[1])]
    for i in (70, 71, 200):
        body[starts[i] + 8] ^= 1
    for threads in (1, 2, 5):
        with pytest.raises(FormatError) as caught:
            _kernel.verify_chunks(SUITE.kernel, body, final=True, threads=threads)
        assert (caught.value.rule, caught.value.offset) == ("chunk.payload", starts[70] + 8)


def test_a_xorb_without_chunks_is_refused() -> None:
    assert refused_at(b"") == ("xorb.empty", 0)
    assert refused_at(FOOTER) == ("xorb.empty", 0)


# --- Footers ---------------------------------------------------------------------------------------------

HASHES = 40
BOUNDARIES = HASHES + 12 + 3 * 32
TAIL = BOUNDARIES + 12 + 3 * 8


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


# Field, offset in the footer, what is written there, the rule that is broken.
FOOTER_FIELDS = [
    ("ident", 0, b"xETBLOB", "chunk.version"),
    ("version 2", 7, b"\2", "footer.version"),
    ("version 0", 7, b"\0", "footer.length"),
    ("hash", 8, b"another hash", "footer.hash"),
    ("hashes ident", HASHES, b"XBLBBND", "footer.hashes_ident"),
    ("hashes version", HASHES + 7, b"\1", "footer.hashes_version"),
    ("hashes count", HASHES + 8, u32(4), "footer.hashes_count"),
    ("hashes count, huge", HASHES + 8, u32(0xFFFFFFFF), "footer.hashes_count"),
    ("a chunk hash", HASHES + 12 + 32, b"another hash", "footer.hash"),
    ("boundaries ident", BOUNDARIES, b"XBLBHSH", "footer.boundaries_ident"),
    ("boundaries version", BOUNDARIES + 7, b"\0", "footer.boundaries_version"),
    ("boundaries count", BOUNDARIES + 8, u32(2), "footer.boundaries_count"),
    ("first end, too small", BOUNDARIES + 12, u32(8), "footer.end"),
    ("first end, too large", BOUNDARIES + 12, u32(131_081), "footer.end"),
    ("ends not increasing", BOUNDARIES + 16, u32(40), "footer.end"),
    ("last end, another", BOUNDARIES + 20, u32(len(BODY) - 1), "footer.end"),
    ("raw end 0", BOUNDARIES + 24, u32(0), "footer.raw_end"),
    ("raw ends not increasing", BOUNDARIES + 28, u32(40), "footer.raw_end"),
    ("raw end too far", BOUNDARIES + 32, u32(190 + 131_073), "footer.raw_end"),
    ("raw end, another", BOUNDARIES + 32, u32(591), "footer.hash"),
    ("count", TAIL, u32(2), "footer.count"),
    ("offset of hashes", TAIL + 4, u32(0), "footer.hashes_offset"),
    ("offset of boundaries", TAIL + 8, u32(65), "footer.boundaries_offset"),
    ("reserved", TAIL + 16, b"\1", "footer.reserved"),
    ("reserved, last", TAIL + 27, b"\1", "footer.reserved"),
    ("length", TAIL + 28, u32(96 + 40 * 3), "footer.length"),
    ("length, huge", TAIL + 28, u32(0xFFFFFFFF), "footer.length"),
]


@pytest.mark.parametrize(("at", "value", "rule"), [f[1:] for f in FOOTER_FIELDS], ids=[f[0] for f in FOOTER_FIELDS])
def test_every_field_of_a_footer_is_checked(at: int, value: bytes, rule: str) -> None:
    footer = bytearray(FOOTER)
    footer[at : at + len(value)] = value
    assert len(footer) == len(FOOTER)
    assert refused_at(BODY + bytes(footer))[0] == rule


def test_a_footer_of_another_xorb_is_refused() -> None:
    other = encode([b"another xorb", text(200), splitmix64(4, 10)])
    with pytest.raises(HashMismatchError) as caught:
        XorbInfo.read(other + FOOTER)
    assert caught.value.expected == str(INFO.hash)
    assert caught.value.actual == str(XorbInfo.read(other).hash)


def test_a_footer_of_the_same_xorb_written_otherwise_is_refused() -> None:
    # Same name, same chunks, but compressed otherwise: its boundaries are not those of this body.
    chunks = reference.decode_xorb(BODY)
    stored = XorbInfo.read(encode(chunks, _kernel.NONE))
    assert stored.hash == INFO.hash
    assert refused_at(BODY + stored.serialize_footer())[0] == "footer.end"
    assert refused_at(BODY + old_footer(stored))[0] == "footer.end"


def test_the_length_of_a_lone_chunk_is_checked_though_its_name_does_not_cover_it() -> None:
    info = XorbInfo.read(encode([b"Hello World!"]))
    footer = bytearray(info.serialize_footer())
    at = 40 + 12 + 32 + 12 + 4
    footer[at : at + 4] = u32(13)
    assert XorbInfo.parse_footer(footer).raw_bytes == 13
    assert refused_at(encode([b"Hello World!"]) + footer)[0] == "footer.chunks"


def test_an_old_footer_is_checked_too() -> None:
    whole = BODY + old_footer(INFO)
    for at in range(len(BODY), len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x40
        assert read_or_none(bytes(changed)) in (None, INFO)
        nonce = len(whole) - 20 <= at < len(whole) - 16
        assert (read_or_none(bytes(changed)) == INFO) == nonce
    fewer = XorbInfo(INFO.hash, INFO.chunks.slice(0, 2), INFO.ends[:16])
    assert refused_at(BODY + old_footer(fewer))[0] == "footer.count"


@pytest.mark.parametrize("count", [0, 8193])
def test_a_footer_with_no_or_too_many_chunks_is_refused(count: int) -> None:
    footer = bytearray(b"XETBLOB\1") + bytes(88 + 40 * count)
    footer[-4:] = u32(92 + 40 * count)
    with pytest.raises(FormatError, match=r"rule footer\.length,"):
        XorbInfo.parse_footer(footer)


def test_a_footer_of_a_longer_body_than_any_is_refused() -> None:
    chunks = hashed_chunks([bytes(131_072)] * 2)
    chunks = ChunkList(chunks.hashes * 257, chunks.lengths * 257)
    name = _kernel.merkle_root(SUITE.kernel, chunks.hashes, chunks.lengths)
    ends = struct.pack("=514Q", *(131_080 * (i + 1) for i in range(514)))
    footer = XorbInfo(type(INFO.hash)(name), chunks, ends).serialize_footer()
    with pytest.raises(FormatError, match=r"rule footer\.end,"):
        XorbInfo.parse_footer(footer)


# --- Damage anywhere -------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_xorb_with_footer_is_refused_or_changes_nothing() -> None:
    whole = BODY + FOOTER
    nonce = range(len(whole) - 20, len(whole) - 16)
    unnoticed = set()
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            found = read_or_none(bytes(changed))
            if found is not None:
                assert found == INFO
                unnoticed.add(at)
    # Beside the nonce only a compressed payload may be written in two ways.
    ends = unpacked(INFO.ends)
    assert {at for at in unnoticed if at >= len(BODY)} == set(nonce)
    assert all(at in nonce or at >= ends[0] + 8 for at in unnoticed)


def test_every_flipped_bit_of_a_body_is_refused_or_gives_another_name() -> None:
    for at in range(len(BODY)):
        for bit in range(8):
            changed = bytearray(BODY)
            changed[at] ^= 1 << bit
            found = read_or_none(bytes(changed))
            assert found is None or found.hash != INFO.hash or found == INFO


def test_a_xorb_cut_off_anywhere_is_refused_or_visibly_another() -> None:
    whole = BODY + FOOTER
    for size in range(len(whole)):
        found = read_or_none(whole[:size])
        if size == len(BODY):
            assert found == INFO
        elif size in unpacked(INFO.ends):  # whole chunks, but fewer: another name
            assert found is not None
            assert found.hash != INFO.hash
        else:
            assert found is None


def test_bytes_behind_the_footer_are_refused() -> None:
    assert read_or_none(BODY + FOOTER + b"\0") is None
    assert read_or_none(BODY + FOOTER + FOOTER) is None


# --- Any bytes -------------------------------------------------------------------------------------------


@st.composite
def chunk_soup(draw: st.DrawFn) -> bytes:
    """Chunks whose headers and payloads lie now and then."""
    body = b""
    for _ in range(draw(st.integers(0, 4))):
        raw = draw(st.sampled_from([b"a", text(50), splitmix64(1, 33), bytes(300)]))
        payload = draw(st.sampled_from([raw, lz4.frame.compress(raw), lz4.frame.compress(raw)[:-1], b""]))
        sizes = st.sampled_from([0, 1, len(raw), len(payload), 131_072, 131_073, 0xFFFFFF])
        raw_bytes = draw(st.one_of(st.just(len(raw)), sizes))
        payload_bytes = draw(st.one_of(st.just(len(payload)), sizes))
        version, scheme = draw(st.sampled_from([0, 0, 0, 1])), draw(st.sampled_from([0, 1, 2, 3]))
        header = bytes([version]) + payload_bytes.to_bytes(3, "little")
        body += header + bytes([scheme]) + raw_bytes.to_bytes(3, "little") + payload
    return body + draw(st.sampled_from([b"", b"", b"XETBLOB", FOOTER, b"\0"]))


def any_xorbs() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.binary(max_size=400),
        chunk_soup(),
        mutations(BODY),
        mutations(BODY + FOOTER),
        mutations(BODY + old_footer(INFO)),
    )


def value_or_format_error(call: Callable[[], T], size: int) -> T | None:
    try:
        return call()
    except FormatError as error:
        if not (error.rule and 0 <= error.offset <= size and str(error)):
            raise AssertionError("a rule, an offset within the bytes and a sentence belong to it") from error
        return None


def outcome(read: Callable[[], XorbInfo]) -> XorbInfo | tuple[str, int] | str:
    try:
        return read()
    except HashMismatchError as error:
        return str(error)
    except FormatError as error:
        return (error.rule, error.offset)


@given(any_xorbs())
def test_any_bytes_walked_give_what_the_twin_finds_or_a_format_error(data: bytes) -> None:
    found = value_or_format_error(lambda: _kernel.walk_chunks(SUITE.kernel, data), len(data))
    twin = value_or_format_error(lambda: list(reference.walk_xorb(data)), len(data))
    assert (found is None) == (twin is None)
    if found is not None and twin is not None:
        lengths, ends, schemes = found
        assert unpacked(lengths) == [chunk.raw_bytes for chunk in twin]
        assert bytes(schemes) == bytes(chunk.scheme for chunk in twin)
        assert len(ends) == len(lengths)


@given(any_xorbs(), st.integers(1, 3))
def test_any_bytes_verified_give_what_the_twin_decodes_or_a_format_error(data: bytes, threads: int) -> None:
    verified = lambda: _kernel.verify_chunks(SUITE.kernel, data, final=True, threads=threads)  # noqa: E731
    found = value_or_format_error(verified, len(data))
    twin = value_or_format_error(lambda: reference.decode_xorb(data), len(data))
    assert (not found or not found[0]) == (twin is None)
    if found and twin is not None:
        assert ChunkList(found[0], found[1]) == hashed_chunks(twin)


@given(any_xorbs(), st.lists(st.integers(0, 2000), max_size=8))
def test_any_bytes_verified_in_pieces_give_what_they_give_at_once(data: bytes, cuts: list[int]) -> None:
    def in_pieces() -> XorbInfo:
        verifier = XorbVerifier()
        kept = bytearray()
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for start, end in pairwise(bounds):
            kept += b"".join(verifier.update(data[start:end]))
        found = verifier.finish()
        assert kept == data[: found.region_bytes]
        return found

    assert outcome(in_pieces) == outcome(lambda: XorbInfo.read(data))


def test_of_two_faults_the_first_is_told_however_the_body_is_cut() -> None:
    no_lz4 = bytes([0, 4, 0, 0, 1, 10, 0, 0]) + b"none"
    no_header = b"\x09" * 8
    assert refused_at(no_lz4 + no_header) == ("chunk.payload", 8)
    assert refused_at(no_header + no_lz4) == ("chunk.version", 0)
    verifier = XorbVerifier()
    with pytest.raises(FormatError) as caught:
        verifier.update(no_lz4, no_header)
    assert (caught.value.rule, caught.value.offset) == ("chunk.payload", 8)


@given(any_xorbs(), st.sampled_from([0, 1, 100, 600, 140_000]), st.booleans())
def test_any_bytes_decoded_fill_no_more_than_their_room_or_give_a_format_error(
    data: bytes, room: int, final: bool
) -> None:
    out = bytearray(b"\xa5" * (room + 128))
    view = memoryview(out)[64 : 64 + room]
    found = value_or_format_error(lambda: _kernel.decode_chunks(SUITE.kernel, data, view, final=final), len(data))
    assert out[:64] == out[-64:] == b"\xa5" * 64
    if found is not None:
        hashes, lengths, consumed = found
        decoded = sum(unpacked(lengths))
        assert decoded <= room
        assert consumed <= len(data)
        assert bytes(view[:decoded]) == b"".join(map(reference.decode_chunk, reference.walk_xorb(data[:consumed])))
        assert len(hashes) == 4 * len(lengths)


@given(any_xorbs())
def test_any_bytes_read_give_a_xorb_or_an_integrity_error(data: bytes) -> None:
    try:
        found = XorbInfo.read(data)
    except HashMismatchError:
        return
    except FormatError as error:
        assert 0 <= error.offset <= len(data)  # noqa: PT017  # the offset of any error is what is promised
        return
    assert XorbInfo.parse_footer(found.serialize_footer()) == found
    assert found.chunks == hashed_chunks(reference.decode_xorb(data))


@given(st.one_of(st.binary(max_size=300), mutations(FOOTER), mutations(old_footer(INFO))), st.integers(0, 1 << 26))
def test_any_bytes_parsed_as_a_footer_give_a_xorb_or_a_format_error(data: bytes, offset: int) -> None:
    found = value_or_format_error(lambda: XorbInfo.parse_footer(data), len(data))
    if found is None:
        with pytest.raises(FormatError) as caught:
            XorbInfo.parse_footer(data, offset)
        assert offset <= caught.value.offset <= offset + len(data)
        return
    # What was read is what was written, but for the nonce.
    assert found.serialize_footer()[:-20] == data[:-20]
