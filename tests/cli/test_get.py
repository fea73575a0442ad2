"""``xet get``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.runner import Xet, flip_byte
from tests.support.strategies import splitmix64
from xetstore.platform.names import FolderNames

DATA = splitmix64(2, 700_000)
UNKNOWN = "ab" * 32


@pytest.fixture
def stored(xet: Xet, tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(DATA)
    return xet.put(tmp_path / "original")


def test_a_file_comes_back_verified(xet: Xet, stored: str, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    ran = xet.process("get", stored, "-o", out, "--json")
    [record] = ran.records
    assert len(DATA) <= record.pop("fetched_bytes") < 1.01 * len(DATA)
    assert record == {"path": str(out), "hash": stored, "size": len(DATA), "verified": True, "reused_bytes": 0}
    assert (ran.code, ran.stderr) == (0, "")
    assert out.read_bytes() == DATA


def test_people_get_a_remark_on_stderr(xet: Xet, stored: str, tmp_path: Path) -> None:
    ran = xet("get", stored, "--output", tmp_path / "copy")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", f"{tmp_path / 'copy'}: 683.6 KiB, verified\n")


def test_an_empty_file_comes_back(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    name = xet.put(tmp_path / "empty")
    assert name == "0" * 64
    assert xet("get", name, "-o", tmp_path / "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == b""


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("100000:100001", DATA[100_000:100_001]),
        ("1000:600000", DATA[1000:600_000]),
        ("699999:", DATA[-1:]),
        (":5", DATA[:5]),
        (":", DATA),
        ("650000:9000000000", DATA[650_000:]),
    ],
)
def test_a_range_is_the_slice_of_the_same_numbers(
    xet: Xet, stored: str, tmp_path: Path, span: str, expected: bytes
) -> None:
    out = tmp_path / "part"
    [record] = xet("get", stored, "-o", out, "--range", span, "--json").records
    assert out.read_bytes() == expected
    assert record["size"] == len(expected)


@pytest.mark.parametrize("span", ["", "5", "-5:", "a:b", "5:4", "1:2:3", "0x10:", "1k:2k", "9" * 19 + ":", "１:２"])
def test_what_is_not_a_range_is_refused(xet: Xet, stored: str, tmp_path: Path, span: str) -> None:
    ran = xet("get", stored, "-o", tmp_path / "part", "--json", "--range", span)
    assert (ran.code, ran.errors[0]["code"]) == (2, "usage")
    assert "START:END" in ran.errors[0]["hint"]
    assert not (tmp_path / "part").exists()


def test_a_range_that_starts_behind_the_end_is_refused(xet: Xet, stored: str, tmp_path: Path) -> None:
    ran = xet("get", stored, "-o", tmp_path / "part", "--json", "--range", "700000:")
    assert (ran.code, ran.errors[0]["code"]) == (2, "range")
    assert not (tmp_path / "part").exists()


def test_an_unknown_hash_is_not_found(xet: Xet, stored: str, tmp_path: Path) -> None:
    ran = xet("get", UNKNOWN, "-o", tmp_path / "copy")
    assert (ran.code, ran.stdout) == (3, "")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "ab" * 33])
def test_what_is_not_a_hash_is_refused(xet: Xet, tmp_path: Path, text: str) -> None:
    ran = xet("get", text, "-o", tmp_path / "copy", "--json")
    assert (ran.code, ran.errors[0]["code"]) == (2, "usage")


def test_a_store_that_is_not_there_is_not_made(xet: Xet, tmp_path: Path) -> None:
    ran = xet("get", UNKNOWN, "-o", tmp_path / "copy", "--json")
    assert (ran.code, ran.errors[0]["code"]) == (3, "not_found")
    assert not xet.store.exists()


def test_damaged_data_is_refused_and_the_old_file_left_as_it_was(xet: Xet, stored: str, tmp_path: Path) -> None:
    [xorb] = xet.xorbs()
    flip_byte(xorb, 300_000)
    out = tmp_path / "copy"
    out.write_text("precious")
    ran = xet.process("get", stored, "-o", out, "--json")
    assert (ran.code, ran.records) == (4, [])
    assert out.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"original", "copy", "store", "cache"}, (
        "no temporary file is left"
    )


def test_an_existing_file_is_replaced(xet: Xet, stored: str, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    out.write_text("old")
    assert xet("get", stored, "-o", out).code == 0
    assert out.read_bytes() == DATA


def test_a_directory_is_no_place_to_write_to(xet: Xet, stored: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    ran = xet("get", stored, "-o", tmp_path / "folder", "--json")
    assert (ran.code, ran.errors[0]["code"]) == (2, "usage")


def test_a_directory_that_is_not_there_is_not_made(xet: Xet, stored: str, tmp_path: Path) -> None:
    ran = xet("get", stored, "-o", tmp_path / "no" / "copy")
    assert ran.code == 3
    assert not (tmp_path / "no").exists()


def test_a_dash_is_stdout(xet: Xet, stored: str) -> None:
    assert xet.process("get", stored, "-o", "-", "--range", "10:200000").data == DATA[10:200_000]
    ran = xet("get", stored, "-o", "-", "--json")
    assert (ran.code, ran.data, ran.errors[0]["code"]) == (2, b"", "usage")


# Lists


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub" / "deep").mkdir(parents=True)
    for number, name in enumerate(["a", "sub/with spaces  two", "sub/deep/é", "sub/empty", "again"]):
        (folder / name).write_bytes(b"" if "empty" in name else splitmix64(number % 4, 3000))
    (folder / "large").write_bytes(DATA)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_put_prints_get_reads(xet: Xet, tree: Path, tmp_path: Path) -> None:
    put = xet.process("put", "tree", cwd=tmp_path)
    (tmp_path / "list").write_bytes(put.data)
    ran = xet.process("get", "--list", tmp_path / "list", "-o", tmp_path / "copy")
    assert (ran.code, ran.stdout) == (0, "")
    assert ran.stderr.startswith("6 files, ")
    assert contents(tmp_path / "copy" / "tree") == contents(tree)
    hashed = xet.process("hash", *contents(tree), cwd=tree)
    ran = xet("get", "--list", "-", "-o", tmp_path / "again", "--json", "--fsync", stdin=hashed.stdout)
    assert contents(tmp_path / "again") == contents(tree)
    assert [record["path"] for record in ran.records] == [str(tmp_path / "again" / name) for name in contents(tree)]
    assert {*ran.records[0]} == {"path", "hash", "size", "verified", "fetched_bytes", "reused_bytes"}


def test_a_file_of_a_list_that_would_overwrite_another_is_left_out(
    xet: Xet, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that ignores case, which is said by the place that would find it out."""
    name = xet("put", str(tree / "a")).stdout.partition("  ")[0]
    listed = "".join(f"{name}  {path}\n" for path in ("A", "a", "d/x", "D/y", "b"))
    ran = xet("get", "--list", "-", "-o", tmp_path / "apart", stdin=listed)
    assert ran.code == 0
    monkeypatch.setattr(FolderNames, "takes_for_one", lambda *names: True)
    ran = xet("get", "--list", "-", "-o", tmp_path / "one", stdin=listed)
    assert ran.code == 2
    assert ran.stderr.count("takes it for") == 2
    there = [path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert sorted(there) == ["A", "b", "d/x"]


def test_a_file_of_a_list_that_fails_is_reported_and_the_others_come(xet: Xet, tree: Path, tmp_path: Path) -> None:
    put = xet.process("put", "tree", cwd=tmp_path)
    (tmp_path / "copy" / "tree" / "again").mkdir(parents=True)
    (tmp_path / "copy" / "tree" / "sub").write_text("a file where a folder should be")
    listed = f"{UNKNOWN}  missing\n{put.stdout}"
    ran = xet("get", "--list", "-", "-o", tmp_path / "copy", "--json", stdin=listed)
    assert ran.code in (1, 2, 3)
    assert [Path(record["path"]).name for record in ran.records] == ["a", "large"]
    names = [Path(error["path"]).name for error in ran.errors]
    assert sorted(names) == ["again", "empty", "missing", "with spaces  two", "é"]
    assert (tmp_path / "copy" / "tree" / "large").read_bytes() == DATA
    ran = xet("get", "--list", "-", "-o", tmp_path / "other", stdin=f"{UNKNOWN}  missing\n")
    assert ran.code == 3
    assert f"{tmp_path / 'other' / 'missing'}: there is no file" in ran.stderr


@pytest.mark.parametrize(
    "line",
    [
        *("", "  ", "{} path", "{}  ", "{}", "path", " {}  path", "zz{}  path", "{}  " + "ab" * 32 + "  path"),
        *("{}  /etc/passwd", "{}  ../up", "{}  a/../b", "{}  a/..", "{}  .", "{}  ./", "{}  nul\0"),
        *(
            "{}  fine",
            "{}  ./fine",
            "{}  f\\x69ne",
            "{}  a\\b",
            "{}  \\ud800",
            "{}  a\\x00",
            "{}  \\x2e./up",
            "{}  \\x2fetc",
        ),
        *("{{", "{{}}", '{{"hash": "{}"}}', '{{"path": "a"}}', '{{"hash": "ab", "path": "a"}}'),
        *('{{"hash": "{}", "path": 5}}', '{{"hash": "{}", "path": "../a"}}', '{{"hash": "{}", "path": "fine"}}'),
        *('{{"hash": 5, "path": "a"}}', '{{"hash": "{}", "path": "\\ud800"}}', '{{"hash": "{}", "path": "a\\u0000"}}'),
        '{{"a": ' * 100_000,
    ],
)
def test_a_line_that_is_none_is_named_and_the_others_come(xet: Xet, stored: str, tmp_path: Path, line: str) -> None:
    listed = f"{stored}  fine\n{line.format(stored)}\n{stored}  last\n"
    ran = xet("get", "--list", "-", "-o", tmp_path / "copy", "--json", stdin=listed)
    assert (ran.code, [error["code"] for error in ran.errors]) == (2, ["usage"])
    assert ran.errors[0]["message"].startswith("line 2 of stdin ")
    assert contents(tmp_path / "copy") == {"fine": DATA, "last": DATA}


# Every byte but NUL and the slash may be in a name.
ODD_NAMES = [
    *(
        b"new\nline",
        b"carriage\r",
        b"tab\tbed",
        b"\x1b[2Jescape",
        b"bell\x07\x7f",
        b"trailing  ",
        b"  leading",
        b" ",
        b"  ",
    ),
    *("2024\u202fAM.png".encode(), "\u3000wide".encode(), "\u200b\u200e\u202e".encode(), "\x85\u2028\ufeff".encode()),
    *(
        "\U0001f468\u200d\U0001f469\u200d\U0001f467".encode(),
        "e\u0301".encode(),
        "\u00e9".encode(),
        "\U000e0001".encode(),
    ),
    *(b"back\\slash", b"\\n", b"\\x41", b"\\", b"\\\\", b"latin-\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3"),
    *(b'"quoted"', b"{", b'{"hash": 1}', b"#", b"-", b"-o", b"ab" * 32, b"ab" * 32 + b"  name", b"CR\r\n", b"x" * 255),
    bytes(range(1, 47)) + bytes(range(48, 128)),
    bytes(range(128, 256)),
]


ASCII = ["on a stream that writes ASCII only"]


@pytest.fixture
def odd(tmp_path: Path) -> dict[bytes, bytes]:
    """Files with odd names in ``odd``, each with other content, one of them in a folder with an odd name."""
    top = tmp_path / "odd"
    (top / os.fsdecode(b"fol\nder\xff ")).mkdir(parents=True)
    made = {name: b"%d" % number for number, name in enumerate([*ODD_NAMES, b"fol\nder\xff /in it\\"])}
    for name, content in made.items():
        (top / os.fsdecode(name)).write_bytes(content)
    return made


@pytest.mark.parametrize("option", [[], ["--null"], ["--json"], ASCII], ids=["lines", "null", "json", "ascii"])
@pytest.mark.parametrize("command", ["put", "hash"])
def test_every_name_comes_back(
    xet: Xet, odd: dict[bytes, bytes], tmp_path: Path, option: list[str], command: str
) -> None:
    environment = {**xet.environment, "LC_ALL": "C.UTF-8"}
    if option == ASCII:
        option, environment["PYTHONIOENCODING"] = [], "ascii"
    named: dict[str, Any] = {"env": environment, "cwd": tmp_path}
    put = xet.process("put", *option, "odd", **named)
    if command == "hash":
        files = [os.fsdecode(b"odd/" + name) for name in odd]
        put = xet.process("hash", *option, *files, **named)
    assert put.code == 0
    (tmp_path / "list").write_bytes(put.data)
    if not option:
        assert put.stdout.replace("\n", "").isprintable()
        assert put.stdout.count("\n") == len(odd)
    null = [one for one in option if one == "--null"]
    ran = xet.process("get", "--list", "list", *null, "-o", "copy", **named)
    assert (ran.code, ran.stdout) == (0, ""), ran.stderr
    read = contents(tmp_path / "copy" / "odd")
    assert {os.fsencode(name): content for name, content in read.items()} == odd


def test_a_list_that_ends_lines_with_nul_is_no_other_list(xet: Xet, stored: str, tmp_path: Path) -> None:
    listed = f"{stored}  a\\b\0nothing\0{stored}  a\\b\0{stored}  last\0"
    ran = xet("get", "--list", "-", "-z", "-o", tmp_path / "copy", "--json", stdin=listed)
    assert (ran.code, [error["message"].split(" of")[0] for error in ran.errors]) == (2, ["line 2", "line 3"])
    assert contents(tmp_path / "copy") == {"a\\b": DATA, "last": DATA}


def test_a_list_with_nul_is_told_to_be_read_so(xet: Xet, stored: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(f"{stored}  a".encode() + b"\0" + f"{stored}  b".encode() + b"\0")
    ran = xet("get", "--list", tmp_path / "list", "-o", tmp_path / "copy")
    assert ran.code == 2
    assert "--null is read with --null" in ran.stderr


def test_names_that_are_not_escaped_go_to_no_terminal(xet: Xet, stored: str, tmp_path: Path) -> None:
    import pty

    reader, terminal = pty.openpty()
    for command in ("put", "hash"):
        ran = xet.process(command, "-z", tmp_path / "original", stdout=terminal)
        assert (ran.code, "--null" in ran.stderr) == (2, True)
    os.close(terminal)
    os.close(reader)
    for more in (["put", "--json"], ["hash", "--json"], ["hash", "--chunks"]):
        assert xet(*more, "-z", tmp_path / "original").code == 2
    assert xet("get", stored, "-z", "-o", tmp_path / "copy").code == 2


def test_an_empty_list_is_done_at_once(xet: Xet, stored: str, tmp_path: Path) -> None:
    assert xet("get", "--list", "-", "-o", tmp_path / "copy", stdin="").code == 0
    assert xet("get", "--list", tmp_path / "no list", "-o", tmp_path / "copy").code == 3


def test_what_is_for_one_file_does_not_go_with_a_list(xet: Xet, stored: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{stored}  file\n")
    out = tmp_path / "copy"
    for more in ([stored], ["--range", "1:5"], ["--base", "x"], ["--keep-partial"], ["--dry-run"], ["-o", "-"]):
        ran = xet("get", "--list", tmp_path / "list", "-o", out, *more, "--json")
        assert (ran.code, ran.errors[0]["code"]) == (2, "usage"), more
    assert xet("get", "--list", tmp_path / "list").code == 2
    assert xet("get", "-o", out).code == 2
    assert not out.exists()
