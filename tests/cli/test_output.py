"""What is printed where; progress bars on a terminal only."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64
from tests.support.terminal import Terminal
from xetstore.cli.names import printable
from xetstore.cli.output import count_text
from xetstore.sizes import parse_size, size_text

DATA = splitmix64(9, 2_000_000)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")


def run(xet: Xet, *args: object, **options: Any) -> tuple[int, str]:
    environment = {**xet.environment, "TERM": "xterm-256color"}
    ran = xet.process(*args, env=environment, **options)
    return ran.code, ran.stdout


def test_a_terminal_sees_new_and_deduplicated_bytes(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(splitmix64(1, 100 << 20))  # long enough for more than the first frame
    terminal = Terminal(200)
    code, stdout = run(xet, "put", "--json", tmp_path / "file", stderr=terminal.slave)
    terminal.seen()
    assert code == 0
    assert stdout.count("\n") == 1, "stdout has the record and nothing of the bar"
    assert terminal.screen.lines == [""], "nothing is left of the bar"
    frame = terminal.screen.erased[-1]
    assert " deduplicated  " in frame
    assert " of 100.0 MiB  " in frame
    assert "B/s  ETA " in frame
    assert frame.endswith("file")


@pytest.mark.parametrize("command", [["hash"], ["put"]])
def test_lines_on_the_same_terminal_are_not_torn_by_the_bar(xet: Xet, tmp_path: Path, command: list[str]) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(DATA)
    terminal = Terminal(200)
    run(xet, *command, *files, stdout=terminal.slave, stderr=terminal.slave)
    terminal.seen()
    name = xet("hash", "--json", files[0]).records[0]["hash"]
    lines = [f"{name}  {file}" for file in files]
    assert terminal.screen.lines[:3] == lines, "not torn by the bar"


def test_no_bar_without_a_terminal(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    ran = xet.process("put", tmp_path / "file")
    assert ran.stderr.count("\n") == 1
    assert "\x1b" not in ran.stderr + ran.stdout


@pytest.mark.parametrize(
    ("options", "environment"), [(["--no-progress"], {}), (["--quiet"], {}), ([], {"TERM": "dumb"}), ([], {"TERM": ""})]
)
def test_no_bar_where_none_is_wanted(xet: Xet, tmp_path: Path, options: list[str], environment: dict[str, str]) -> None:
    (tmp_path / "file").write_bytes(DATA)
    terminal = Terminal()
    told = {**xet.environment, "TERM": "xterm", **environment}
    ran = xet.process("put", *options, tmp_path / "file", env=told, stderr=terminal.slave)
    seen = terminal.seen()
    assert ran.stdout.count("\n") == 1
    assert "\x1b" not in seen
    assert seen.count("\n") == ("--quiet" not in options), "the last line, unless that is not wanted either"


def test_a_bar_has_no_colour(xet: Xet, tmp_path: Path) -> None:
    """So NO_COLOR is respected, whatever it is."""
    (tmp_path / "file").write_bytes(DATA)
    terminal = Terminal()
    run(xet, "put", tmp_path / "file", stderr=terminal.slave)
    assert set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", terminal.seen())) == {"\x1b[K"}


def test_quiet_leaves_data_and_errors(xet: Xet, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"1")
    (folder / "link").symlink_to(tmp_path)
    ran = xet("put", "-q", folder, tmp_path / "missing")
    assert ran.stdout.endswith(f"  {folder}/file\n")
    assert ran.stderr.splitlines() == [f"xet: {tmp_path}/missing does not exist"]
    assert xet("put", "--quiet", "--json", folder).stderr == ""


def test_quiet_and_verbose_exclude_each_other(xet: Xet, tmp_path: Path) -> None:
    assert xet("-q", "put", "-v", tmp_path).code == 2


def test_verbose_tells_of_each_file(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    assert f"{tmp_path}/file: 1.9 MiB new, 0 B deduplicated" in xet("put", "-v", tmp_path / "file").stderr
    assert "file:" not in xet("put", tmp_path / "file").stderr


def test_get_and_check_show_their_progress_too(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    name = xet.put(tmp_path / "file")
    for command in (("get", name, "-o", tmp_path / "copy"), ("check", "--read-data")):
        terminal = Terminal()
        run(xet, *command, stderr=terminal.slave)
        terminal.seen()
        assert any("B/s" in frame for frame in terminal.screen.erased)


def test_sizes_read_well() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 1536, 2**20 - 1, 2**20, 10**12, 2**70)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "1.0 MiB",
        "931.3 GiB",
        "1048576.0 PiB",
    ]
    assert [count_text(count, "file") for count in (0, 1, 1234)] == ["0 files", "1 file", "1,234 files"]


@pytest.mark.parametrize("text", ["", "k", "-1", "1 k B", "1e3", "0x10", "1,5M", "10 megabytes", "9" * 16])
def test_what_is_no_size_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_no_name_can_steer_a_terminal() -> None:
    assert printable("grün\x1b[2J\r\n\x9b") == "grün\\x1b[2J\\r\\n\\u009b"
    assert printable(os.fsdecode(b"\xff")) == "\\xff"


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["put", "file", "missing", "gone"], "1 file, 2 failed, 1 B: "),
        (["put", "file"], "1 file, 1 B: "),
        (["put", "--dry-run", "file", "missing"], "1 file, 1 failed, 1 B: "),
        (["estimate", "file", "missing"], "1 file, 1 failed, 1 B: "),
        (["hash", "file", "missing"], "1 file, 1 failed"),
        (["get", "--list", "list", "-o", "out"], "1 file, 1 failed, 1 B, verified"),
        (["cp", "xet://alice/bert", "out"], "2 files, 1 failed, "),
    ],
)
def test_the_last_line_counts_failures(xet: Xet, tmp_path: Path, arguments: list[str], last: str) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "list").write_text(f"{xet.put(tmp_path / 'file')}  file\n{'ab' * 32}  other\n")
    if arguments[0] == "cp":
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).write_bytes(b"1")
        assert xet("cp", folder, "xet://alice/bert").code == 0
        (tmp_path / "out" / "a").mkdir(parents=True)
    ran = xet.process(*arguments, cwd=tmp_path)
    assert ran.stderr.splitlines()[-1].startswith(last), ran.stderr
    assert (ran.code != 0) is ("failed" in last)
