"""A file by the first digits of its hash: wherever a command takes a hash, if only one file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Ran, Xet
from tests.support.live import live_server
from xetstore.cas import EmbeddedCas

TWINS = (b"340", b"6516")
"""Two files whose hashes have the same first six digits."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content of the file")
    return path


@pytest.fixture
def twins(xet: Xet, tmp_path: Path) -> list[str]:
    hashes = []
    for number, data in enumerate(TWINS):
        (tmp_path / f"twin{number}").write_bytes(data)
        hashes.append(xet.put(tmp_path / f"twin{number}"))
    return sorted(hashes)


@pytest.mark.parametrize("digits", [6, 7, 15, 16, 17, 40, 63])
def test_the_first_digits_will_do(xet: Xet, file: Path, tmp_path: Path, digits: int) -> None:
    name = xet.put(file)
    other = tmp_path / "other"
    other.write_text("other")
    xet.put(other)
    assert xet("cat", name[:digits]).data == file.read_bytes()
    assert xet("cat", name[:digits].upper()).data == file.read_bytes()
    wrong = name[: digits - 1] + ("0" if name[digits - 1] != "0" else "1")
    assert xet("cat", wrong).code == 3


def test_wherever_a_command_takes_a_hash(xet: Xet, file: Path, tmp_path: Path) -> None:
    name = xet.put(file)
    short = name[:8]
    [got] = xet("get", "--json", short, "-o", tmp_path / "copy").records
    assert got["hash"] == name
    [told] = xet("get", "--json", "--dry-run", short).records
    assert told["hash"] == name
    [told] = xet("stat", "--json", short).records
    assert told["hash"] == name
    assert xet("stat", "--json", "--what-if-deleted", short).records[0]["files"] == 1
    assert xet("diff", short, file).code == 0
    assert xet("diff", file, short).code == 0
    [gone] = xet("rm", "--json", short).records
    assert gone["hash"] == name
    assert xet("cat", short).code == 3
    [back] = xet("undelete", "--json", short).records
    assert back["hash"] == name


def test_digits_of_several_files_are_answered_with_all_of_them(xet: Xet, twins: list[str]) -> None:
    digits = twins[0][:6]
    assert twins[1].startswith(digits)

    def refused(ran: Ran) -> bool:
        [error] = ran.errors
        assert error["message"] == f"several files have a hash that begins with {digits}"
        assert sorted(error["hint"].removeprefix("one of ").split(", ")) == twins
        return ran.code == 2

    assert refused(xet("cat", "--json", digits))
    assert refused(xet("rm", "--json", digits))
    assert xet("cat", twins[0][:8]).code == 0
    xet("rm", *twins)
    assert refused(xet("undelete", "--json", digits))


@pytest.mark.parametrize("command", [("cat",), ("stat",), ("rm",), ("undelete",), ("get", "-o", "x")])
@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a", "'a' is too short for a hash", "a hash is 64 hexadecimal digits, of which the first 6 or more will do"),
        ("abcde", "'abcde' is too short for a hash", "a hash is 64 hexadecimal digits"),
        ("model.bin", "'model.bin' is not a hash", "a hash is 64 hexadecimal digits"),
        ("ab" * 32 + "a", f"'{'ab' * 32}a' is not a hash", "a hash is 64 hexadecimal digits"),
    ],
)
def test_what_is_no_hash_is_told_what_one_is(
    xet: Xet, command: tuple[str, ...], text: str, message: str, hint: str
) -> None:
    [error] = xet(*command, text, "--json").errors
    assert (error["code"], error["message"]) == ("usage", message)
    assert error["hint"].startswith(hint)


def test_a_file_of_that_name_is_the_file(xet: Xet, file: Path, tmp_path: Path) -> None:
    name = xet.put(file)
    (tmp_path / name[:6]).write_bytes(file.read_bytes())
    ran = xet.process("diff", name[:6], "missing", cwd=tmp_path)
    assert ran.stderr.startswith("xet: missing does not exist")


def test_a_server_says_that_it_takes_whole_hashes(file: Path, tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "unused", live.url, XET_TOKEN=live.token("write"))
        name = xet.put(file)
        for command in (("cat",), ("stat",), ("rm",)):
            [error] = xet(*command, "--json", name[:8]).errors
            assert "a server finds files by whole hashes only" in error["message"]
