"""Handling: the way of a request from its path to a repository that its caller may use, and on to a thread.

A handler says what it needs: a right, and perhaps a body. Rights are looked at before a byte of the body is taken in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from starlette.responses import Response

from xetstore.errors import RepositoryNotFoundError, UsageError
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import PRIVATE, PUBLIC, Actor, Right
from xetstore.server.http.bodies import read_body
from xetstore.server.http.receiving import memory_of_body
from xetstore.server.http.sending import SentStream
from xetstore.server.routes.hub.access import actor_of, require
from xetstore.server.site import Site, holders_of, site_of
from xetstore.server.threads import in_asking_thread, in_commit_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.repository import Repository
    from xetstore.hub.service import EmbeddedHub
    from xetstore.server.http.router import Handler, Route

T = TypeVar("T")

GIT_KINDS: Final = tuple(kind for kind in Kind if kind.is_git)
SMALL_BODY_BYTES: Final = 64 << 10
"""Bytes of a body that names some things."""
LONG_BODY_BYTES: Final = 8 << 20
"""Bytes of a body that lists files: a thousand of them, with a sample of each."""

SMALL_ANSWER_BYTES: Final = 256 << 10
"""Bytes of an answer that the event loop sends by the way."""

ForKind = Callable[[Kind], "Handler"]
"""Makes the handler of a route for a kind of repository."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request about a repository, which its caller may see, or has the right that the handler asked for."""

    request: Request
    repository: Repository

    @property
    def site(self) -> Site:
        """The server."""
        return site_of(self.request)

    @property
    def base(self) -> str:
        """The URL of the server, as its clients know it."""
        return self.site.base_url(self.request)

    def parameter(self, name: str) -> str:
        """A parameter of the path, decoded; an empty one if the path has it not."""
        return str(self.request.path_params.get(name, ""))

    def query(self, name: str) -> str | None:
        """A parameter of the query."""
        return self.request.query_params.get(name)


def hub_of(request: Request) -> EmbeddedHub:
    """The hub of a server that has one: its routes are there only then."""
    hub = site_of(request).hub
    assert hub is not None
    return hub


def on_repository(answer: Callable[[Call], Response], right: Right = Right.SEE) -> ForKind:
    """Handlers that read: ``answer`` is made in a thread."""

    def for_kind(kind: Kind) -> Handler:
        async def handle(request: Request) -> Response:
            actor = actor_of(request)

            def run() -> Response:
                call = _opened(request, actor, kind, right)
                return _redirect(call) or answer(call)

            return paced(request, await in_asking_thread(run))

        return handle

    return for_kind


def on_repository_with_body(
    answer: Callable[[Call, bytes], Response],
    right: Right = Right.SEE,
    *,
    most: int = SMALL_BODY_BYTES,
    writes: bool = False,
) -> ForKind:
    """Handlers that take a body of at most ``most`` bytes. One that ``writes`` waits for a place to commit."""

    def for_kind(kind: Kind) -> Handler:
        async def handle(request: Request) -> Response:
            call = await in_asking_thread(_opened, request, actor_of(request), kind, right)
            async with AsyncExitStack() as until_answered:
                body = await take_body(request, most, until_answered)
                if writes:
                    return await committing(request, answer, call, body)
                made = await in_asking_thread(answer, call, body)
            return paced(request, made)

        return handle

    return for_kind


def on_repository_async(answer: Callable[[Call], Awaitable[Response]], right: Callable[[Request], Right]) -> ForKind:
    """Handlers that take in a body of their own. ``right`` tells what a request needs."""

    def for_kind(kind: Kind) -> Handler:
        async def handle(request: Request) -> Response:
            call = await in_asking_thread(_opened, request, actor_of(request), kind, right(request))
            return await answer(call)

        return handle

    return for_kind


def of_each_kind(routes: Callable[[Kind], Iterable[Route]]) -> tuple[Route, ...]:
    """The routes of repositories, of each kind that is git."""
    return tuple(route for kind in GIT_KINDS for route in routes(kind))


def api_path(kind: Kind) -> str:
    """The path of a repository in the API, as a route has it."""
    return f"/api/{kind}/{{owner:text}}/{{name:text}}"


def page_prefix(kind: Kind) -> str:
    """The start of the paths of pages and files: of models there is none."""
    return "" if kind is Kind.MODELS else f"/{kind}"


