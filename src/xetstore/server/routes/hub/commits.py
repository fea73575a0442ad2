"""Commits: one is made of the lines of a body, all of it or nothing; the log; a branch squashed to one."""

from __future__ import annotations

import asyncio
import html
import os
from contextlib import AsyncExitStack
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import RevisionNotFoundError, UnavailableError
from xetstore.hub.arrivals import arrive_many
from xetstore.hub.attributes import FILE as ATTRIBUTES
from xetstore.hub.attributes import Attributes, attributes_of
from xetstore.hub.committing import message_of
from xetstore.hub.names import PULL_REQUESTS, Kind, check_path
from xetstore.hub.operations import AddFile, AddPointer, Delete, Operation
from xetstore.hub.rights import Right
from xetstore.hub.sha256 import begin_to_hash
from xetstore.server.http.bodies import ClientGoneError
from xetstore.server.http.router import Route, reading
from xetstore.server.http.sending import until_gone
from xetstore.server.http.spooled import spool_body
from xetstore.server.routes.hub.answers import asked_for, date_of, is_true, json_answer, next_link
from xetstore.server.routes.hub.commit_lines import (
    Deletion,
    Header,
    LargeFile,
    Line,
    RegularFile,
    large_files_of,
    lines_of,
)
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    decoded,
    of_each_kind,
    on_repository,
    on_repository_async,
    on_repository_with_body,
    page_url,
    whole_number,
)
from xetstore.server.routes.hub.repositories import descriptions_of
from xetstore.server.routes.hub.trees import split_revision
from xetstore.server.site import holders_of
from xetstore.server.threads import in_asking_thread, in_commit_thread
from xetstore.transfer.waiting import TICK_SECONDS

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.queries import Revision
    from xetstore.hub.repository import Repository
    from xetstore.server.routes.hub.descriptions import Descriptions

MEMORY_FACTOR: Final = 3
"""A body in memory: its files, the same deflated, and as much for the line that is read."""
PLACE_SECONDS: Final = 30.0
"""The longest wait for a SHA-256 with a place to commit; without one it has no end."""
LOG_PAGE: Final = 500
MOST_LOGGED: Final = 1000
"""Commits of one page of the log."""


class _Squash(msgspec.Struct, frozen=True):
    message: str | None = None


def right_to_propose(request: Request) -> Right:
    """The right that a change of files needs: to read, where it becomes part of a pull request.

    :meth:`Repository.require_commit <xetstore.hub.repository.Repository.require_commit>` asks whose that is.
    """
    is_proposal = request.path_params["rev"].startswith(PULL_REQUESTS)
    return Right.READ if is_proposal or is_true(request.query_params.get("create_pr")) else Right.WRITE


async def _commit(call: Call) -> Response:
    request, site = call.request, call.site
    holders = holders_of(request)
    async with AsyncExitStack() as until_done:
        body = await until_done.enter_async_context(spool_body(request, site.settings.max_commit_bytes))
        size = body.seek(0, os.SEEK_END)
        await _hash_large_files(call, body, until_done)
        body.seek(0)
        await until_done.enter_async_context(site.limits.commits.reserve(1, holders))
        await until_done.enter_async_context(site.limits.committing.reserve(MEMORY_FACTOR * size, holders))
        return await in_commit_thread(_commit_body, call, body)


async def _hash_large_files(call: Call, body: IO[bytes], until_done: AsyncExitStack) -> None:
    """Wait for the SHA-256 of the large files in a commit, which may take hours, without a place or a thread.

    Raises ClientGoneError once the client has left.
    """
    async with call.site.limits.commits.reserve(1, holders_of(call.request)):
        named = await in_commit_thread(_large_files, call, body)
    if not named:
        return
    leaving = asyncio.ensure_future(until_gone(call.request.receive))
    until_done.callback(leaving.cancel)
    cas = call.repository.cas
    while under_way := await in_asking_thread(begin_to_hash, cas, named, call.repository.actor.name):
        while not all(future.done() for future in under_way):
            if leaving.done():
                raise ClientGoneError
            await asyncio.wait([leaving], timeout=TICK_SECONDS)
        if any(future.exception() is not None for future in under_way):
            return  # the commit says what it is


def _large_files(call: Call, body: IO[bytes]) -> dict[bytes, int | None]:
    """The large files that the caller may commit by their names."""
    call.repository.require_commit(call.parameter("rev"), create_pull_request=is_true(call.query("create_pr")))
    body.seek(0)
    return large_files_of(body)


