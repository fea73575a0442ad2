"""Refs: branches and tags of a repository, listed, made and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.hub.names import HEADS, PULL_REQUESTS, TAGS, Kind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route, reading
from xetstore.server.routes.hub.answers import is_true, json_answer
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    decoded,
    of_each_kind,
    on_repository,
    on_repository_with_body,
)

if TYPE_CHECKING:
    from xetstore.hub.repository import Ref

CONVERTS: Final = "refs/convert/"


class _Branch(msgspec.Struct, frozen=True, rename="camel"):
    starting_point: str | None = None
    empty_branch: bool = False
    overwrite: bool = False


class _Tag(msgspec.Struct, frozen=True):
    tag: str
    message: str | None = None


def _refs(call: Call) -> Response:
    found = call.repository.refs()
    told: dict[str, Any] = {
        "branches": [_ref_json(ref, HEADS) for ref in found if ref.name.startswith(HEADS)],
        "converts": [_ref_json(ref, CONVERTS) for ref in found if ref.name.startswith(CONVERTS)],
        "tags": [_ref_json(ref, TAGS) for ref in found if ref.name.startswith(TAGS)],
    }
    if is_true(call.query("include_prs")) or is_true(call.query("include_pull_requests")):
        told["pullRequests"] = [_ref_json(ref, "") for ref in found if ref.name.startswith(PULL_REQUESTS)]
    return json_answer(told)


def _create_branch(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Branch)
    call.repository.create_branch(
        call.parameter("branch"), wanted.starting_point, is_empty=wanted.empty_branch, overwrite=wanted.overwrite
    )
    return json_answer({"success": True})


def _delete_branch(call: Call, _: bytes) -> Response:
    call.repository.delete_branch(call.parameter("branch"))
    return json_answer({"success": True})


def _create_tag(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Tag)
    revision = call.repository.revision(call.parameter("rev"))  # before the name is looked at, as clients expect
    call.repository.create_tag(wanted.tag, revision.id, wanted.message)
    return json_answer({"success": True})


def _delete_tag(call: Call, _: bytes) -> Response:
    call.repository.delete_tag(call.parameter("rev").removeprefix(TAGS))
    return json_answer({"success": True})


def _ref_json(ref: Ref, prefix: str) -> dict[str, str]:
    return {"name": ref.name.removeprefix(prefix), "ref": ref.name, "targetCommit": ref.commit.hex()}


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)

    def writing(work: Any) -> Any:
        return on_repository_with_body(work, Right.WRITE, writes=True)(kind)

    return (
        Route(f"{path}/refs", reading(on_repository(_refs)(kind))),
        Route(f"{path}/branch/{{branch:text}}", {"POST": writing(_create_branch), "DELETE": writing(_delete_branch)}),
        Route(f"{path}/tag/{{rev:text}}", {"POST": writing(_create_tag), "DELETE": writing(_delete_tag)}),
    )


ROUTES: Final = of_each_kind(_of)
