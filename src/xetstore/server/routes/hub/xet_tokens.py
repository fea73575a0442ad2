"""Xet tokens: what a client needs to speak to the CAS for one repository, by its token of the Hub.

Such a token reads, or writes, the namespace of the repository and nothing else. It is given in headers and in the body,
because some clients look at the ones only, and some at the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.hub.names import Kind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.answers import is_true, json_answer
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    of_each_kind,
    on_repository,
)

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository
    from xetstore.server.site import Site

TTL_SECONDS: Final = 3600
"""The life of a token of the CAS. Clients ask for a new one when a minute is left."""
NO_REVISION: Final = "None"
"""A revision that one client names when it is about to open a pull request."""


def issue(site: Site, repository: Repository, scope: Scope, revision: str | None = None) -> tuple[str, int]:
    """A token for the CAS of a repository, and the unix second at which it ends: no later than the caller's own."""
    actor = repository.actor
    now = int(site.clock())
    seconds = TTL_SECONDS if actor.expires_at is None else max(1, min(TTL_SECONDS, int(actor.expires_at) - now))
    token = site.authority.issue(
        scope=scope,
        namespace=repository.row.namespace,
        ttl_seconds=seconds,
        subject=actor.name or "",
        repo=str(repository.name),
        revision=revision,
    )
    return token, now + seconds


def token_answer(call: Call, scope: Scope, revision: str | None = None) -> Response:
    """The triple: where the CAS is, the token, its end."""
    cas_url = call.site.cas_url(call.request)
    token, ends_at = issue(call.site, call.repository, scope, revision)
    headers = {
        "X-Xet-Cas-Url": cas_url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(ends_at),
    }
    return json_answer({"casUrl": cas_url, "exp": ends_at, "accessToken": token}, headers=headers)


def _read_token(call: Call) -> Response:
    revision = call.repository.revision(call.parameter("rev"))
    return token_answer(call, Scope.READ, revision.id)


def _write_token(call: Call) -> Response:
    revision, proposes = call.parameter("rev"), is_true(call.query("create_pr"))
    call.repository.require_commit(revision, create_pull_request=proposes)
    if not proposes and revision != NO_REVISION:
        call.repository.revision(revision)
    return token_answer(call, Scope.WRITE)


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)
    return (
        Route(f"{path}/xet-read-token/{{rev:text}}", {"GET": on_repository(_read_token, Right.READ)(kind)}),
        Route(f"{path}/xet-write-token/{{rev:text}}", {"GET": on_repository(_write_token, Right.READ)(kind)}),
    )


ROUTES: Final = of_each_kind(_of)
