"""``xet hash``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import GOLDEN, splitmix64, text

MANIFEST = json.loads((GOLDEN / "hf_xet" / "manifest.json").read_text())
HASHES = {entry["name"]: entry["file_hash"] for entry in MANIFEST["files"]}
CONTENTS = {
    "hello.txt": b"Hello World!",
    "random-1mb.bin": splitmix64(0, 1_000_000),
    "text.txt": text(1_000_003),
    "empty.bin": b"",
}


@pytest.fixture(params=CONTENTS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    path.write_bytes(CONTENTS[request.param])
    return path


def test_a_file_has_the_hash_the_reference_client_gives_it(xet: Xet, file: Path) -> None:
    ran = xet("hash", file)
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"{HASHES[file.name]}  {file}\n", "")


def test_json_has_the_documented_fields(xet: Xet, file: Path) -> None:
    [record] = xet("hash", "--json", file).records
    assert set(record) == {"path", "size", "hash", "chunks"}
    assert (record["path"], record["size"]) == (str(file), file.stat().st_size)
    assert record["hash"] == HASHES[file.name]


def test_json_counts_the_chunks_or_lists_them(xet: Xet, file: Path) -> None:
    [counted] = xet("hash", "--json", file).records
    [listed] = xet("hash", "--json", "--chunks", file).records
    assert counted["chunks"] == len(listed["chunks"])
    assert all(set(chunk) == {"hash", "length"} for chunk in listed["chunks"])
    assert sum(chunk["length"] for chunk in listed["chunks"]) == file.stat().st_size


def test_chunks_are_listed_below_their_file(xet: Xet, tmp_path: Path) -> None:
    file = tmp_path / "random"
    file.write_bytes(CONTENTS["random-1mb.bin"])
    case = json.loads((GOLDEN / "chunking.json").read_text())["cases"][0]
    lengths = [end - start for start, end in zip([0, *case["boundaries"]], case["boundaries"], strict=False)]
    _, *chunks = xet("hash", "--chunks", file).stdout.splitlines()
    assert chunks == [f"  {name}  {length}" for name, length in zip(case["chunk_hashes"], lengths, strict=True)]


def test_sha256_is_added_when_asked_for(xet: Xet, file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert xet("hash", "--json", "--sha256", file).records[0]["sha256"] == digest
    assert xet("hash", "--sha256", file).stdout == f"{HASHES[file.name]}  {digest}  {file}\n"


def test_files_that_cannot_be_read_do_not_keep_the_others_from_being_hashed(xet: Xet, tmp_path: Path) -> None:
    file = tmp_path / "hello.txt"
    file.write_bytes(b"Hello World!")
    ran = xet("hash", "--json", tmp_path / "missing", tmp_path, file)
    assert [record["path"] for record in ran.records] == [str(file)]
    assert [error["code"] for error in ran.errors] == ["not_found", "usage"]
    assert ran.code == 3, "the first failure gives the exit code"


def test_hashing_makes_no_store(xet: Xet, file: Path) -> None:
    xet("hash", file)
    assert not xet.store.exists()
