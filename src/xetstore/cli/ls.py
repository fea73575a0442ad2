"""``xet ls``: the files of a store here, or of a repository in it or on a Hub."""

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


@click.command("ls", epilog="Example: xet ls xet://alice/bert@main/")
@click.argument("where", type=Parsed(parse_where), metavar="[WHERE]", required=False)
@click.option("-r", "--recursive", is_flag=True, help="In a repository: all that is below a folder too.")
@click.option("-l", "--long", "is_long", is_flag=True, help="In a repository: modes and the ids of git too.")
@access_options
@store_options
@click.pass_obj
def ls(settings: Settings, where: Path | str | None, recursive: bool, is_long: bool) -> None:
    """List files: their hashes and sizes.

    WHERE is a directory, a store file, or a repository or a folder of one: xet://OWNER/NAME@REVISION/FOLDER in the
    store, hf://models/NAMESPACE/NAME@REVISION/FOLDER on the Hub. Without it, the store.
    """
    if where is None:
        where = settings.where()
    if isinstance(where, Path):
        _list_directory(settings, where)
    elif where.startswith("hf://"):
        _list_hub(settings, where, recursive=recursive, is_long=is_long)
    elif where.startswith("xet://"):
        _list_repository(settings, where, recursive=recursive, is_long=is_long)
    else:
        raise UsageError(
            "a server does not list its files without a name",
            hint="xet ls takes a directory, a store file, xet://OWNER/NAME, or hf://models/NAMESPACE/NAME",
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


def _list_repository(settings: Settings, where: str, *, recursive: bool, is_long: bool) -> None:
    from xetstore.cli.places import Places, parse_locator, revision_of

    locator = parse_locator(where)
    with Places(settings) as places:
        files = places.repository(locator).files(revision_of(locator), locator.path, recursive=recursive)
        for file in files:
            _print_entry(settings.output, file, is_long=is_long)


def _list_hub(settings: Settings, where: str, *, recursive: bool, is_long: bool) -> None:
    from xetstore.remote.hub.locators import HubLocator

    locator = HubLocator.parse(where)
    with _hub(settings) as hub:
        for entry in hub.tree(locator, recursive=recursive):
            _print_entry(settings.output, entry, is_long=is_long)


def _print_entry(output: Output, entry: RepoFile, *, is_long: bool) -> None:
    if output.json:
        output.record(
            path=entry.path,
            size=entry.size,
            hash=str(entry.hash) if entry.hash is not None else None,
            is_folder=entry.is_folder,
            sha256=entry.sha256,
            oid=entry.oid,
            mode=f"{entry.mode:06o}",
        )
        return
    long = f"{entry.mode:06o}  {entry.oid:40}  " if is_long else ""
    if entry.is_folder:
        output.line(f"{long}{'':64}  {'':>15}  {escaped(entry.path)}/")
    else:
        output.line(f"{long}{entry.hash or _NO_HASH}  {entry.size:>15,}  {escaped(entry.path)}")


@contextmanager
def _hub(settings: Settings) -> Iterator[Hub]:
    from xetstore.opening import open_hub

    opening = settings.opening("hf://")
    hub = open_hub(token=opening["token"], allow_http=opening["allow_http"], emit=opening["on_event"])
    try:
        yield hub
    finally:
        hub.close()
