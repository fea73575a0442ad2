"""``xet get -o`` to links, pipes and devices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet
from tests.support.strategies import splitmix64

DATA = splitmix64(2, 700_000)


@pytest.fixture
def stored(xet: Xet, tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(DATA)
    return xet.put(tmp_path / "original")


@pytest.mark.parametrize("out", ["/dev/stdout", "/dev/fd/1", "link"])
def test_stdout_by_another_name_is_written_to(xet: Xet, stored: str, tmp_path: Path, out: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    ran = xet.process("get", stored, "-o", out, cwd=tmp_path)
    assert (ran.code, ran.data) == (0, DATA)
    assert (tmp_path / "link").is_symlink()
    with (tmp_path / "log").open("wb") as log:
        log.write(b"first ")
        log.flush()
        for _ in range(2):
            command = [*COMMAND, "get", stored, "-o", out, "--range", "0:10"]
            subprocess.run(command, stdout=log, env=xet.environment, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "log").read_bytes() == b"first " + 2 * DATA[:10]


def test_stdout_by_another_name_does_not_go_with_json(xet: Xet, stored: str) -> None:
    ran = xet("get", stored, "-o", "/dev/stdout", "--json")
    assert (ran.code, ran.data) == (2, b"")
    assert "both want stdout" in ran.errors[0]["message"]


def test_a_device_that_is_full_is_told(xet: Xet, stored: str) -> None:
    ran = xet("get", stored, "-o", "/dev/full", "--json")
    assert (ran.code, ran.errors[0]["code"]) == (6, "storage_full")


def test_a_reader_that_has_had_enough_is_no_error_to_speak_of(xet: Xet, stored: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "get", stored, "-o", "/dev/stdout"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=xet.environment,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read(10) == DATA[:10]
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 1


def test_a_list_goes_on_past_what_is_no_file(xet: Xet, stored: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "null").symlink_to("/dev/null")
    (folder / "link").symlink_to("target")
    (tmp_path / "list").write_text("".join(f"{stored}  {name}\n" for name in ("null", "link", "plain")))
    ran = xet("get", "--list", tmp_path / "list", "-o", folder, "--json")
    assert ran.code == 2
    assert [error["message"] for error in ran.errors] == [f"{folder / 'null'} is not a file to write to"]
    assert (folder / "target").read_bytes() == (folder / "plain").read_bytes() == DATA
    assert (folder / "link").is_symlink()
