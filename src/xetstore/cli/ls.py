"""``xet ls``: the files of a store here, or of a repository in it or on a Hub."""

from __future__ import annotations

from pathlib import Path

import click

from xetstore.cli.context import Settings, namespace_option, parse_where, store_options
from xetstore.cli.listing import in_order, print_row, rows_of, sort_option
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.errors import UsageError


@click.command("ls", epilog="Example: xet ls xet://alice/bert@main/")
@click.argument("where", type=Parsed(parse_where), metavar="[WHERE]", required=False)
@click.option("-r", "--recursive", is_flag=True, help="In a repository: all that is below a folder too.")
@click.option("-l", "--long", "is_long", is_flag=True, help="Dates too; in a repository modes and the ids of git.")
@sort_option
@namespace_option
@access_options
@store_options
@click.pass_obj
def ls(settings: Settings, where: Path | str | None, recursive: bool, is_long: bool, order: str) -> None:
    """List files: their hashes and sizes.

    WHERE is a directory, a store file, a server, or a repository or a folder of one:
    xet://OWNER/NAME@REVISION/FOLDER in the store, hf://models/NAMESPACE/NAME@REVISION/FOLDER on the Hub. Without it,
    the store.
    """
    if where is None:
        where = settings.where()
    if not isinstance(where, Path) and settings.namespace is not None:
        raise UsageError("--namespace is for a directory or a store file", hint="leave it out, or run it there")
    is_empty = True
    rows = rows_of(settings, where, recursive=recursive, dates=is_long or order == "date")
    for row in in_order(rows, order):
        is_empty = False
        print_row(settings.output, row, "" if row.entry is None else row.entry.path, is_long=is_long)
    if is_empty and settings.namespace is not None:
        settings.output.note(
            f"no file is in the namespace {settings.namespace}: xet stat --by namespace lists those with files"
        )
