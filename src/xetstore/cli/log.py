"""``xet log``: the commits of a repository."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.network import access_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_branch, revision_of

if TYPE_CHECKING:
    from xetstore.remote.hub.locators import HubLocator


@click.command("log", epilog="Example: xet log xet://alice/bert -n 10")
@click.argument("where", type=Parsed(parse_branch), metavar="REPOSITORY")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Print no more than the newest N.")
@access_options
@store_options
@click.pass_obj
def log(settings: Settings, where: HubLocator, limit: int | None) -> None:
    """List the commits of a repository, from new to old.

    REPOSITORY is xet://OWNER/NAME@REVISION.
    """
    output = settings.output
    with Places(settings) as places:
        for commit in islice(places.repository(where).log(revision_of(where)), limit):
            if output.json:
                output.record(
                    commit=commit.oid,
                    title=commit.title,
                    message=commit.message,
                    author=commit.author,
                    created_at=commit.created_at,
                )
            else:
                output.line(f"{commit.oid}  {date_text(commit.created_at)}  {commit.author}  {commit.title}")


def date_text(seconds: float | None) -> str:
    """A time for people, in UTC.

    >>> date_text(0)
    '1970-01-01 00:00:00'
    """
    return "-" * 19 if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
