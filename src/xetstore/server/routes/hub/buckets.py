"""Buckets: files by path, without revisions; listed by page, changed by batches, read by any HTTP client and by Xet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.errors import ExistsError, NotFoundError, RepositoryNotFoundError, TooLargeError, UsageError
from xetstore.hub.buckets import (
    MAX_OPERATIONS,
    MAX_PAGE,
    Bucket,
    DropFile,
    Failure,
    Operation,
    PutFile,
    totals_of,
)
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.queries import BucketFile, BucketFolder, BucketTotals, Listing, RepositoryRow
from xetstore.hub.rights import Actor, Right
from xetstore.protocol.hashes import Hash
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.access import actor_of, require
from xetstore.server.routes.hub.answers import (
    content_disposition,
    cursor_of,
    cursor_of_text,
    date_of,
    id_of,
    is_true,
    json_answer,
    next_link,
    place_of,
    text_of_cursor,
)
from xetstore.server.routes.hub.files import send_stored
from xetstore.server.routes.hub.handling import (
    LONG_BODY_BYTES,
    SMALL_BODY_BYTES,
    Call,
    committing,
    decoded,
    find_nothing,
    hub_of,
    on_repository,
    on_repository_with_body,
    page_url,
    take_body,
    visibility_of,
    whole_number,
)
from xetstore.server.routes.hub.xet_tokens import token_answer
from xetstore.server.site import parse_hash, site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.service import EmbeddedHub
    from xetstore.server.http.router import Handler

ME: Final = "me"
"""The owner that stands for the caller."""
LISTED: Final = 100
"""Buckets of one page."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Settings(msgspec.Struct, frozen=True):
    visibility: str | None = None
    private: bool | None = None


class _Paths(msgspec.Struct, frozen=True):
    paths: list[str]


class _Add(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="addFile"):
    path: str
    xet_hash: str
    mtime: int | float | None = None
    content_type: str | None = None


class _Copy(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="copyFile"):
    path: str
    xet_hash: str
    source_repo_type: str
    source_repo_id: str
    mtime: int | float | None = None
    content_type: str | None = None


class _Delete(msgspec.Struct, frozen=True, tag_field="type", tag="deleteFile"):
    path: str


_Line = _Add | _Copy | _Delete
_LINE: Final[msgspec.json.Decoder[_Line]] = msgspec.json.Decoder(_Line)


# All of them


async def _list(request: Request) -> Response:
    """GET /api/buckets/{owner}: those of an account that the caller may see; of its own with ``me``."""
    actor = actor_of(request)
    owner = request.path_params["owner"]
    return await in_asking_thread(_listed, request, actor, _name_of_me(actor) if owner == ME else owner)


def _listed(request: Request, actor: Actor, owner: str) -> Response:
    hub, query = hub_of(request), request.query_params
    limit = whole_number(query.get("limit"), LISTED, most=LISTED)
    before = place_of(query.get("cursor"))
    rows = hub.repositories(
        actor,
        Listing(
            (Kind.BUCKETS,),
            owner=owner,
            search=query.get("search") or None,
            order="created",
            limit=limit + 1,
            before=before,
        ),
    )
    if not rows and before is None and not _is_account(hub, actor, owner):
        raise RepositoryNotFoundError
    headers = {}
    if len(rows) > limit:
        rows = rows[:limit]
        cursor = cursor_of(rows[-1].created_at, rows[-1].id)
        headers["Link"] = next_link(request, site_of(request).base_url(request), cursor=cursor)
    totals = totals_of(hub, rows)
    return json_answer([_bucket_json(row, totals[row.id]) for row in rows], headers=headers)


async def _create(request: Request) -> Response:
    """POST /api/buckets/{owner}/{name}."""
    actor = require(actor_of(request))
    async with AsyncExitStack() as until_answered:
        body = await take_body(request, SMALL_BODY_BYTES, until_answered)
        return await committing(request, _created, request, actor, body)


def _created(request: Request, actor: Actor, body: bytes) -> Response:
    wanted = decoded(body, _Settings)
    owner, name = request.path_params["owner"], request.path_params["name"]
    bucket = RepositoryName(Kind.BUCKETS, _name_of_me(actor) if owner == ME else owner, name)
    url = page_url(site_of(request).base_url(request), bucket)
    try:
        row = hub_of(request).create(actor, bucket, visibility=visibility_of(wanted.visibility, wanted.private)).row
    except ExistsError as error:
        return json_answer({"error": str(error), "url": url}, 409)
    return json_answer({"url": url, "name": row.name.id, "id": id_of(row.id)})


# One of them


def _info(call: Call) -> Response:
    return json_answer(_bucket_json(call.repository.row, Bucket(call.repository).totals()))


def _delete(call: Call, _: bytes) -> Response:
    hub_of(call.request).delete(call.repository.actor, Kind.BUCKETS, call.repository.name.id)
    return json_answer({"success": True})


def _settings(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Settings)
    visibility = visibility_of(wanted.visibility, wanted.private)
    hub = hub_of(call.request)
    row = hub.update(call.repository.actor, Kind.BUCKETS, call.repository.name.id, visibility=visibility).row
    return json_answer({"private": row.is_private, "visibility": row.visibility})


def _tree(call: Call) -> Response:
    """The files whose paths begin with a prefix; files and folders up to the next slash if ``recursive`` is false."""
    recursive = call.query("recursive")
    page = Bucket(call.repository).tree(
        call.parameter("path"),
        recursive=recursive is None or is_true(recursive),
        start=text_of_cursor(call.query("cursor")),
        limit=whole_number(call.query("limit"), MAX_PAGE, most=MAX_PAGE),
    )
    headers = {}
    if page.next is not None:
        headers["Link"] = next_link(call.request, call.base, cursor=cursor_of_text(page.next))
    return json_answer([_entry_json(entry) for entry in page.entries], headers=headers)