async def take_body(request: Request, most: int, until_answered: AsyncExitStack) -> bytes:
    """The body of a request, of which the memory is held until it is answered."""
    limits = site_of(request).limits
    amount = min(memory_of_body(request), most)
    await until_answered.enter_async_context(limits.receiving.reserve(amount, holders_of(request)))
    return bytes(await read_body(request, limits, most))


def changing(work: Callable[[Request, EmbeddedHub, Actor, bytes], Response], most: int = SMALL_BODY_BYTES) -> Handler:
    """A handler that writes, for a body of at most ``most`` bytes that names a repository."""

    async def handle(request: Request) -> Response:
        actor = require(actor_of(request))
        async with AsyncExitStack() as until_answered:
            body = await take_body(request, most, until_answered)
            return await committing(request, work, request, hub_of(request), actor, body)

    return handle


async def committing(request: Request, call: Callable[..., T], *args: object) -> T:
    """The result of a call that writes names: it has one of the places to commit meanwhile."""
    async with site_of(request).limits.commits.reserve(1, holders_of(request)):
        return await in_commit_thread(call, *args)


def decoded(body: bytes, kind: type[T]) -> T:
    """JSON as a value of this type; of an empty body that of an empty object. Raises UsageError."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError(f"the body is not what this takes: {str(error)[:300]}") from None


def visibility_of(visibility: str | None, private: bool | None) -> str | None:
    """The visibility that a body gives in either of two ways; None if in none."""
    if visibility is not None or private is None:
        return visibility
    return PRIVATE if private else PUBLIC


def named(owner: str | None, name: str, kind: Kind, actor: Actor) -> RepositoryName:
    """The name that a body gives, of the caller's own repository where no owner is in it. Raises UsageError."""
    if "/" in name and not owner:
        return RepositoryName.parse(name, kind)
    return RepositoryName(kind, owner or actor.name or "", name)


def existing(owner: str | None, name: str, kind: Kind, actor: Actor) -> RepositoryName:
    """The same of a repository that should be there: a name that none can have is as one that none has."""
    try:
        return named(owner, name, kind, actor)
    except UsageError:
        raise RepositoryNotFoundError from None


def paced(request: Request, answer: Response) -> Response:
    """An answer that is made; a long one is sent within the budget, to a client that keeps its pace."""
    if type(answer) is not Response or len(answer.body) <= SMALL_ANSWER_BYTES or request.method == "HEAD":
        return answer
    return SentStream(
        BytesIO(answer.body),
        status_code=answer.status_code,
        headers=answer.headers,
        limits=site_of(request).limits,
        holders=holders_of(request),
        amount=len(answer.body),
    )


async def find_nothing(request: Request) -> Response:
    """The answer for an id that cannot be one: as for a repository that is not there."""
    actor_of(request)
    raise RepositoryNotFoundError


def page_url(base: str, name: RepositoryName) -> str:
    """The URL of a repository, from which clients read its kind and its id."""
    return f"{base}/{name.path}"


def api_url(base: str, name: RepositoryName) -> str:
    """The URL of a repository in the API."""
    return f"{base}/api/{name.kind}/{name.id}"


def whole_number(text: str | None, default: int, *, most: int, least: int = 1) -> int:
    """A number of a query, which is cut to what may be asked for. Raises UsageError."""
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{text[:40]!r} is not a number")
    return max(least, min(int(text), most))


def _opened(request: Request, actor: Actor, kind: Kind, right: Right) -> Call:
    parameters: dict[str, Any] = request.path_params
    repository = hub_of(request).repository(actor, kind, f"{parameters['owner']}/{parameters['name']}", right)
    return Call(request, repository)


def _redirect(call: Call) -> Response | None:
    """The way to a repository that was moved: the same path below its new name. None if it has the name asked for.

    It names no host: clients before 1.0 follow no other redirect.
    """
    name, parameters = call.repository.name, call.request.path_params
    if f"{name.kind}/{parameters['owner']}/{parameters['name']}".lower() == name.key:
        return None
    segments = call.request.scope["raw_path"].decode("latin-1").split("/")
    at = 3 if segments[1] == "api" else 1 if name.kind is Kind.MODELS else 2
    segments[at : at + 2] = [quote(name.owner), quote(name.name)]
    query = call.request.scope["query_string"].decode("latin-1")
    location = urlsplit(call.base).path + "/".join(segments) + (f"?{query}" if query else "")
    return Response(status_code=307, headers={"Location": location, "Cache-Control": "no-store"})
