"""The slow twin itself, against published values and against independent implementations."""

from __future__ import annotations

import lz4.block
import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import payloads, small_xorb, splitmix64, text
from xetstore.errors import FormatError
from xetstore.protocol import reference, reference_blake3, reference_lz4
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

# BLAKE3's official test vectors: keyed mode, input bytes 0, 1, … 250, 0, 1, …
BLAKE3_KEY = b"whats the Elvish word for friend"
BLAKE3_VECTORS = {
    0: "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
    1: "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
    1023: "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e",
    1024: "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
    1025: "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69",
    2048: "879cf1fa2ea0e79126cb1063617a05b6ad9d0b696d0d757cf053439f60a99dd1",
    2049: "9f29700902f7c86e514ddc4df1e3049f258b2472b6dd5267f61bf13983b78dd5",
    8193: "954a2a75420c8d6547e3ba5b98d963e6fa6491addc8c023189cc519821b4a1f5",
    31744: "efa53b389ab67c593dba624d898d0f7353ab99e4ac9d42302ee64cbf9939a419",
    102400: "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7",
}


@pytest.mark.parametrize("size", BLAKE3_VECTORS)
def test_blake3_has_its_published_vectors(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    assert reference_blake3.keyed_hash(BLAKE3_KEY, data).hex() == BLAKE3_VECTORS[size]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x02CC5D05), (b"a", 0x550D7456), (b"abc", 0x32D153FF), (b"123456789", 0x937BAD67)],
)
def test_xxh32_has_its_published_values(data: bytes, expected: int) -> None:
    assert reference_lz4.xxh32(data) == expected


def test_a_file_shorter_than_the_minimum_is_one_chunk() -> None:
    assert reference.chunk_file(b"") == []
    assert reference.chunk_file(b"x") == [b"x"]
    assert reference.chunk_file(bytes(8191)) == [bytes(8191)]


@given(payloads(max_size=300))
def test_byte_grouping_turns_back(data: bytes) -> None:
    grouped = reference.byte_group(data)
    assert reference.byte_ungroup(grouped) == data
    lanes = [data[lane::4] for lane in range(4)]
    assert grouped == b"".join(lanes)


def test_ten_bytes_are_grouped_as_in_the_draft() -> None:
    # Group sizes 3, 3, 2, 2 (7.4.3).
    assert reference.byte_group(bytes(range(10))) == bytes([0, 4, 8, 1, 5, 9, 2, 6, 3, 7])


@pytest.mark.slow
@settings(max_examples=60)
@given(
    payloads(max_size=70_000),
    st.sampled_from([0, 4, 5, 6, 7]),
    st.integers(-1, 12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_twin_reads_what_liblz4_writes(
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
    assert reference_lz4.lz4_decode(frame, len(data)) == data
    if data:
        with pytest.raises(FormatError):
            reference_lz4.lz4_decode(frame, len(data) - 1)


@settings(max_examples=80)
@given(payloads(max_size=3000))
def test_liblz4_reads_what_the_twin_writes(data: bytes) -> None:
    frame = reference_lz4.lz4_frame_encode_stored(data)
    assert lz4.frame.decompress(frame) == data
    assert reference_lz4.lz4_decode(frame, len(data)) == data


@settings(max_examples=80)
@given(payloads(max_size=3000))
def test_the_twin_reads_blocks_of_liblz4(data: bytes) -> None:
    block = lz4.block.compress(data, store_size=False)
    assert reference_lz4.lz4_block_decode(block, len(data)) == data


def test_every_flipped_bit_of_a_checksummed_frame_is_refused() -> None:
    data = text(200)
    frame = lz4.frame.compress(data, content_checksum=True, block_checksum=True, store_size=True)
    for at in range(len(frame)):
        for bit in range(8):
            broken = bytearray(frame)
            broken[at] ^= 1 << bit
            with pytest.raises(FormatError):
                reference_lz4.lz4_decode(bytes(broken), len(data))


def test_a_walk_stops_at_the_footer() -> None:
    info, body = small_xorb()
    walked = list(reference.walk_xorb(body + info.serialize_footer()))
    assert [chunk.scheme for chunk in walked] == [0, 1, 2]
    assert walked == list(reference.walk_xorb(body))


def test_a_stored_chunk_reads_back() -> None:
    data = splitmix64(5, 9000)
    chunk = reference.encode_stored_chunk(data)
    assert chunk[:8] == bytes([0]) + (9000).to_bytes(3, "little") + bytes([0]) + (9000).to_bytes(3, "little")
    assert reference.decode_xorb(chunk) == [data]
    assert reference.xorb_hash([data]) == reference.chunk_hash(data, XET_GEARHASH_BLAKE3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"XETBLOB",
        bytes(7),
        b"\1" + reference.encode_stored_chunk(b"x")[1:],
        reference.encode_chunk(3, b"x", 1),
        reference.encode_chunk(0, b"", 1),
        reference.encode_chunk(0, b"x", 0),
        reference.encode_chunk(0, b"xy", 1),
        reference.encode_chunk(1, b"xy", 131_073),
        reference.encode_stored_chunk(b"xy")[:-1],
        reference.encode_chunk(1, b"no frame", 1),
        reference.encode_chunk(1, reference_lz4.lz4_frame_encode_stored(b"abc"), 2),
        reference.encode_chunk(1, reference_lz4.lz4_frame_encode_stored(b"abc"), 4),
    ],
)
def test_the_twin_refuses_broken_xorbs(body: bytes) -> None:
    with pytest.raises(FormatError):
        reference.decode_xorb(body)
