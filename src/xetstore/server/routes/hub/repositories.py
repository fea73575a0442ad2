"""Repositories: create and delete, what one of them is, its settings and its name, and who may use it."""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import ExistsError, NotFoundError, RepositoryNotFoundError, UsageError
from xetstore.hub.duplicates import duplicate
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.new_repository import first_files
from xetstore.hub.rights import Actor, Right
from xetstore.server.http.problems import MethodNotAllowedError
from xetstore.server.http.router import Route, reading
from xetstore.server.routes.hub.answers import (
    asked_for,
    id_of,
    is_true,
    json_answer,
)
from xetstore.server.routes.hub.descriptions import Descriptions, tip_of
from xetstore.server.routes.hub.handling import (
    LONG_BODY_BYTES,
    Call,
    api_path,
    changing,
    decoded,
    existing,
    find_nothing,
    hub_of,
    named,
    of_each_kind,
    on_repository,
    on_repository_with_body,
    page_url,
    visibility_of,
)
from xetstore.server.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.service import EmbeddedHub

SDKS: Final = ("gradio", "streamlit", "docker", "static")
"""The SDKs that a space may have."""


class _FirstFile(msgspec.Struct, frozen=True):
    path: str
    content: str
    encoding: str = "utf-8"


class _Creation(msgspec.Struct, frozen=True):
    name: str
    organization: str | None = None
    type: str | None = None
    visibility: str | None = None
    private: bool | None = None
    sdk: str | None = None
    files: list[_FirstFile] | None = None


class _Named(msgspec.Struct, frozen=True):
    name: str
    organization: str | None = None
    type: str | None = None


class _Move(msgspec.Struct, frozen=True, rename="camel"):
    from_repo: str
    to_repo: str
    type: str | None = None


class _Settings(msgspec.Struct, frozen=True):
    visibility: str | None = None
    private: bool | None = None
    gated: bool | str | None = None


class _Duplication(msgspec.Struct, frozen=True):
    repository: str
    visibility: str | None = None
    private: bool | None = None


# All of them


def _create(request: Request, hub: EmbeddedHub, actor: Actor, body: bytes) -> Response:
    wanted = decoded(body, _Creation)
    kind = Kind.of_word(wanted.type)
    name = named(wanted.organization, wanted.name, kind, actor)
    if kind is Kind.SPACES and wanted.sdk is not None and wanted.sdk not in SDKS:
        raise UsageError(f"{wanted.sdk[:40]!r} is no SDK of a space", hint=f"these are: {', '.join(SDKS)}")
    sdk = (wanted.sdk or "static") if kind is Kind.SPACES else None
    files = None
    if wanted.files and kind.is_git:
        files = {**first_files(name, sdk), **{file.path: _content(file) for file in wanted.files}}
    visibility = visibility_of(wanted.visibility, wanted.private)
    base = site_of(request).base_url(request)
    try:
        repository = hub.create(actor, name, visibility=visibility, sdk=sdk, files=files)
    except ExistsError as error:
        return _exists(error, base, hub, actor, name)
    url = page_url(base, repository.name)
    return json_answer({"url": url, "name": repository.name.id, "id": id_of(repository.row.id)})


def _delete(_: Request, hub: EmbeddedHub, actor: Actor, body: bytes) -> Response:
    wanted = decoded(body, _Named)
    kind = Kind.of_word(wanted.type)
    hub.delete(actor, kind, existing(wanted.organization, wanted.name, kind, actor).id)
    return json_answer({"success": True})


def _move(request: Request, hub: EmbeddedHub, actor: Actor, body: bytes) -> Response:
    wanted = decoded(body, _Move)
    kind = Kind.of_word(wanted.type)
    repository = hub.move(actor, kind, wanted.from_repo, RepositoryName.parse(wanted.to_repo, kind))
    return json_answer({"url": page_url(site_of(request).base_url(request), repository.name)})


# One of them


