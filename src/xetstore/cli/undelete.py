"""``xet undelete``: deleted files back into the store, and the list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.network import access_options
from xetstore.cli.output import count_text
from xetstore.cli.parsed import Parsed
from xetstore.cli.rm import parse_target, print_files, split_targets
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.remote.hub.locators import HubLocator


@click.command()
@click.argument("targets", nargs=-1, type=Parsed(parse_target), metavar="[HASH...]")
@click.option("--list", "lists", is_flag=True, help="List what can be given back, the last deleted first.")
@access_options
@store_options
@click.pass_obj
def undelete(settings: Settings, targets: tuple[HubLocator | Hash | str, ...], lists: bool) -> None:
    """Give back files that `xet rm HASH` has deleted, as they were.

    That can be done for 7 days, or as long as the store's server keeps them.
    """
    if lists == bool(targets):
        raise UsageError("name the files by their hashes, or give --list alone", hint="xet undelete --list shows them")
    hashes, places = split_targets(targets)
    if places:
        raise UsageError(
            f"{places[0]} is a name", hint="name the files by their hashes: xet undelete --list shows them"
        )
    output = settings.output
    with settings.open_store() as store:
        if lists:
            for record in store.deleted():
                print_files(output, [record])
            return
        records = store.undelete(*hashes)
    for file in records:
        if output.json:
            output.record(hash=str(file.hash), size=file.size)
        else:
            output.line(f"{file.hash}  {file.size:>15,}")
    output.note(f"{count_text(len(records), 'file')} given back")
