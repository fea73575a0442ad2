"""The progress bar: one line that never wraps, whatever the width of the terminal, the name and the numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.runner import COMMAND, Xet
from tests.support.live import live_server, until
from tests.support.strategies import splitmix64
from tests.support.terminal import Screen, Terminal
from xetstore.cas import EmbeddedCas
from xetstore.cli.bar import Counts, shortened

NAMES = {
    "plain": "checkpoints/step-1000/model-00001-of-00004.safetensors",
    "wide": "模型/" * 30 + "重み.safetensors",
    "marks": "e\u0301" * 60,
    "emoji": "🤗" * 40 + "\u2764\ufe0f" * 10,
    "control": "a\x1b[2J\n\r\tb" * 10,
    "bytes": os.fsdecode(b"\xff\xfe\x80" * 20),
    "backwards": "\u202e" + "abc" * 30,
}
GIB = 1 << 30


def counts(name: str = NAMES["plain"]) -> Counts:
    return Counts("put", 34 * GIB, 12 * GIB, GIB, 11 * GIB, files=340, file=12, name=name, rate=123.4 * (1 << 20))


def shown(line: str, columns: int) -> Screen:
    screen = Screen(columns)
    screen.feed(line.encode())
    return screen


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (40, "12/340 123.4 MiB/s 3:03 checkp…ensors"),
        (80, "12/340   35%  12.0 GiB of 34.0 GiB  123.4 MiB/s  ETA 3:03  checkpoin…etensors"),
        (
            200,
            "put  12/340  [#######             ]   35%  12.0 GiB of 34.0 GiB  1.0 GiB new, 11.0 GiB deduplicated  "
            "123.4 MiB/s  ETA 3:03  checkpoints/step-1000/model-00001-of-00004.safetensors",
        ),
    ],
)
def test_a_line_for_each_width(columns: int, line: str) -> None:
    assert counts().line(columns, dedup=True) == line


@pytest.mark.parametrize("columns", [1, 2, 10, 20, 39, 40, 59, 60, 80, 99, 100, 140, 180, 200, 1000])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_name_wraps_a_line(columns: int, name: str, encoding: str) -> None:
    line = counts(NAMES[name]).line(columns, encoding, dedup=True)
    line.encode(encoding)  # nothing is escaped once more when it is written
    screen = shown(line + "^C" * (columns > 2), columns)
    assert (screen.wraps, len(screen.lines)) == (0, 1)


NUMBERS = st.integers(0, 1 << 62)


@given(st.integers(1, 300), st.text(max_size=200), NUMBERS, NUMBERS, NUMBERS)
def test_nothing_wraps_a_line(columns: int, name: str, size: int, done: int, files: int) -> None:
    one = Counts("estimate", size, done, done, done, files=files, file=files, name=name, rate=float(done))
    for dedup in (False, True):
        screen = shown(one.line(columns, dedup=dedup), columns)
        assert (screen.wraps, len(screen.lines)) == (0, 1)


def test_what_is_not_known_is_not_shown() -> None:
    line = Counts("put", 0, 5 << 20, rate=None).line(120)
    assert line == "put  5.0 MiB  -- B/s"


def test_a_short_name_is_whole_and_a_long_one_keeps_both_ends() -> None:
    assert shortened("model.bin", 20) == "model.bin"
    assert shortened("a" * 50 + ".bin", 11) == "aaaaa…a.bin"
    assert shortened("a" * 50 + ".bin", 11, "ascii") == "aaaa...".ljust(7) + ".bin"


def test_a_put_on_terminals_of_several_widths(tmp_path: Path) -> None:
    """As it is moved from a wide window to a narrow one, while it runs."""
    folder = tmp_path / ("weights-" * 10)
    folder.mkdir()
    for number in range(4):
        (folder / f"模型-{number}.safetensors").write_bytes(splitmix64(number, 1_500_000))
    terminal = Terminal(200)
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"), TERM="xterm-256color")
        command = [*COMMAND, "put", str(folder), "--limit-rate", "2M"]
        with subprocess.Popen(command, env=xet.environment, stdout=subprocess.PIPE, stderr=terminal.slave) as process:
            try:
                for columns in (200, 80, 40):
                    terminal.resize(columns)
                    until(lambda columns=columns: terminal.screen.widths.count(columns) > 3)  # type: ignore[misc]
                assert process.stdout is not None
                assert process.stdout.read().count(b"\n") == 4
                assert process.wait(60) == 0
            finally:
                process.kill()
    terminal.seen()
    screen = terminal.screen
    assert screen.lines[0] == "4 files, 5.7 MiB: 5.7 MiB new, 0 B dedupl"[:40], "the bar is gone"
    frames = list(zip(screen.widths, screen.erased, strict=True))
    assert [frame for columns, frame in frames if shown(frame, columns - 1).wraps] == []
    [usual, *_] = [frame for columns, frame in frames if columns == 80 and "ETA" in frame]
    assert re.fullmatch(r"[1-4]/4  .*%  .* of 5.7 MiB  .*B/s  ETA .*  /tmp.*….*tensors", usual)


def test_a_terminal_that_does_not_tell_its_width(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / ("n" * 200)).write_bytes(splitmix64(1, 2_000_000))
    terminal = Terminal(80)
    terminal.resize(0)
    terminal.screen = Screen(80)
    environment = {**xet.environment, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    ran = xet.process("put", "--quiet", "--json", tmp_path, env=environment, stderr=terminal.slave)
    terminal.seen()
    assert (ran.code, terminal.screen.wraps) == (0, 0)


if sys.platform == "win32":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)