def _paths_info(call: Call, body: bytes) -> Response:
    files = Bucket(call.repository).files(decoded(body, _Paths).paths)
    return json_answer([_entry_json(file) for file in files])


def _batch(call: Call, body: bytes) -> Response:
    """Operations, one a line: all are done that can be, and the others are told."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MAX_OPERATIONS:
        raise TooLargeError(f"a batch has at most {MAX_OPERATIONS} operations")
    read = [_operation(line, number) for number, line in enumerate(lines, 1)]
    operations = [each for each in read if not isinstance(each, Failure)]
    failures = [each for each in read if isinstance(each, Failure)] + Bucket(call.repository).change(operations)
    told = {
        "success": not failures,
        "processed": len(read),
        "succeeded": len(read) - len(failures),
        "failed": [{"path": failure.path, "error": failure.error} for failure in failures],
    }
    return json_answer(told, 422 if failures and len(failures) == len(read) else 200)


def _token(scope: Scope, call: Call) -> Response:
    return token_answer(call, scope)


def _resolve(call: Call) -> Response:
    file = Bucket(call.repository).file(call.parameter("path"))
    headers = {
        "ETag": f'"{file.file}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": content_disposition(file.path),
        "Content-Type": file.content_type or "application/octet-stream",
        "Last-Modified": format_datetime(_time_of(file.modified_ms), usegmt=True),
        "X-Linked-Etag": f'"{file.file}"',
    }
    return send_stored(call, file.file, file.size, headers)


# Values


def _bucket_json(row: RepositoryRow, totals: BucketTotals) -> dict[str, Any]:
    return {
        "_id": id_of(row.id),
        "id": row.name.id,
        "author": row.name.owner,
        "private": row.is_private,
        "visibility": row.visibility,
        "createdAt": date_of(row.created_at),
        "updatedAt": date_of(row.updated_at),
        "size": totals.size,
        "totalFiles": totals.files,
    }


def _entry_json(entry: BucketFile | BucketFolder) -> dict[str, Any]:
    if isinstance(entry, BucketFolder):
        return {"type": "directory", "path": entry.path, "uploadedAt": date_of(entry.uploaded_at)}
    told = {
        "type": "file",
        "path": entry.path,
        "size": entry.size,
        "xetHash": str(entry.file),
        "mtime": _time_of(entry.modified_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "uploadedAt": date_of(entry.uploaded_at),
    }
    return told if entry.content_type is None else told | {"contentType": entry.content_type}


def _operation(line: bytes, number: int) -> Operation | Failure:
    """The operation of a line, or the reason why it is none that could be done. UsageError for what is no line."""
    try:
        read = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UsageError(f"line {number} of the batch: {str(error)[:300]}") from None
    if isinstance(read, _Delete):
        return DropFile(read.path)
    try:
        file = Hash.ZERO if read.xet_hash == "0" * 64 else parse_hash(read.xet_hash)
        source = None
        if isinstance(read, _Copy):
            source = Kind.of_word(read.source_repo_type), read.source_repo_id
        modified_ms = None if read.mtime is None else int(read.mtime)
    except (UsageError, OverflowError, ValueError) as error:
        return Failure(read.path, str(error))
    return PutFile(read.path, file, modified_ms, read.content_type, source)


def _time_of(modified_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=modified_ms)


def _name_of_me(actor: Actor) -> str:
    return require(actor).author


def _is_account(hub: EmbeddedHub, actor: Actor, owner: str) -> bool:
    """True for the caller itself, and for every account."""
    if owner.lower() == (actor.name or "").lower():
        return True
    try:
        hub.accounts.account(owner)
    except (NotFoundError, UsageError):
        return False
    return True


_ONE: Final = "/api/buckets/{owner:text}/{name:text}"


def _handlers(methods: Iterable[str], answer: Callable[[Call], Response], right: Right) -> dict[str, Handler]:
    return dict.fromkeys(methods, on_repository(answer, right)(Kind.BUCKETS))


def _taking(
    answer: Callable[[Call, bytes], Response], right: Right, *, most: int = SMALL_BODY_BYTES, writes: bool = False
) -> Handler:
    return on_repository_with_body(answer, right, most=most, writes=writes)(Kind.BUCKETS)


_READS: Final = ("GET", "HEAD")
_TREE: Final = _handlers(_READS, _tree, Right.READ)

ROUTES: Final = (
    Route("/api/buckets/{owner:text}", {"GET": _list, "DELETE": find_nothing}),
    Route(
        _ONE,
        {
            **_handlers(_READS, _info, Right.SEE),
            "POST": _create,
            "DELETE": _taking(_delete, Right.ADMIN, writes=True),
        },
    ),
    Route(f"{_ONE}/settings", {"PUT": _taking(_settings, Right.ADMIN, writes=True)}),
    Route(f"{_ONE}/tree", _TREE),
    Route(f"{_ONE}/tree/{{path:folder}}", _TREE),
    Route(f"{_ONE}/paths-info", {"POST": _taking(_paths_info, Right.READ, most=LONG_BODY_BYTES)}),
    Route(f"{_ONE}/batch", {"POST": _taking(_batch, Right.WRITE, most=LONG_BODY_BYTES, writes=True)}),
    Route(f"{_ONE}/xet-read-token", _handlers(["GET"], partial(_token, Scope.READ), Right.READ)),
    Route(f"{_ONE}/xet-write-token", _handlers(["GET"], partial(_token, Scope.WRITE), Right.WRITE)),
    Route("/buckets/{owner:text}/{name:text}/resolve/{path:path}", _handlers(_READS, _resolve, Right.READ)),
)
