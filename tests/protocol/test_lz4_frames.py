"""LZ4 frames: any legal one is read, the ones we write are read by everybody, and none writes where it must not."""

from __future__ import annotations

from typing import Any

import lz4.block
import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import GENERATORS, encode, mutations, payloads, ramp, splitmix64, text
from xetstore import _kernel
from xetstore.errors import FormatError
from xetstore.protocol import reference, reference_lz4
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

SUITE = XET_GEARHASH_BLAKE3.kernel
GUARD = b"\xa5" * 64


def kernel_decode(frame: bytes, raw_bytes: int, scheme: int = 1) -> bytes:
    """Decode a frame as the payload of a chunk; nothing but the chunk's own bytes may be written."""
    out = bytearray(GUARD + bytes(raw_bytes) + GUARD)
    room = memoryview(out)[len(GUARD) : -len(GUARD)]
    try:
        _kernel.decode_chunks(SUITE, reference.encode_chunk(scheme, frame, raw_bytes), room, final=True)
    finally:
        assert out[: len(GUARD)] == out[-len(GUARD) :] == GUARD
    return bytes(room)


def skippable(content: bytes) -> bytes:
    return (0x184D2A53).to_bytes(4, "little") + len(content).to_bytes(4, "little") + content


def legacy(data: bytes) -> bytes:
    block = bytes(lz4.block.compress(data, store_size=False))
    return (0x184C2102).to_bytes(4, "little") + len(block).to_bytes(4, "little") + block


# --- Legal frames ----------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=100)
@given(
    payloads(max_size=100_000).filter(bool),
    st.sampled_from([0, 4, 5, 6, 7]),
    st.integers(-3, 16),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_frames_of_liblz4_with_any_options_decode(
    data: bytes,
    block_size: int,
    level: int,
    linked: bool,
    content_checksum: bool,
    block_checksum: bool,
    size: bool,
) -> None:
    frame = lz4.frame.compress(
        data,
        block_size=block_size,
        compression_level=level,
        block_linked=linked,
        content_checksum=content_checksum,
        block_checksum=block_checksum,
        store_size=size,
    )
    assert kernel_decode(frame, len(data)) == data
    assert kernel_decode(frame, len(data), scheme=2) == _kernel.byte_ungroup(data)
    for declared in (len(data) - 1, len(data) + 1):
        if declared:
            with pytest.raises(FormatError):
                kernel_decode(frame, declared)


@pytest.mark.parametrize("linked", [True, False])
def test_a_chunk_of_several_blocks_decodes(linked: bool) -> None:
    # 131,072 bytes in blocks of 64 KiB: matches reach over the boundary where blocks are linked.
    data = splitmix64(1, 40_000) * 4
    data = data[:131_072]
    frame = lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=linked)
    assert kernel_decode(frame, len(data)) == data


def test_a_frame_written_in_flushed_pieces_decodes() -> None:
    compressor = lz4.frame.LZ4FrameCompressor(auto_flush=True, block_linked=True, content_checksum=True)
    pieces = [text(100), b"x", splitmix64(1, 300), text(5000)]
    frame = compressor.begin() + b"".join(map(compressor.compress, pieces)) + compressor.flush()
    assert kernel_decode(frame, 5401) == b"".join(pieces)


@pytest.mark.parametrize("kind", GENERATORS)
def test_frames_with_stored_blocks_decode(kind: str) -> None:
    data = GENERATORS[kind](100_000)
    assert kernel_decode(reference_lz4.lz4_frame_encode_stored(data), len(data)) == data


def test_several_frames_and_skippable_ones_count_as_one() -> None:
    one, two = text(700), ramp(900)
    frames = [lz4.frame.compress(one), skippable(b"whatever"), lz4.frame.compress(two), skippable(b"")]
    assert kernel_decode(b"".join(frames), 1600) == one + two
    # A match of the second frame must not reach into the first.
    assert reference_lz4.lz4_decode(b"".join(frames), 1600) == one + two


def test_an_empty_frame_adds_nothing() -> None:
    assert kernel_decode(lz4.frame.compress(b"") + lz4.frame.compress(b"abc"), 3) == b"abc"


