"""``xet inspect``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.runner import Xet, flip_byte
from tests.support.strategies import GOLDEN, splitmix64

MANIFEST = json.loads((GOLDEN / "hf_xet" / "manifest.json").read_text())
XORB = GOLDEN / "hf_xet" / "upload.xorb"
SHARD = GOLDEN / "hf_xet" / "upload.shard"
ANSWER = GOLDEN / "hub-dedup-answer.shard"
REFERENCE = GOLDEN / "reference"


def test_a_xorb_of_the_reference_client_is_listed(xet: Xet) -> None:
    header, *chunks = xet("inspect", "--json", XORB).records
    size = XORB.stat().st_size
    assert set(header) == {
        "kind",
        "hash",
        "chunks",
        "raw_bytes",
        "stored_bytes",
        "footer_bytes",
        "checksum_bytes",
        "path",
        "size",
    }
    assert (header["kind"], header["hash"]) == ("xorb", MANIFEST["xorb"]["hash"])
    assert (header["stored_bytes"], header["footer_bytes"], header["size"]) == (size, 0, size)
    assert [chunk["index"] for chunk in chunks] == list(range(header["chunks"]))
    assert sum(chunk["length"] for chunk in chunks) == header["raw_bytes"]
    assert [chunk["start"] for chunk in chunks] == [0, *(chunk["end"] for chunk in chunks[:-1])]
    assert chunks[-1]["end"] == size
    assert {chunk["scheme"] for chunk in chunks} <= {"none", "lz4", "bg4-lz4"}
    assert set(chunks[0]) == {"index", "hash", "length", "start", "end", "scheme"}


def test_a_stored_xorb_has_a_footer_and_checksums(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(splitmix64(6, 300_000))
    xet.put(tmp_path / "original")
    [xorb] = xet.xorbs()
    header, *chunks = xet("inspect", "--json", xorb).records
    assert header["hash"] == xorb.name[:64]
    assert header["footer_bytes"] == 96 + 40 * len(chunks)
    assert header["checksum_bytes"] == 20 + 8 * len(chunks)


def test_people_see_a_table(xet: Xet) -> None:
    ran = xet("inspect", XORB)
    header, *_ = xet("inspect", "--json", XORB).records
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["xorb", MANIFEST["xorb"]["hash"]]
    titles = lines.index("") + 1
    assert lines[titles].split() == ["chunk", "start", "stored", "raw", "scheme", "hash"]
    assert len(lines) - titles - 1 == header["chunks"]


def test_a_shard_of_the_reference_client_is_listed(xet: Xet) -> None:
    header, *entries = xet("inspect", "--json", SHARD).records
    assert (header["kind"], header["files"], header["xorbs"], header["keyed"]) == ("shard", 6, 1, False)
    files = {entry["file"]: entry for entry in entries if "file" in entry}
    [xorb] = [entry for entry in entries if "file" not in entry]
    assert xorb["xorb"] == MANIFEST["xorb"]["hash"]
    assert len(xorb["chunks"]) == header["chunks"]
    for known in MANIFEST["files"]:
        entry = files[known["file_hash"]]
        assert entry["size"] == known["size"] == sum(term["length"] for term in entry["terms"])
        assert entry["verified_terms"]
        if known["size"]:
            assert entry["sha256"] == known["sha256"]


def test_a_dedup_answer_of_the_hub_is_listed(xet: Xet) -> None:
    header, *xorbs = xet("inspect", "--json", ANSWER).records
    assert (header["files"], header["xorbs"], header["keyed"]) == (0, 3, True)
    assert header["expires_at"] - header["created_at"] == 7 * 24 * 3600
    assert [len(xorb["chunks"]) for xorb in xorbs] == [933, 1062, 122]
    ran = xet("inspect", ANSWER)
    assert "chunk hashes are keyed" in ran.stdout
    assert "2025-08-01" in ran.stdout


@pytest.mark.parametrize("name", ["nofooter", "full", "dedupe"])
def test_the_shards_of_the_specification_are_listed(xet: Xet, name: str) -> None:
    shard = REFERENCE / f"reference_shard_{name}.bin"
    [header, *_] = xet("inspect", "--json", shard).records
    assert header["kind"] == "shard"
    assert xet("inspect", shard).code == 0


@pytest.mark.parametrize("content", [b"", b"x", b"Hello World!" * 100, splitmix64(7, 5000)])
def test_anything_else_is_refused_with_both_reasons(xet: Xet, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    ran = xet.process("inspect", "--json", tmp_path / "file")
    assert (ran.code, ran.records) == (4, [])
    [error] = ran.errors
    assert error["code"] == "format"
    assert "no xorb (" in error["message"]
    assert "no shard (" in error["message"]
    assert str(tmp_path / "file") in error["message"]


def test_a_truncated_xorb_is_refused(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(XORB.read_bytes()[:-1])
    assert xet("inspect", tmp_path / "file").code == 4


def test_a_truncated_shard_is_refused_as_a_shard(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SHARD.read_bytes()[:-1])
    ran = xet("inspect", "--json", tmp_path / "file")
    assert (ran.code, ran.errors[0]["code"]) == (4, "format")
    assert "neither" not in ran.errors[0]["message"]


def test_a_footer_that_does_not_fit_its_xorb_is_refused(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(splitmix64(6, 300_000))
    xet.put(tmp_path / "original")
    [xorb] = xet.xorbs()
    flip_byte(xorb, xorb.stat().st_size - 4)
    assert xet("inspect", xorb).code == 4


def test_a_file_too_big_for_either_is_refused_without_reading_it_all(xet: Xet, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    ran = xet("inspect", "--json", tmp_path / "huge")
    assert (ran.code, ran.errors[0]["code"]) == (4, "format")


def test_a_missing_file_and_a_directory_have_their_own_errors(xet: Xet, tmp_path: Path) -> None:
    missing = xet("inspect", "--json", tmp_path / "missing")
    assert (missing.code, missing.errors[0]["code"]) == (3, "not_found")
    folder = xet("inspect", "--json", tmp_path)
    assert (folder.code, folder.errors[0]["code"]) == (2, "usage")
    assert folder.errors[0]["hint"]
