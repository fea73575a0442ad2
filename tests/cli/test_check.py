"""``xet check``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Xet, flip_byte
from tests.support.strategies import splitmix64

DATA = splitmix64(5, 500_000)


@pytest.fixture(autouse=True)
def _stored(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(DATA)
    xet.put(tmp_path / "original")


@pytest.mark.parametrize("options", [(), ("--read-data",)])
def test_a_sound_store_has_no_problem(xet: Xet, options: tuple[str, ...]) -> None:
    [record] = xet("check", "--json", *options).records
    read = record.pop("bytes_read")
    nothing = {"problems": 0, "notes": [], "repositories": 0, "renewed": 0, "unread": False}
    assert record == {"files": 1, "xorbs": 1, **nothing}
    assert (read >= len(DATA)) == bool(options)
    ran = xet("check", *options)
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("no problem: 1 file, 1 xorb")


def test_a_flipped_bit_is_found_by_reading(xet: Xet, tmp_path: Path) -> None:
    [xorb] = xet.xorbs()
    name = xet("hash", "--json", tmp_path / "original").records[0]["hash"]
    flip_byte(xorb, 123_456)
    ran = xet.process("check", "--read-data", "--json")
    *problems, summary = ran.records
    assert ran.code == 4
    assert summary["problems"] == len(problems) > 0
    assert all(set(problem) == {"object", "problem", "files"} for problem in problems)
    assert any(xorb.name[:64] in problem["object"] for problem in problems), "it says which xorb"
    assert any(name in problem["files"] for problem in problems), "and which file"
    assert [error["code"] for error in ran.errors] == ["integrity"]


def test_a_missing_xorb_is_found_without_reading(xet: Xet) -> None:
    [xorb] = xet.xorbs()
    xorb.unlink()
    ran = xet("check")
    assert ran.code == 4
    assert xorb.name[:64] in ran.stdout
    assert "problem" in ran.stderr


def test_harmless_leftovers_are_remarks(xet: Xet, tmp_path: Path) -> None:
    other = Xet(tmp_path / "other")
    (tmp_path / "more").write_bytes(splitmix64(55, 100_000))
    other.put(tmp_path / "more")
    [xorb] = other.xorbs()
    stray = xet.store / xorb.relative_to(other.store)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(xorb.read_bytes())
    ran = xet("check")
    assert ran.code == 0
    assert xorb.name in ran.stderr
    [record] = xet("check", "--json").records
    assert len(record["notes"]) == 1


def test_checking_changes_nothing(xet: Xet) -> None:
    [xorb] = xet.xorbs()
    flip_byte(xorb, 123_456)
    damaged = xorb.read_bytes()
    xet("check", "--read-data")
    assert xorb.read_bytes() == damaged
