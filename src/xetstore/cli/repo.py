"""``xet repo``: create, list, delete and move repositories, and tell of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.help import Group
from xetstore.cli.log import date_text
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_repository
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.records import RepositoryRecord
    from xetstore.remote.hub.locators import HubLocator

KINDS = ("models", "datasets", "spaces", "buckets")


@click.group(cls=Group, epilog="Example: xet repo create alice/bert")
@store_options
def repo() -> None:
    """Create, list, delete and move repositories."""


@repo.command(epilog="Example: xet repo create datasets/alice/news --private")
@click.argument("name", type=Parsed(parse_repository), metavar="NAME")
@click.option("--private/--public", "is_private", default=None, help="Who may read it; else as is usual in the store.")
@click.option("--exist-ok", is_flag=True, help="Be content with one that is there.")
@access_options
@store_options
@click.pass_obj
def create(settings: Settings, name: HubLocator, is_private: bool | None, exist_ok: bool) -> None:
    """Create a repository: alice/bert, datasets/alice/news."""
    with Places(settings) as places:
        repository = places.store(name, create=True).create_repo(name.id, is_private=is_private, exist_ok=exist_ok)
        _print(settings, repository.info())


@repo.command("list", epilog="Example: xet repo list alice")
@click.argument("owner", required=False, metavar="[OWNER]")
@click.option("--kind", type=click.Choice([*KINDS, "all"]), default="all", show_default=True, help="Of one kind only.")
@click.option("--search", metavar="TEXT", help="Only those with this in their names.")
@access_options
@store_options
@click.pass_obj
def list_(settings: Settings, owner: str | None, kind: str, search: str | None) -> None:
    """List repositories, of one owner or all."""
    with settings.open_store() as store:
        is_here = isinstance(settings.where(), Path)
        kinds = (kind,) if kind != "all" else KINDS if owner or is_here else KINDS[:3]
        for one in kinds:
            for record in store.repos(one, owner=owner, search=search):
                _print(settings, record)


@repo.command(epilog="Example: xet repo info alice/bert")
@click.argument("name", type=Parsed(parse_repository), metavar="NAME")
@access_options
@store_options
@click.pass_obj
def info(settings: Settings, name: HubLocator) -> None:
    """Tell of a repository."""
    with Places(settings) as places:
        _print(settings, places.repository(name).info())


@repo.command(epilog="Example: xet repo delete alice/bert --dry-run")
@click.argument("name", type=Parsed(parse_repository), metavar="NAME")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@access_options
@store_options
@click.pass_obj
def delete(settings: Settings, name: HubLocator, dry_run: bool) -> None:
    """Delete a repository and all its revisions; xet undelete gives it back for a while."""
    with Places(settings) as places:
        store = places.store(name)
        _print(settings, store.repo(name.id).info())
        if not dry_run:
            store.delete_repo(name.id)
    back = f": xet undelete xet://{name.id.path} gives it back" if name.scheme == "xet://" else ""
    settings.output.note("nothing deleted: a dry run" if dry_run else f"{name.id.path} is deleted{back}")


@repo.command(epilog="Example: xet repo move alice/bert alice/bert-base")
@click.argument("name", type=Parsed(parse_repository), metavar="NAME")
@click.argument("new", type=Parsed(parse_repository), metavar="NEW")
@access_options
@store_options
@click.pass_obj
def move(settings: Settings, name: HubLocator, new: HubLocator) -> None:
    """Give a repository another owner or name. The old name leads to it."""
    if name.scheme != new.scheme:
        raise UsageError("both names are in one store", hint="xet cp copies from one store to another one")
    with Places(settings) as places:
        _print(settings, places.store(name).move_repo(name.id, new.id).info())


def _print(settings: Settings, record: RepositoryRecord) -> None:
    if settings.output.json:
        settings.output.record(
            name=record.id.path,
            kind=record.id.kind,
            private=record.is_private,
            gated=record.gated,
            head=record.head,
            size=record.size,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )
        return
    told = [record.head or "-" * 40, date_text(record.updated_at), "private" if record.is_private else "public "]
    told.append(f"{record.id.path}" + ("" if record.size is None else f"  {size_text(record.size)}"))
    settings.output.line("  ".join(told))
