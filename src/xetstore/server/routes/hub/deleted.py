"""Deleted names: listed, and given back. No other Hub has these calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.hub.buckets import Bucket
from xetstore.hub.names import HEADS, TAGS, Kind, RepositoryName
from xetstore.hub.rights import Right
from xetstore.hub.undeleting import deleted_names, undelete_files, undelete_ref, undelete_repository
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import actor_of, require
from xetstore.server.routes.hub.answers import date_of, id_of, json_answer, without_none
from xetstore.server.routes.hub.handling import (
    SMALL_BODY_BYTES,
    Call,
    api_path,
    changing,
    decoded,
    existing,
    hub_of,
    of_each_kind,
    on_repository_with_body,
    paced,
    page_url,
)
from xetstore.server.site import site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.rights import Actor
    from xetstore.hub.service import EmbeddedHub
    from xetstore.records import DeletedName


class _Repository(msgspec.Struct, frozen=True):
    name: str
    organization: str | None = None
    type: str | None = None
    to: str | None = None


class _Ref(msgspec.Struct, frozen=True):
    ref: str
    to: str | None = None


class _Files(msgspec.Struct, frozen=True):
    path: str
    to: str | None = None


async def _list(request: Request) -> Response:
    """GET /api/repos/deleted: type, name, path."""
    actor = require(actor_of(request))
    query = request.query_params
    kind = Kind.of_word(query.get("type"))

    def listed() -> list[DeletedName]:
        name = existing(None, query.get("name", ""), kind, actor)
        return deleted_names(hub_of(request), actor, name, query.get("path", ""))

    return paced(request, json_answer([_described(each) for each in await in_asking_thread(listed)]))


def _undelete_repository(request: Request, hub: EmbeddedHub, actor: Actor, body: bytes) -> Response:
    """POST /api/repos/undelete."""
    wanted = decoded(body, _Repository)
    kind = Kind.of_word(wanted.type)
    name = existing(wanted.organization, wanted.name, kind, actor)
    to = None if wanted.to is None else RepositoryName.parse(wanted.to, kind)
    given = undelete_repository(hub, actor, name, to=to)
    url = page_url(site_of(request).base_url(request), given.name)
    return json_answer({"url": url, "name": given.name.id, "id": id_of(given.row.id)})


def _undelete_ref(call: Call, body: bytes) -> Response:
    """POST …/undelete of a repository."""
    wanted = decoded(body, _Ref)
    ref = undelete_ref(call.repository, wanted.ref, to=wanted.to)
    short = ref.name.removeprefix(TAGS).removeprefix(HEADS)
    return json_answer({"name": short, "ref": ref.name, "targetCommit": ref.commit.hex()})


def _undelete_files(call: Call, body: bytes) -> Response:
    """POST …/undelete of a bucket."""
    wanted = decoded(body, _Files)
    paths, is_more = undelete_files(Bucket(call.repository), wanted.path, to=wanted.to)
    return json_answer({"paths": paths, "more": is_more})


def _described(each: DeletedName) -> dict[str, Any]:
    return without_none(
        {
            "kind": each.kind,
            "name": each.name,
            "deletedAt": date_of(each.deleted_at),
            "until": date_of(each.until),
            "size": each.size,
            "oid": each.oid,
        }
    )


def _of(kind: Kind) -> tuple[Route, ...]:
    handler = on_repository_with_body(_undelete_ref, Right.WRITE, most=SMALL_BODY_BYTES, writes=True)(kind)
    return (Route(f"{api_path(kind)}/undelete", {"POST": handler}),)


ROUTES: Final = (
    Route("/api/repos/deleted", {"GET": _list}),
    Route("/api/repos/undelete", {"POST": changing(_undelete_repository)}),
    Route(
        "/api/buckets/{owner:text}/{name:text}/undelete",
        {"POST": on_repository_with_body(_undelete_files, Right.WRITE, writes=True)(Kind.BUCKETS)},
    ),
    *of_each_kind(_of),
)
