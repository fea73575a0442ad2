"""``xet stat``."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

DATA = splitmix64(4, 400_000)


def test_totals_have_the_documented_fields(xet: Xet, tmp_path: Path) -> None:
    for name, data in (("a", DATA), ("b", DATA + b"."), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
    xet("put", *(tmp_path / name for name in ("a", "b", "empty")))
    [record] = xet("stat", "--json").records
    assert (record.pop("store"), record.pop("named_by")) == (str(xet.store), "XET_STORE")
    assert set(record) == {"files", "logical_bytes", "unique_bytes", "stored_bytes", "xorbs", "chunks"}
    assert (record["files"], record["logical_bytes"]) == (3, 2 * len(DATA) + 1)
    assert len(DATA) <= record["unique_bytes"] < 1.5 * len(DATA)
    assert record["stored_bytes"] >= record["unique_bytes"], "random bytes cannot be compressed"
    assert record["chunks"] >= 2


def test_people_see_what_was_saved(xet: Xet, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(DATA)
    xet("put", tmp_path / "a", tmp_path / "b")
    lines = xet("stat").stdout.splitlines()
    assert lines[0] == f"store          {xet.store} (XET_STORE)"
    assert lines[1].split() == ["files", "1"], "the same content is one file"
    (tmp_path / "c").write_bytes(DATA + b".")
    xet("put", tmp_path / "c")
    saved = [line for line in xet("stat").stdout.splitlines() if line.endswith("saved")]
    assert len(saved) == 2
    assert saved[0].startswith("unique bytes")


def test_an_empty_store_has_totals_too(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    xet("put", tmp_path / "empty")
    ran = xet("stat")
    assert ran.code == 0
    assert "saved" not in ran.stdout


def test_a_file_is_described(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    before = time.time()
    name = xet.put(tmp_path / "a")
    [record] = xet("stat", "--json", name).records
    assert before - 1 <= record.pop("created_at") <= time.time() + 1
    assert record == {
        "hash": name,
        "size": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "terms": 1,
        "xorbs": 1,
    }
    lines = xet("stat", name).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["hash", "size", "sha256", "created", "terms", "xorbs"]


def test_an_unknown_file_is_not_found(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    xet("put", tmp_path / "a")
    assert xet("stat", "ef" * 32).code == 3


def test_no_store_is_not_an_empty_store(xet: Xet) -> None:
    ran = xet("stat", "--json")
    assert (ran.code, ran.records, ran.errors[0]["code"]) == (3, [], "not_found")
    assert not xet.store.exists()


def test_what_deleting_would_free_is_told_before(xet: Xet, tmp_path: Path) -> None:
    for name, data in (("a", DATA), ("b", DATA + b".")):
        (tmp_path / name).write_bytes(data)
    one, other = xet.put(tmp_path / "a"), xet.put(tmp_path / "b")
    [alone] = xet("stat", "--json", "--what-if-deleted", one).records
    [both] = xet("stat", "--json", "--what-if-deleted", one, other).records
    assert alone["freed_bytes"] < len(DATA) / 2, "most of its chunks are those of the other one"
    assert (alone["other_files"], both["other_files"], both["files"]) == (1, 0, 2)
    stored = sum(path.stat().st_size for path in (xet.store / "xorbs").rglob("*") if path.is_file())
    assert (both["object_bytes"], both["freed_bytes"]) == (stored, stored)
    lines = xet("stat", "--what-if-deleted", one).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["files", "kept", "freed", "whole", "in", "shared"]
    assert xet("stat", one).code == 0, "nothing is deleted"
    assert xet("stat", "--what-if-deleted").code == 2
    assert xet("stat", "--what-if-deleted", "ef" * 32).code == 3
    assert xet("stat", one, other).code == 2


def test_each_namespace_and_repository_has_its_usage(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    xet.put(tmp_path / "a.bin")
    assert xet("cp", tmp_path / "a.bin", "xet://alice/bert/a.bin").code == 0
    records = xet("stat", "--json", "--by", "namespace").records
    assert {record["name"] for record in records} == {"default", "models/alice/bert"}
    assert {record["unique_bytes"] for record in records} == {0}
    [record] = xet("stat", "--json", "--by", "repo").records
    assert (record["name"], record["files"], record["logical_bytes"]) == ("alice/bert", 1, len(DATA))
    assert record["shared_bytes"] >= len(DATA)
    lines = xet("stat", "--by", "repo").stdout.splitlines()
    assert lines[0].split() == ["files", "logical", "unique", "shared", "name"]
    assert lines[1].split()[-1] == "alice/bert"
    assert xet("stat", "--by", "repo", "ef" * 32).code == 2
    [freed] = xet("stat", "--json", "--what-if-deleted", "xet://alice/bert").records
    assert (freed["freed_bytes"], freed["gone"]) == (0, 0)
