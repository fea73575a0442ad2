"""``xet user``: the users of a store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.help import Group

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.hub.accounts import Accounts
    from xetstore.hub.queries.accounts import Account, AccountKind


@click.group(cls=Group, epilog="Example: xet user add alice")
@store_options
def user() -> None:
    """Add, list and remove the users of a store."""


@user.command(epilog='Example: xet user add alice --fullname "Alice Liddell"')
@click.argument("name")
@click.option("--fullname", metavar="TEXT", help="The name that people read.")
@store_options
@click.pass_obj
def add(settings: Settings, name: str, fullname: str | None) -> None:
    """Add a user, and print its name. A store is made where none is."""
    with settings.accounts(create=True) as accounts:
        print_account(settings.output, accounts.add_user(name, fullname))


@user.command("list", epilog="Example: xet user list")
@store_options
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the users, by name: the day on which each was added, its name and its full name."""
    from xetstore.hub.queries.accounts import AccountKind

    with settings.accounts() as accounts:
        list_accounts(settings.output, accounts, AccountKind.USER)


@user.command(epilog="Example: xet user remove alice")
@click.argument("name")
@store_options
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Remove a user who has no repository, with its tokens, and print its name."""
    from xetstore.hub.queries.accounts import AccountKind

    with settings.accounts() as accounts:
        print_account(settings.output, accounts.remove(name, AccountKind.USER))


def print_account(output: Output, account: Account) -> None:
    """The account that was changed."""
    if output.json:
        output.record(name=account.name, fullname=account.fullname, created_at=account.created_at)
    else:
        output.line(account.name)


def list_accounts(output: Output, accounts: Accounts, kind: AccountKind) -> None:
    """All accounts of a kind."""
    last = ""
    while page := accounts.list(kind, after=last):
        for account in page:
            if output.json:
                print_account(output, account)
            else:
                added = f"{datetime.fromtimestamp(account.created_at, UTC):%Y-%m-%d}"
                output.line(f"{added}  {account.name}  {account.fullname or ''}".rstrip())
        last = page[-1].name
