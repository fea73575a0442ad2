"""Access requests: the users who asked for the files of a gated repository, and who may have them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import NotFoundError, UsageError
from xetstore.hub.access_requests import AccessRequest, AccessRequests, Status
from xetstore.hub.names import Kind
from xetstore.hub.queries.accounts import AccountKind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import require
from xetstore.server.routes.hub.answers import (
    cursor_of,
    date_of,
    id_of,
    json_answer,
    next_link,
    place_of,
    without_none,
)
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    decoded,
    hub_of,
    of_each_kind,
    on_repository,
    on_repository_with_body,
    page_prefix,
    whole_number,
)

_REQUEST_ID: Final = re.compile(r"[0-9a-f]{24}")

LISTED: Final = 100
"""Requests of one page."""


class _User(msgspec.Struct, frozen=True):
    user: str


class _Decision(msgspec.Struct, frozen=True, rename="camel"):
    status: Status
    user: str | None = None
    request_id: str | None = None


def _requests(call: Call) -> AccessRequests:
    hub = hub_of(call.request)
    return AccessRequests(hub.cas.index, hub.now)


def _list(call: Call) -> Response:
    try:
        status = Status(call.parameter("status"))
    except ValueError:
        raise NotFoundError("requests are pending, accepted or rejected") from None
    limit = whole_number(call.query("limit"), LISTED, most=LISTED)
    found = _requests(call).list(call.repository.row.id, status, place_of(call.query("cursor")), limit + 1)
    headers = {}
    if len(found) > limit:
        found = found[:limit]
        headers["Link"] = next_link(call.request, call.base, cursor=cursor_of(*found[-1].place))
    return json_answer([_told(each) for each in found], headers=headers)


def _ask(call: Call, _: bytes) -> Response:
    """The caller asks for the files, whatever a form had it fill in."""
    actor = require(call.repository.actor)
    if actor.user_id is None:
        raise UsageError("the files need not be asked for by the owner of the store")
    return json_answer({"status": _requests(call).ask(call.repository.row.id, actor.name or "").value})


def _grant(call: Call, body: bytes) -> Response:
    user = decoded(body, _User).user
    if call.repository.row.gated is None:
        raise UsageError("the repository is not gated")
    if _status_of(call, user) is Status.ACCEPTED:
        raise UsageError(f"{user} has access already")
    _requests(call).decide(call.repository.row.id, user, Status.ACCEPTED)
    return json_answer({"success": True})


def _handle(call: Call, body: bytes) -> Response:
    decision = decoded(body, _Decision)
    if (decision.user is None) is (decision.request_id is None):
        raise UsageError("either user or requestId says which request is meant")
    user = decision.user or _user_of(call, decision.request_id or "")
    if _status_of(call, user) is decision.status:
        raise UsageError(f"the request of {user} is {decision.status} already")
    _requests(call).decide(call.repository.row.id, user, decision.status, has_asked=True)
    return json_answer({"success": True})


def _told(asked: AccessRequest) -> dict[str, Any]:
    account = asked.account
    return {
        "requestId": id_of(account.id),
        "user": without_none({"user": account.name, "fullname": account.fullname or account.name}),
        "status": asked.status.value,
        "timestamp": date_of(asked.asked_at),
    }


def _status_of(call: Call, user: str) -> Status | None:
    """The state of the request of a user. Raises NotFoundError where there is no such user."""
    account = hub_of(call.request).accounts.account(user, AccountKind.USER)
    return _requests(call).status(call.repository.row.id, account.id)


def _user_of(call: Call, request_id: str) -> str:
    """The name of the user whose request has this id, which is that of the account."""
    number = int(request_id, 16) if _REQUEST_ID.fullmatch(request_id) else -1
    if not 0 <= number < 1 << 63:
        raise NotFoundError("there is no such request")
    found = _requests(call).of(call.repository.row.id, number)
    if found is None:
        raise NotFoundError("there is no such request")
    return found.account.name


def _of(kind: Kind) -> tuple[Route, ...]:
    repository = api_path(kind)
    requests = f"{repository}/user-access-request"
    page = f"{page_prefix(kind)}/{{owner:text}}/{{name:text}}"
    ask = on_repository_with_body(_ask, Right.SEE, writes=True)(kind)
    return (
        Route(f"{requests}/grant", {"POST": on_repository_with_body(_grant, Right.WRITE, writes=True)(kind)}),
        Route(f"{requests}/handle", {"POST": on_repository_with_body(_handle, Right.WRITE, writes=True)(kind)}),
        Route(f"{requests}/{{status:text}}", {"GET": on_repository(_list, Right.WRITE)(kind)}),
        Route(f"{repository}/ask-access", {"POST": ask}),
        Route(f"{page}/ask-access", {"POST": ask}),
    )


ROUTES: Final = of_each_kind(_of)