def _commit_body(call: Call, body: IO[bytes]) -> Response:
    branch = call.parameter("rev")
    proposes = is_true(call.query("create_pr"))
    call.repository.require_commit(branch, create_pull_request=proposes)
    lines = list(lines_of(body))
    header = lines[0]
    assert isinstance(header, Header)
    operations = _operations(call.repository, descriptions_of(call.request), branch, lines[1:])
    revision, number = call.repository.commit(
        branch,
        operations,
        message_of(header.title, header.description),
        parent=header.parent,
        create_pull_request=proposes,
        on_wait=_Patience().check,
    )
    page = page_url(call.base, call.repository.name)
    told = {"success": True, "commitOid": revision.id, "commitUrl": f"{page}/commit/{revision.id}", "hookOutput": ""}
    if number is not None:
        told["pullRequestUrl"] = f"{page}/discussions/{number}"
    return json_answer(told)


class _Patience:
    """The patience of a commit that has a place, and waits for a SHA-256 that was claimed a moment ago."""

    def __init__(self) -> None:
        self._ends_at = monotonic() + PLACE_SECONDS

    def check(self) -> None:
        """Raise UnavailableError when it has come to its end."""
        if monotonic() > self._ends_at:
            raise UnavailableError("the SHA-256 of a file is still computed", hint="try again in a moment")


def _operations(repository: Repository, descriptions: Descriptions, branch: str, lines: list[Line]) -> list[Operation]:
    """Lines as operations. A file that is a large one, though it came in the body, is stored as all large ones are."""
    regular = [line for line in lines if isinstance(line, RegularFile)]
    rules = _attributes(repository, descriptions, branch, regular) if regular else attributes_of("")
    large = [line for line in regular if line.path != ATTRIBUTES and rules.is_large(line.path, len(line.data))]
    arrived = {}
    for file in large:
        check_path(file.path)
    if large:
        stored = arrive_many(repository.cas, [line.data for line in large])
        arrived = {id(line): each for line, each in zip(large, stored, strict=True)}
    operations: list[Operation] = []
    for line in lines:
        match line:
            case RegularFile(path, data, old_path):
                as_stored = arrived.get(id(line))
                if as_stored is None:
                    operations.append(AddFile(path, data))
                else:
                    operations.append(AddPointer(path, as_stored.sha256, as_stored.size))
                operations += [Delete(old_path)] if old_path else []
            case LargeFile(path, sha256, size, old_path):
                operations.append(AddPointer(path, sha256, size))
                operations += [Delete(old_path)] if old_path else []
            case Deletion(path):
                operations.append(Delete(path))
    return operations


def _attributes(
    repository: Repository, descriptions: Descriptions, branch: str, files: list[RegularFile]
) -> Attributes:
    """The rules that hold for a commit: those in it, or of its branch."""
    sent = [file.data for file in files if file.path == ATTRIBUTES]
    if sent:
        return attributes_of(sent[-1].decode("utf-8", "replace"))
    try:
        revision = repository.revision(branch)
    except RevisionNotFoundError:
        return attributes_of("")  # the commit says so, or is the first one
    return attributes_of(descriptions.text(repository, revision, ATTRIBUTES))


def _log(call: Call) -> Response:
    rev, rest = call.parameter("rev"), call.parameter("path")
    revision, left = split_revision(call.repository, rev, rest)
    if left:
        raise RevisionNotFoundError(f"Invalid rev id: {rev}/{rest}"[:200])
    limit = whole_number(call.query("limit"), LOG_PAGE, most=MOST_LOGGED)
    page = whole_number(call.query("p"), 0, most=10**8, least=0)
    is_formatted = "formatted" in asked_for(call.request, "expand")
    log = call.repository.log(revision, limit=limit, offset=page * limit)
    headers = {"X-Total-Count": str(revision.number)}
    if (page + 1) * limit < revision.number:
        headers["Link"] = next_link(call.request, call.base, p=page + 1)
    return json_answer([_commit_json(each, is_formatted=is_formatted) for each in log], headers=headers)


def _commit_json(revision: Revision, *, is_formatted: bool) -> dict[str, Any]:
    description = revision.message.partition("\n")[2].strip()
    told: dict[str, Any] = {
        "id": revision.id,
        "title": revision.title,
        "message": description,
        "authors": [{"user": revision.author}],
        "date": date_of(revision.created_at),
    }
    if is_formatted:
        told["formatted"] = {"title": html.escape(revision.title), "message": html.escape(description)}
    return told


def _squash(call: Call, body: bytes) -> Response:
    branch = call.parameter("rev")
    message = decoded(body, _Squash).message or f"Super-squash branch '{branch}'"
    revision = call.repository.squash(branch, message)
    return json_answer({"success": True, "commitOid": revision.id})


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)
    log = reading(on_repository(_log)(kind))
    squash = on_repository_with_body(_squash, Right.WRITE, writes=True)(kind)
    return (
        Route(f"{path}/commit/{{rev:text}}", {"POST": on_repository_async(_commit, right_to_propose)(kind)}),
        Route(f"{path}/commits/{{rev:text}}", log),
        Route(f"{path}/commits/{{rev:text}}/{{path:path}}", log),
        Route(f"{path}/super-squash/{{rev:text}}", {"POST": squash}),
    )


ROUTES: Final = of_each_kind(_of)
