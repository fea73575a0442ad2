"""Plain LFS: large files by their SHA-256, for clients that do not speak Xet, or not now.

A batch tells for each object where its bytes go, or come from, by URLs that are signed: clients send no token there.
All that is claimed is in the path of such a URL. Bytes are stored as they come in, as those of every upload.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.blobs.layers import upload_bytes
from xetstore.cas.quotas import require_room
from xetstore.errors import (
    NotFoundError,
    QuotaExceededError,
    RepositoryNotFoundError,
    TooLargeError,
    UnprocessableError,
    UsageError,
    XetError,
)
from xetstore.hub.arrivals import BLOCK_BYTES, MEMORY_BYTES, SIZES, Arrival, Arrived
from xetstore.hub.lfs import WINDOW_BYTES, LargeFiles
from xetstore.hub.names import Kind
from xetstore.hub.rights import Right, require_proposer
from xetstore.server.http.bodies import declared_bytes
from xetstore.server.http.receiving import memory_of_body, receive_body
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.handling import (
    Call,
    committing,
    decoded,
    hub_of,
    of_each_kind,
    on_repository_with_body,
    page_prefix,
    take_body,
)
from xetstore.server.routes.hub.sending import send_file
from xetstore.server.routes.hub.xet_tokens import issue
from xetstore.server.site import holders_of, site_of
from xetstore.server.threads import in_asking_thread, in_commit_thread, in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.hub.repository import Repository
    from xetstore.records import FileRecord
    from xetstore.server.site import Site

MEDIA_TYPE: Final = "application/vnd.git-lfs+json"
UPLOAD_SECONDS: Final = 86400
"""The life of a URL that takes bytes of one SHA-256: a long upload, whose URLs are all made at its start."""
DOWNLOAD_SECONDS: Final = 3600
"""The life of a URL that gives bytes."""
MAX_OBJECTS: Final = 1000
"""Objects of one batch. Clients send 100 or 256."""
MAX_PARTS: Final = 1000
"""Parts of one file, each of which has a URL in the answer. Of a very long file they are longer."""
MAX_PARTS_OF_BATCH: Final = 10_000
"""Parts of all files of a batch, but for the last one of each: some 3 MB of URLs."""
MAX_OBJECT_BYTES: Final = 5 << 40
"""The longest file that comes by LFS."""
BATCH_BYTES: Final = 256 << 10
COMPLETION_BYTES: Final = 256 << 10

_OID: Final = re.compile(r"[0-9a-f]{64}")


# A batch


class _Object(msgspec.Struct):
    oid: str
    size: int


class _Batch(msgspec.Struct):
    operation: str
    objects: list[_Object]
    transfers: list[str] | None = None
    hash_algo: str | None = None


_ObjectAnswer = dict[str, Any]


def _batch(call: Call, body: bytes) -> Response:
    """POST …/info/lfs/objects/batch."""
    asked = decoded(body, _Batch)
    if asked.hash_algo not in (None, "sha256", "sha_256"):
        raise UnprocessableError(f"{asked.hash_algo[:40]!r} is no hash that objects have here", hint="sha256 is")
    if len(asked.objects) > MAX_OBJECTS:
        raise TooLargeError(f"a batch has at most {MAX_OBJECTS} objects, not {len(asked.objects)}")
    if asked.operation == "download":
        call.repository.require(Right.READ)
        transfer, objects = "basic", _downloads(call, asked.objects)
    elif asked.operation == "upload":
        _require_upload(call.repository)
        transfer, objects = _uploads(call, asked)
    else:
        raise UnprocessableError(f"{asked.operation[:40]!r} is no operation", hint="upload and download are")
    return lfs_answer({"transfer": transfer, "objects": objects, "hash_algo": "sha256"})


def _require_upload(repository: Repository) -> None:
    """Raise unless the caller may write, or open a pull request: its files come before the commit."""
    if not repository.actor.may_propose:
        repository.require(Right.WRITE)
    require_proposer(repository.actor)
    repository.require(Right.READ)


def _downloads(call: Call, asked: Sequence[_Object]) -> list[_ObjectAnswer]:
    files = LargeFiles(call.repository.hub, call.repository.row)
    found = files.find(_digests(asked))
    answers = []
    for each in asked:
        answer, error = _checked(each)
        record = None if error is not None else found.get(bytes.fromhex(each.oid))
        if error is None and (record is None or record.size != each.size):
            error = NotFoundError(f"there is no object {each.oid} of {each.size} bytes")
        if error is None:
            action = _Signed(call.site, call.repository.row.id, each).action(call.base, "GET", "", DOWNLOAD_SECONDS)
            answer["actions"] = {"download": action}
        answers.append(_finished(answer, error))
    return answers


def _uploads(call: Call, asked: _Batch) -> tuple[str, list[_ObjectAnswer]]:
    files = LargeFiles(call.repository.hub, call.repository.row)
    found = files.find(_digests(asked.objects))
    files.sweep()
    transfer = next((name for name in ("xet", "multipart") if name in (asked.transfers or ())), "basic")
    xet = _xet_action(call) if transfer == "xet" else None
    total = sum(min(each.size, MAX_OBJECT_BYTES) for each in asked.objects if each.size > 0)
    least = max(call.site.settings.lfs_part_bytes, -(-total // MAX_PARTS_OF_BATCH)) if transfer == "multipart" else None
    answers = []
    refusal = _refusal(call, {each.oid: each.size for each in asked.objects if _is_lacking(each, found)})
    for each in asked.objects:
        answer, error = _checked(each)
        record = None if error is not None else found.get(bytes.fromhex(each.oid))
        if error is None and record is None:
            error = refusal
        if record is not None and record.size != each.size:
            error = UnprocessableError(f"the object {each.oid} has {record.size} bytes, not {each.size}")
        if error is None and record is None:
            signed = _Signed(call.site, call.repository.row.id, each)
            answer["actions"] = {"upload": xet} if xet else _upload_actions(call, signed, least)
        answers.append(_finished(answer, error))
    return transfer, answers


def _is_lacking(each: _Object, found: Mapping[bytes, FileRecord]) -> bool:
    return _checked(each)[1] is None and bytes.fromhex(each.oid) not in found


def _refusal(call: Call, sizes: Mapping[str, int]) -> QuotaExceededError | None:
    """The error of each of these objects, which are new, if the repository may not have all of them."""
    try:
        if sizes:
            require_room(call.repository.cas.index, call.repository.row.namespace, [*sizes.values()], are_new=True)
    except QuotaExceededError as error:
        return error
    return None


def _upload_actions(call: Call, signed: _Signed, least: int | None) -> dict[str, Any]:
    """The way of an object to its repository: in parts of at least ``least`` bytes, or whole."""
    verify = signed.action(call.base, "POST", "/verify", UPLOAD_SECONDS)
    part_bytes = signed.size if least is None else _part_bytes(least, signed.size)
    if signed.size <= part_bytes:
        return {"upload": signed.action(call.base, "PUT", "", UPLOAD_SECONDS), "verify": verify}
    whole = f"/parts/{part_bytes}"
    upload = signed.action(call.base, "POST", whole, UPLOAD_SECONDS)
    upload["header"] = {"chunk_size": str(part_bytes)}
    for number in range(1, -(-signed.size // part_bytes) + 1):
        upload["header"][f"{number:05}"] = signed.url(call.base, "PUT", f"{whole}/{number}", UPLOAD_SECONDS)
    return {"upload": upload, "verify": verify}


def _xet_action(call: Call) -> dict[str, Any]:
    """The way to the CAS, for clients that upload by Xet once they are told to."""
    repository = call.repository
    token, ends_at = issue(call.site, repository, Scope.WRITE)
    proposal = "" if repository.right >= Right.WRITE else "?create_pr=1"
    return {
        "href": f"{call.base}/api/{repository.name.kind}/{repository.name.id}/xet-write-token/main{proposal}",
        "header": {
            "X-Xet-Cas-Url": call.site.cas_url(call.request),
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(ends_at),
            "X-Xet-Session-Id": secrets.token_hex(16),
        },
    }


def _part_bytes(least: int, size: int) -> int:
    """The length of a part of a file of ``size`` bytes.

    >>> _part_bytes(64, 1000), _part_bytes(64, 100_000)
    (64, 100)
    """
    return max(least, -(-size // MAX_PARTS))


def _digests(asked: Sequence[_Object]) -> Iterator[bytes]:
    return (bytes.fromhex(each.oid) for each in asked if _OID.fullmatch(each.oid))


def _checked(each: _Object) -> tuple[_ObjectAnswer, XetError | None]:
    answer: _ObjectAnswer = {"oid": each.oid, "size": each.size}
    if not _OID.fullmatch(each.oid):
        return answer, UnprocessableError("an oid is 64 lower-case hexadecimal digits")
    if each.size < 0:
        return answer, UnprocessableError("a size is a number of bytes")
    if each.size > MAX_OBJECT_BYTES:
        return answer, TooLargeError(f"an object has at most {MAX_OBJECT_BYTES} bytes, not {each.size}")
    return answer, None


def _finished(answer: _ObjectAnswer, error: XetError | None) -> _ObjectAnswer:
    if error is not None:
        return answer | {"error": {"code": error.http_status, "message": str(error)}}
    return answer | {"authenticated": True}


def lfs_answer(value: object) -> Response:
    """JSON as git-lfs has it."""
    return Response(msgspec.json.encode(value), headers={"Cache-Control": "no-store"}, media_type=MEDIA_TYPE)


# Signed URLs


class _Signed:
    """URLs for one object of one repository: what they allow is in their path, and signed."""

    def __init__(self, site: Site, repository_id: int, each: _Object) -> None:
        self._site = site
        self._path = f"/api/lfs/{repository_id}/{each.oid}/{each.size}"
        self.size = each.size

    def url(self, base: str, method: str, rest: str, seconds: int) -> str:
        path = self._path + rest
        query = self._site.signer.sign_call(method, path, expires_at=int(self._site.clock()) + seconds)
        return f"{base}{path}?{query}"

    def action(self, base: str, method: str, rest: str, seconds: int) -> dict[str, Any]:
        return {"href": self.url(base, method, rest, seconds), "expires_in": seconds}


@dataclass(frozen=True, slots=True)
class _Claim:
    """The object that a signed URL is for, and the repository, which is still there."""

    files: LargeFiles
    namespace: str
    sha256: bytes
    size: int

    def holders(self, request: Request) -> tuple[str, ...]:
        """The holders of what its body takes of a budget."""
        return (*holders_of(request), f"namespace {self.namespace}")


async def _claim(request: Request) -> _Claim:
    """The claim of a signed URL. Raises ForbiddenError, and RepositoryNotFoundError once its repository is gone."""
    site, hub = site_of(request), hub_of(request)
    request.scope["state"]["is_anonymous"] = False  # it needs no token, so none is asked for by a 401
    method = "GET" if request.method == "HEAD" else request.method
    site.signer.verify_call(method, request.scope["path"], request.scope["query_string"].decode("latin-1"))
    # It is a path of ours, because it is signed.
    repository_id, size = int(request.path_params["repository"]), int(request.path_params["size"])

    def find() -> _Claim:
        with hub.snapshot() as reader:
            row = reader.repository_by_id(repository_id)
        if row is None:
            raise RepositoryNotFoundError
        return _Claim(LargeFiles(hub, row), row.namespace, bytes.fromhex(request.path_params["oid"]), size)

    return await in_asking_thread(find)


# Bytes


async def put_object(request: Request) -> Response:
    """PUT /api/lfs/{repository}/{oid}/{size}: a whole object, durable when it is answered."""
    claim = await _claim(request)
    await _arrive(request, claim, claim.size, claim.sha256)
    return lfs_answer({})


async def put_part(request: Request) -> Response:
    """PUT …/parts/{part_bytes}/{number}: a part, in place of one of its number; its ETag is asked for at the end."""
    claim = await _claim(request)
    part_bytes, number = int(request.path_params["part_bytes"]), int(request.path_params["number"])
    size = min(part_bytes, claim.size - (number - 1) * part_bytes)
    arrived = await _arrive(request, claim, size)
    tag = await committing(request, claim.files.put_part, claim.sha256, number, arrived)
    return Response(headers={"ETag": f'"{tag}"', "Cache-Control": "no-store"})


async def complete(request: Request) -> Response:
    """POST …/parts/{part_bytes}: the object is put together of its parts. May be repeated."""
    claim = await _claim(request)
    site, holders = site_of(request), claim.holders(request)
    async with AsyncExitStack() as until_read:
        tags = _tags(await take_body(request, COMPLETION_BYTES, until_read), claim.sha256)
    memory = MEMORY_BYTES + 4 * WINDOW_BYTES
    async with site.limits.commits.reserve(1, holders), site.limits.committing.reserve(memory, holders):
        await in_commit_thread(claim.files.complete, claim.sha256, claim.size, tags)
    return lfs_answer({"success": True})


async def verify(request: Request) -> Response:
    """POST …/verify: 200 if the object is there."""
    claim = await _claim(request)
    found = await in_asking_thread(claim.files.find, [claim.sha256])
    if claim.sha256 not in found or found[claim.sha256].size != claim.size:
        raise NotFoundError(f"there is no object {claim.sha256.hex()} of {claim.size} bytes")
    return lfs_answer({})


async def get_object(request: Request) -> Response:
    """GET and HEAD /api/lfs/{repository}/{oid}/{size}: the bytes of an object, whole or in ranges."""
    claim = await _claim(request)
    found = await in_asking_thread(claim.files.find, [claim.sha256])
    record = found.get(claim.sha256)
    if record is None:
        raise NotFoundError(f"there is no object {claim.sha256.hex()}")
    # The URL is a secret for as long as it is signed for, and no longer: no shared cache keeps what it gives.
    headers = {"ETag": f'"{claim.sha256.hex()}"', "Cache-Control": "private, no-cache"}
    return send_file(request, claim.files.cas, record.hash, record.size, headers)


async def _arrive(request: Request, claim: _Claim, size: int, sha256: bytes | None = None) -> Arrived:
    """Store the body, of ``size`` bytes, as it comes in. Of one that is not whole, or another, nothing is kept."""
    site, holders = site_of(request), claim.holders(request)
    declared = declared_bytes(request)
    if declared is not None and declared < size:
        raise UsageError(f"the body has {declared} bytes, not the {size} of the object")
    memory = memory_of_body(request) + min(MEMORY_BYTES, 3 * size + BLOCK_BYTES)
    memory += min(upload_bytes(claim.files.cas.blobs), SIZES.xorb_bytes, size)
    async with site.limits.receiving.reserve(memory, holders):
        arrival = await in_thread(Arrival, claim.files.cas, size)
        try:
            await receive_body(request, arrival.write, site.limits, size)
            async with site.limits.commits.reserve(1, holders):
                return await in_commit_thread(arrival.finish, sha256)
        finally:
            await in_thread(arrival.close)


class _PartTag(msgspec.Struct):
    partNumber: int  # noqa: N815  # of the protocol
    etag: str


class _Completion(msgspec.Struct):
    parts: list[_PartTag]
    oid: str | None = None


def _tags(body: bytes, sha256: bytes) -> dict[int, str]:
    """The tag of each part, by number. Raises UnprocessableError where one is named twice."""
    told = decoded(body, _Completion)
    if told.oid not in (None, sha256.hex()):
        raise UnprocessableError("the parts are those of another object")
    tags = {part.partNumber: part.etag.strip('"') for part in told.parts}
    if len(tags) != len(told.parts) or not all(0 < number <= MAX_PARTS for number in tags):
        raise UnprocessableError("each part is named once, by its number from 1 on")
    return tags


def _of(kind: Kind) -> Iterator[Route]:
    handler = {"POST": on_repository_with_body(_batch, most=BATCH_BYTES)(kind)}
    prefix = page_prefix(kind)
    for name in ("{name:text}", "{name}.git"):
        yield Route(f"{prefix}/{{owner:text}}/{name}/info/lfs/objects/batch", handler)


_OBJECT: Final = "/api/lfs/{repository}/{oid}/{size}"
ROUTES: Final = (
    *of_each_kind(_of),
    Route(_OBJECT, {"GET": get_object, "HEAD": get_object, "PUT": put_object}),
    Route(f"{_OBJECT}/verify", {"POST": verify}),
    Route(f"{_OBJECT}/parts/{{part_bytes}}", {"POST": complete}),
    Route(f"{_OBJECT}/parts/{{part_bytes}}/{{number}}", {"PUT": put_part}),
)
