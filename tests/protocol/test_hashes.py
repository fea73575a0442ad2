"""Hash values, and every hash of the kernel against the slow twin."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import chunk_lists, hashes, packed, payloads, splitmix64, splits
from xetstore import _kernel
from xetstore.errors import UsageError
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import (
    Hash,
    chunk_hash,
    file_hash,
    verification_hash,
    xorb_hash,
)
from xetstore.protocol.reference_blake3 import keyed_hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

SUITE = XET_GEARHASH_BLAKE3.kernel


def entries(chunks: ChunkList) -> list[tuple[bytes, int]]:
    return [(name.digest, length) for name, length in chunks]


# --- The value -------------------------------------------------------------------------------------------


@given(hashes())
def test_the_string_form_reads_back(value: Hash) -> None:
    assert Hash.parse(str(value)) == value
    assert Hash.parse(str(value).upper()) == value
    assert str(value) == reference.hash_to_string(value.digest)
    assert reference.string_to_hash(str(value)) == value.digest


@given(hashes(), hashes())
def test_hashes_are_ordered_as_their_strings_are(one: Hash, other: Hash) -> None:
    assert (one < other) == (str(one) < str(other))
    assert (one >= other) == (str(one) >= str(other))


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "g" + "0" * 63, " " + "0" * 63, "0x" + "0" * 62, "0" * 64 + "\n", "٠" * 64]
)
def test_what_is_not_64_hex_digits_is_not_a_hash(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Hash.parse(text)
    assert caught.value.hint


def test_a_hash_has_32_bytes() -> None:
    with pytest.raises(ValueError):
        Hash(bytes(31))


def test_a_hash_is_an_immutable_value() -> None:
    value = Hash(splitmix64(1, 32))
    with pytest.raises(AttributeError):
        value.digest = bytes(32)  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(value)) == value
    assert len({value, Hash(splitmix64(1, 32))}) == 1
    assert value != object()
    assert eval(repr(value)) == value


def test_a_hash_does_not_share_a_callers_buffer() -> None:
    buffer = bytearray(32)
    value = Hash(buffer)  # type: ignore[arg-type]  # a bytearray slips through where types are not checked
    buffer[0] = 1
    assert value == Hash.ZERO


# --- BLAKE3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3073, 8192, 16385, 40000])
def test_keyed_hash_is_blake3(size: int) -> None:
    key, data = splitmix64(1, 32), splitmix64(2, size)
    assert _kernel.keyed_hash(key, data) == keyed_hash(key, data)


def test_a_key_has_32_bytes() -> None:
    for key in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError):
            _kernel.keyed_hash(key, b"")
        with pytest.raises(ValueError):
            _kernel.keyed_hashes(key, b"")


@given(st.lists(hashes(), max_size=20))
def test_keyed_hashes_keys_each_of_them(values: list[Hash]) -> None:
    key = splitmix64(5, 32)
    keyed = _kernel.keyed_hashes(key, b"".join(value.digest for value in values))
    assert keyed == b"".join(keyed_hash(key, value.digest) for value in values)


def test_keyed_hashes_takes_whole_hashes_only() -> None:
    with pytest.raises(ValueError):
        _kernel.keyed_hashes(bytes(32), bytes(33))


@given(payloads(max_size=1500))
def test_chunk_hashes_are_keyed_with_the_data_key(data: bytes) -> None:
    assert chunk_hash(data).digest == reference.chunk_hash(data)


@settings(max_examples=100)
@given(payloads(max_size=3000), st.integers(1, 5), st.data())
def test_hash_chunks_hashes_each_chunk(data: bytes, threads: int, more: st.DataObject) -> None:
    ranges = more.draw(splits(len(data)))
    chunks = [data[start:end] for start, end in ranges if start < end]
    packed_hashes = _kernel.hash_chunks(SUITE, data, packed([len(c) for c in chunks]), threads=threads)
    assert packed_hashes == b"".join(chunk_hash(chunk).digest for chunk in chunks)


def test_hash_chunks_wants_lengths_that_add_up() -> None:
    for lengths in ([9], [11], [5, 6], [2**63, 2**63, 10], [10, 0], []):
        with pytest.raises(ValueError):
            _kernel.hash_chunks(SUITE, bytes(10), packed(lengths))
    with pytest.raises(ValueError):
        _kernel.hash_chunks(SUITE, bytes(10), bytes(7))


# --- The tree --------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(chunk_lists(max_size=120))
def test_the_merkle_root_is_that_of_the_draft(chunks: ChunkList) -> None:
    assert xorb_hash(chunks.hashes, chunks.lengths).digest == reference.merkle_root(entries(chunks))


@pytest.mark.parametrize("count", [*range(30), 81, 82, 729, 1000])
@pytest.mark.parametrize("last_byte_step", [0, 1, 4])
def test_a_lone_leftover_of_a_level_is_hashed_again(count: int, last_byte_step: int) -> None:
    # Hashes that never cut, sometimes cut and always cut a level: leftovers at all levels in all positions.
    digests = [splitmix64(i, 24) + bytes([1 + 3 * (last_byte_step == 4)]) + bytes(7) for i in range(count)]
    if last_byte_step == 1:
        digests = [splitmix64(i, 32) for i in range(count)]
    leaves = [(digest, i + 1) for i, digest in enumerate(digests)]
    root = _kernel.merkle_root(SUITE, b"".join(digests), packed([size for _, size in leaves]))
    assert root == reference.merkle_root(leaves)


@settings(max_examples=60)
@given(chunk_lists(max_size=200), st.data())
def test_a_growing_tree_has_the_same_root_however_it_grows(chunks: ChunkList, more: st.DataObject) -> None:
    tree = _kernel.MerkleTree(SUITE)
    for start, end in more.draw(splits(len(chunks))):
        part = chunks.slice(start, end)
        tree.update(part.hashes, part.lengths)
        so_far = chunks.slice(0, end)
        assert tree.root() == _kernel.merkle_root(SUITE, so_far.hashes, so_far.lengths)
        assert tree.total_bytes == so_far.total_bytes


def test_sizes_of_inner_nodes_may_exceed_32_bits() -> None:
    leaves = [(splitmix64(i, 32), 2**40 + i) for i in range(50)]
    root = _kernel.merkle_root(SUITE, b"".join(d for d, _ in leaves), packed([size for _, size in leaves]))
    assert root == reference.merkle_root(leaves)


def test_a_tree_wants_a_size_for_each_hash() -> None:
    tree = _kernel.MerkleTree(SUITE)
    for hashes_, sizes in ((bytes(64), packed([1])), (bytes(33), packed([1])), (bytes(32), bytes(7))):
        with pytest.raises(ValueError):
            tree.update(hashes_, sizes)
        with pytest.raises(ValueError):
            _kernel.merkle_root(SUITE, hashes_, sizes)
    assert tree.root() == bytes(32)


def test_one_chunk_is_its_own_root() -> None:
    name = chunk_hash(b"Hello World!")
    assert xorb_hash(name.digest, packed([12])) == name


# --- Files and terms -------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(payloads(max_size=3000))
def test_the_file_hash_keys_the_root(data: bytes) -> None:
    hashes_, lengths = _kernel.find_chunks(SUITE, data, final=True)
    assert file_hash(xorb_hash(hashes_, lengths)).digest == reference.file_hash(data)


def test_the_empty_file_is_32_zero_bytes() -> None:
    hashes_, lengths = _kernel.find_chunks(SUITE, b"", final=True)
    assert (hashes_, lengths) == (b"", b"")
    assert file_hash(xorb_hash(hashes_, lengths)) == Hash.ZERO
    assert reference.file_hash(b"") == bytes(32)


@given(st.lists(hashes(), max_size=40))
def test_verification_hashes_cover_the_raw_hashes(values: list[Hash]) -> None:
    digests = [value.digest for value in values]
    assert verification_hash(b"".join(digests)).digest == reference.verification_hash(digests)


# --- CRC-64/NVME -----------------------------------------------------------------------------------------


def test_the_crc_has_its_check_value() -> None:
    assert _kernel.crc64_nvme(b"123456789") == 0xAE8B14860A799888
    assert reference.crc64_nvme(b"123456789") == 0xAE8B14860A799888


@given(payloads(max_size=600))
def test_the_crc_is_that_of_the_twin(data: bytes) -> None:
    assert _kernel.crc64_nvme(data) == reference.crc64_nvme(data)
