"""Preupload: what clients ask before they upload: how each file is to come, what is left out, if a card is right."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.cas.quotas import require_room
from xetstore.errors import FormatError, UsageError
from xetstore.hub.attributes import FILE as ATTRIBUTES
from xetstore.hub.attributes import Attributes, attributes_of
from xetstore.hub.cards import errors_of, metadata_of
from xetstore.hub.ignore import FILE as IGNORE
from xetstore.hub.ignore import ignore_of
from xetstore.hub.names import Kind, check_path
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import actor_of
from xetstore.server.routes.hub.answers import json_answer
from xetstore.server.routes.hub.commits import right_to_propose
from xetstore.server.routes.hub.handling import (
    LONG_BODY_BYTES,
    Call,
    api_path,
    decoded,
    of_each_kind,
    on_repository_async,
    take_body,
)
from xetstore.server.routes.hub.repositories import descriptions_of
from xetstore.server.threads import in_asking_thread, in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

MOST_FILES: Final = 1000
"""Files of one question; clients ask for 256 at a time."""
NO_METADATA: Final = "empty or missing yaml metadata in repo card"


class _File(msgspec.Struct, frozen=True):
    path: str
    size: int = 1


class _Files(msgspec.Struct, frozen=True, rename="camel"):
    files: list[_File]
    git_ignore: str | None = None
    git_attributes: str | None = None


class _Card(msgspec.Struct, frozen=True, rename="camel"):
    content: str
    repo_type: str | None = None


async def _preupload(call: Call) -> Response:
    async with AsyncExitStack() as until_answered:
        body = await take_body(call.request, LONG_BODY_BYTES, until_answered)
        return await in_asking_thread(_plan, call, body)


def _plan(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Files)
    if len(wanted.files) > MOST_FILES:
        raise UsageError(f"at most {MOST_FILES} files can be asked about at once")
    repository, descriptions = call.repository, descriptions_of(call.request)
    revision = repository.revision(call.parameter("rev"))
    for file in wanted.files:
        check_path(file.path)
    said = wanted.git_attributes
    rules = attributes_of(descriptions.text(repository, revision, ATTRIBUTES) if said is None else said)
    said = wanted.git_ignore
    ignore = ignore_of(descriptions.text(repository, revision, IGNORE) if said is None else said)
    large = [file.size for file in wanted.files if _is_large(rules, file) and not ignore.ignores(file.path)]
    if large:
        require_room(repository.cas.index, repository.row.namespace, large)
    known = {entry.path: entry for entry in repository.entries_at(revision, [file.path for file in wanted.files])}
    told = []
    for file in wanted.files:
        answer: dict[str, Any] = {
            "path": file.path,
            "uploadMode": "lfs" if _is_large(rules, file) else "regular",
            "shouldIgnore": ignore.ignores(file.path),
        }
        entry = known.get(file.path)
        if entry is not None and not entry.is_folder:
            answer["oid"] = entry.id if entry.sha256 is None else entry.sha256.hex()
        told.append(answer)
    return json_answer({"files": told, "commitOid": revision.id})


def _is_large(rules: Attributes, file: _File) -> bool:
    return file.path != ATTRIBUTES and rules.is_large(file.path, file.size)


async def post_validate_yaml(request: Request) -> Response:
    """POST /api/validate-yaml: errors and warnings about a card; clients ask before each commit that has one."""
    actor_of(request)
    async with AsyncExitStack() as until_answered:
        body = await take_body(request, LONG_BODY_BYTES, until_answered)
        return await in_thread(_validate, body)


def _validate(body: bytes) -> Response:
    wanted = decoded(body, _Card)
    try:
        metadata = metadata_of(wanted.content)
    except FormatError as error:
        return json_answer({"errors": [{"message": error.detail}], "warnings": [], "error": error.detail}, 400)
    if not metadata:
        return json_answer({"errors": [], "warnings": [{"message": NO_METADATA}]})
    errors = errors_of(metadata)
    told = {"errors": [{"message": text} for text in errors], "warnings": []}
    if errors:
        return json_answer(told | {"error": "; ".join(errors)}, 400)
    return json_answer(told)


def _of(kind: Kind) -> tuple[Route, ...]:
    path = f"{api_path(kind)}/preupload/{{rev:text}}"
    return (Route(path, {"POST": on_repository_async(_preupload, right_to_propose)(kind)}),)


ROUTES: Final = (
    Route("/api/validate-yaml", {"POST": post_validate_yaml}),
    *of_each_kind(_of),
)
