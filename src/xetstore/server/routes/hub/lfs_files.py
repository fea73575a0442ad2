"""The large files of a repository: listed, whatever ref has them, and deleted for good."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import TooLargeError, UnprocessableError, UsageError
from xetstore.hub.lfs_files import MAX_FILES, LargeFile, delete_large_files, list_large_files
from xetstore.hub.names import HEADS, Kind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.answers import date_of, json_answer, next_link, without_none
from xetstore.server.routes.hub.handling import (
    Call,
    api_path,
    decoded,
    of_each_kind,
    on_repository,
    on_repository_with_body,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY_BYTES: Final = 256 << 10
_OID: Final = re.compile(r"[0-9a-f]{64}")


class _Deletions(msgspec.Struct, rename="camel"):
    sha: list[str]
    rewrite_history: bool = True


class _Batch(msgspec.Struct):
    deletions: _Deletions


def _list(call: Call) -> Response:
    """GET …/lfs-files: cursor, limit."""
    limit = whole_number(call.query("limit"), MAX_FILES, most=MAX_FILES)
    cursor = call.query("cursor") or ""
    if cursor and not _OID.fullmatch(cursor):
        raise UsageError("the cursor is that of another listing")
    page = list_large_files(call.repository, after=bytes.fromhex(cursor), limit=limit)
    headers = {}
    if len(page) == limit:
        headers["Link"] = next_link(call.request, call.base, cursor=page[-1].pointed.sha256.hex())
    return json_answer([_described(call, each) for each in page], headers=headers)


def _described(call: Call, each: LargeFile) -> dict[str, Any]:
    revision, pointed = each.revision, each.pointed
    return without_none(
        {
            "fileOid": pointed.sha256.hex(),
            "oid": pointed.oid.hex(),
            "filename": each.path,
            "size": pointed.size,
            "xetHash": str(pointed.file),
            "ref": each.ref.removeprefix(HEADS) or None,
            "pushedAt": date_of(call.repository.row.created_at if revision is None else revision.created_at),
            "pusher": None if revision is None else {"type": "user", "name": revision.author},
        }
    )


def _delete(call: Call, body: bytes) -> Response:
    """POST …/lfs-files/batch."""
    deletions = decoded(body, _Batch).deletions
    if len(deletions.sha) > MAX_FILES:
        raise TooLargeError(f"at most {MAX_FILES} files are deleted at once, not {len(deletions.sha)}")
    if not all(map(_OID.fullmatch, deletions.sha)):
        raise UnprocessableError("an oid is 64 lower-case hexadecimal digits")
    digests = {bytes.fromhex(oid) for oid in deletions.sha}
    delete_large_files(call.repository, digests, rewrite_history=deletions.rewrite_history)
    return json_answer({"success": True})


def _of(kind: Kind) -> Iterator[Route]:
    path = f"{api_path(kind)}/lfs-files"
    yield Route(path, {"GET": on_repository(_list, Right.READ)(kind)})
    delete = on_repository_with_body(_delete, Right.WRITE, most=BODY_BYTES, writes=True)
    yield Route(f"{path}/batch", {"POST": delete(kind)})


ROUTES: Final = of_each_kind(_of)
