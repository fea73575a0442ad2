"""``xet ls``: the files of a store here, or of a repository on a Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xetstore.cli.context import Settings, parse_where, store_options
from xetstore.cli.names import escaped
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.records import RepoFile
from xetstore.remote.hub.client import Hub

_NO_HASH: Final = "-" * 64


@click.command("ls")
@click.argument("where", type=Parsed(parse_where), metavar="[WHERE]", required=False)
@click.option("-r", "--recursive", is_flag=True, help="In a repository: all that is below a folder too.")
@access_options
@store_options
@click.pass_obj
def ls(settings: Settings, where: Path | str | None, recursive: bool) -> None:
    """List files: their hashes and sizes.

    WHERE is a directory, a store file, or a repository or a folder of one: hf://models/NAMESPACE/NAME@REVISION/FOLDER.
    Without it, the store.
    """
    if where is None:
        where = settings.where()
    if isinstance(where, Path):
        _list_directory(settings, where)
    elif where.startswith("hf://"):
        _list_repository(settings, where, recursive=recursive)
    else:
        raise UsageError(
            "a server has no names for its files, and does not list them",
            hint="xet ls takes a directory, a store file, or hf://models/NAMESPACE/NAME",
        )


def _list_directory(settings: Settings, where: Path) -> None:
    output = settings.output
    with settings.open_at(where) as store:
        for record in store.files():
            if output.json:
                output.record(
                    hash=str(record.hash), size=record.size, sha256=record.sha256, created_at=record.created_at
                )
            else:
                output.line(f"{record.hash}  {record.size:>15,}")


def _list_repository(settings: Settings, where: str, *, recursive: bool) -> None:
    from xetstore.remote.hub.locators import HubLocator

    locator = HubLocator.parse(where)
    with _hub(settings) as hub:
        for entry in hub.tree(locator, recursive=recursive):
            _print_entry(settings.output, entry)


def _print_entry(output: Output, entry: RepoFile) -> None:
    if output.json:
        output.record(
            path=entry.path,
            size=entry.size,
            hash=str(entry.hash) if entry.hash is not None else None,
            is_folder=entry.is_folder,
        )
    elif entry.is_folder:
        output.line(f"{'':64}  {'':>15}  {escaped(entry.path)}/")
    else:
        output.line(f"{entry.hash or _NO_HASH}  {entry.size:>15,}  {escaped(entry.path)}")


@contextmanager
def _hub(settings: Settings) -> Iterator[Hub]:
    from xetstore.opening import open_hub

    opening = settings.opening()
    hub = open_hub(token=opening["token"], allow_http=opening["allow_http"], emit=opening["on_event"])
    try:
        yield hub
    finally:
        hub.close()
