"""``xet serve``: its options and their sources, what it says at its start, and that what it says can be done."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import click
import pytest

from tests.cli.runner import COMMAND, Ran, Xet
from tests.support.live import ServerProcess, request
from xetstore.cli.main import cli
from xetstore.extras import install_hint
from xetstore.server.settings import PREFIX, ServerSettings, choices_of, flag_of

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "cli.md").read_text().split("\n## `xet serve`")[1].split("\n## ")[0]


@contextmanager
def serving(store: Path, *options: str) -> Iterator[list[str]]:
    """A server that speaks to people; what it says on stderr, until it has told everything."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    command = [*COMMAND, "serve", str(store), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=inherited) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said: list[str] = []
            while not said or said[-1] != "Ctrl-C stops it":
                line = process.stderr.readline()
                assert line, said
                said.append(line.decode().rstrip("\n"))
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
    assert rest == b"", "stdout is for data"


# What it says


@pytest.mark.parametrize("options", [(), ("--auth", "none")], ids=["tokens", "none"])
def test_the_three_commands_to_try_work_when_pasted(tmp_path: Path, options: tuple[str, ...]) -> None:
    store = tmp_path / "a store, with 'quotes'"
    with serving(store, *options) as said:
        commands = [line.strip() for line in said[said.index("to try it:") + 1 : -1]]
        assert len(commands) == 3
        environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_XET_TELEMETRY_ENABLED": "0"}
        script = "\n".join(["set -e", *commands])
        done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b'"ready"' in done.stdout
    uploaded = Xet(store)("--json", "hash", _hello(tmp_path)).records[0]["hash"]
    assert done.stdout.decode().endswith(f"{uploaded}\n")


def _hello(folder: Path) -> Path:
    (folder / "hello").write_bytes(b"hello")
    return folder / "hello"


def test_people_are_told_where_it_is_and_where_the_token_is_but_not_the_token(tmp_path: Path) -> None:
    with serving(tmp_path / "store", "--public-url", "https://xet.example.org/") as said:
        token = (tmp_path / "store" / "access" / "admin-token").read_text().strip()
        text = "\n".join(said)
        url = re.search(r"http://127\.0\.0\.1:[0-9]+", text)
        assert url is not None
        assert request(url[0], "GET", "/health/live").status == 200
    assert f"{tmp_path / 'store'} at {url[0]}, for clients https://xet.example.org\n" in text
    assert str(tmp_path / "store" / "access" / "admin-token") in text
    assert token not in text


def test_programs_are_told_in_one_object(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "store") as server:
        server.terminate()
        assert server.wait() == 0
        assert set(server.started) == {"url", "store", "token_file", "version"}
        assert "to try it" not in server.log


# Where settings come from


def test_options_variables_and_a_file_are_read(tmp_path: Path) -> None:
    config = tmp_path / "xetstore.toml"
    config.write_text('log_format = "json"\nstatus = "token"\nlog_level = "error"\n')
    environment = {"XETSTORE_CONFIG": str(config), "XETSTORE_STATUS": "open", "XETSTORE_LOG_LEVEL": "warning"}
    with ServerProcess(tmp_path / "store", "--log-level", "info", environment=environment) as server:
        assert server.request("GET", "/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status == 200
        server.terminate()
        assert server.wait() == 0
        entries = [json.loads(line) for line in server.log.splitlines()]
    assert "stopped" in {entry["message"] for entry in entries}


def test_a_flag_without_value_is_one(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "store", "--host", "0.0.0.0", "--allow-plain-http") as server:
        assert server.request("GET", "/health/live").status == 200


def test_the_store_may_be_named_as_for_every_command(xet: Xet) -> None:
    ran = xet("serve", "--port", "0", xet.store, "--store", xet.store.with_name("other"))
    assert (ran.code, "name the store once" in ran.stderr) == (2, True)
    xet.store.mkdir()
    (xet.store / "something").touch()
    for arguments in ((), ("--store", xet.store), (xet.store,), (xet.store, "--store", xet.store)):
        assert str(xet.store) in xet("serve", "--port", "0", *arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--port", "many"), 2, "--port: 'many' is not a whole number"),
        (("--host", "0.0.0.0"), 2, "tokens would pass in clear"),
        (("--host", "0.0.0.0", "--auth", "none"), 2, "auth none is for this machine only"),
        (("--config", "missing.toml"), 3, "missing.toml does not exist"),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem"), 3, "missing.pem cannot be read"),
        (("--prt", "1"), 2, "has no option"),
    ],
)
def test_what_cannot_be_is_refused_before_a_store_is_made(
    xet: Xet, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = xet("serve", *arguments)
    assert (ran.code, said in ran.stderr) == (code, True), ran.stderr
    assert not xet.store.exists()


def test_a_variable_that_is_no_setting_is_refused(xet: Xet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XETSTORE_PROT", "1")
    ran = xet("serve", "--json")
    assert ran.code == 2
    assert ran.errors[0]["hint"] == "did you mean XETSTORE_PORT?"


# The options


@pytest.mark.parametrize("knob", fields(ServerSettings), ids=lambda knob: knob.name)
def test_every_setting_is_an_option_and_its_default_is_documented(knob: click.Option) -> None:
    assert knob.name is not None
    parameters = {option: each for each in cli.commands["serve"].params for option in each.opts}
    option = parameters[flag_of(knob.name)]
    assert isinstance(option, click.Option)
    assert option.help
    [row] = [line for line in DOCUMENTED.splitlines() if re.match(rf"\| (`[^`]*`, )?`{flag_of(knob.name)}[ `]", line)]
    shown = row.replace("\\|", "/").split("|")[2].strip()
    default = getattr(ServerSettings(), knob.name)
    if isinstance(default, bool):
        assert shown == "no"
    elif default not in (None, ()):
        assert getattr(ServerSettings(**{knob.name: shown.strip("`")}), knob.name) == default  # type: ignore[arg-type]
    if choices := choices_of(knob):  # type: ignore[arg-type]
        assert f"`{flag_of(knob.name)} " + "\\|".join(choices) in row
        assert option.metavar == "|".join(choices)


# Without the extra


def test_without_the_extra_the_other_commands_work_and_this_one_says_what_is_missing(xet: Xet) -> None:
    blocked = (
        "import sys; sys.modules |= dict.fromkeys(('starlette', 'uvicorn', 'httptools', 'jwt', 'prometheus_client'))"
    )
    program = f"{blocked}; from xetstore.cli.main import run; run()"
    command = [sys.executable, "-c", program]
    assert subprocess.run([*command, "--help"], capture_output=True, check=False).returncode == 0
    done = subprocess.run([*command, "serve", "--json"], capture_output=True, env=xet.environment, check=False)
    ran = Ran(done.returncode, done.stdout, done.stderr.decode())
    assert ran.code == 2
    assert ran.errors[0]["hint"] == install_hint("server")
    assert not xet.store.exists()


def test_the_other_commands_do_not_load_a_server() -> None:
    program = "import sys, xetstore.cli.main; print([name for name in ('starlette', 'uvicorn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_a_store_whose_name_needs_quotes_is_quoted() -> None:
    from xetstore.cas.parts import StoreParts
    from xetstore.cli.serve import things_to_try
    from xetstore.server.started import Started

    store = Path("/a b/it's")
    _, second, _ = things_to_try(
        Started("http://127.0.0.1:1", StoreParts.of_directory(store), True, store / "token", "1")
    )
    assert str(store) in shlex.split(second.partition("$(")[2].rstrip(")"))
