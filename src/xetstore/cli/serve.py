"""``xet serve``: the store over HTTP, for every client that speaks Xet."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from xetstore.cli.context import PATH, Settings, store_options
from xetstore.errors import UsageError
from xetstore.server.settings import CONFIG_VARIABLE, ServerSettings, choices_of, flag_of, load_settings

if TYPE_CHECKING:
    from xetstore.server.started import Started

_METAVARS: Final = (
    ("bytes", "SIZE"),
    ("seconds", "SPAN"),
    ("rate", "N"),
    ("connections", "N"),
    ("tls", "FILE"),
    ("url", "URL"),
    ("namespaces", "NS,..."),
)


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every setting. What it says is read where the other sources are read, by the same rules."""
    for knob in reversed(fields(ServerSettings)):
        is_flag = isinstance(knob.default, bool)
        command = click.option(
            flag_of(knob.name),
            knob.name,
            is_flag=is_flag,
            default=None,
            metavar=None if is_flag else "|".join(choices_of(knob)) or _metavar(knob.name),
            help=knob.metadata["help"],
        )(command)
    return command


def _metavar(name: str) -> str:
    found = [word for part, word in _METAVARS if part in name]
    return found[0] if found else name.upper()


@click.command()
@click.argument("directory", metavar="[DIR]", required=False, type=PATH)
@click.option("--config", type=PATH, metavar="FILE", help=f"Settings as TOML; else ${CONFIG_VARIABLE} names the file.")
@_setting_options
@store_options
@click.pass_obj
def serve(settings: Settings, /, directory: Path | None, config: Path | None, **flags: object) -> int:
    """Serve a store over HTTP, and make it if nothing is there.

    DIR is the store, else --store. Every option may also be set by an environment variable (XETSTORE_PORT) or in the
    file of --config (port = 8080); options go first, the file last.
    """
    if directory is not None and settings.store is not None and Path(settings.store) != directory:
        raise UsageError(f"DIR says {directory}, and --store {settings.store}", hint="name the store once")
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    chosen = load_settings(flags, os.environ, config)
    try:
        run = _runner(chosen)
    except ImportError as error:
        raise UsageError(
            f"a server needs {error.name}, which is not installed", hint="pip install 'xetstore[server]'"
        ) from error
    return run(directory or settings.store_path(), chosen, lambda started: _announce(settings, chosen, started))


def _runner(chosen: ServerSettings) -> Callable[[Path, ServerSettings, Callable[[Started], None]], int]:
    """The function that serves: in this process, or in several, of which this one only watches the others."""
    if chosen.worker_count > 1:
        from xetstore.server import workers

        return workers.serve
    from xetstore.server import run

    return run.serve


def _announce(settings: Settings, chosen: ServerSettings, started: Started) -> None:
    output = settings.output
    if output.json:
        output.record(
            url=started.url,
            store=str(started.store),
            token_file=str(started.token_file) if started.token_file else None,
            version=started.version,
        )
        return
    where = f"{started.url}, for clients {chosen.public_url}" if chosen.public_url else started.url
    output.note(f"serving {started.store} at {where}")
    if started.token_file:
        output.note(f"a token for the admin is in {started.token_file}")
    else:
        output.note("no tokens are asked for: every user of this machine may read and write")
    output.note("to try it:")
    for command in things_to_try(started):
        output.note(f"  {command}")
    output.note("Ctrl-C stops it")


def things_to_try(started: Started) -> tuple[str, str, str]:
    """Three commands for a shell on the same machine: is it up; a token, or the totals; an upload by hf_xet."""
    ready = f"curl --fail {started.url}/health/ready"
    if started.token_file is None:
        second = f"curl --fail --header 'Accept: application/json' {started.url}/"
        return ready, second, _upload(started.url, "None")
    second = f"XET_TOKEN=$({_xet()} token issue --scope write --store {shlex.quote(str(started.store))})"
    return ready, second, f'{_upload(started.url, "(sys.argv[1], 2**40)")} "$XET_TOKEN"'


def _upload(url: str, token: str) -> str:
    code = f'import sys, hf_xet; print(hf_xet.upload_bytes([b"hello"], "{url}", {token}, None, None, None)[0].hash)'
    return f"{_python()} -c {shlex.quote(code)}"


def _xet() -> str:
    return "xet" if shutil.which("xet") else f"{shlex.quote(sys.executable)} -m xetstore"


def _python() -> str:
    found = shutil.which("python3")
    ours = Path(sys.executable).parent
    return "python3" if found and Path(found).parent == ours else shlex.quote(sys.executable)
