"""``xet ls`` of a directory; of a repository on a Hub it is in test_remote.py."""

from __future__ import annotations

from pathlib import Path

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

DATA = splitmix64(4, 123_456)


def test_the_files_of_a_store_are_listed(xet: Xet, tmp_path: Path) -> None:
    for name, data in (("one", DATA), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
    names = {xet.put(tmp_path / "one"): len(DATA), xet.put(tmp_path / "empty"): 0}
    assert {record["hash"]: record["size"] for record in xet("ls", "--json").records} == names
    lines = xet("ls", xet.store).stdout.splitlines()
    assert sorted(lines) == sorted(f"{name}  {size:>15,}" for name, size in names.items())


def test_what_is_no_store_is_not_found(xet: Xet, tmp_path: Path) -> None:
    assert xet("ls").code == 3
    assert xet("ls", tmp_path / "missing").code == 3