def test_a_legacy_frame_decodes() -> None:
    data = text(3000)
    assert kernel_decode(legacy(data), 3000) == data
    assert kernel_decode(legacy(data) + lz4.frame.compress(b"more"), 3004) == data + b"more"


# --- The frames we write -----------------------------------------------------------------------------------


@given(payloads(max_size=5000).filter(bool), st.sampled_from([_kernel.AUTO, _kernel.LZ4, _kernel.BG4_LZ4]))
def test_liblz4_and_the_twin_read_the_frames_we_write(data: bytes, policy: int) -> None:
    (chunk,) = reference.walk_xorb(encode([data], policy))
    if chunk.scheme != _kernel.NONE:
        grouped = data if chunk.scheme == _kernel.LZ4 else reference.byte_group(data)
        assert lz4.frame.decompress(chunk.payload) == grouped
        assert reference_lz4.lz4_decode(chunk.payload, len(data)) == grouped
    assert reference.decode_chunk(chunk) == data


@pytest.mark.parametrize(("size", "header"), [(65_536, "04224d18604082"), (65_537, "04224d186050fb")])
def test_our_frames_are_one_block_with_the_header_of_the_reference_client(size: int, header: str) -> None:
    (chunk,) = reference.walk_xorb(encode([text(size)], _kernel.LZ4))
    assert chunk.payload[:7].hex() == header
    assert int.from_bytes(chunk.payload[7:11], "little") == len(chunk.payload) - 15
    assert chunk.payload[-4:] == bytes(4)
    assert lz4.frame.get_frame_info(chunk.payload)["block_linked"] is False


# --- Frames that are refused --------------------------------------------------------------------------------


def broken_frames() -> dict[str, tuple[bytes, int]]:
    """Name: a frame, and how many bytes its chunk declares."""
    data = text(1000)
    plain = lz4.frame.compress(data)
    checked = bytearray(lz4.frame.compress(data, content_checksum=True))
    checked[-1] ^= 1
    block_checked = bytearray(lz4.frame.compress(data, block_checksum=True))
    block_checked[-5] ^= 1
    sized = bytearray(lz4.frame.compress(data, store_size=True))
    sized[6] ^= 1
    sized[14] = reference_lz4.xxh32(bytes(sized[4:14])) >> 8 & 0xFF
    with_dictionary = bytes([0b0110_0001, 0x40]) + bytes(4)
    checksum = bytes([reference_lz4.xxh32(with_dictionary) >> 8 & 0xFF])
    huge = lz4.frame.compress(bytes(8 << 20))
    return {
        "nothing": (b"\0", 1),
        "no magic": (b"\0" + plain[1:], 1000),
        "bytes behind the frame": (plain + b"\0", 1000),
        "text behind the frame": (plain + b"trailing bytes", 1000),
        "no end mark": (plain[:-4], 1000),
        "wrong content checksum": (bytes(checked), 1000),
        "wrong block checksum": (bytes(block_checked), 1000),
        "wrong content size": (bytes(sized), 1000),
        "a dictionary": (plain[:4] + with_dictionary + checksum + plain[7:], 1000),
        "one byte too many": (plain, 999),
        "one byte too few": (plain, 1001),
        "a bomb of 8 MiB in a chunk of 100 bytes": (huge, 100),
        "a bomb of 8 MiB in the longest chunk": (huge, 131_072),
        "a bomb of many frames": (lz4.frame.compress(bytes(65_536)) * 100, 131_072),
        "ten bytes in the longest chunk": (lz4.frame.compress(b"ten bytes."), 131_072),
        "skippable frames only": (skippable(b"x"), 1),
        "a skippable frame cut off": (skippable(b"xyz")[:-1], 1),
        "a skippable frame of 4 GiB": ((0x184D2A50FFFFFFFF).to_bytes(8, "big")[::-1], 1),
    }


