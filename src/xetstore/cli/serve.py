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
from xetstore.extras import install_hint
from xetstore.server.settings import CONFIG_VARIABLE, ServerSettings, choices_of, flag_of, load_settings

if TYPE_CHECKING:
    from xetstore.cas.parts import StoreParts
    from xetstore.server.started import Started

_PARTS: Final = (
    ("--objects", "URL", "Where the objects are: s3://BUCKET/PREFIX, gs://, az://, or a directory."),
    ("--index", "URL", "Where the index is: postgresql://USER@HOST/DATABASE, or a SQLite file."),
    ("--cache", "DIR", "A directory for a local cache of parts of the objects."),
    ("--cache-bytes", "SIZE", "How much of them it holds at most; 20GiB if nothing is said."),
)

_METAVARS: Final = (
    ("bytes", "SIZE"),
    ("seconds", "SPAN"),
    ("grace", "SPAN"),
    ("undelete", "SPAN"),
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
            flag_value=not knob.default if is_flag else None,
            default=None,
            metavar=None if is_flag else "|".join(choices_of(knob)) or _metavar(knob.name),
            help=knob.metadata["help"],
        )(command)
    return command


def _metavar(name: str) -> str:
    found = [word for part, word in _METAVARS if part in name]
    return found[0] if found else name.upper()


def _parts_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the parts of a store, as a store file does."""
    for flag, metavar, text in reversed(_PARTS):
        command = click.option(flag, metavar=metavar, help=text)(command)
    return command


@click.command(epilog="Example: xet serve /srv/xet")
@click.argument("where", metavar="[WHERE]", required=False, type=PATH)
@_parts_options
@click.option("--config", type=PATH, metavar="FILE", help=f"Settings as TOML; else ${CONFIG_VARIABLE} names the file.")
@_setting_options
@store_options
@click.pass_obj
def serve(
    settings: Settings,
    /,
    where: Path | None,
    config: Path | None,
    objects: str | None,
    index: str | None,
    cache: str | None,
    cache_bytes: str | None,
    **flags: object,
) -> int:
    """Serve a store over HTTP, and make it if nothing is there.

    WHERE is the store, a directory or a store file, else --store; or --objects and --index name its parts. Every other
    option may also be set by an environment variable (XETSTORE_PORT) or in the file of --config (port = 8080); options
    go first, the file last.
    """
    parts = _parts_of(settings, where, objects=objects, index=index, cache=cache, cache_bytes=cache_bytes)
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    chosen = load_settings(flags, os.environ, config)
    try:
        run = _runner(chosen)
    except ImportError as error:
        raise UsageError(f"a server needs {error.name}, which is not installed", hint=install_hint("server")) from error
    return run(parts, chosen, lambda started: _announce(settings, chosen, started))


def _runner(chosen: ServerSettings) -> Callable[[StoreParts, ServerSettings, Callable[[Started], None]], int]:
    """The function that serves: in this process, or in several, of which this one only watches the others."""
    if sys.platform == "win32":
        raise UsageError(
            "a server runs on Linux and macOS; here the client, the library and the other commands do",
            hint="run it in WSL, in a container or on another machine",
        )
    if chosen.worker_count > 1:
        from xetstore.server import workers

        return workers.serve
    from xetstore.server import run

    return run.serve


def _parts_of(settings: Settings, where: Path | None, **flags: str | None) -> StoreParts:
    """The store to be served, which is named in one way."""
    from xetstore.cas.parts import PartUrl, StoreParts

    if where is not None and settings.store is not None and Path(settings.store) != where:
        raise UsageError(f"WHERE says {where}, and --store {settings.store}", hint="name the store once")
    given = {name: value for name, value in flags.items() if value is not None}
    if not given:
        return StoreParts.at(where or settings.store_path())
    first = flag_of(next(iter(given)))
    if where is not None or settings.store is not None:
        raise UsageError(
            f"{first} names a part of a store, and {where or settings.store} a whole one",
            hint="name the store, or its parts by --objects and --index",
        )
    if missing := [name for name in ("objects", "index") if name not in given]:
        raise UsageError(f"{first} is given, and {flag_of(missing[0])} is missing", hint="the two go together")
    parts = StoreParts.named(**given)
    if isinstance(parts.index, PartUrl) and parts.index.holds_secret:
        raise UsageError(
            "--index holds a password, and every user of this machine can read the arguments of a program",
            hint="set PGPASSWORD, or write it into ~/.pgpass, or into a store file (chmod 600)",
        )
    return parts


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
    elif started.asks_for_tokens:
        output.note(f"a token for the admin: {_token_command(started, 'admin')}")
    else:
        output.note("no tokens are asked for: every user of this machine may read and write")
    output.note("to try it:")
    for command in things_to_try(started):
        output.note(f"  {command}")
    output.note("Ctrl-C stops it")


def things_to_try(started: Started) -> tuple[str, str, str]:
    """Three commands for a shell on the same machine: is it up; a token, or the totals; an upload by hf_xet."""
    ready = f"curl --fail {started.url}/health/ready"
    if not started.asks_for_tokens:
        second = f"curl --fail --header 'Accept: application/json' {started.url}/"
        return ready, second, _upload(started.url, "None")
    second = f"XET_TOKEN=$({_token_command(started, 'issue --scope write')})"
    return ready, second, f'{_upload(started.url, "(sys.argv[1], 2**40)")} "$XET_TOKEN"'


def _token_command(started: Started, arguments: str) -> str:
    """A command that takes a token from the store; one that flags name has to be written into a file for it."""
    location = started.store.location
    return f"{_xet()} token {arguments} --store {shlex.quote(str(location)) if location else 'STORE_FILE'}"


def _upload(url: str, token: str) -> str:
    code = f'import sys, hf_xet; print(hf_xet.upload_bytes([b"hello"], "{url}", {token}, None, None, None)[0].hash)'
    return f"{_python()} -c {shlex.quote(code)}"


def _xet() -> str:
    return "xet" if shutil.which("xet") else f"{shlex.quote(sys.executable)} -m xetstore"


def _python() -> str:
    found = shutil.which("python3")
    ours = Path(sys.executable).parent
    return "python3" if found and Path(found).parent == ours else shlex.quote(sys.executable)
