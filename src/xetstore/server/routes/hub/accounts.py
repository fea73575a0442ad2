"""Accounts: who the caller is, and what is told of users and organizations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.errors import NotFoundError, UnauthenticatedError
from xetstore.hub.queries.accounts import Account, AccountKind
from xetstore.hub.rights import Actor
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import actor_of, require
from xetstore.server.routes.hub.answers import (
    date_of,
    id_of,
    json_answer,
    without_none,
)
from xetstore.server.routes.hub.handling import hub_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from xetstore.hub.service import EmbeddedHub
    from xetstore.server.http.router import Handler

NO_AVATAR: Final = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
"""A picture of nothing: clients want a URL, and this server calls no other one."""


async def get_whoami(request: Request) -> Response:
    """GET /api/whoami-v2."""
    return await in_asking_thread(_whoami, hub_of(request), require(actor_of(request)))


def _whoami(hub: EmbeddedHub, actor: Actor) -> Response:
    name = actor.author
    orgs = []
    if actor.user_id is not None:
        for membership in hub.accounts.orgs_of(name):
            told = _organization_json(membership.account)
            orgs.append(told | {"type": "org", "roleInOrg": membership.role.value, "isEnterprise": False})
    token = {
        "displayName": actor.token_name or name,
        "role": "read" if actor.scope is Scope.READ else "write",
        "createdAt": date_of(actor.token_created_at or actor.created_at or 0),
    }
    return json_answer(
        {
            "type": "user",
            "id": id_of(actor.user_id or 0),
            "name": name,
            "fullname": actor.fullname or name,
            "isPro": False,
            "canPay": False,
            "avatarUrl": NO_AVATAR,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _about(kind: AccountKind, work: Callable[[EmbeddedHub, Account], Any]) -> Handler:
    """A handler about an account; what everybody sees of it, where strangers see anything."""

    async def handle(request: Request) -> Response:
        actor, hub = actor_of(request), hub_of(request)
        if not (actor.is_known or hub.options.anonymous_reads):
            raise UnauthenticatedError("a token is needed")

        def run() -> Response:
            return json_answer(work(hub, hub.accounts.account(request.path_params["account"], kind)))

        return await in_asking_thread(run)

    return handle


def _user(hub: EmbeddedHub, account: Account) -> dict[str, Any]:
    orgs = [_organization_json(membership.account) for membership in hub.accounts.orgs_of(account.name)]
    return _user_json(account) | {"type": "user", "orgs": orgs, "numFollowers": 0, "numFollowing": 0}


def _organization(hub: EmbeddedHub, account: Account) -> dict[str, Any]:
    return _organization_json(account) | {"numUsers": len(hub.accounts.members(account.name)), "numFollowers": 0}


def _members(hub: EmbeddedHub, account: Account) -> list[dict[str, Any]]:
    return [_user_json(membership.account) for membership in hub.accounts.members(account.name)]


def _nothing(_: EmbeddedHub, __: Account) -> list[Any]:
    return []


def _user_json(account: Account) -> dict[str, Any]:
    return without_none(
        {
            "_id": id_of(account.id),
            "user": account.name,
            "fullname": account.fullname or account.name,
            "avatarUrl": NO_AVATAR,
            "isPro": False,
            "createdAt": date_of(account.created_at),
        }
    )


def _organization_json(account: Account) -> dict[str, Any]:
    return {
        "id": id_of(account.id),
        "name": account.name,
        "fullname": account.fullname or account.name,
        "avatarUrl": NO_AVATAR,
    }


async def get_nothing(request: Request) -> Response:
    """404 at once, for a thing that this server has not and clients can do without."""
    actor_of(request)
    raise NotFoundError("this server has no such thing")


async def take_nothing(_: Request) -> Response:
    """204: what clients tell of themselves is not kept."""
    return Response(status_code=204)


_USER: Final = "/api/users/{account:text}"
_ORG: Final = "/api/organizations/{account:text}"

ROUTES: Final = (
    Route("/api/whoami-v2", {"GET": get_whoami}),
    Route(f"{_USER}/overview", {"GET": _about(AccountKind.USER, _user)}),
    Route(f"{_USER}/followers", {"GET": _about(AccountKind.USER, _nothing)}),
    Route(f"{_USER}/following", {"GET": _about(AccountKind.USER, _nothing)}),
    Route(f"{_USER}/likes", {"GET": _about(AccountKind.USER, _nothing)}),
    Route(f"{_ORG}/overview", {"GET": _about(AccountKind.ORG, _organization)}),
    Route(f"{_ORG}/members", {"GET": _about(AccountKind.ORG, _members)}),
    Route(f"{_ORG}/followers", {"GET": _about(AccountKind.ORG, _nothing)}),
    Route("/api/agent-harnesses", {"GET": get_nothing}),
    Route("/api/telemetry/{path:path}", {"HEAD": take_nothing}),
)
