"""``xet rm``: files out of the store by their hashes, or files and folders out of a branch by one commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_file, store_options
from xetstore.cli.cp import print_commit
from xetstore.cli.network import access_options
from xetstore.cli.output import Output, count_text, time_text
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, is_locator, parse_locator, revision_of
from xetstore.cli.prefixes import Prefix, whole
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.records import DeletedFile
    from xetstore.remote.hub.locators import HubLocator


def parse_target(text: str) -> HubLocator | Hash | str:
    """An argument's type: a file by its hash, or a place in a repository."""
    return parse_locator(text) if is_locator(text) else parse_file(text)


def split_targets(targets: Sequence[HubLocator | Hash | str]) -> tuple[list[Hash | Prefix], list[HubLocator]]:
    """Hashes, or places in repositories. Raises UsageError where both are there."""
    from xetstore.protocol.hashes import Hash
    from xetstore.remote.hub.locators import HubLocator

    hashes = [each for each in targets if isinstance(each, Hash | Prefix)]
    places = [each for each in targets if isinstance(each, HubLocator)]
    if hashes and places:
        raise UsageError("these are hashes and names", hint="give the hashes to one command, and the names to another")
    return hashes, places


@click.command(epilog='Example: xet rm xet://alice/bert@main/old.bin -m "No longer needed"')
@click.argument("targets", nargs=-1, required=True, type=Parsed(parse_target), metavar="HASH...|PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Remove folders too, with all that is in them.")
@click.option("-m", "--message", metavar="TEXT", help="The message of the commit.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@access_options
@store_options
@click.pass_obj
def rm(
    settings: Settings,
    targets: tuple[HubLocator | Hash | str, ...],
    recursive: bool,
    message: str | None,
    dry_run: bool,
) -> None:
    """Delete files from the store, or remove files from a branch of a repository.

    By HASH a file leaves the store, and `xet undelete` gives it back for a while. PATH is
    xet://OWNER/NAME@BRANCH/PATH: all of these go by one commit, and earlier revisions still have them.
    """
    hashes, paths = split_targets(targets)
    if hashes:
        if recursive or message is not None:
            option = "--recursive" if recursive else "--message"
            raise UsageError(f"{option} is for names in a repository, and these are hashes", hint="leave it out")
        with settings.open_store() as store:
            files = [whole(store, each) for each in hashes]
            _print_deleted(settings.output, store.delete(*files, dry_run=dry_run), dry_run=dry_run)
        return
    _remove(settings, paths, recursive=recursive, message=message, dry_run=dry_run)


def _remove(
    settings: Settings, paths: Sequence[HubLocator], *, recursive: bool, message: str | None, dry_run: bool
) -> None:
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


def _print_deleted(output: Output, records: Sequence[DeletedFile], *, dry_run: bool) -> None:
    print_files(output, records)
    count = count_text(len(records), "file")
    back = "it" if len(records) == 1 else "them"
    output.note(f"{count} would go: a dry run" if dry_run else f"{count} deleted: xet undelete gives {back} back")


def print_files(output: Output, records: Sequence[DeletedFile]) -> None:
    """Print deleted files: hash, size, and until when each can be given back."""
    for record in records:
        if output.json:
            output.record(hash=str(record.hash), size=record.size, deleted_at=record.deleted_at, until=record.until)
        else:
            output.line(f"{record.hash}  {record.size:>15,}  until {time_text(record.until)}")
