"""The command as a whole: options anywhere, exit codes, errors, signals."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.cli.runner import Ran, Xet
from tests.support.strategies import splitmix64
from xetstore import errors
from xetstore.cli.context import Settings
from xetstore.cli.main import XetGroup, cli
from xetstore.cli.messages import as_xet_error


def test_version_is_that_of_the_package(xet: Xet) -> None:
    assert xet("--version").stdout == f"xet {importlib.metadata.version('xetstore')}\n"


def test_help_is_there_for_every_command(xet: Xet) -> None:
    for name in ("", *cli.commands):
        ran = xet(*name.split(), "--help")
        assert (ran.code, ran.stderr) == (0, "")
        assert ran.stdout.startswith(f"Usage: xet {name}".rstrip())


def test_help_does_not_load_the_store_or_the_progress_bars() -> None:
    program = "import sys, xetstore.cli.main; print(sorted({'sqlite3', 'xetstore.cli.bar'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.parametrize("arguments", [["bogus"], ["hash"], ["hash", "--bogus"], ["get", "00" * 32], ["put"]])
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(xet: Xet, arguments: list[str]) -> None:
    ran = xet.process(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    message, hint = ran.stderr.splitlines()
    assert message.startswith("xet: ")
    assert hint.startswith("hint: xet ")
    assert "--help" in hint


def test_json_errors_are_objects(xet: Xet, tmp_path: Path) -> None:
    ran = xet.process("--json", "inspect", tmp_path / "missing")
    assert ran.errors == [{"code": "not_found", "message": f"{tmp_path / 'missing'} does not exist", "hint": None}]
    assert xet("hash", "--json").errors[0]["code"] == "usage"


@pytest.mark.parametrize("place", ["before", "behind"])
def test_options_may_stand_before_or_behind_the_command(xet: Xet, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("here")
    options = ["--json", "--store", str(tmp_path / "other")]
    ran = xet(
        *(options if place == "before" else []), "put", tmp_path / "file", *(options if place == "behind" else [])
    )
    assert len(ran.records) == 1
    assert (tmp_path / "other").is_dir()
    assert not xet.store.exists(), "--store comes before XET_STORE"


def test_without_any_store_named_it_is_in_the_users_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    environment = {"XDG_DATA_HOME": str(tmp_path / "data"), "XET_STORE": "", "HOME": str(tmp_path)}
    ran = CliRunner().invoke(cli, ["put", str(tmp_path / "file")], env=environment)
    assert ran.exit_code == 0
    if sys.platform == "linux":
        assert (tmp_path / "data" / "xetstore").is_dir()


def test_a_traceback_is_shown_with_debug_only(xet: Xet, tmp_path: Path) -> None:
    quiet = xet.process("inspect", tmp_path / "missing")
    loud = xet.process("inspect", tmp_path / "missing", "--debug")
    assert quiet.code == loud.code == 3
    assert len(quiet.stderr.splitlines()) == 1
    assert "Traceback" in loud.stderr
    assert loud.stderr.endswith(quiet.stderr)


def test_every_error_of_the_library_keeps_its_exit_code() -> None:
    for error in (errors.UsageError("x"), errors.MissingXorbError("ab"), errors.StorageFullError("x")):
        assert as_xet_error(error) is error


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, 3),
        (errno.EACCES, 5),
        (errno.EPERM, 5),
        (errno.EROFS, 5),
        (errno.ENOSPC, 6),
        (errno.EDQUOT, 6),
        (errno.EISDIR, 2),
        (errno.ENOTDIR, 2),
        (errno.EIO, 1),
    ],
)
def test_an_error_of_the_system_becomes_the_documented_exit_code(number: int, code: int) -> None:
    told = as_xet_error(OSError(number, os.strerror(number), "some/file"))
    assert told.exit_code == code
    sentence = "some/file does not exist" if number == errno.ENOENT else f"some/file: {os.strerror(number)}"
    assert str(told) == sentence


def test_a_defect_asks_to_be_reported() -> None:
    told = as_xet_error(RuntimeError("what?"))
    assert (told.exit_code, str(told)) == (1, "unexpected RuntimeError: what?")
    assert told.hint is not None
    assert "--debug" in told.hint


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 1)])
def test_an_error_that_comes_of_an_interruption_is_one(
    capsys: pytest.CaptureFixture[str], interrupted: bool, code: int
) -> None:
    @click.command()
    def bar() -> None:
        try:
            raise KeyboardInterrupt if interrupted else ValueError
        finally:
            [].pop()  # as a progress bar that was cut off in the middle of its end

    with pytest.raises(SystemExit) as ended:
        XetGroup(commands={"bar": bar}).main(["bar"])
    assert ended.value.code == code
    assert ("interrupted" in capsys.readouterr().err) is interrupted


def test_the_first_failure_gives_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings()
    for error in (errors.AccessDeniedError("first"), errors.NotFoundError("second", hint="look elsewhere")):
        settings.failed(error)
    assert settings.exit_code == 5
    assert capsys.readouterr().err == "xet: first\nxet: second\nhint: look elsewhere\n"


# The superuser may read anything, unless he gives up his capabilities (capset, version 3 of its header).
POWERLESS = """
import ctypes, os
if os.geteuid() == 0:
    libc = ctypes.CDLL(None)
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
from xetstore.cli.main import run
run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
@pytest.mark.parametrize("command", ["hash", "put"])
def test_an_unreadable_file_is_denied_and_the_others_go_on(xet: Xet, tmp_path: Path, command: str) -> None:
    for name, mode in (("locked", 0), ("open", 0o644)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", POWERLESS, command, "--json", tmp_path / "locked", tmp_path / "open"],
        capture_output=True,
        env=xet.environment,
        check=False,
    )
    ran = Ran(done.returncode, done.stdout, done.stderr.decode())
    assert (ran.code, [error["code"] for error in ran.errors]) == (5, ["denied"])
    assert str(tmp_path / "locked") in ran.errors[0]["message"]
    assert [record["path"] for record in ran.records] == [str(tmp_path / "open")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
def test_an_unreadable_directory_is_denied_and_the_others_go_on(xet: Xet, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "locked").mkdir(parents=True)
    (top / "file").write_text("here")
    (top / "locked").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", POWERLESS, "put", "--json", top], capture_output=True, env=xet.environment, check=False
    )
    ran = Ran(done.returncode, done.stdout, done.stderr.decode())
    assert (ran.code, [error["code"] for error in ran.errors]) == (5, ["denied"])
    assert [record["path"] for record in ran.records] == [str(top / "file")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with Path("/dev/full").open("wb") as full:
        ran = xet.process("hash", tmp_path / "file", stdout=full)
    assert ran.code == 6
    assert len(ran.stderr.splitlines()) == 2, "a sentence and a hint"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_in_130_without_a_traceback(xet: Xet, tmp_path: Path, number: int) -> None:
    data = splitmix64(8, 3_000_000)
    (tmp_path / "file").write_bytes(data)
    name = xet.put(tmp_path / "file")
    # A shell may have made this process, and so its children, deaf to Ctrl-C.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listening}; from xetstore.cli.main import run; run()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "cat", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=xet.environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == data[:1]
        process.send_signal(number)  # it waits for us to read the rest, which no pipe has room for
        rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(rest) < len(data) - 1
    assert stderr.decode().split("\n") == ["", "xet: interrupted", ""]


def test_the_exit_code_is_right_even_where_nobody_reads_the_error(xet: Xet, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = xet.process("inspect", tmp_path / "missing", stderr=writer)
    finally:
        os.close(writer)
    assert ran.code == 3
