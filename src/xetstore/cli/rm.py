"""``xet rm``: files and folders out of a branch of a repository, by one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.cp import print_commit
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_locator, revision_of
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.remote.hub.locators import HubLocator


@click.command()
@click.argument("paths", nargs=-1, required=True, type=Parsed(parse_locator), metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Remove folders too, with all that is in them.")
@click.option("-m", "--message", metavar="TEXT", help="The message of the commit.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@access_options
@store_options
@click.pass_obj
def rm(settings: Settings, paths: tuple[HubLocator, ...], recursive: bool, message: str | None, dry_run: bool) -> None:
    """Remove files from a branch of a repository, all of them by one commit.

    PATH is xet://OWNER/NAME@BRANCH/PATH. Earlier revisions still have them.
    """
    first = paths[0].at("")
    if any(path.at("") != first for path in paths):
        raise UsageError("these are of several repositories or branches", hint="remove from one at a time")
    if not all(path.path for path in paths):
        raise UsageError(f"{first} is a whole repository", hint=f"xet repo delete {first.id.path} deletes it")
    branch = revision_of(first)
    with Places(settings) as places:
        repository = places.repository(first)
        if not recursive:
            for path in paths:
                if repository.file(path.path, branch).is_folder:
                    raise UsageError(f"{path} is a folder", hint="give -r to remove it with all that is in it")
        report = repository.commit(
            delete=[path.path for path in paths], message=message, branch=branch, dry_run=dry_run
        )
        print_commit(settings, first, report, dry_run=dry_run)
