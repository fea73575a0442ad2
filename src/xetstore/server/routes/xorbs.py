"""Xorbs: POST takes one in, GET and HEAD give its bytes for a signed URL or, at the edge, for a grant."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response

from xetstore.access.tokens import Scope
from xetstore.blobs.layers import upload_bytes
from xetstore.cas.layout import parse_object_name
from xetstore.errors import ForbiddenError, NotFoundError, UnauthenticatedError, UsageError, XetError
from xetstore.protocol.headers import SUSPECT_HEADER
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo
from xetstore.server.http.bodies import declared_bytes
from xetstore.server.http.ranges import Framing, RangeSpec, parse_range, resolve
from xetstore.server.http.receiving import memory_of_body, receive_body
from xetstore.server.http.sending import FramedStream, SentStream
from xetstore.server.site import Site, holders_of, parse_hash, site_of
from xetstore.server.threads import in_asking_thread, in_commit_thread, in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.stored_xorb import StoredXorb
    from xetstore.protocol.hashes import Hash

MAX_BODY_BYTES: Final = XET_GEARHASH_BLAKE3.max_xorb_body_bytes + XorbInfo.footer_bytes(
    XET_GEARHASH_BLAKE3.max_xorb_chunks
)
"""The longest xorb there can be, with the footer that some clients send."""

_ETAG: Final = re.compile(r'(?:W/)?"([!#-~]*)"')


# Uploads


async def post_xorb(request: Request) -> Response:
    """POST /v1/xorbs/{prefix}/{hash}: take in a xorb, verified while it comes; durable when it is answered (11.5)."""
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.WRITE))
    xorb = parse_hash(request.path_params["hash"])
    holders = holders_of(request)
    async with site.limits.receiving.reserve(memory_of_body(request) + _memory_of_object(request, cas), holders):
        receiver = await in_asking_thread(cas.receive_xorb, xorb)
        try:
            received = await receive_body(request, receiver.write, site.limits, MAX_BODY_BYTES)
            if not received:
                raise UsageError("the body is empty")
            async with site.limits.commits.reserve(1, holders):
                is_new = await in_commit_thread(receiver.commit)
        finally:
            await in_thread(receiver.close)
    site.metrics.xorb_received(received, is_new=is_new)
    return JSONResponse({"was_inserted": is_new})


def _memory_of_object(request: Request, cas: EmbeddedCas) -> int:
    """The memory of a xorb that is sent on to an object store; one in a directory is on its disk."""
    most, declared = upload_bytes(cas.blobs), declared_bytes(request)
    return most if declared is None else min(declared, most)


async def xorb_grant(request: Request) -> Response:  # noqa: ARG001  # a handler's signature
    """POST /v1/xorb-grants/{prefix}/{hash}: 404, by which the reference client knows that it has to POST the xorb."""
    raise NotFoundError("this server takes xorbs by POST only")


# Downloads


async def get_xorb(request: Request) -> Response:
    """GET and HEAD /v1/xorbs/{prefix}/{hash}: byte ranges of a xorb by a signed URL, or by a token at the edge.

    HEAD with a token alone gives the size. Otherwise a Range is needed, and all of it must be allowed.
    """
    site = site_of(request)
    named = _parse_object(request.path_params["hash"])
    query = request.scope["query_string"].decode("latin-1")
    demand = _Demand(request.method, request.scope["path"], query, _range_of(request, named.text))
    if demand.method == "HEAD" and not (demand.specs if _at_edge(site) else demand.query):
        return await _head_xorb(request, named.xorb)
    permit = await _permit(site, request, named, demand)
    remaining = max(int(permit.expires_at - site.clock()), 0)
    etag = f'"{named.text}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"public, immutable, max-age={remaining}",  # 14.6.1: no longer than the URL is valid
        "Expires": formatdate(permit.expires_at, usegmt=True),
        "X-Content-Type-Options": "nosniff",
    }
    if _is_unchanged(request, named.text):
        return Response(status_code=304, headers=headers)
    framing = Framing(permit.ranges, permit.stored.size, secrets.token_hex(16))
    headers |= framing.headers()
    if demand.method == "HEAD":
        return Response(status_code=206, headers=headers)
    return SentStream(
        FramedStream(framing.parts(), permit.stored.checked()),
        status_code=206,
        headers=headers,
        limits=site.limits,
        holders=holders_of(request),
        on_sent=site.metrics.xorb_served,
    )


async def authorize_xorb(request: Request) -> Response:
    """GET /v1/auth/xorb: whether a proxy may serve what it was asked for; for `auth_request` of nginx.

    The request in question is in X-Original-Method, X-Original-URI, Range and Authorization. 204 if it is allowed;
    401 or 403 if not, whatever the reason, for nginx knows no other. The proxy serves the stored object, which is
    longer than what clients may see of it: so every range has to be written out and to end where data does.
    """
    site = site_of(request)
    try:
        sent_path, _, query = request.headers.get("x-original-uri", "").partition("?")
        path, route, parameters = request.app.routes.resolve(sent_path.encode("latin-1"))
        method = request.headers.get("x-original-method", "")
        if method not in ("GET", "HEAD") or route.handlers.get(method) is not get_xorb:
            raise ForbiddenError("this does not read a xorb")
        named = _parse_object(parameters["hash"])
        demand = _Demand(method, path, query, _range_of(request, named.text))
        permit = await _permit(site, request, named, demand)
        if any(spec.first is None or spec.last is None or spec.last >= permit.stored.size for spec in demand.specs):
            raise ForbiddenError("the range is not written out, or ends behind the data")
    except UnauthenticatedError:
        raise
    except XetError as error:
        if error.http_status >= 500 or error.retryable:
            raise
        raise ForbiddenError(str(error)) from error
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True)
class _Demand:
    """The demand of a request for bytes. ``specs`` is empty if it has no Range, or one that is malformed."""

    method: str
    path: str
    query: str
    specs: tuple[RangeSpec, ...]


@dataclass(frozen=True, slots=True)
class _Object:
    """A stored object as URLs name it: of a xorb that was stored anew there are several, each of another length."""

    text: str
    xorb: Hash
    generation: str


@dataclass(frozen=True, slots=True)
class _Permit:
    """``[start, end)`` of each range of a xorb that may be sent, until ``expires_at``."""

    stored: StoredXorb
    ranges: tuple[tuple[int, int], ...]
    expires_at: int


async def _permit(site: Site, request: Request, named: _Object, demand: _Demand) -> _Permit:
    """The bytes that a request may read. Raises ForbiddenError, or NotFoundError at the edge, for more than that."""
    if _at_edge(site):
        cas = site.cas_for(site.caller(request, Scope.READ))
        return await in_asking_thread(_permit_at_edge, site, cas, named, demand)
    return await in_asking_thread(_permit_signed, site, named, demand)


def _permit_signed(site: Site, named: _Object, demand: _Demand) -> _Permit:
    if not demand.query:
        raise ForbiddenError("a signature is missing", hint="ask for a reconstruction: its URLs are signed")
    grant = site.signer.verify(demand.method, demand.path, demand.query)
    stored = site.cas.granted_xorb(named.xorb, named.generation)
    ranges = _resolve(demand, stored.size)
    if not all(grant.covers(start, end) for start, end in ranges):
        raise ForbiddenError("the URL is not signed for these bytes")
    return _Permit(stored, ranges, grant.expires_at)


def _permit_at_edge(site: Site, cas: EmbeddedCas, named: _Object, demand: _Demand) -> _Permit:
    xorb = named.xorb
    stored = cas.stored_xorb(xorb)
    _require_current(stored, named)
    ranges = _resolve(demand, stored.size)
    if not cas.may_read(xorb, ranges):
        raise NotFoundError(f"there is no xorb {xorb}")  # the words for one that is not stored
    return _Permit(stored, ranges, int(site.clock()) + site.settings.url_ttl_seconds)


def _require_current(stored: StoredXorb, named: _Object) -> None:
    """403, at which clients ask for a new reconstruction: byte ranges of another object are nothing to this one."""
    if stored.generation != named.generation:
        raise ForbiddenError("the xorb was stored anew since the URL was made", hint="ask for a new reconstruction")


def _parse_object(text: str) -> _Object:
    parsed = parse_object_name(text)
    return _Object(text, *parsed) if parsed is not None else _Object(text, parse_hash(text), "")


def _resolve(demand: _Demand, size: int) -> tuple[tuple[int, int], ...]:
    if not demand.specs:
        raise ForbiddenError("a Range is missing: the ranges of a reconstruction can be read, not the whole xorb")
    return resolve(demand.specs, size)


async def _head_xorb(request: Request, xorb: Hash) -> Response:
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    if request.headers.get(SUSPECT_HEADER, "").lower() == "true":
        await site.suspects.look(cas, xorb)
    size = (await in_asking_thread(cas.stored_xorb, xorb)).size
    headers = {
        "Content-Length": str(size),
        "Content-Type": "application/octet-stream",
        "ETag": f'"{xorb}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
    }
    return Response(headers=headers)


def _at_edge(site: Site) -> bool:
    return site.settings.xorb_urls == "edge"


def _range_of(request: Request, tag: str) -> tuple[RangeSpec, ...]:
    headers = request.headers.getlist("range")
    # Of another version no range is wanted (RFC 9110, 13.1.5).
    if len(headers) != 1 or request.headers.get("if-range", f'"{tag}"') != f'"{tag}"':
        return ()
    return parse_range(headers[0]) or ()


def _is_unchanged(request: Request, tag: str) -> bool:
    """True if the client has it already: by If-None-Match, which compares weakly (RFC 9110, 13.1.2)."""
    listed = ",".join(request.headers.getlist("if-none-match")).strip()
    return listed == "*" or tag in _ETAG.findall(listed)
