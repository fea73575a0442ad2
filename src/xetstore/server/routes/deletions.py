"""Files of the caller's namespace: a list of them; those that leave it and are given back, and a list of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.cas.deleting import deleted_page
from xetstore.errors import UsageError
from xetstore.protocol.hashes import Hash
from xetstore.server.http.bodies import read_body
from xetstore.server.site import Site, holders_of, parse_hash, site_of
from xetstore.server.threads import in_asking_thread, in_commit_thread, in_search_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import DeletedFile, FileRecord

MAX_FILES: Final = 1000
"""The most files of one call, and of one page."""
MAX_BODY_BYTES: Final = 128 << 10

PREFIX: Final = "^[0-9a-f]{6,64}$"
_PLACE: Final = re.compile(r"([0-9]{1,15}\.[0-9]{1,15})-([0-9a-f]{64})")

T = TypeVar("T")


# A word that is not known may mean "do not": it is refused.
class _Files(msgspec.Struct, forbid_unknown_fields=True):
    files: list[str]


class _FilesToDelete(_Files, forbid_unknown_fields=True):
    dry_run: bool = False


F = TypeVar("F", bound=_Files)


async def list_files(request: Request) -> Response:
    """GET /v1/files: the files of the namespace; ``next`` is where the next page begins. With ``prefix`` those whose
    hashes begin with these digits, on one page.

    It takes a token for writing, because it tells of uploads that nothing names yet.
    """
    _, cas = _writer(request)
    limit, after = _limit_of(request), request.query_params.get("after")
    place = None if after is None else parse_hash(after)
    prefix = request.query_params.get("prefix", "")
    if prefix and not re.fullmatch(PREFIX[1:-1], prefix):
        raise UsageError("prefix is the first digits of a hash", hint="between 6 and 64 small hexadecimal digits")
    look = in_search_thread if prefix else in_asking_thread
    records = (await look(cas.files_page, place, prefix))[:limit]
    files = [{"hash": str(record.hash), "size": record.size, "sha256": record.sha256} for record in records]
    return _json({"files": files, "next": str(records[-1].hash) if len(records) == limit and not prefix else None})


async def delete_file(request: Request) -> Response:
    """DELETE /v1/files/{hash}: take a file out of the caller's namespace; what is deleted already stays so."""
    site, cas = _writer(request)
    file = parse_hash(request.path_params["hash"])
    [record] = await _commit(request, site, cas.delete, [file])
    return _json(_deleted(record))


async def undelete_file(request: Request) -> Response:
    """POST /v1/files/{hash}/undelete: give a deleted file back."""
    site, cas = _writer(request)
    file = parse_hash(request.path_params["hash"])
    [record] = await _commit(request, site, cas.undelete, [file])
    return _json(_file(record))


async def delete_files(request: Request) -> Response:
    """POST /v1/files/delete: the same for a list; with ``dry_run`` nothing is deleted."""
    site, cas = _writer(request)
    asked = await _read(request, site, _FilesToDelete)
    files = _hashes(asked)
    if asked.dry_run:
        records = await in_asking_thread(lambda: cas.delete(files, dry_run=True))
    else:
        records = await _commit(request, site, cas.delete, files)
    return _json({"files": [_deleted(record) for record in records]})


async def undelete_files(request: Request) -> Response:
    """POST /v1/files/undelete: the same for a list."""
    site, cas = _writer(request)
    files = _hashes(await _read(request, site, _Files))
    records = await _commit(request, site, cas.undelete, files)
    return _json({"files": [_file(record) for record in records]})


async def list_deleted(request: Request) -> Response:
    """GET /v1/files/deleted: what can be given back, the last one first; ``next`` is where the next page begins."""
    _, cas = _writer(request)
    limit, after = _limit_of(request), _place_of(request)
    records = await in_asking_thread(deleted_page, cas, after, limit)
    last = f"{records[-1].deleted_at!r}-{records[-1].hash}" if len(records) == limit else None
    return _json({"files": [_deleted(record) for record in records], "next": last})


def _writer(request: Request) -> tuple[Site, EmbeddedCas]:
    site = site_of(request)
    return site, site.cas_for(site.caller(request, Scope.WRITE))


async def _commit(request: Request, site: Site, work: Callable[[Sequence[Hash]], T], files: Sequence[Hash]) -> T:
    async with site.limits.commits.reserve(1, holders_of(request)):
        return await in_commit_thread(work, files)


async def _read(request: Request, site: Site, kind: type[F]) -> F:
    async with site.limits.receiving.reserve(MAX_BODY_BYTES, holders_of(request)):
        body = await read_body(request, site.limits, MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UsageError('the body is not JSON of the form {"files": [HASH, …]}') from None


def _hashes(asked: _Files) -> list[Hash]:
    files = list(dict.fromkeys(map(parse_hash, asked.files)))
    if not 0 < len(files) <= MAX_FILES:
        raise UsageError(f"between 1 and {MAX_FILES} files can be named at once, not {len(files)}")
    return files


def _limit_of(request: Request) -> int:
    text = request.query_params.get("limit", str(MAX_FILES))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
        raise UsageError("limit is the number of files of a page", hint=f"at most {MAX_FILES}")
    return min(int(text), MAX_FILES)


def _place_of(request: Request) -> tuple[float, Hash] | None:
    text = request.query_params.get("after")
    if text is None:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError("after is no place in this list", hint="it is what the page before has as `next`")
    return float(found[1]), Hash.parse(found[2])


def _deleted(record: DeletedFile) -> dict[str, Any]:
    times = {"deleted_at": record.deleted_at, "until": record.until}
    return {"hash": str(record.hash), "size": record.size, **times}


def _file(record: FileRecord) -> dict[str, Any]:
    return {"hash": str(record.hash), "size": record.size}


def _json(values: dict[str, Any]) -> Response:
    headers = {"Cache-Control": "private, no-store"}
    return Response(msgspec.json.encode(values), headers=headers, media_type="application/json")
