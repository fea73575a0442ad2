"""``xet org``: the organizations of a store, and their members."""

from __future__ import annotations

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.help import Group
from xetstore.cli.user import list_accounts, print_account


@click.group(cls=Group, epilog="Example: xet org create acme")
@store_options
def org() -> None:
    """Create organizations, and say who is a member of which."""


@org.command(epilog='Example: xet org create acme --fullname "Acme Corporation"')
@click.argument("name")
@click.option("--fullname", metavar="TEXT", help="The name that people read.")
@store_options
@click.pass_obj
def create(settings: Settings, name: str, fullname: str | None) -> None:
    """Create an organization, and print its name. A store is made where none is."""
    with settings.accounts(create=True) as accounts:
        print_account(settings.output, accounts.add_org(name, fullname))


@org.command("list", epilog="Example: xet org list acme")
@click.argument("name", required=False)
@store_options
@click.pass_obj
def list_(settings: Settings, name: str | None) -> None:
    """List the organizations, as xet user list does users; or the members of the one called NAME, with their roles."""
    from xetstore.hub.queries.accounts import AccountKind

    with settings.accounts() as accounts:
        if name is None:
            list_accounts(settings.output, accounts, AccountKind.ORG)
            return
        last = ""
        while page := accounts.members(name, after=last):
            for member in page:
                _print_member(settings, member.account.name, member.role.value)
            last = page[-1].account.name


@org.command(epilog="Example: xet org add acme alice --role write")
@click.argument("name")
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice(["read", "write", "admin"]),
    required=True,
    help="What a member may do with the repositories: read them; commit to them, and create some; everything.",
)
@store_options
@click.pass_obj
def add(settings: Settings, name: str, user: str, role: str) -> None:
    """Make USER a member of the organization NAME, or give a member another role."""
    from xetstore.hub.rights import Role

    with settings.accounts() as accounts:
        member = accounts.add_member(name, user, Role(role))
    _print_member(settings, member.account.name, member.role.value)


@org.command(epilog="Example: xet org remove acme alice")
@click.argument("name")
@click.argument("user")
@store_options
@click.pass_obj
def remove(settings: Settings, name: str, user: str) -> None:
    """End the membership of USER in the organization NAME, and print the name of the user."""
    with settings.accounts() as accounts:
        accounts.remove_member(name, user)
        print_account(settings.output, accounts.account(user))


@org.command(epilog="Example: xet org delete acme")
@click.argument("name")
@store_options
@click.pass_obj
def delete(settings: Settings, name: str) -> None:
    """Delete an organization that has no repository, and print its name."""
    from xetstore.hub.queries.accounts import AccountKind

    with settings.accounts() as accounts:
        print_account(settings.output, accounts.remove(name, AccountKind.ORG))


def _print_member(settings: Settings, user: str, role: str) -> None:
    if settings.output.json:
        settings.output.record(user=user, role=role)
    else:
        settings.output.line(f"{role:<5}  {user}")
