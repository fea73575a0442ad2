"""``xet cat``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet, flip_byte
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas

DATA = splitmix64(3, 3_000_000)


@pytest.fixture
def stored(xet: Xet, tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(DATA)
    return xet.put(tmp_path / "original")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_gets_the_bytes_and_nothing_else(xet: Xet, stored: str, unbuffered: str) -> None:
    ran = xet.process("cat", stored, env={**xet.environment, "PYTHONUNBUFFERED": unbuffered})
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.data == DATA


@pytest.mark.parametrize("span", [(0, 1), (1_234_567, 1_234_599), (2_999_990, None), (5, 2_000_000)])
def test_a_range_is_the_slice_of_the_same_numbers(xet: Xet, stored: str, span: tuple[int, int | None]) -> None:
    start, end = span
    ran = xet("cat", stored, "--range", f"{start}:{'' if end is None else end}")
    assert ran.code == 0
    assert ran.data == DATA[start:end]


def test_an_unknown_hash_is_not_found(xet: Xet, stored: str) -> None:
    ran = xet("cat", "cd" * 32)
    assert (ran.code, ran.data) == (3, b"")


def test_a_range_that_starts_behind_the_end_is_refused(xet: Xet, stored: str) -> None:
    ran = xet("cat", stored, "--json", "--range", "3000000:")
    assert (ran.code, ran.data, ran.errors[0]["code"]) == (2, b"", "range")


def test_damaged_data_ends_in_an_integrity_error(xet: Xet, stored: str) -> None:
    [xorb] = xet.xorbs()
    flip_byte(xorb, 2_000_000)
    ran = xet.process("cat", stored, "--json")
    assert ran.code == 4
    assert len(ran.data) < len(DATA)
    assert DATA.startswith(ran.data), "what was printed before the damage is right"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_had_enough_hears_no_complaint(xet: Xet, stored: str, unbuffered: str) -> None:
    environment = {**xet.environment, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        [*COMMAND, "cat", stored], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == DATA[:10]
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("command", [["cat"], ["get", "-o", "-"], ["get", "-o", "copy"]])
def test_a_start_past_the_end_tells_the_size(xet: Xet, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "small.txt").write_bytes(b"twelve bytes")
    name = xet.put(tmp_path / "small.txt")
    xet("put", tmp_path / "small.txt", "--name", "alice/notes")
    with EmbeddedCas.open(xet.store) as cas, live_server(cas) as live:
        served = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"), XET_CACHE=str(tmp_path / "other"))
        for one, what in ((xet, name), (xet, "xet://alice/notes/small.txt"), (served, name)):
            for span in ("12:", "100:", "100:200"):
                ran = one(*command[:1], what, *command[1:], "--range", span)
                assert (ran.code, ran.data) == (2, b"")
                assert "12 bytes" in ran.stderr, ran.stderr


@pytest.mark.parametrize("command", [["cat"], ["get", "-o", "-"]])
def test_the_reader_of_stdout_may_go(xet: Xet, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "big").write_bytes(splitmix64(1, 8_000_000))
    name = xet.put(tmp_path / "big")
    with subprocess.Popen(
        [*COMMAND, *command[:1], name, *command[1:]],
        env=xet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, b"")


@pytest.mark.parametrize("command", [["cat"], ["get", "-o", "-"]])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_stdout_that_takes_nothing_is_an_error(xet: Xet, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "big").write_bytes(splitmix64(1, 300_000))
    name = xet.put(tmp_path / "big")
    for arguments in ([*command[:1], name, *command[1:]], ["ls"]):
        with Path("/dev/full").open("wb") as full:
            ran = xet.process(*arguments, stdout=full)
        assert ran.code == 6
        assert ran.stderr.startswith("xet: stdout cannot be written: No space left on device\n")
    closed = [sys.executable, "-c", "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])", *COMMAND]
    done = subprocess.run(
        [*closed, *command[:1], name, *command[1:]], env=xet.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, b"xet: stdout is closed")
