"""``xet quota``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64


def test_a_quota_is_set_listed_and_removed(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(splitmix64(5, 300_000))
    (tmp_path / "b.bin").write_bytes(splitmix64(6, 300_000))
    xet.put(tmp_path / "a.bin")
    [record] = xet("quota", "set", "default", "--bytes", "500k", "--files", "3", "--json").records
    assert record == {
        "namespace": "default",
        "max_bytes": 500 << 10,
        "max_files": 3,
        "used_bytes": 300_000,
        "used_files": 1,
    }
    refused = xet("put", tmp_path / "b.bin", "--json")
    assert (refused.code, refused.errors[0]["code"]) == (5, "quota_exceeded")
    assert "300,000 of 512,000 bytes are used" in refused.errors[0]["message"]
    assert xet("cp", tmp_path / "a.bin", "xet://alice/bert/a.bin").code == 0
    xet("quota", "set", "alice/bert", "--files", "1")
    xet("quota", "set", "alice", "--bytes", "1G")
    lines = xet("quota", "list").stdout.splitlines()
    assert lines == [
        "alice  293.0 KiB of 1.0 GiB, 1 files",
        "default  293.0 KiB of 500.0 KiB, 1 of 3 files",
        "models/alice/bert  293.0 KiB, 1 of 1 files",
    ]
    assert xet("cp", tmp_path / "b.bin", "xet://alice/bert/b.bin").code == 5
    assert xet("check").code == 0
    assert xet("quota", "remove", "alice/bert").code == 0
    assert xet("cp", tmp_path / "b.bin", "xet://alice/bert/b.bin").code == 0
    assert xet("quota", "remove", "alice/bert").code == 3
    assert xet("quota", "set", "alice").code == 2
    wrong = xet("quota", "set", "alice", "--bytes", "much", "--json")
    assert (wrong.code, wrong.errors[0]["code"]) == (2, "usage")
    assert len(xet("quota", "list", "--json").records) == 2
