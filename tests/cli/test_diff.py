"""``xet diff``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

OLD = splitmix64(5, 800_000)
NEW = OLD[:400_000] + b"put in" + OLD[400_000:]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, data in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_bytes(data)
    return tmp_path / "old", tmp_path / "new"


def test_equal_files_end_with_0_and_nothing_on_stdout(xet: Xet, files: tuple[Path, Path]) -> None:
    ran = xet("diff", files[0], files[0])
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "equal: 781.2 KiB\n")


def test_different_files_end_with_1_and_their_parts(xet: Xet, files: tuple[Path, Path]) -> None:
    ran = xet("diff", *files)
    assert (ran.code, ran.stdout) == (1, "inserted  400000:400000  400000:400006\n")
    assert ran.stderr == "different: 781.2 KiB and 781.3 KiB, of which 781.2 KiB are equal\n"


def test_json_has_the_documented_fields(xet: Xet, files: tuple[Path, Path]) -> None:
    span, told = xet("diff", "--json", *files).records
    assert span == {
        "kind": "inserted",
        "old_start": 400_000,
        "old_end": 400_000,
        "new_start": 400_000,
        "new_end": 400_006,
    }
    assert (told["equal"], told["old_size"], told["new_size"], told["exact"]) == (False, len(OLD), len(NEW), True)
    assert told["equal_bytes"] == len(OLD)
    assert set(told) == {
        *("equal", "old_size", "new_size", "equal_bytes", "old_chunks", "new_chunks"),
        *("shared_chunks", "shared_bytes", "exact"),
    }


def test_stored_files_are_named_by_their_hashes(xet: Xet, files: tuple[Path, Path]) -> None:
    old, new = (xet.put(file) for file in files)
    assert xet("diff", old, old).code == xet("diff", old, files[0]).code == 0
    ran = xet("diff", "--json", old, new)
    assert ran.code == 1
    assert ran.records[-1]["exact"] is False
    assert 0 < len(NEW) - ran.records[-1]["equal_bytes"] < 200_000


def test_a_file_here_goes_before_a_hash(
    xet: Xet, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = xet.put(files[0])
    monkeypatch.chdir(tmp_path)
    Path(old).write_bytes(NEW)
    assert xet("diff", old, files[1]).code == 0


def test_what_is_not_there_is_not_found(xet: Xet, files: tuple[Path, Path], tmp_path: Path) -> None:
    assert xet("diff", tmp_path / "missing", files[0]).code == 3
    assert xet("diff", "ab" * 32, files[0]).code == 3, "there is no store"
    assert xet("diff", "hf://", files[0]).code == 2
