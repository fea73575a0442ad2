"""``xet undelete``: what was deleted comes back: files by their hashes, names by their names; and lists of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_file, store_options
from xetstore.cli.network import access_options
from xetstore.cli.output import count_text, time_text
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, is_locator, parse_locator
from xetstore.cli.prefixes import Prefix, only_one
from xetstore.cli.rm import print_files
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.records import DeletedName
    from xetstore.remote.hub.locators import HubLocator


def parse_target(text: str) -> tuple[HubLocator, bool] | Hash | str:
    """An argument's type: a file by its hash; or a name, and True if it is that of a branch or a tag."""
    return (parse_locator(text), "@" in text) if is_locator(text) else parse_file(text)


@click.command(epilog="Example: xet undelete --list")
@click.argument("targets", nargs=-1, type=Parsed(parse_target), metavar="[HASH...|NAME]")
@click.option("--list", "lists", is_flag=True, help="List what can be given back, the last deleted first.")
@click.option("--to", metavar="NAME", help="Another name for what comes back.")
@access_options
@store_options
@click.pass_obj
def undelete(
    settings: Settings, targets: tuple[tuple[HubLocator, bool] | Hash | str, ...], lists: bool, to: str | None
) -> None:
    """Give back what was deleted, as it was: files by their HASHes, or one NAME.

    NAME is a repository or a bucket, xet://OWNER/NAME; a branch or a tag, or what a branch was before a squash,
    xet://OWNER/NAME@BRANCH; a file or a folder of a bucket, xet://buckets/OWNER/NAME/PATH. With --list it is told what
    can be given back. That is so for 7 days, or as long as the store's server keeps it.
    """
    names = [target for target in targets if isinstance(target, tuple)]
    if names:
        if len(targets) > 1:
            raise UsageError("one name at a time is given back")
        _undelete_name(settings, *names[0], lists=lists, to=to)
        return
    if lists == bool(targets) or to is not None:
        raise UsageError("name the files by their hashes, or give --list alone", hint="xet undelete --list shows them")
    output = settings.output
    with settings.open_store() as store:
        if lists:
            for record in store.deleted():
                print_files(output, [record])
            return
        records = store.undelete(
            *(
                only_one(each, (file.hash for file in store.deleted())) if isinstance(each, Prefix) else each
                for each in targets
                if not isinstance(each, tuple)
            )
        )
    for file in records:
        if output.json:
            output.record(hash=str(file.hash), size=file.size)
        else:
            output.line(f"{file.hash}  {file.size:>15,}")
    output.note(f"{count_text(len(records), 'file')} given back")


def _undelete_name(settings: Settings, locator: HubLocator, is_ref: bool, *, lists: bool, to: str | None) -> None:
    output = settings.output
    with Places(settings) as places:
        repository = places.repository(locator)
        if lists:
            for each in repository.deleted(locator.path):
                _print(settings, each)
            return
        if locator.path:
            paths = repository.undelete_files(locator.path, to=to)
            for path in paths:
                if output.json:
                    output.record(path=path)
                else:
                    output.line(path)
            output.note(f"{count_text(len(paths), 'file')} given back")
        elif is_ref and locator.revision is not None:
            ref = repository.undelete_ref(locator.revision, to=to)
            if output.json:
                output.record(name=ref.name, ref=ref.ref, commit=ref.commit)
            else:
                output.line(f"{ref.commit}  {ref.ref}")
        else:
            record = repository.undelete(to=to)
            if output.json:
                output.record(name=record.id.path)
            else:
                output.line(f"{locator.scheme}{record.id.path}")


def _print(settings: Settings, each: DeletedName) -> None:
    output = settings.output
    if output.json:
        told = {"size": each.size, "oid": each.oid}
        output.record(
            kind=each.kind,
            name=each.name,
            deleted_at=each.deleted_at,
            until=each.until,
            **{key: value for key, value in told.items() if value is not None},
        )
    else:
        output.line(f"until {time_text(each.until)}  {each.kind:<10}  {each.oid or '':<40}  {each.name}")
