"""``xet mv``: a file or a folder to another path of its repository, by one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.cp import print_commit
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_locator, revision_of
from xetstore.errors import EntryNotFoundError, UsageError

if TYPE_CHECKING:
    from xetstore.repositories.repository import Repository


@click.command(epilog="Example: xet mv xet://alice/bert@main/old.bin xet://alice/bert@main/new.bin")
@click.argument("source", metavar="SOURCE", type=Parsed(str))
@click.argument("target", metavar="TARGET", type=Parsed(str))
@click.option("-m", "--message", metavar="TEXT", help="The message of the commit.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and move nothing.")
@access_options
@store_options
@click.pass_obj
def mv(settings: Settings, source: str, target: str, message: str | None, dry_run: bool) -> None:
    """Move a file or a folder to another path of the same branch, by one commit.

    SOURCE and TARGET are xet://OWNER/NAME@BRANCH/PATH. Where TARGET is a folder, SOURCE goes into it. xet repo move
    gives a repository another name.
    """
    old, new = parse_locator(source), parse_locator(target)
    if old.at("") != new.at(""):
        raise UsageError(
            "SOURCE and TARGET are not on the same branch of one repository", hint="use xet cp, then xet rm"
        )
    if not old.path or (not new.path and not target.endswith("/")):
        raise UsageError("SOURCE and TARGET need paths", hint="xet repo move gives a repository another name")
    branch = revision_of(old)
    with Places(settings) as places:
        repository = places.repository(old)
        path = new.path
        if target.endswith("/") or _is_folder(repository, branch, path):
            path = f"{path}/{old.path.rpartition('/')[2]}".lstrip("/")
        if path == old.path or path.startswith(f"{old.path}/"):
            raise UsageError(f"{old} cannot be moved to itself, or into itself")
        report = repository.copy_from(
            repository,
            branch,
            path=old.path,
            to=path,
            branch=branch,
            message=message or f"Move {old.path} to {path}",
            delete_source=True,
            dry_run=dry_run,
        )
        print_commit(settings, old, report, dry_run=dry_run)


def _is_folder(repository: Repository, branch: str, path: str) -> bool:
    try:
        return repository.file(path, branch).is_folder
    except EntryNotFoundError:
        return False
