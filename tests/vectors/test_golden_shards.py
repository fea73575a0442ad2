"""Real shards of the reference client, the specification and the public Hub: read, and written byte for byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from xetstore import _kernel
from xetstore.errors import FormatError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, verification_hash, xorb_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import SHARD_BOOKEND

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = GOLDEN / "reference"
UPLOAD = (GOLDEN / "hf_xet" / "upload.shard").read_bytes()
HUB_ANSWER = (GOLDEN / "hub-dedup-answer.shard").read_bytes()
REFERENCE_UPLOAD = (REFERENCE / "reference_shard_nofooter.bin").read_bytes()
REFERENCE_STORED = (REFERENCE / "reference_shard_full.bin").read_bytes()
REFERENCE_ANSWER = (REFERENCE / "reference_shard_dedupe.bin").read_bytes()


def read_hash(name: str) -> Hash:
    return Hash.parse((REFERENCE / name).read_text().strip())


def reference_chunks() -> ChunkList:
    rows = [line.split() for line in (REFERENCE / "chunks.txt").read_text().splitlines()]
    hashes = b"".join(Hash.parse(text).digest for text, _ in rows)
    return ChunkList(hashes, struct.pack(f"={len(rows)}Q", *(int(size) for _, size in rows)))


@pytest.mark.parametrize("data", [UPLOAD, REFERENCE_UPLOAD], ids=["hf_xet", "specification"])
def test_a_real_upload_is_written_back_byte_for_byte(data: bytes) -> None:
    assert Shard.parse(data).serialize() == data


@pytest.mark.parametrize("data", [HUB_ANSWER, REFERENCE_STORED, REFERENCE_ANSWER], ids=["hub", "stored", "answer"])
def test_a_real_shard_with_a_footer_is_written_back_byte_for_byte(data: bytes) -> None:
    assert Shard.parse(data).serialize_with_footer() == data


def test_the_upload_of_hf_xet_says_what_its_manifest_says() -> None:
    manifest: dict[str, Any] = json.loads((GOLDEN / "hf_xet" / "manifest.json").read_text())
    shard = Shard.parse(UPLOAD)
    (xorb,) = shard.xorbs
    assert str(xorb.hash) == manifest["xorb"]["hash"]
    assert xorb_hash(xorb.chunks.hashes, xorb.chunks.lengths) == xorb.hash
    found = {str(file.hash): file for file in shard.files}
    assert len(found) == len(manifest["files"])
    for expected in manifest["files"]:
        file = found[expected["file_hash"]]
        assert file.sha256 is not None
        # The empty file too: it travels with zeros, but has the SHA-256 of nothing.
        assert (file.size, file.sha256.hex()) == (expected["size"], expected["sha256"])


def test_every_verification_hash_of_hf_xet_is_ours() -> None:
    shard = Shard.parse(UPLOAD)
    (xorb,) = shard.xorbs
    terms = 0
    for file in shard.files:
        assert file.verification is not None
        for term, expected in zip(file.terms, file.verification, strict=True):
            chunks = xorb.chunks.slice(term.chunk_start, term.chunk_end)
            assert chunks.total_bytes == term.unpacked_bytes
            assert verification_hash(chunks.hashes) == expected
            terms += 1
    assert terms == 11


def test_the_reference_shard_describes_the_reference_file() -> None:
    shard = Shard.parse(REFERENCE_UPLOAD)
    (file,), (xorb,) = shard.files, shard.xorbs
    assert file.hash == read_hash("file_hash.txt")
    assert file.terms == (Term(read_hash("xorb_hash.txt"), 0, 796, 63_527_244),)
    assert file.verification == (read_hash("range_hash.txt"),)
    assert file.sha256 is not None
    assert file.sha256.hex() == "f41255b252f776125f2b657136654e4d4d5d2ccf8ef4db0ec186bd1981b69734"
    assert xorb.hash == read_hash("xorb_hash.txt")
    assert xorb.chunks == reference_chunks()
    assert verification_hash(xorb.chunks.hashes) == file.verification[0]


def test_a_footer_changes_nothing_of_what_a_shard_says() -> None:
    plain, stored = Shard.parse(REFERENCE_UPLOAD), Shard.parse(REFERENCE_STORED)
    assert (stored.files, stored.xorbs) == (plain.files, plain.xorbs)
    assert (stored.key, stored.created_at, stored.expires_at) == (None, 0, 1_760_478_341)


def test_keying_the_reference_shard_gives_the_reference_answer() -> None:
    key = bytes.fromhex("78563412" * 8)
    answer = Shard.parse(REFERENCE_UPLOAD).keyed(key, 1_758_663_941, 1_758_663_941 + 1_814_400)
    assert answer.serialize_with_footer() == REFERENCE_ANSWER
    assert Shard.parse(REFERENCE_ANSWER) == answer


def test_own_chunks_are_found_in_the_reference_answer() -> None:
    answer = Shard.parse(REFERENCE_ANSWER)
    assert answer.key is not None
    assert _kernel.keyed_hashes(answer.key, reference_chunks().hashes) == answer.xorbs[0].chunks.hashes


def test_the_answer_of_the_hub_is_read_as_the_javascript_client_reads_it() -> None:
    expected: dict[str, Any] = json.loads((GOLDEN / "hub-dedup-answer.json").read_text())
    answer = Shard.parse(HUB_ANSWER)
    assert answer.files == ()
    assert answer.key is not None
    assert str(Hash(answer.key)) == expected["hmac_key"]
    assert answer.expires_at - answer.created_at == 604_800
    assert [str(xorb.hash) for xorb in answer.xorbs] == [xorb["hash"] for xorb in expected["xorbs"]]
    for xorb, listed in zip(answer.xorbs, expected["xorbs"], strict=True):
        assert [str(name) for name, _ in xorb.chunks] == listed["chunk_hashes"]


def test_an_upload_with_the_footer_of_the_javascript_client_is_read() -> None:
    # It writes sizes on disk, its clock, and zeros where the lookup tables would be described.
    shard = Shard.parse(UPLOAD)
    xorbs_at = UPLOAD.index(SHARD_BOOKEND) + len(SHARD_BOOKEND)
    footer = struct.pack("<9Q32sQQ48x4Q", 1, 48, xorbs_at, *[0] * 6, b"", 1_700_000_000, 0, 9, 0, 9, len(UPLOAD))
    assert Shard.parse(UPLOAD[:40] + struct.pack("<Q", 200) + UPLOAD[48:] + footer) == Shard(
        shard.files, shard.xorbs, None, 1_700_000_000, 0
    )


@pytest.mark.parametrize("data", [UPLOAD, REFERENCE_ANSWER[:2048] + REFERENCE_ANSWER[-200:]], ids=["upload", "cut"])
def test_a_real_shard_cut_short_anywhere_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(FormatError):
            Shard.parse(data[:length])


def test_a_real_shard_with_any_byte_changed_gives_a_shard_or_a_format_error() -> None:
    refused: dict[int, int] = {}
    for position in range(len(UPLOAD)):
        changed = bytearray(UPLOAD)
        changed[position] ^= 0x41
        try:
            shard = Shard.parse(changed)
        except FormatError as error:
            refused[position] = error.offset
        else:
            stored = shard.serialize_with_footer()
            assert Shard.parse(stored).serialize_with_footer() == stored
    # Hashes and reserved fields can hold anything, but no byte of tag, version and footer size can change.
    assert set(range(48)) <= set(refused)
    assert all(0 <= offset <= len(UPLOAD) for offset in refused.values())
