"""Likes, which this server does not keep: a repository has none, and to take one away changes nothing."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from xetstore.hub.names import Kind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import require
from xetstore.server.routes.hub.answers import json_answer
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    of_each_kind,
    on_repository,
)


def _likers(_: Call) -> Response:
    return json_answer([])


def _unlike(call: Call) -> Response:
    require(call.repository.actor)
    return json_answer({"success": True})


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)
    return (
        Route(f"{path}/likers", {"GET": on_repository(_likers, Right.SEE)(kind)}),
        Route(f"{path}/like", {"DELETE": on_repository(_unlike, Right.SEE)(kind)}),
    )


ROUTES: Final = of_each_kind(_of)
