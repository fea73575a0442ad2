"""Golden vectors of chunks, hashes and a real xorb: what other implementations computed, computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest

from tests.support.strategies import GOLDEN, constant, float32, hashed_chunks, packed, splitmix64, text
from xetstore import _kernel
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash, verification_hash, xorb_hash
from xetstore.protocol.reference_blake3 import keyed_hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo

SUITE = XET_GEARHASH_BLAKE3


def golden_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def chunks_of(entries: list[tuple[str, int]]) -> ChunkList:
    return ChunkList(b"".join(Hash.parse(name).digest for name, _ in entries), packed([size for _, size in entries]))


def root(chunks: ChunkList) -> Hash:
    return xorb_hash(chunks.hashes, chunks.lengths)


# --- Draft, appendix B, and the hashing page ----------------------------------------------------------------

B3_FIRST = "c28f58387a60d4aa200c311cda7c7f77f686614864f5869eadebf765d0a14a69"
B3_SECOND = "6e4e3263e073ce2c0e78cc770c361e2778db3b054b98ab65e277fc084fa70f22"


def test_appendix_b1_chunk_hash() -> None:
    name = chunk_hash(b"Hello World!")
    assert name.digest.hex() == "a29cfb08e608d4d8726dd8659a90b9134b3240d5d8e42d5fcb28e2a6e763a3e8"
    assert str(name) == "d8d408e608fb9ca213b9909a65d86d725f2de4d8d540324be8a363e7a6e228cb"
    assert reference.chunk_hash(b"Hello World!") == name.digest
    # The file of this one chunk, as the reference client names it.
    assert str(file_hash(name)) == "a9dae0ad88b060bdd7e7c87abdcf95b132c95a0414b06d4f6beb68d287b87165"


def test_appendix_b2_hash_string() -> None:
    digest = bytes(range(32))
    assert str(Hash(digest)) == "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"
    assert reference.hash_to_string(digest) == str(Hash(digest))


def test_appendix_b3_internal_node_hash() -> None:
    children = chunks_of([(B3_FIRST, 100), (B3_SECOND, 200)])
    assert str(root(children)) == "be64c7003ccd3cf4357364750e04c9592b3c36705dee76a71590c011766b6c14"
    pairs = [(reference.string_to_hash(B3_FIRST), 100), (reference.string_to_hash(B3_SECOND), 200)]
    assert reference.node_hash(pairs) == root(children).digest


def test_appendix_b4_verification_hash() -> None:
    chunks = chunks_of([(B3_FIRST, 100), (B3_SECOND, 200)])
    assert chunks.hashes.hex() == (
        "aad4607a38588fc2777f7cda1c310c209e86f564486186f6694aa1d065f7ebad"
        "2cce73e063324e6e271e360c77cc780e65ab984b053bdb78220fa74f08fc77e2"
    )
    expected = "eb06a8ad81d588ac05d1d9a079232d9c1e7d0b07232fa58091caa7bf333a2768"
    assert str(verification_hash(chunks.hashes)) == expected
    assert reference.hash_to_string(reference.verification_hash([chunks.hashes])) == expected


def test_the_node_of_the_hashing_page() -> None:
    children = chunks_of(
        [
            ("1f6a2b8e9d3c4075a2e8c5fd4f0b763e6f3c1d7a9b2e6487de3f91ab7c6d5401", 10000),
            ("7c94fe2a38bdcf9b4d2a6f7e1e08ac35bc24a7903d6f5a0e7d1c2b93e5f748de", 20000),
            ("cfd18a92e0743bb09e56dbf76ea2c34d99b5a0cf271f8d429b6cd148203df061", 25000),
            ("e38d7c09a21b4cf8d0f92b3a85e6df19f7c20435e0b1c78a9d635f7b8c2e4da1", 64000),
        ]
    )
    assert str(root(children)) == "649b032540f645eb28eea76696f2b55d4d596bf09ffcbf3f77e529029454defa"


def test_empty_data_has_no_chunk_and_a_hash_of_zeros() -> None:
    assert chunk_bytes(b"") == ChunkList.EMPTY
    assert file_hash(root(ChunkList.EMPTY)) == Hash.ZERO
    # What the first drafts would have made of it, and the hash of an empty chunk, which must never appear.
    keyed = Hash(_kernel.keyed_hash(SUITE.file_key, bytes(32)))
    assert str(keyed) == "638a6bc391964a85939d48f008e8bdbae6a7975e7ca2d87a3ce2492f4e4d8a4c"
    assert str(chunk_hash(b"")) == "e0f2cf784e7e5f10c34f84af150e9a5ff9664216debad915364d741049870f67"


# --- chunking.json -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden_json("chunking.json")["cases"], ids=lambda case: case["name"])
def test_golden_boundaries(case: dict[str, Any]) -> None:
    made_by = case["generator"]
    if made_by["kind"] == "splitmix64":
        data = splitmix64(made_by["seed"], made_by["size"])
        assert hashlib.sha256(data).hexdigest() == case["sha256"]
    else:
        data = constant(made_by["size"], made_by["byte"])
    for threads in (1, 2, 5):
        chunks = chunk_bytes(data, threads=threads)
        assert list(accumulate(chunks.sizes)) == case["boundaries"]
        if "chunk_hashes" in case:
            assert [str(name) for name, _ in chunks] == case["chunk_hashes"]
    assert list(accumulate(len(chunk) for chunk in reference.chunk_file(data))) == case["boundaries"]


# --- merkle.json ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden_json("merkle.json"), ids=lambda case: f"{len(case['chunks'])}-leaves")
def test_golden_trees(case: dict[str, Any]) -> None:
    chunks = chunks_of(case["chunks"])
    assert str(root(chunks)) == case["xorb_hash"]
    assert reference.merkle_root([(name.digest, size) for name, size in chunks]) == root(chunks).digest
    for salt, expected in case["file_hash_by_salt"]:
        if not chunks:
            continue  # the hash of no chunks is zeros under any salt: nothing is keyed
        # A salt takes the place of the zero key; ours, as that of all clients, is zero.
        salted = _kernel.keyed_hash(Hash.parse(salt).digest, root(chunks).digest)
        assert str(Hash(salted)) == expected
        assert keyed_hash(Hash.parse(salt).digest, root(chunks).digest) == salted
        if salt == str(Hash.ZERO) and root(chunks) != Hash.ZERO:
            assert str(file_hash(root(chunks))) == expected


def test_golden_trees_hold_the_empty_list_and_a_lone_leftover() -> None:
    cases = {len(case["chunks"]): case for case in golden_json("merkle.json")}
    assert {expected for _, expected in cases[0]["file_hash_by_salt"]} == {str(Hash.ZERO)}
    assert {4, 16} <= cases.keys()


# --- The specification's reference files -----------------------------------------------------------------


def reference_chunks() -> ChunkList:
    lines = (GOLDEN / "reference" / "chunks.txt").read_text().splitlines()
    return chunks_of([(line.split()[0], int(line.split()[1])) for line in lines])


def reference_hash(name: str) -> str:
    return (GOLDEN / "reference" / name).read_text().strip()


def test_the_reference_csv_has_796_chunks() -> None:
    chunks = reference_chunks()
    assert len(chunks) == 796
    assert chunks.total_bytes == 63_527_244


def test_the_reference_xorb_file_and_range_hashes_follow_from_the_chunks() -> None:
    chunks = reference_chunks()
    assert str(root(chunks)) == reference_hash("xorb_hash.txt")
    assert str(file_hash(root(chunks))) == reference_hash("file_hash.txt")
    assert str(verification_hash(chunks.hashes)) == reference_hash("range_hash.txt")


def test_the_first_three_reference_chunks_are_cut_and_hashed_alike() -> None:
    data = [(GOLDEN / "reference" / f"chunk{n}.bin").read_bytes() for n in (1, 2, 3)]
    first_three = reference_chunks().slice(0, 3)
    assert hashed_chunks(data) == first_three
    # Together, and with more data behind them, they are cut where they were.
    assert chunk_bytes(b"".join(data) + splitmix64(1, 200_000), threads=2).slice(0, 3) == first_three
    assert reference.chunk_file(b"".join(data)) == data
    assert reference.chunk_hash(data[2]) == first_three.digest(2)


# --- A real upload ---------------------------------------------------------------------------------------


def upload() -> tuple[dict[str, Any], bytes]:
    return golden_json("hf_xet/manifest.json"), (GOLDEN / "hf_xet" / "upload.xorb").read_bytes()


UPLOADED: dict[str, Callable[[], bytes]] = {
    "hello.txt": lambda: b"Hello World!",
    "random-1mb.bin": lambda: splitmix64(0, 1_000_000),
    "const59-1mb.bin": lambda: constant(1_000_000),
    "text.txt": lambda: text(1_000_003),
    "float32.bin": lambda: float32(240_000),
    "empty.bin": lambda: b"",
}


def test_the_xorb_of_a_real_upload_verifies_and_has_the_name_it_was_given() -> None:
    manifest, body = upload()
    for threads in (1, 2):
        info = XorbInfo.read(body, threads=threads)
        assert str(info.hash) == manifest["xorb"]["hash"]
        assert info.region_bytes == len(body)
    # It uses all three schemes.
    assert set(_kernel.walk_chunks(SUITE.kernel, body)[2]) == {0, 1, 2}


def test_the_slow_twin_decodes_the_real_upload_alike() -> None:
    _, body = upload()
    chunks = reference.decode_xorb(body)
    out = bytearray(sum(map(len, chunks)))
    hashes, lengths, consumed = _kernel.decode_chunks(SUITE.kernel, body, out, final=True)
    assert bytes(out) == b"".join(chunks)
    assert (ChunkList(hashes, lengths), consumed) == (hashed_chunks(chunks), len(body))


@pytest.mark.parametrize("file", golden_json("hf_xet/manifest.json")["files"], ids=lambda file: file["name"])
def test_the_files_of_the_real_upload_have_the_hashes_it_gave_them(file: dict[str, Any]) -> None:
    data = UPLOADED[file["name"]]()
    assert hashlib.sha256(data).hexdigest() == file["sha256"]
    chunks = chunk_bytes(data)
    assert str(file_hash(root(chunks))) == file["file_hash"]
    uploaded = {name for name, _ in XorbInfo.read(upload()[1]).chunks}
    assert {name for name, _ in chunks} <= uploaded
