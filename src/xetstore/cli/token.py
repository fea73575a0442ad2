"""``xet token``: issue and revoke the tokens of a store, and replace the keys that sign them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.help import Group
from xetstore.cli.parsed import Parsed, parse_duration
from xetstore.errors import UsageError
from xetstore.extras import install_hint

if TYPE_CHECKING:
    from xetstore.access.keys import KeyRing
    from xetstore.access.scope import Scope
    from xetstore.access.tokens import TokenAuthority
    from xetstore.hub.queries.accounts import TokenRow

_LONGEST_INPUT: Final = 16384
_NAMESPACE: Final = "default"
_TTL_SECONDS: Final = 900


@click.group(cls=Group, epilog="Example: xet token issue --scope write --user alice")
@store_options
def token() -> None:
    """Issue and revoke tokens, and replace the keys that sign them."""


@token.command(epilog="Example: xet token issue --scope write --user alice")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    required=True,
    help="What it is good for; each includes the one before. A user's is not for admin.",
)
@click.option("--user", metavar="NAME", help="Whose token it is: it begins with hf_, as those of the Hub.")
@click.option("--name", metavar="TEXT", help="A name for a user's token, by which it is told from others.")
@click.option("--namespace", metavar="NS", help="Without --user: whose files it is good for; else default.")
@click.option(
    "--ttl",
    type=Parsed(parse_duration),
    metavar="SPAN",
    help="How long it lives: 90s, 12h, 30d; else 15m, and a user's without an end.",
)
@store_options
@click.pass_obj
def issue(
    settings: Settings, scope: str, user: str | None, name: str | None, namespace: str | None, ttl: int | None
) -> None:
    """Print a new token, and nothing else."""
    from xetstore.access.scope import Scope

    if user is not None:
        if namespace is not None:
            raise UsageError(
                "--user and --namespace exclude each other",
                hint="a user's token is good for all that the user may do; leave out one of the two",
            )
        _issue_to_user(settings, Scope(scope), user, name or "", ttl)
        return
    if name is not None:
        raise UsageError("--name is for the token of a user", hint="say whose it is, with --user")
    with _keys(settings, create=True) as keys:
        authority = _authority(keys)
        issued = authority.issue(
            scope=Scope(scope),
            namespace=_NAMESPACE if namespace is None else namespace,
            ttl_seconds=_TTL_SECONDS if ttl is None else ttl,
        )
        _print(settings, issued, authority)


@token.command("list", epilog="Example: xet token list --user alice")
@click.option("--user", metavar="NAME", help="Those of this user only.")
@store_options
@click.pass_obj
def list_(settings: Settings, user: str | None) -> None:
    """List the tokens of users: their ids, by which they are revoked, and when they were used last."""
    last: TokenRow | None = None
    with settings.accounts() as accounts:
        while page := accounts.tokens(user, after=last):
            for row in page:
                _print_row(settings, row)
            last = page[-1]
    if last is None:
        settings.output.note("no user has a token; those of namespaces are not kept, and end by themselves")


@token.command(epilog="Example: xet token admin")
@store_options
@click.pass_obj
def admin(settings: Settings) -> None:
    """Print the token of the admin, which may do everything. A store has one; it is made if it is not valid."""
    with _keys(settings, create=True) as keys:
        authority = _authority(keys)
        from xetstore.access.admin_token import provide_admin_token

        _print(settings, provide_admin_token(keys.secrets, authority), authority)


@token.command(epilog="Example: xet token revoke ID")
@click.argument("token_or_id", metavar="TOKEN|ID|-")
@store_options
@click.pass_obj
def revoke(settings: Settings, token_or_id: str) -> None:
    """Make a token invalid now, and print its id. With - the token is read from stdin, and no shell remembers it."""
    if token_or_id == "-":
        token_or_id = sys.stdin.buffer.read(_LONGEST_INPUT).decode("ascii", "replace").strip()
    from xetstore.hub.accounts import is_user_token, is_user_token_id

    if is_user_token(token_or_id) or is_user_token_id(token_or_id):
        with settings.accounts() as accounts:
            revoked = accounts.revoke(token_or_id)
    else:
        with _keys(settings, create=False) as keys:
            revoked = _authority(keys).revoke(token_or_id)
    if settings.output.json:
        settings.output.record(token_id=revoked)
    else:
        settings.output.line(revoked)


@token.command(epilog="Example: xet token rotate --overlap 1h")
@click.option(
    "--algorithm",
    type=click.Choice(["eddsa", "hs256"]),
    help="How the new key signs; else as the one before. URLs are signed with hs256 only.",
)
@click.option(
    "--overlap",
    type=Parsed(parse_duration),
    default="24h",
    metavar="SPAN",
    show_default=True,
    help="How long the old key still counts; 0 ends at once what it has signed.",
)
@click.option("--urls", is_flag=True, help="Replace the key that signs URLs, not the one that signs tokens.")
@store_options
@click.pass_obj
def rotate(settings: Settings, algorithm: str | None, overlap: int, urls: bool) -> None:
    """Sign with a new key from now on, and print its id. A running server follows by itself."""
    with _keys(settings, create=True) as keys:
        from xetstore.access.keys import Algorithm, KeyKind

        kind = KeyKind.URL if urls else KeyKind.TOKEN
        new = keys.rotate(kind, Algorithm[algorithm.upper()] if algorithm else None, overlap)
    ends_at = new.created_at + overlap
    if settings.output.json:
        settings.output.record(
            key_id=new.kid, kind=kind.value, algorithm=new.algorithm.value, older_keys_end_at=ends_at
        )
        return
    settings.output.line(new.kid)
    what = "URLs" if urls else "tokens"
    end = (
        f"end at {datetime.fromtimestamp(ends_at, UTC):%Y-%m-%d %H:%M:%S} UTC at the latest"
        if overlap
        else "have ended"
    )
    settings.output.note(f"{what} that older keys have signed {end}")


def _issue_to_user(settings: Settings, scope: Scope, user: str, name: str, ttl: int | None) -> None:
    with settings.accounts() as accounts:
        issued = accounts.issue(user, scope=scope, name=name, ttl_seconds=ttl)
        if settings.output.json:
            settings.output.record(token=issued, **_fields(accounts.token(issued)))
        else:
            settings.output.line(issued)


def _print_row(settings: Settings, row: TokenRow) -> None:
    if settings.output.json:
        settings.output.record(**_fields(row), created_at=row.created_at, last_used_at=row.last_used_at)
        return
    used = "never used" if row.last_used_at is None else f"used {_day(row.last_used_at)}"
    end = "no end" if row.expires_at is None else f"ends {_day(row.expires_at)}"
    settings.output.line(f"{row.id}  {row.scope:<5}  {used:<15}  {end:<15}  {row.user}  {row.name}")


def _fields(row: TokenRow) -> dict[str, object]:
    return {
        "token_id": row.id,
        "expires_at": row.expires_at,
        "scope": row.scope.value,
        "user": row.user,
        "name": row.name,
    }


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


@contextmanager
def _keys(settings: Settings, *, create: bool) -> Iterator[KeyRing]:
    """The keys of the store, which must be there."""
    from xetstore.cas.assembly import open_secrets
    from xetstore.cas.parts import StoreParts

    parts = StoreParts.at(settings.store_path())
    try:
        from xetstore.access.keys import KeyRing
    except ImportError as error:
        raise _missing(error) from error
    with open_secrets(parts, create=create) as secrets:
        yield KeyRing.of(secrets, create=create, clock=secrets.clock)  # the servers go by it


def _print(settings: Settings, token: str, authority: TokenAuthority) -> None:
    if not settings.output.json:
        settings.output.line(token)
        return
    caller = authority.verify(token)
    settings.output.record(
        token=token,
        token_id=caller.token_id,
        expires_at=caller.expires_at,
        scope=caller.scope.value,
        namespace=caller.namespace,
    )


def _authority(keys: KeyRing) -> TokenAuthority:
    try:
        from xetstore.access.tokens import TokenAuthority
    except ImportError as error:
        raise _missing(error) from error
    return TokenAuthority(keys)


def _missing(error: ImportError) -> UsageError:
    return UsageError(f"tokens need {error.name}, which is not installed", hint=install_hint("server"))