@pytest.mark.parametrize("name", broken_frames())
def test_a_frame_that_is_not_legal_or_not_of_the_declared_size_is_refused(name: str) -> None:
    frame, declared = broken_frames()[name]
    for scheme in (1, 2):
        with pytest.raises(FormatError):
            kernel_decode(frame, declared, scheme)
    with pytest.raises(FormatError):
        if len(reference_lz4.lz4_decode(frame, declared)) != declared:
            raise FormatError("chunk.raw_bytes", 0, "too few bytes")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x10",  # a literal that is not there
        b"\xf0\xff\xff",  # a length that does not end
        b"\x10A\x01",  # half an offset
        b"\x10A\x00\x00\x00",  # offset 0
        b"\x10A\x02\x00\x00",  # before the start
        b"\x1fA\x01\x00" + b"\xff" * 1000 + b"\x00",  # 255,000 times A
        b"\x10A\x01\x00",  # a match at the end
        b"\xf0" + b"\xff" * 65_000 + b"\x00",  # 16 MB of literals that are not there
    ],
)
def test_a_block_that_is_not_legal_is_refused(block: bytes) -> None:
    descriptor = bytes([0b0110_0000, 7 << 4])
    for flags in (0b0110_0000, 0b0100_0000):  # independent, linked
        descriptor = bytes([flags, 7 << 4])
        head = reference_lz4.LZ4_MAGIC.to_bytes(4, "little") + descriptor
        head += bytes([reference_lz4.xxh32(descriptor) >> 8 & 0xFF])
        frame = head + len(block).to_bytes(4, "little") + block + bytes(4)
        for declared in (1, 5, 100, 131_072):
            with pytest.raises(FormatError):
                kernel_decode(frame, declared)


@pytest.mark.parametrize("options", [{}, {"content_checksum": True, "block_checksum": True, "store_size": True}])
def test_a_frame_cut_off_anywhere_is_refused(options: dict[str, Any]) -> None:
    data = text(300) + splitmix64(1, 100)
    frame = lz4.frame.compress(data, **options)
    for size in range(1, len(frame)):
        with pytest.raises(FormatError):
            kernel_decode(frame[:size], len(data))


def outcome(frame: bytes, raw_bytes: int) -> bytes | None:
    try:
        return kernel_decode(frame, raw_bytes)
    except FormatError:
        return None


def twin_outcome(frame: bytes, raw_bytes: int) -> bytes | None:
    try:
        decoded = reference_lz4.lz4_decode(frame, raw_bytes)
    except FormatError:
        return None
    return decoded if len(decoded) == raw_bytes else None


@given(st.data(), st.booleans(), st.booleans())
def test_any_bytes_in_a_frame_decode_as_the_twin_does_or_not_at_all(
    more: st.DataObject, linked: bool, checked: bool
) -> None:
    data = more.draw(payloads(max_size=1500).filter(bool))
    frame = lz4.frame.compress(data, block_linked=linked, content_checksum=checked, store_size=False)
    if more.draw(st.booleans()):
        frame += more.draw(st.sampled_from([skippable(b"abc"), legacy(b"abc" * 9), frame]))
    broken = more.draw(mutations(frame))
    if broken:
        declared = more.draw(st.sampled_from([len(data), 2 * len(data), 1, 131_072]))
        assert outcome(broken, declared) == twin_outcome(broken, declared)


@given(st.binary(min_size=1, max_size=200), st.sampled_from([1, 20, 300, 131_072]), st.booleans())
def test_any_bytes_in_a_block_decode_as_the_twin_does_or_not_at_all(block: bytes, declared: int, linked: bool) -> None:
    descriptor = bytes([0b0110_0000 ^ linked << 5, 4 << 4])
    frame = reference_lz4.LZ4_MAGIC.to_bytes(4, "little") + descriptor
    frame += bytes([reference_lz4.xxh32(descriptor) >> 8 & 0xFF])
    stored = text(100)
    frame += (len(stored) | 1 << 31).to_bytes(4, "little") + stored
    frame += len(block).to_bytes(4, "little") + block + bytes(4)
    for size in {declared, len(twin_prefix(frame)) or 1}:
        assert outcome(frame, size) == twin_outcome(frame, size)


def twin_prefix(frame: bytes) -> bytes:
    """What the frame decodes to at its own length, if it does."""
    try:
        return reference_lz4.lz4_decode(frame, 131_072)
    except FormatError:
        return b""
