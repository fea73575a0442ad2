"""Defaults: an option, else the environment, else the user's file, else none; a mistake is told with its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from xetstore.cli.config import SETTINGS, Defaults, read_config
from xetstore.cli.main import cli

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture
def config(xet: Xet) -> Callable[..., Path]:
    """Write the user's file."""
    path = Path(xet.variables["XDG_CONFIG_HOME"]) / "xet" / "config.toml"
    path.parent.mkdir(parents=True)

    def write(text: str | bytes) -> Path:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_the_table_of_the_documentation_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(--.*)` \| `(XET_.*)` \| `(.*)` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(each.option, each.variable, each.key, each.meaning) for each in SETTINGS]


def test_every_setting_is_an_option() -> None:
    options = {name for parameter in cli.commands["put"].params for name in parameter.opts}
    assert {each.option for each in SETTINGS} <= options


def test_the_example_of_the_documentation_is_right(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(store = .*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "config.toml").write_text(text)
    values = {key: given.value for key, given in read_config(tmp_path / "config.toml").items()}
    assert values == {
        "store": "https://xet.example.org",
        "token_file": str(tmp_path / "token"),
        "jobs": 4,
        "limit_rate": 10 << 20,
    }


def test_an_option_comes_before_the_environment_and_that_before_the_file(
    xet: Xet, config: Callable[..., Path], tmp_path: Path
) -> None:
    path = config('\n# mine\nstore = "of-file"\n')
    (tmp_path / "file").write_text("here")
    for variable, options, where, source in (
        ("", [], path.parent / "of-file", f"line 3 of {path}"),
        (str(tmp_path / "of-variable"), [], tmp_path / "of-variable", "XET_STORE"),
        (str(tmp_path / "of-variable"), ["--store", tmp_path / "of-option"], tmp_path / "of-option", "--store"),
    ):
        xet.variables["XET_STORE"] = variable
        assert xet("put", tmp_path / "file", *options).code == 0
        assert where.is_dir()
        [told] = xet("stat", "--json", *options).records
        assert (told["store"], told["named_by"], told["files"]) == (str(where), source, 1)
        assert xet("stat", *options).stdout.startswith(f"store          {where} ({source})\n")
        assert f"The store is {where}, named by {source}." in xet(*options, "help").stdout


def test_the_default_store_is_told_of_and_when_it_is_made(xet: Xet, tmp_path: Path) -> None:
    xet.variables |= {"XET_STORE": "", "XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}
    where = tmp_path / "data" / "xetstore"
    (tmp_path / "file").write_text("here")
    assert f"The store is {where}, which is not there yet.\n" in xet().stdout
    assert f"a store is made at {where}" in xet("put", tmp_path / "file").stderr
    assert "a store is made" not in xet("put", tmp_path / "file").stderr
    assert f"The store is {where}.\n" in xet("--help").stdout
    assert xet("stat", "--json").records[0]["named_by"] is None


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('store = "x"\nstroe = "y"', "line 2 of {}: there is no setting 'stroe'", "do you mean store?"),
        ('[cache]\nx = "y"', "line 1 of {}: there is no setting 'cache'", None),
        ("\njobs = 0", "line 2 of {}: jobs is a whole number from 1 on, and not '0'", None),
        ("jobs = true", "line 1 of {}: jobs is a whole number from 1 on, and not 'True'", None),
        ("jobs = 1.5", "line 1 of {}: jobs is a whole number from 1 on, and not '1.5'", None),
        (
            'store = "xet.lan:80"',
            "line 1 of {}: 'xet.lan:80' looks like a server",
            "do you mean http://xet.lan:80? A directory of that name is ./xet.lan:80",
        ),
        ("store = 7", "line 1 of {}: store is a text, a store as --store takes it, and not '7'", None),
        ('limit_rate = "fast"', "line 1 of {}: limit_rate is a size, such as 500k, 10M or 2GiB, and not 'fast'", None),
        ('max_memory = "1M"', "line 1 of {}: max_memory is a size of at least 128.0 MiB, and not '1M'", None),
        ("jobs = 1\njobs = 2", "line 2 of {} is not TOML", None),
        ("jobs = 1\nstore =", "line 2 of {} is not TOML", None),
        ("jobs = 1\njust words\n", "line 2 of {} is not TOML", None),
        (b'jobs = 1\nstore = "\xff"', "line 2 of {} is not UTF-8", None),
        ("# " + "x" * (64 << 10), "line 1 of {} is not TOML", None),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_with_its_line(
    xet: Xet, config: Callable[..., Path], text: str | bytes, message: str, hint: str | None
) -> None:
    path = config(text)
    xet.variables["XET_STORE"] = ""
    ran = xet("stat", "--json")
    [error] = ran.errors
    assert (ran.code, error["code"]) == (2, "usage")
    assert error["message"].startswith(message.format(path))
    assert hint is None or error["hint"] == hint
    assert xet("help").code == 0, "help is printed all the same"
    assert f"The store: {message.format(path)}" in xet("help").stdout


@pytest.mark.parametrize(
    ("variable", "text"), [("XET_JOBS", "none"), ("XET_MAX_MEMORY", "1M"), ("XET_LIMIT_RATE", "0")]
)
def test_a_mistake_in_the_environment_names_the_variable(xet: Xet, variable: str, text: str) -> None:
    xet.variables[variable] = text
    [error] = xet("stat", "--json").errors
    assert error["message"] == f"{variable} is {text!r}"
    assert error["hint"].startswith("--")


def test_limits_reach_the_transfer(tmp_path: Path) -> None:
    path = tmp_path / "xet" / "config.toml"
    path.parent.mkdir()
    path.write_text('jobs = 3\nmax_memory = "1G"\n')
    from xetstore.cli.context import Settings

    settings = Settings(defaults=Defaults({"XET_LIMIT_RATE": "5M", "XET_JOBS": "2"}))
    settings.defaults.path = path
    limits = settings.opening(tmp_path)["limits"]
    assert (limits.jobs, limits.max_memory, limits.rate) == (2, 1 << 30, 5 << 20)


def test_a_file_that_cannot_be_read_is_one_sentence(xet: Xet, config: Callable[..., Path]) -> None:
    path = config("")
    path.unlink()
    path.mkdir()
    ran = xet("stat")
    assert ran.code == 2
    assert ran.stderr.splitlines()[0] == f"xet: {path} cannot be read: Is a directory"