def _info(call: Call) -> Response:
    rev = call.parameter("rev") or None
    revision = tip_of(call.repository, rev)
    return json_answer(
        descriptions_of(call.request).whole(
            call.repository,
            revision,
            blobs=is_true(call.query("blobs")),
            wants=asked_for(call.request, "expand"),
        )
    )


def _settings(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Settings)
    name = call.repository.name
    visibility = visibility_of(wanted.visibility, wanted.private)
    row = (
        hub_of(call.request)
        .update(call.repository.actor, name.kind, name.id, visibility=visibility, gated=wanted.gated)
        .row
    )
    return json_answer({"private": row.is_private, "visibility": row.visibility, "gated": row.gated or False})


def _refuse(_: Call) -> Response:
    """Refuse what is done to a repository by its path alone: it may be meant for a name of one part, with a verb."""
    raise MethodNotAllowedError(("GET", "HEAD"))


def _check(_: Call) -> Response:
    return json_answer({})


def _duplicate(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Duplication)
    source = call.repository
    name = named(None, wanted.repository, source.name.kind, source.actor)
    visibility = visibility_of(wanted.visibility, wanted.private)
    try:
        made = duplicate(source, name, visibility=visibility)
    except ExistsError as error:
        return _exists(error, call.base, source.hub, source.actor, name)
    return json_answer({"url": page_url(call.base, made.name), "filesCopyPending": False})


def descriptions_of(request: Request) -> Descriptions:
    """The descriptions that this server remembers."""
    found: Descriptions = request.app.state.descriptions
    return found


def _exists(error: ExistsError, base: str, hub: EmbeddedHub, actor: Actor, name: RepositoryName) -> Response:
    """The answer where a name is taken: clients that do not mind read the URL of the repository that has it."""
    with suppress(RepositoryNotFoundError):  # it went meanwhile
        name = hub.repository(actor, name.kind, name.id).name
    return json_answer({"error": str(error), "url": page_url(base, name)}, 409)


def _content(file: _FirstFile) -> bytes:
    try:
        return b64decode(file.content, validate=True) if file.encoding == "base64" else file.content.encode()
    except ValueError:
        raise UsageError(f"the content of {file.path[:200]!r} is not {file.encoding[:20]}") from None


def _beyond(_: Call) -> Response:
    """The answer where a repository has nothing. An id without an owner, ``NAME/commits/main``, comes here as well."""
    raise NotFoundError("there is nothing at this path")


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)
    info = on_repository(_info)(kind)
    other = on_repository(_refuse, Right.ADMIN)(kind)
    check = on_repository(_check, Right.READ)(kind)
    check_write = on_repository(_check, Right.WRITE)(kind)
    routes: dict[str, dict[str, Any]] = {
        path: {**dict.fromkeys(("POST", "PUT", "DELETE"), other), "GET": info, "HEAD": info},
        f"{path}/revision/{{rev:text}}": reading(info),
        f"{path}/settings": {"PUT": on_repository_with_body(_settings, Right.ADMIN, writes=True)(kind)},
        f"{path}/auth-check": reading(check),
        f"{path}/auth-check/write": reading(check_write),
        f"{path}/duplicate": {"POST": on_repository_with_body(_duplicate, Right.READ, writes=True)(kind)},
    }
    nothing = dict.fromkeys(("GET", "HEAD", "POST", "PUT", "DELETE"), find_nothing)
    beyond = on_repository(_beyond)(kind)
    last = (
        Route(f"/api/{kind}/{{name:text}}", nothing),
        Route(f"{api_path(kind)}/{{rest:text}}", dict.fromkeys(nothing, beyond), is_last=True),
    )
    return tuple(Route(template, handlers) for template, handlers in routes.items()) + last


ROUTES: Final = (
    Route("/api/repos/create", {"POST": changing(_create, LONG_BODY_BYTES)}),
    Route("/api/repos/delete", {"DELETE": changing(_delete)}),
    Route("/api/repos/move", {"POST": changing(_move)}),
    *of_each_kind(_of),
)
