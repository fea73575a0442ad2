"""Help: the same by ``--help`` and by ``xet help``, with an example that can be typed, and naming what is there."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.runner import Xet
from xetstore.cli.commands import SECTIONS
from xetstore.cli.context import Settings
from xetstore.cli.help import EXAMPLE
from xetstore.cli.main import cli

ROOT = Path(__file__).parents[2]


def walk(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """The words by which each command is called, the whole tree of them."""
    yield path
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from walk(below, *path, name)


def context_of(path: tuple[str, ...]) -> click.Context:
    """A command as it is called by these words."""
    context = click.Context(cli, info_name="xet", obj=Settings(), **cli.context_settings)
    for word in path:
        assert isinstance(context.command, click.Group)
        command = context.command.get_command(context, word)
        assert command is not None
        context = click.Context(command, info_name=word, parent=context)
    return context


PATHS = list(walk(cli))
GROUPS = [path for path in PATHS if isinstance(context_of(path).command, click.Group)]


def each(paths: list[tuple[str, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: " ".join(("xet", *path)))


@each(PATHS)
def test_help_is_there_in_three_ways(xet: Xet, path: tuple[str, ...]) -> None:
    ran = xet(*path, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: {' '.join(('xet', *path))} ")
    assert ran == xet(*path, "-h") == xet("help", *path)


@each(GROUPS)
def test_a_command_of_commands_alone_prints_its_help(xet: Xet, path: tuple[str, ...]) -> None:
    assert xet(*path) == xet(*path, "--help")


@each(PATHS)
def test_help_fits_80_columns(xet: Xet, path: tuple[str, ...]) -> None:
    xet.variables["XET_STORE"] = "store"  # its path is not broken
    assert max(map(len, xet("help", *path).stdout.splitlines())) <= 80


@each(PATHS)
def test_help_is_whole_sentences_without_markup(xet: Xet, path: tuple[str, ...]) -> None:
    _, _, said = xet("help", *path).stdout.partition("\n")
    assert "``" not in said
    assert not re.search(r"\w\.\.\.$", said, re.MULTILINE)


@each([path for path in PATHS if path])
def test_help_has_an_example_of_that_command_that_parses(path: tuple[str, ...]) -> None:
    epilog = context_of(path).command.epilog or ""
    words = shlex.split(epilog.replace("HASH", "00" * 32).partition(" > ")[0])
    assert tuple(words[: len(path) + 2]) == ("Example:", "xet", *path)
    while words[len(path) + 2 :] and isinstance(context_of(path).command, click.Group):
        path = (*path, words[len(path) + 2])
    context = context_of(path)
    context.command.make_context(path[-1], words[len(path) + 2 :], parent=context.parent)  # raises if it is wrong


def test_the_line_to_begin_with_is_in_the_help_and_works(xet: Xet, tmp_path: Path) -> None:
    assert f"\n  To begin with: {EXAMPLE}\n" in xet().stdout
    file = tmp_path / EXAMPLE.split()[-1]
    file.write_bytes(b"weights")
    assert xet.process(*EXAMPLE.split()[1:], cwd=tmp_path).code == 0


def test_a_list_of_commands_has_all_of_them_and_what_the_documentation_says() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| \[`xet ([\w-]+)`\]\(#xet-\1\) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [row for section in SECTIONS.values() for row in section.items()]


def names_of_commands(text: str) -> Iterator[tuple[str, str]]:
    """What looks like a command in a text: the word behind ``xet``, and the one behind that."""
    for match in re.finditer(r"(?<![\w/.-])xet ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", text):
        yield match[1], match[2] or ""


def texts_of(module: Path) -> Iterator[str]:
    """The text constants of a module; of an f-string its parts, with a mark for what is filled in."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_hints_and_help_name_only_commands_that_are_there() -> None:
    wrong = []  # beside the names of a filesystem and of threads
    for module in (ROOT / "src").rglob("*.py"):
        for name, below in (found for text in texts_of(module) for found in names_of_commands(text)):
            command = cli.commands.get(name)
            subcommands = command.commands if isinstance(command, click.Group) else {}
            if name not in ("fs", "tensors") and (
                command is None or (below and subcommands and below not in subcommands)
            ):
                wrong.append((module.name, name, below))
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("pu", "xet has no command 'pu'", "do you mean xet put? xet --help lists them"),
        ("zzz", "xet has no command 'zzz'", "xet --help lists them"),
        ("repo craete", "xet repo has no command 'craete'", "do you mean xet repo create? xet repo --help lists them"),
        (
            "help repo craete",
            "xet repo has no command 'craete'",
            "do you mean xet repo create? xet repo --help lists them",
        ),
        ("help put that", "xet put has no commands", "xet put --help says all of it"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(xet: Xet, words: str, message: str, hint: str) -> None:
    ran = xet.process(*words.split())
    assert (ran.code, ran.stdout, ran.stderr) == (2, "", f"xet: {message}\nhint: {hint}\n")


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["help"], ["--help"], []])
def test_help_and_version_load_no_command_and_no_store(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom xetstore.cli.main import run\nsys.argv[1:] = " + repr(arguments) + "\n"
        "try: run()\nfinally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stderr.split()
    commands = {f"xetstore.cli.{name}" for name in ("put", "get", "cp", "refs", "serve", "token", "watcher", "places")}
    assert "xetstore.cli.main" in loaded
    for module in ("sqlite3", "rich", "asyncio", "xetstore.store", "xetstore._kernel", *commands):
        assert module not in loaded
