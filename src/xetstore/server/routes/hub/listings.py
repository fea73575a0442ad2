"""Listings: the repositories of a kind that a caller may see, by page; and those of an account, with what they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from xetstore.errors import RepositoryNotFoundError
from xetstore.hub.buckets import Bucket
from xetstore.hub.names import Kind
from xetstore.hub.queries import Listing, RepositoryRow
from xetstore.hub.rights import Actor, Right, right_in
from xetstore.server.http.router import Route, reading
from xetstore.server.routes.hub.access import actor_of, require
from xetstore.server.routes.hub.answers import (
    asked_for,
    cursor_of,
    date_of,
    is_true,
    json_answer,
    next_link,
    only,
    place_of,
)
from xetstore.server.routes.hub.descriptions import tip_of
from xetstore.server.routes.hub.handling import GIT_KINDS, hub_of, whole_number
from xetstore.server.routes.hub.repositories import descriptions_of
from xetstore.server.site import site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.repository import Repository
    from xetstore.hub.service import EmbeddedHub
    from xetstore.server.http.router import Handler

PAGE: Final = 1000
"""Repositories of one page, of which only the rows are read."""
DETAILED_PAGE: Final = 100
"""Repositories of one page where each has to be opened."""
MOST_LOOKED_AT: Final = 500
"""Repositories that are opened for one page to find those with a tag. The page may be empty, and have a next one."""

_DETAILS: Final = frozenset(("cardData", "tags", "library_name", "pipeline_tag", "sha", "siblings", "usedStorage"))
_ORDERS: Final = {"createdAt": "created", "created_at": "created"}


def _list_of(kind: Kind) -> Handler:
    """GET /api/models: author, search, filter, sort, limit, full, expand, gated."""

    async def handle(request: Request) -> Response:
        return await in_asking_thread(_page, request, actor_of(request), kind)

    return handle


def _page(request: Request, actor: Actor, kind: Kind) -> Response:
    query = request.query_params
    hub, descriptions = hub_of(request), descriptions_of(request)
    wants = frozenset(asked_for(request, "expand"))
    tags = [*asked_for(request, "filter"), *asked_for(request, "pipeline_tag"), *asked_for(request, "library")]
    tags = [tag.strip() for listed in tags for tag in listed.split(",") if tag.strip()]
    is_whole = is_true(query.get("full")) or is_true(query.get("cardData"))
    is_opened = is_whole or bool(tags) or bool(wants & _DETAILS)
    limit = whole_number(query.get("limit"), PAGE, most=DETAILED_PAGE if is_opened else PAGE)
    found: list[dict[str, Any]] = []
    before = place_of(query.get("cursor"))
    looked_at, is_end = 0, False
    while len(found) < limit and looked_at < MOST_LOOKED_AT and not is_end:
        listing = Listing(
            (kind,),
            owner=query.get("author") or None,
            search=query.get("search") or None,
            order=_ORDERS.get(query.get("sort", ""), "updated"),
            limit=limit,
            before=before,
        )
        rows = hub.repositories(actor, listing)
        is_end = len(rows) < limit
        for row in rows:
            if len(found) == limit:
                is_end = False
                break
            before = (row.created_at if listing.order == "created" else row.updated_at), row.id
            looked_at += 1
            if not _is_gated_as(row, query.get("gated")):
                continue
            told = descriptions.short(row) | {"tags": []}
            if is_opened:
                try:
                    repository = hub.repository(actor, kind, row.name.id)
                except RepositoryNotFoundError:  # it went meanwhile
                    continue
                revision = tip_of(repository)
                if tags and not _has(descriptions.card(repository, revision).tags if revision else (), tags):
                    continue
                # The files are told where they were asked for by name, or with all the rest.
                keys = wants or ({*told, "sha", "cardData", "library_name", "pipeline_tag"} | _files_if(is_whole))
                told = descriptions.whole(repository, revision, wants=keys)
            found.append(only(told, wants) if wants else told)
    headers = {}
    if not is_end and before is not None:
        base = site_of(request).base_url(request)
        headers["Link"] = next_link(request, base, cursor=cursor_of(*before))
    return json_answer(found, headers=headers)


def _files_if(is_whole: bool) -> set[str]:
    return {"siblings"} if is_whole else set()


def _has(tags: Sequence[str], wanted: Sequence[str]) -> bool:
    held = {tag.lower() for tag in tags}
    return all(tag.lower() in held for tag in wanted)


def _is_gated_as(row: RepositoryRow, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return bool(row.gated) if wanted.lower() in ("true", "1") else (row.gated or "false") == wanted.lower()


# With what they take


async def get_own(request: Request) -> Response:
    """GET /api/settings/repositories: those of the caller."""
    actor = require(actor_of(request))
    return await in_asking_thread(_stored, request, actor, actor.author)


async def get_of_organization(request: Request) -> Response:
    """GET /api/organizations/{org}/settings/repositories: for its members."""
    actor = require(actor_of(request))
    owner = request.path_params["org"]
    # Of an organization that is not the caller's, as of one that is not there, this is empty.
    return await in_asking_thread(_stored, request, actor, owner)


def _stored(request: Request, actor: Actor, owner: str) -> Response:
    hub, descriptions = hub_of(request), descriptions_of(request)
    if (right_in(actor, owner) or 0) < Right.READ:
        return json_answer([])
    before = place_of(request.query_params.get("cursor"))
    limit = whole_number(request.query_params.get("limit"), DETAILED_PAGE, most=DETAILED_PAGE)
    rows = hub.repositories(actor, Listing(tuple(Kind), owner=owner, limit=limit, before=before))
    told = []
    for row in rows:
        told.append(
            {
                "id": row.name.id,
                "type": row.kind.word,
                "visibility": row.visibility,
                "updatedAt": date_of(row.updated_at),
                "storage": _storage(hub, actor, row, descriptions.used_bytes),
            }
        )
    headers = {}
    if len(rows) == limit:
        cursor = cursor_of(rows[-1].updated_at, rows[-1].id)
        headers["Link"] = next_link(request, site_of(request).base_url(request), cursor=cursor)
    return json_answer(told, headers=headers)


def _storage(hub: EmbeddedHub, actor: Actor, row: RepositoryRow, used_bytes: Callable[[Repository], int]) -> int:
    try:
        repository = hub.repository(actor, row.kind, row.name.id)
    except RepositoryNotFoundError:  # it went meanwhile
        return 0
    return used_bytes(repository) if row.kind.is_git else Bucket(repository).totals().size


ROUTES: Final = (
    *(Route(f"/api/{kind}", reading(_list_of(kind))) for kind in GIT_KINDS),
    Route("/api/settings/repositories", {"GET": get_own}),
    Route("/api/organizations/{org:text}/settings/repositories", {"GET": get_of_organization}),
)
