"""docs/cli.md names every command, option, exit code and error code, and none that do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from xetstore.cli.interruption import INTERRUPTED
from xetstore.cli.main import cli
from xetstore.errors import XetError

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTIONS = {part.split("\n", 1)[0].strip("` "): part for part in TEXT.split("\n## ")[1:]}
COMMON = SECTIONS["Common options"]


def with_subcommands(command: click.Command) -> Iterator[click.Command]:
    yield command
    for below in command.commands.values() if isinstance(command, click.Group) and command is not cli else ():
        yield from with_subcommands(below)


def options(command: click.Command) -> set[str]:
    return {
        name
        for each in with_subcommands(command)
        for parameter in each.get_params(click.Context(each, **cli.context_settings))
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def error_classes(base: type[XetError] = XetError) -> Iterator[type[XetError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == base.__module__:  # a server has some of its own, which never leave it
            yield from error_classes(kind)


@pytest.mark.parametrize("name", cli.commands)
def test_a_command_is_documented_with_all_its_options(name: str) -> None:
    section = SECTIONS[f"xet {name}"]
    assert f"[`xet {name}`](#xet-{name})" in TEXT, "the table of commands links to it"
    for option in options(cli.commands[name]):
        assert f"`{option}" in section or f"`{option}" in COMMON, option


def test_the_options_of_xet_itself_are_documented() -> None:
    for option in options(cli):
        assert f"`{option}" in COMMON, option


def test_no_command_or_option_is_documented_that_is_not_there() -> None:
    known = options(cli).union(*(options(command) for command in cli.commands.values()))
    assert set(re.findall(r"--[a-z][a-z0-9-]+", TEXT)) <= known
    assert set(re.findall(r"\n## `xet ([\w-]+)`", TEXT)) == set(cli.commands)


def test_every_exit_code_is_documented_with_the_errors_that_end_in_it() -> None:
    table = {
        int(code): set(re.findall(r"`(\w+)`", names))
        for code, names in re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", SECTIONS["Exit codes"], re.MULTILINE)
    }
    expected: dict[int, set[str]] = {0: set(), INTERRUPTED: set()}
    for kind in error_classes():
        expected.setdefault(kind.exit_code, set()).add(kind.code)
    assert table == expected


def test_help_of_every_option_is_there() -> None:
    for command in (cli, *(each for top in cli.commands.values() for each in with_subcommands(top))):
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name
