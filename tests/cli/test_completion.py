"""Completion, as real shells at a terminal do it, and of names that have colons in them too."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.cli.test_help import PATHS, context_of

PATIENCE_SECONDS = 60
SHELLS = {
    "bash": (
        ("bash", "--norc", "--noprofile", "-i"),
        'bind "set bell-style none"; eval "$(xet completion bash)"',
    ),
    "zsh": (("zsh", "-f", "-i"), 'unsetopt beep zle_bracketed_paste; eval "$(xet completion zsh)"'),
    "fish": (("fish", "--no-config", "-i"), "xet completion fish | source"),
}
"""A shell that reads no settings, and the line that the documentation says, by the name of the shell."""


def shown(text: str) -> str:
    """The characters that a terminal shows of a text: a line that is gone back in is written over."""
    lines: list[str] = []
    for line in re.sub(r"\x1b\][^\x07]*\x07|[\r\x07]|\x1b\[[?0-9;]*[A-Za-z]|\x1b[=>]|\x1b\([0B]", "", text).split("\n"):
        row, at = "", 0
        for character in line:
            if character == "\b":
                at -= 1
            else:
                row, at = row[:at] + character + row[at + 1 :], at + 1
        lines.append(row)
    return "\n".join(lines).replace("\\%", "%")  # as some versions of fish write it


class Shell:
    """An interactive shell, with the line run that the documentation says."""

    def __init__(self, name: str, xet: Xet, folder: Path) -> None:
        self.name = name
        words, line = SHELLS[name]
        commands = folder / "bin"
        commands.mkdir()
        (commands / "xet").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xetstore "$@"\n')
        (commands / "xet").chmod(0o755)
        environment = {
            **xet.environment,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PS1": "> ",
            "TERM": "xterm" if name == "fish" else "dumb",  # where fish lists nothing
        }
        self._terminal, there = pty.openpty()
        termios.tcsetwinsize(there, (40, 160))
        self._process = subprocess.Popen(
            ["sh", "-c", 'exec < "$0"; exec "$@"', os.ttyname(there), *words],  # opened, it is the session's terminal
            stdin=there,
            stdout=there,
            stderr=there,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(there)
        self.type(f'{line}; echo rea""dy\n', "ready")

    def type(self, text: str, *expected: str) -> str:
        """Type a text, and wait for others to appear; all that appeared."""
        os.write(self._terminal, text.encode())
        seen, end = "", time.monotonic() + PATIENCE_SECONDS
        while not all(one in shown(seen) for one in expected):
            ready, _, _ = select.select([self._terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"{expected!r} did not come: {shown(seen)!r}"
            came = os.read(self._terminal, 65536).decode(errors="replace")
            if "\x1b[0c" in came or "\x1b[c" in came:  # fish asks for the kind of the terminal
                os.write(self._terminal, b"\x1b[?62c")
            seen += came
        return shown(seen)

    def forget_line(self) -> None:
        self.type('\x15echo cl""eared\n', "cleared")

    def close(self) -> None:
        os.close(self._terminal)
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, xet: Xet, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not here: apt-get install {request.param}")
    folder = tmp_path / "ckpt"
    (folder / "layers").mkdir(parents=True)
    (folder / "layers" / "one.bin").write_text("1")
    (folder / "config.json").write_text("{}")
    assert xet("cp", folder, "xet://alice/bert").code == 0
    assert xet("cp", folder, "xet://datasets/bob/news").code == 0
    assert xet("branch", "xet://alice/bert", "dev/one").code == 0
    (tmp_path / "local-file.bin").write_text("here")
    opened = Shell(request.param, xet, tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def test_what_is_typed_is_completed(shell: Shell) -> None:
    for typed, expected in (
        ("xet undel\t", "xet undelete "),
        ("xet repo cre\t", "xet repo create "),
        ("xet help repo mo\t", "xet help repo move "),
        ("xet put --dry\t", "xet put --dry-run "),
        ("xet completion fi\t", "xet completion fish "),
        ("xet put loc\t", "xet put local-file.bin "),
        ("xet ls xet://al\t", "xet ls xet://alice/bert"),
        ("xet ls xet://alice/bert@\tm\t", "xet ls xet://alice/bert@main"),
        ("xet ls xet://alice/bert@d\t", "xet ls xet://alice/bert@dev%2Fone"),
        ("xet cat xet://alice/bert/c\t", "xet cat xet://alice/bert/config.json "),
        ("xet cat xet://alice/bert@main/la\tone\t", "xet cat xet://alice/bert@main/layers/one.bin "),
        ("xet cp xet://datasets/b\t", "xet cp xet://datasets/bob/news"),
        ("xet ls --store store xet://al\t", "xet ls --store store xet://alice/bert"),
    ):
        shell.type(typed, expected)
        shell.forget_line()


ODD_NAMES = [
    "$(touch ran)",
    "`touch ran`",
    "a;touch ran",
    "a'b",
    'a"b',
    "a b",
    "a&touch ran",
    "{a,b}",
    "!!",
    "a|b",
    "a>ran",
]


def test_what_a_shell_would_run_is_not_put_into_the_line(xet: Xet, tmp_path: Path) -> None:
    """Those who write to a repository choose names in it, and bash would run them when the line is sent."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (*ODD_NAMES, "plain-ä_1.bin"):
        (folder / f"f{name}").write_text(name)
    assert xet("cp", folder, "xet://eve/model").code == 0
    assert xet("branch", "xet://eve/model", "x;ran").code == 0
    assert complete(xet, "xet cat xet://eve/model/f") == ["plain,xet://eve/model/fplain-ä_1.bin"]
    assert complete(xet, "xet cat xet://eve/model@") == ["part,xet://eve/model@main"]


def test_several_are_listed(shell: Shell) -> None:
    keys = "\t\t" if shell.name == "bash" else "\t"
    shell.type(f"xet repo {keys}", "create", "list", "info", "delete", "move")


def complete(xet: Xet, line: str) -> list[str]:
    """The answers to what the script for bash asks."""
    xet.variables |= {"_XET_COMPLETE": "bash_complete", "COMP_LINE": line}
    return xet.process().stdout.split()


def test_a_store_that_is_not_at_hand_is_not_asked(xet: Xet, tmp_path: Path) -> None:
    xet.variables["XET_STORE"] = "https://xet.invalid"
    assert complete(xet, "xet ls xet://al") == []
    xet.variables["XET_STORE"] = str(tmp_path / "missing")
    assert complete(xet, "xet ls xet://al") == []
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("path", [path for path in PATHS if path], ids=" ".join)
def test_options_of_every_command_are_completed(path: tuple[str, ...]) -> None:
    context = context_of(path)
    names = {item.value for item in context.command.shell_complete(context, "--")}
    assert {"--help"} <= names
    assert names <= {
        name for each in context.command.get_params(context) for name in (*each.opts, *each.secondary_opts)
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(xet: Xet, shell: str, tmp_path: Path) -> None:
    ran = xet.process("completion", shell)
    assert (ran.code, ran.stderr) == (0, "")
    assert f"{shell}_complete" in ran.stdout
    if (program := shutil.which(shell)) is not None:
        (tmp_path / "script").write_text(ran.stdout)
        subprocess.run([program, "-n", tmp_path / "script"], check=True, timeout=PATIENCE_SECONDS)
