"""Access: who calls a route of the Hub, by the token that a request brings.

Clients send it as ``Authorization: Bearer TOKEN``; git, git-lfs and git-xet as Basic, where it is the password, or the
name of a user without one. A name beside a token is not looked at: the token says whose it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING, Final

from xetstore.access.tokens import Caller, Scope
from xetstore.errors import ForbiddenError, UnauthenticatedError, XetError
from xetstore.hub.rights import ANONYMOUS, LOCAL, Actor
from xetstore.server.site import changes_from_a_page, refuse_pages, site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.server.site import Site

ADMIN: Final = Actor(name="admin", scope=Scope.ADMIN, is_admin=True)
"""The caller with the admin token of the store, which is no account's."""
MAX_HEADER_CHARS: Final = 16 << 10
"""Longer credentials are refused unread."""

_LOCAL_CALLER: Final = Caller(namespace="local", scope=Scope.ADMIN, token_id="local")
_BEARER: Final = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
_BASIC: Final = re.compile(r"basic +([A-Za-z0-9+/]*={0,2}) *", re.IGNORECASE)
_ACTOR: Final = "actor"


async def identify(request: Request) -> None:
    """Find the caller for :func:`actor_of`: before its handler runs, so that this need not wait for the index."""
    state = request.scope["state"]
    try:
        actor, state["caller"] = await _identified(request)
        if actor is ANONYMOUS:
            state["is_anonymous"] = True
        state[_ACTOR] = actor
    except XetError as error:
        state[_ACTOR] = error


def actor_of(request: Request) -> Actor:
    """The caller of a route of the Hub; ANONYMOUS without a token.

    Raises UnauthenticatedError for a token that is not valid, TooManyRequestsError for one that comes too often, and
    ForbiddenError for a page of another site where no tokens are asked for, or a browser may have added the token.
    """
    found: Actor | XetError = request.scope["state"][_ACTOR]
    if isinstance(found, XetError):
        raise found
    return found


def require(actor: Actor) -> Actor:
    """The caller itself, if it is known. Raises UnauthenticatedError for one without a token."""
    if not actor.is_known:
        raise UnauthenticatedError("a token is needed", hint="log in, or send it as `Authorization: Bearer TOKEN`")
    return actor


def token_of(request: Request) -> str | None:
    """The token that a request brings, None without credentials. Raises UnauthenticatedError for what is none."""
    header = request.headers.get("authorization", "").strip()
    if not header:
        return None
    if len(header) <= MAX_HEADER_CHARS:
        if found := _BEARER.fullmatch(header):
            return found[1]
        if found := _BASIC.fullmatch(header):
            return _of_basic(found[1])
    raise _invalid()


async def _identified(request: Request) -> tuple[Actor, Caller | None]:
    site = site_of(request)
    if not site.asks_for_tokens:
        refuse_pages(request)
        return LOCAL, _LOCAL_CALLER
    token = token_of(request)
    if token is None:
        return ANONYMOUS, None
    if _is_basic(request) and changes_from_a_page(request):
        raise ForbiddenError("a page of another site cannot use a password that its browser remembers")
    actor, token_id = await _known(site, token)
    caller = Caller(namespace=actor.name or "", scope=actor.scope, token_id=token_id)
    site.admit(caller)
    return actor, caller


async def _known(site: Site, token: str) -> tuple[Actor, str]:
    """The holder of a token, and the name of that in logs."""
    assert site.hub is not None
    try:
        if token.count(".") == 2:
            caller = site.authority.verify(token)
            if caller.scope is Scope.ADMIN:
                return ADMIN, caller.token_id
            raise _invalid()  # one for the CAS: it reads or writes a namespace, and stands for no account
        accounts = site.hub.accounts
        actor = accounts.remembered(token)
        if actor is None:
            actor = await in_asking_thread(accounts.authenticate, token)
    except UnauthenticatedError:
        raise _invalid() from None
    return actor, actor.token_id


def _is_basic(request: Request) -> bool:
    return request.headers["authorization"].lstrip()[:5].lower() == "basic"


def _of_basic(text: str) -> str | None:
    try:
        name, _, password = b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        raise _invalid() from None
    return password or name or None


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError("Invalid username or password.")
