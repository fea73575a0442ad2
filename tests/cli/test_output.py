"""What is printed where; progress bars on a terminal only."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64
from xetstore.cli.names import printable
from xetstore.cli.output import count_text
from xetstore.sizes import parse_size, size_text

DATA = splitmix64(9, 2_000_000)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")


class Terminal:
    """A pseudo-terminal; ``seen`` is what a process printed on it."""

    def __init__(self) -> None:
        import pty

        self._master, self.slave = pty.openpty()
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the last writer is gone
                break
            if not data:
                break
            self._chunks.append(data)

    @property
    def so_far(self) -> str:
        return b"".join(self._chunks).decode(errors="replace")

    def seen(self) -> str:
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)
        return b"".join(self._chunks).decode()


def run(xet: Xet, *args: object, **options: Any) -> tuple[int, str]:
    environment = {**xet.environment, "TERM": "xterm-256color", "COLUMNS": "160"}
    ran = xet.process(*args, env=environment, **options)
    return ran.code, ran.stdout


def test_a_terminal_sees_new_and_deduplicated_bytes(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    terminal = Terminal()
    code, stdout = run(xet, "put", "--json", tmp_path / "file", stderr=terminal.slave)
    seen = terminal.seen()
    assert code == 0
    assert stdout.count("\n") == 1, "stdout has the record and nothing of the bar"
    assert "1.9 MiB new, 0 B deduplicated" in seen
    assert "1.9/1.9 MiB" in seen
    assert "B/s" in seen
    assert "0:00:00" in seen, "how long it will take yet"


@pytest.mark.parametrize("columns", ["80", "160"])
def test_the_progress_of_a_put_is_one_line(xet: Xet, tmp_path: Path, columns: str) -> None:
    (tmp_path / "file").write_bytes(DATA)
    terminal = Terminal()
    environment = {**xet.environment, "TERM": "xterm-256color", "COLUMNS": columns}
    xet.process("put", "--json", tmp_path / "file", env=environment, stderr=terminal.slave)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.seen()).replace("\r", "\n").split("\n")
    assert [line for line in lines if line.strip() and not line.startswith("put ")] == []


@pytest.mark.parametrize("command", [["hash"], ["put"]])
def test_lines_on_the_same_terminal_are_not_torn_by_the_bar(xet: Xet, tmp_path: Path, command: list[str]) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(DATA)
    terminal = Terminal()
    run(xet, *command, *files, stdout=terminal.slave, stderr=terminal.slave)
    seen = terminal.seen().replace("\r\n", "\n")
    name = xet("hash", "--json", files[0]).records[0]["hash"]
    for file in files:
        assert f"{name}  {file}\n" in seen


def test_no_bar_without_a_terminal(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    ran = xet.process("put", tmp_path / "file")
    assert ran.stderr.count("\n") == 1
    assert "\x1b" not in ran.stderr + ran.stdout


def test_get_and_check_show_their_progress_too(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    name = xet.put(tmp_path / "file")
    for command in (("get", name, "-o", tmp_path / "copy"), ("check", "--read-data")):
        terminal = Terminal()
        run(xet, *command, stderr=terminal.slave)
        assert command[0] in terminal.seen()


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
