"""``xet branch`` and ``xet tag``: list, create and delete the names of a repository's revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.names import escaped
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_branch, revision_of
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xetstore.records import Ref
    from xetstore.remote.hub.locators import HubLocator


@click.command(epilog="Example: xet branch xet://alice/bert@main experiment")
@click.argument("where", type=Parsed(parse_branch), metavar="REPOSITORY")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("-d", "--delete", "deleted", metavar="NAME", help="Delete this branch instead.")
@access_options
@store_options
@click.pass_obj
def branch(settings: Settings, where: HubLocator, name: str | None, deleted: str | None) -> None:
    """List the branches of a repository, or create the branch NAME at a revision.

    REPOSITORY is xet://OWNER/NAME@REVISION; a branch begins at main if no revision is named.
    """
    _check(name, deleted)
    with Places(settings) as places:
        repository = places.repository(where)
        if deleted is not None:
            repository.delete_branch(deleted)
        elif name is not None:
            repository.create_branch(name, revision_of(where))
        else:
            _print(settings, repository.branches())


@click.command(epilog="Example: xet tag xet://alice/bert@main v1.0")
@click.argument("where", type=Parsed(parse_branch), metavar="REPOSITORY")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("-m", "--message", default="", metavar="TEXT", help="A message that the tag keeps.")
@click.option("-d", "--delete", "deleted", metavar="NAME", help="Delete this tag instead.")
@access_options
@store_options
@click.pass_obj
def tag(settings: Settings, where: HubLocator, name: str | None, message: str, deleted: str | None) -> None:
    """List the tags of a repository, or create the tag NAME at a revision.

    REPOSITORY is xet://OWNER/NAME@REVISION; a tag is at main if no revision is named.
    """
    _check(name, deleted)
    if message and name is None:
        raise UsageError("-m goes with a new tag", hint="give its NAME")
    with Places(settings) as places:
        repository = places.repository(where)
        if deleted is not None:
            repository.delete_tag(deleted)
        elif name is not None:
            repository.create_tag(name, revision_of(where), message=message)
        else:
            _print(settings, repository.tags())


def _check(name: str | None, deleted: str | None) -> None:
    if name is not None and deleted is not None:
        raise UsageError("a name to create and one to delete are two commands", hint="leave out one of the two")


def _print(settings: Settings, refs: Sequence[Ref]) -> None:
    for ref in refs:
        if settings.output.json:
            settings.output.record(name=ref.name, ref=ref.ref, commit=ref.commit)
        else:
            settings.output.line(f"{ref.commit}  {escaped(ref.name)}")
