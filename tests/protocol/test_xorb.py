"""Xorbs that are as they should be: built, encoded, decoded, described by a footer."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import (
    GENERATORS,
    TINY_SUITE,
    chunk_lists,
    constant,
    cut_lengths,
    encode,
    float32,
    hashed_chunks,
    packed,
    payloads,
    ramp,
    small_xorb,
    splitmix64,
    splits,
    text,
    unpacked,
)
from xetstore import _kernel
from xetstore.errors import FormatError
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import xorb_hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo

SUITE = XET_GEARHASH_BLAKE3
POLICIES = [policy.kernel for policy in CompressionPolicy]
LIMITS = [1, 2, 3, 4, 5, 12, 13, 8191, 8192, 8193, 65535, 65536, 65537, 131071, 131072, 131073]


def decode(body: bytes, size: int, threads: int = 1) -> bytes:
    out = bytearray(size)
    _, _, consumed = _kernel.decode_chunks(SUITE.kernel, body, out, final=True, threads=threads)
    assert consumed == len(body)
    return bytes(out)


def old_footer(info: XorbInfo, nonce: bytes = bytes(4)) -> bytes:
    """CasObjectInfo version 0, which nothing writes any more."""
    count = info.chunk_count
    return b"".join(
        (
            b"XETBLOB\0" + info.hash.digest + struct.pack("<I", count),
            struct.pack(f"<{count}I", *unpacked(info.ends)),
            info.chunks.hashes + nonce + bytes(12),
            struct.pack("<I", 60 + 36 * count),
        )
    )


# --- Encoding and decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", CompressionPolicy)
@pytest.mark.parametrize("kind", GENERATORS)
def test_data_of_every_kind_survives_every_policy(kind: str, policy: CompressionPolicy) -> None:
    data = GENERATORS[kind](700_001)
    chunks = chunk_bytes(data)
    builder = XorbBuilder()
    builder.append([data], chunks, policy=policy.kernel, threads=2)
    info, body = builder.finish()
    assert decode(bytes(body), len(data)) == data
    assert XorbInfo.read(body, threads=2) == info
    assert info.chunks == chunks
    if len(body) < 100_000:
        assert b"".join(reference.decode_xorb(bytes(body))) == data


@pytest.mark.parametrize("size", LIMITS)
@pytest.mark.parametrize("kind", ["random", "text", "ramp"])
def test_sizes_around_every_limit_survive_every_policy(kind: str, size: int) -> None:
    data = GENERATORS[kind](size)
    chunks = [data[:131072], data[131072:]] if size > 131072 else [data]
    for policy in POLICIES:
        body = encode(chunks, policy)
        assert decode(body, size) == data
        assert XorbInfo.read(body).chunks == hashed_chunks(chunks)
        assert reference.decode_xorb(body) == chunks


@settings(max_examples=120)
@given(payloads(max_size=4000), st.integers(1, 400), st.sampled_from(POLICIES), st.integers(1, 4))
def test_the_twin_decodes_what_the_kernel_encodes(data: bytes, size: int, policy: int, threads: int) -> None:
    lengths = cut_lengths(data, size)
    out = bytearray(len(data) + len(lengths))
    ends = unpacked(_kernel.encode_chunks(SUITE.kernel, [data], lengths, out, policy=policy, threads=threads))
    body = bytes(out[: ends[-1]]) if ends else b""
    chunks = list(reference.walk_xorb(body))
    assert b"".join(map(reference.decode_chunk, chunks)) == data
    assert packed([chunk.raw_bytes for chunk in chunks]) == lengths
    assert [len(chunk.payload) + 8 for chunk in chunks] == [end - start for start, end in pairwise([0, *ends])]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_chunk_that_does_not_shrink_is_stored_as_it_is(policy: int) -> None:
    for data in (splitmix64(1, 100_000), b"x", b"xyz", splitmix64(2, 50)):
        (chunk,) = reference.walk_xorb(encode([data], policy))
        assert (chunk.scheme, chunk.payload) == (_kernel.NONE, data)


def test_each_policy_uses_its_scheme() -> None:
    for policy, scheme in ((CompressionPolicy.LZ4, 1), (CompressionPolicy.BG4_LZ4, 2), (CompressionPolicy.NONE, 0)):
        (chunk,) = reference.walk_xorb(encode([ramp(20_000)[:1000] * 20], policy.kernel))
        assert chunk.scheme == scheme


def test_auto_groups_floats_and_does_not_group_text() -> None:
    assert {chunk.scheme for chunk in reference.walk_xorb(encode([float32(60_000)]))} == {2}
    assert {chunk.scheme for chunk in reference.walk_xorb(encode([text(60_000)]))} == {1}
    assert {chunk.scheme for chunk in reference.walk_xorb(encode([splitmix64(0, 60_000)]))} == {0}


@pytest.mark.parametrize("kind", GENERATORS)
def test_auto_is_never_larger_than_no_compression(kind: str) -> None:
    chunks = [GENERATORS[kind](30_000)] * 5
    assert len(encode(chunks)) <= len(encode(chunks, _kernel.NONE))


@pytest.mark.parametrize("kind", GENERATORS)
def test_any_number_of_threads_encodes_the_same_bytes(kind: str) -> None:
    data = GENERATORS[kind](4 << 20)
    lengths = chunk_bytes(data).lengths
    bodies = []
    for threads in (1, 2, 5):
        out = bytearray(len(data) + len(lengths))
        ends = _kernel.encode_chunks(SUITE.kernel, [data], lengths, out, policy=_kernel.AUTO, threads=threads)
        bodies.append((ends, bytes(out[: unpacked(ends)[-1]])))
    assert bodies[0] == bodies[1] == bodies[2]
    for threads in (1, 2, 5):
        assert decode(bodies[0][1], len(data), threads) == data


def test_the_pieces_of_a_xorb_may_be_cut_between_any_chunks() -> None:
    data = text(50_000)
    lengths = cut_lengths(data, 10_000)
    whole = bytearray(60_000)
    ends = _kernel.encode_chunks(SUITE.kernel, [data], lengths, whole, policy=_kernel.LZ4)
    pieced = bytearray(60_000)
    pieces: list[Any] = [b"", data[:10_000], memoryview(data)[10_000:40_000], bytearray(data[40_000:]), b""]
    assert _kernel.encode_chunks(SUITE.kernel, pieces, lengths, pieced, policy=_kernel.LZ4) == ends
    assert pieced == whole


def test_encoding_refuses_calls_that_cannot_be_right() -> None:
    def call(pieces: list[bytes], lengths: list[int], room: int, policy: int = _kernel.NONE) -> None:
        _kernel.encode_chunks(SUITE.kernel, pieces, packed(lengths), bytearray(room), policy=policy)

    call([bytes(10)], [4, 6], 26)
    for pieces, lengths, room in (
        ([bytes(10)], [4, 6], 25),  # no room for the worst case
        ([bytes(10)], [4, 5], 100),
        ([bytes(10)], [4, 7], 100),
        ([bytes(5), bytes(5)], [4, 6], 100),  # a chunk across two pieces
        ([bytes(10)], [0, 10], 100),
        ([bytes(131_073)], [131_073], 140_000),
        ([], [1], 100),
        ([bytes(1)], [], 100),
        ([bytes(8)], [2**64 - 1, 9], 100),
    ):
        with pytest.raises(ValueError):
            call(pieces, lengths, room)
    for policy in (-1, 3, 254, 256):
        with pytest.raises((ValueError, OverflowError)):
            call([bytes(10)], [10], 100, policy)
    with pytest.raises((ValueError, BufferError, TypeError)):
        _kernel.encode_chunks(SUITE.kernel, [b"x"], packed([1]), bytes(9), policy=0)  # read-only


@settings(max_examples=100)
@given(payloads(max_size=3000), st.data())
def test_a_stream_of_blocks_decodes_as_the_whole_does(data: bytes, more: st.DataObject) -> None:
    chunks = [data[at : at + 200] for at in range(0, len(data), 200)]
    body = encode(chunks)
    out = bytearray(len(data))
    filled = decoded_to = 0
    lengths: list[int] = []
    for _, end in more.draw(splits(len(body))):
        block = memoryview(body)[decoded_to:end]
        hashes, found, consumed = _kernel.decode_chunks(SUITE.kernel, block, memoryview(out)[filled:], final=False)
        assert len(hashes) == 4 * len(found)
        lengths += unpacked(found)
        filled += sum(unpacked(found))
        decoded_to += consumed
    assert decoded_to == len(body)
    assert bytes(out) == data
    assert lengths == [len(chunk) for chunk in chunks]


def test_decoding_stops_where_the_next_chunk_has_no_room() -> None:
    chunks = [text(300), splitmix64(1, 100), ramp(400)]
    body = encode(chunks)
    for room in range(801):
        out = bytearray(room)
        _, lengths, consumed = _kernel.decode_chunks(SUITE.kernel, body, out, final=True)
        fitting = [size for size, total in zip((300, 100, 400), (300, 400, 800), strict=True) if total <= room]
        assert unpacked(lengths) == fitting
        assert consumed == ([0, *unpacked(XorbInfo.read(body).ends)][len(fitting)])
        assert out[: sum(fitting)] == b"".join(chunks)[: sum(fitting)]
        assert not any(out[sum(fitting) :])


@given(payloads(max_size=700))
def test_the_kernel_groups_bytes_as_the_draft_does(data: bytes) -> None:
    assert _kernel.byte_group(data) == reference.byte_group(data)
    assert _kernel.byte_ungroup(data) == reference.byte_ungroup(data)
    assert _kernel.byte_ungroup(_kernel.byte_group(data)) == data


@settings(max_examples=60)
@given(payloads(max_size=4000))
def test_a_walk_tells_what_the_headers_say(data: bytes) -> None:
    chunks = [data[at : at + 300] for at in range(0, len(data), 300)]
    body = encode(chunks)
    lengths, ends, schemes = _kernel.walk_chunks(SUITE.kernel, body)
    twin = list(reference.walk_xorb(body))
    assert unpacked(lengths) == [chunk.raw_bytes for chunk in twin]
    assert list(schemes) == [chunk.scheme for chunk in twin]
    assert unpacked(ends)[-1:] == [len(body)][: len(twin)]


# --- Limits ----------------------------------------------------------------------------------------------


def full_xorb(raw_bytes: int) -> bytes:
    """A xorb of that many raw bytes, small on disk."""
    whole, rest = divmod(raw_bytes, 131_072)
    return encode([constant(131_072)], _kernel.LZ4) * whole + (encode([constant(rest)], _kernel.LZ4) if rest else b"")


def test_64_mib_of_raw_bytes_are_a_xorb_and_more_are_too_if_they_shrink() -> None:
    """We write no more, but the JavaScript client counts serialized bytes only."""
    for size in (67_108_863, 67_108_864, 67_108_865, 8192 * 131_072):
        info = XorbInfo.read(full_xorb(size), threads=2)
        assert info.raw_bytes == size
        assert XorbInfo.parse_footer(info.serialize_footer()) == info


def test_a_body_of_67_174_400_bytes_is_a_xorb_and_one_more_is_not() -> None:
    chunk = encode([splitmix64(0, 131_072)])
    rest = 67_174_400 - 512 * len(chunk) - 8
    for size, is_xorb in ((rest, True), (rest + 1, False)):
        body = chunk * 512 + encode([splitmix64(1, size)])
        if is_xorb:
            info = XorbInfo.read(body, threads=2)
            assert info.region_bytes == len(body) == 67_174_400
            assert XorbInfo.parse_footer(info.serialize_footer()) == info
        else:
            with pytest.raises(FormatError, match=r"rule xorb\.body_bytes,"):
                XorbInfo.read(body, threads=2)


def test_8192_chunks_are_a_xorb_and_one_more_is_not() -> None:
    chunk = encode([b"x"])
    info = XorbInfo.read(chunk * 8192)
    assert info.chunk_count == 8192
    assert XorbInfo.read(chunk * 8192 + info.serialize_footer()) == info
    with pytest.raises(FormatError, match=r"rule xorb\.chunks,"):
        XorbInfo.read(chunk * 8193)


def test_the_longest_body_is_67_174_400_bytes_and_goes_with_its_footer() -> None:
    data = splitmix64(0, 67_108_864)
    chunks = hashed_chunks([data[at : at + 8192] for at in range(0, len(data), 8192)])
    builder = XorbBuilder()
    builder.append([data], chunks, policy=CompressionPolicy.AUTO.kernel, threads=2)
    info, body = builder.finish()
    assert len(body) == info.region_bytes == 67_174_400
    footer = info.serialize_footer()
    assert len(footer) == XorbInfo.footer_bytes(8192) == 327_776
    assert XorbInfo.read(bytes(body) + footer, threads=2) == info


def test_the_builder_keeps_both_limits() -> None:
    builder = XorbBuilder(TINY_SUITE)
    assert builder.can_take(8192, 40)
    assert not builder.can_take(8193, 1)
    assert not builder.can_take(1, 41)
    builder.append([bytes(512)] * 15, hashed_chunks([bytes(512)] * 15, TINY_SUITE), policy=0)
    assert builder.can_take(512, 25)
    assert not builder.can_take(513, 2)
    assert not builder.can_take(1, 26)
    with pytest.raises(ValueError):
        builder.append([bytes(512), b"x"], hashed_chunks([bytes(512), b"x"], TINY_SUITE), policy=0)
    assert (builder.raw_bytes, builder.chunk_count) == (15 * 512, 15)


# --- The builder -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(payloads(max_size=3000), min_size=1, max_size=6), st.sampled_from(POLICIES))
def test_a_xorb_built_in_several_steps_is_that_of_one_step(parts: list[bytes], policy: int) -> None:
    builder = XorbBuilder(TINY_SUITE)
    appended: list[ChunkList] = []
    for part in parts:
        chunks = chunk_bytes(part, suite=TINY_SUITE)
        if builder.can_take(len(part), len(chunks)):
            assert builder.append([part], chunks, policy=policy) == sum(map(len, appended))
            appended.append(chunks)
    everything = ChunkList.concat(appended)
    if not everything:
        with pytest.raises(ValueError):
            builder.finish()
        return
    info, body = builder.finish()
    assert info.chunks == builder.chunks == everything
    assert info.hash == xorb_hash(everything.hashes, everything.lengths, TINY_SUITE)
    assert XorbInfo.read(body, suite=TINY_SUITE) == info


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8))
def test_a_xorb_of_which_chunks_were_dropped_is_that_of_the_others(spans: list[tuple[int, bool]]) -> None:
    whole, rest = XorbBuilder(), XorbBuilder()
    dropped, at = [], 0
    for count, is_dropped in spans:
        pieces = [splitmix64(i, 100 * i + 1) + bytes(2000) for i in range(at, at + count)]
        for builder in (whole,) if is_dropped else (whole, rest):
            builder.append(pieces, hashed_chunks(pieces), policy=CompressionPolicy.AUTO.kernel)
        if is_dropped:
            dropped.append((at, at + count))
        at += count
    whole.drop(dropped)
    for builder in (whole, rest):
        builder.append([b"more"], hashed_chunks([b"more"]), policy=CompressionPolicy.AUTO.kernel)
    assert (whole.chunk_count, whole.raw_bytes, whole.body_bytes) == (rest.chunk_count, rest.raw_bytes, rest.body_bytes)
    (info, body), (expected, expected_body) = whole.finish(), rest.finish()
    assert (info, bytes(body)) == (expected, bytes(expected_body))


def test_the_next_xorb_after_a_reset_holds_nothing_of_the_one_before() -> None:
    builder = XorbBuilder()
    builder.append([text(5000)], chunk_bytes(text(5000)), policy=_kernel.AUTO)
    builder.finish()
    builder.reset()
    assert (builder.chunk_count, builder.raw_bytes, builder.chunks) == (0, 0, ChunkList.EMPTY)
    builder.append([b"abc"], chunk_bytes(b"abc"), policy=_kernel.AUTO)
    info, body = builder.finish()
    assert bytes(body) == encode([b"abc"])
    assert info == XorbInfo.read(body)


def test_a_body_stays_as_it_is_while_the_builder_goes_on() -> None:
    # More is appended, the buffer has to grow, and the body handed out before is still the same bytes.
    builder = XorbBuilder()
    builder.append([splitmix64(1, 5000)], chunk_bytes(splitmix64(1, 5000)), policy=_kernel.NONE)
    first, body = builder.finish()
    before = bytes(body)
    builder.append([splitmix64(2, 9 << 20)], chunk_bytes(splitmix64(2, 9 << 20)), policy=_kernel.NONE)
    assert bytes(body) == before
    assert XorbInfo.read(body) == first
    second, longer = builder.finish()
    assert bytes(longer[: len(before)]) == before
    assert XorbInfo.read(longer, threads=2) == second


def test_a_body_cannot_be_written_to() -> None:
    builder = XorbBuilder()
    builder.append([b"abc"], chunk_bytes(b"abc"), policy=_kernel.AUTO)
    _, body = builder.finish()
    assert body.readonly


def test_pieces_that_do_not_match_leave_the_builder_as_it_was() -> None:
    builder = XorbBuilder()
    builder.append([b"abc"], chunk_bytes(b"abc"), policy=_kernel.AUTO)
    before = builder.finish()
    with pytest.raises(ValueError):
        builder.append([b"abcd"], chunk_bytes(b"abc"), policy=_kernel.AUTO)
    with pytest.raises(ValueError):
        builder.append([b"abc"], chunk_bytes(b"abc"), policy=77)
    assert builder.finish() == before


def test_a_policy_reads_from_its_name() -> None:
    assert [CompressionPolicy(name).kernel for name in ("auto", "none", "lz4", "bg4-lz4")] == [
        _kernel.AUTO,
        _kernel.NONE,
        _kernel.LZ4,
        _kernel.BG4_LZ4,
    ]


# --- What is known of a xorb, and its footer -------------------------------------------------------------


def test_byte_ranges_cover_whole_chunks_with_their_headers() -> None:
    info, body = small_xorb()
    ends = unpacked(info.ends)
    assert info.byte_range(0, 3) == (0, len(body)) == (0, info.region_bytes)
    assert info.byte_range(1, 2) == (ends[0], ends[1])
    assert info.chunks_of(0, info.region_bytes) == (0, 3)
    assert info.chunks_of(ends[0], ends[1]) == (1, 2)
    assert info.chunks_of(ends[0] - 1, ends[0] + 1) == (0, 2)
    assert info.chunks_of(ends[1], ends[1] + 1) == (2, 3)
    for nothing in ((0, 0), (-1, 1), (0, info.region_bytes + 1)):
        with pytest.raises(ValueError):
            info.chunks_of(*nothing)
    start, end = info.byte_range(1, 3)
    assert XorbInfo.read(body[start:end]).chunks == info.chunks.slice(1, 3)
    for bad in ((0, 0), (2, 1), (0, 4), (-1, 2), (3, 4)):
        with pytest.raises(ValueError):
            info.byte_range(*bad)


def test_an_info_wants_an_end_for_each_chunk_and_a_chunk() -> None:
    info, _ = small_xorb()
    with pytest.raises(ValueError):
        XorbInfo(info.hash, info.chunks, info.ends[:-8])
    with pytest.raises(ValueError):
        XorbInfo(info.hash, ChunkList.EMPTY, b"")


@given(chunk_lists(min_size=1, max_size=40))
def test_a_footer_reads_back(chunks: ChunkList) -> None:
    end = 0
    ends = packed([end := end + 8 + length for length in chunks.sizes])
    info = XorbInfo(xorb_hash(chunks.hashes, chunks.lengths), chunks, ends)
    footer = info.serialize_footer()
    assert XorbInfo.parse_footer(footer) == info
    assert len(footer) == XorbInfo.footer_bytes(len(chunks)) == 96 + 40 * len(chunks)


def test_the_footer_is_laid_out_as_published() -> None:
    info, body = small_xorb()
    footer = info.serialize_footer()
    ends = unpacked(info.ends)
    assert footer == b"".join(
        (
            b"XETBLOB\x01",
            info.hash.digest,
            b"XBLBHSH\x00" + struct.pack("<I", 3) + info.chunks.hashes,
            b"XBLBBND\x01" + struct.pack("<I", 3),
            struct.pack("<3I", *ends) + struct.pack("<3I", 40, 190, 590),
            struct.pack("<3I", 3, 12 + 32 * 3 + 40 + 8 * 3, 40 + 8 * 3) + bytes(16),
            struct.pack("<I", 92 + 40 * 3),
        )
    )
    # Offsets from the end count from a section's ident to the end of the buffer.
    without_length = footer[:-4]
    assert without_length[-(12 + 96 + 64) :].startswith(b"XBLBHSH")
    assert without_length[-64:].startswith(b"XBLBBND")
    assert ends[-1] == len(body)


def test_a_xorb_reads_the_same_with_and_without_its_footer() -> None:
    info, body = small_xorb()
    assert XorbInfo.read(body) == XorbInfo.read(body + info.serialize_footer()) == info


def test_an_old_footer_is_read_with_its_body_only() -> None:
    info, body = small_xorb()
    assert XorbInfo.read(body + old_footer(info)) == info
    assert XorbInfo.read(body + old_footer(info, nonce=b"rand")) == info
    with pytest.raises(FormatError, match=r"rule footer\.version,"):
        XorbInfo.parse_footer(old_footer(info))


def test_the_nonce_in_a_footer_is_ignored() -> None:
    info, body = small_xorb()
    footer = bytearray(info.serialize_footer())
    footer[-20:-16] = b"\xff\x01\x02\x03"
    assert XorbInfo.parse_footer(footer) == info
    assert XorbInfo.read(body + footer) == info


def test_offsets_in_errors_count_from_where_the_footer_starts() -> None:
    info, _ = small_xorb()
    footer = bytearray(info.serialize_footer())
    footer[7] = 2
    with pytest.raises(FormatError, match=r"rule footer\.version,") as caught:
        XorbInfo.parse_footer(footer, 1000)
    assert caught.value.offset == 1007
