"""Global deduplication queries: which xorbs a client may use that has a chunk, or several (10.3, 11.4)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.errors import TooLargeError, UnavailableError, UsageError, XetError
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.headers import QUERIES_HEADER, SESSION_HEADER
from xetstore.protocol.suite import HASH_BYTES
from xetstore.server.http.bodies import read_body
from xetstore.server.http.problems import UnknownChunkError
from xetstore.server.http.router import Miss
from xetstore.server.routes.answers import SMALL_BYTES, LargeAnswer
from xetstore.server.site import Site, holders_of, parse_hash, site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.answers import Offer
    from xetstore.cas.service import EmbeddedCas

CHUNK_BYTES: Final = 160
"""Memory that an answer takes for each chunk in it: its footer, its keyed hash, its record, and the whole of these."""

ASKED_BYTES: Final = 1300
"""Memory for each of several chunks while it is looked for, measured where four xorbs hold each."""

RULE: Final = f"modulus={INDEXED_CHUNKS.modulus}, most={MANY_CHUNKS}"
"""Which chunks can be found, and how many can be asked for at once, as our client reads it."""

_HEADERS: Final = {"Vary": "Authorization", "X-Content-Type-Options": "nosniff", QUERIES_HEADER: RULE}
_log = logging.getLogger(__name__)


async def get_chunk(request: Request) -> Response:
    """GET /v1/chunks/{prefix}/{hash}: a shard of keyed hashes with its footer, or 404.

    A query can only save work. A 200 that is not a whole shard makes the reference client's upload fail, a 5xx makes
    it wait for minutes: so whatever goes wrong in here is a 404.
    """
    site = site_of(request)
    caller = site.caller(request, Scope.READ)
    chunk = parse_hash(request.path_params["hash"])
    is_first = caller.scope >= Scope.WRITE and site.first_queries.take(caller.namespace, _session(request))
    query = _Query(site, site.cas_for(caller), (chunk,), _unknown(request), is_plain=True, is_first=is_first)
    return await query.answer(request)


async def post_chunks(request: Request) -> Response:
    """POST /v1/chunks: one such shard for several chunks, whose hashes are the body, 32 bytes each; or 204.

    The xorbs that hold them come first, in the order in which the chunks are named.
    """
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    chunks = await _asked(request)
    nothing = Response(status_code=204, headers=_HEADERS | {"Cache-Control": "no-store"})
    try:
        async with site.limits.reading.reserve(len(chunks) * ASKED_BYTES, holders_of(request)):
            return await _Query(site, cas, chunks, nothing, is_plain=False).answer(request)
    except UnavailableError:
        return nothing


def miss_at_once(request: Request) -> Miss | None:
    """The 404 of :func:`get_chunk` for a chunk that is seen, in some microseconds, to be unknown: as nine in ten are.

    None where it may be known, where that cannot be seen at once, and for the first queries of a session. Raises what
    tells who calls, and nothing else.
    """
    site = site_of(request)
    caller = site.authenticate(request, Scope.READ)
    if site.first_queries.expects(caller.namespace, _session(request)):
        return None
    if not site.cas_for(caller).lacks_chunk(parse_hash(request.path_params["hash"])):
        return None
    return Miss(_unknown(request), caller, partial(site.metrics.dedup_answered, found=False))


@dataclass(frozen=True, slots=True)
class _Query:
    """A query for some chunks; ``otherwise`` is raised, or is the answer, where none of them is known.

    One that ``is_plain`` is the protocol's own: its answer may be kept by its client, and is in ascending order. One
    that ``is_first`` in a session, and finds nothing, is answered with what the namespace put last: the reference
    client looks for all chunks of a file in an answer, and asks for few of them.
    """

    site: Site
    cas: EmbeddedCas
    chunks: tuple[Hash, ...]
    otherwise: XetError | Response
    is_plain: bool
    is_first: bool = False

    async def answer(self, request: Request) -> Response:
        """The answer about the chunks. A short one is made at once."""
        found = await in_asking_thread(self._look)
        if isinstance(found, Response):
            return found
        return LargeAnswer(
            partial(self._answer_to, found),
            found.chunk_count * CHUNK_BYTES,
            limits=self.site.limits,
            holders=holders_of(request),
            if_busy=self.otherwise,
        )

    def _look(self) -> Response | Offer:
        try:
            offer = self.cas.find_offer(*self.chunks)
            if offer is None and self.is_first:
                offer = self.cas.recent_offer()
        except Exception:
            self._failed()
            offer = None
        if offer is not None and offer.chunk_count * CHUNK_BYTES > SMALL_BYTES:
            return offer
        return self._answer_to(offer)

    def _answer_to(self, offer: Offer | None) -> Response:
        body = None if offer is None else self._body(offer)
        known = 0 if offer is None or body is None else offer.known
        for found, count in ((True, known), (False, len(self.chunks) - known)):
            if count:
                self.site.metrics.dedup_answered(found=found, chunks=count)
        if body is not None:
            cache = "private, max-age=3600" if self.is_plain and known else "private, no-store"
            return Response(body, headers=_HEADERS | {"Cache-Control": cache}, media_type="application/octet-stream")
        if isinstance(self.otherwise, XetError):
            raise self.otherwise
        return self.otherwise

    def _body(self, offer: Offer) -> bytes | None:
        try:
            shard = self.cas.answer_with(offer)
            # Without a key the hashes would be plain, and a client that guesses one would learn its neighbours.
            return None if shard is None or shard.key is None else shard.serialize_with_footer(ascending=self.is_plain)
        except Exception:
            self._failed()
            return None

    def _failed(self) -> None:
        more = f" and {len(self.chunks) - 1} more" if len(self.chunks) > 1 else ""
        _log.exception("the query for chunk %s%s failed", self.chunks[0], more)


def _session(request: Request) -> str:
    return request.headers.get(SESSION_HEADER, "")


async def _asked(request: Request) -> tuple[Hash, ...]:
    """The chunks that a body names, each once. Raises UsageError. A body is no longer than the head of a request."""
    try:
        body = await read_body(request, site_of(request).limits, MANY_CHUNKS * HASH_BYTES)
    except TooLargeError:
        body = bytearray()
    if not body or len(body) % HASH_BYTES:
        raise UsageError(f"the body is not between 1 and {MANY_CHUNKS} hashes, each of {HASH_BYTES} bytes")
    return tuple(dict.fromkeys(map(Hash, split_hashes(bytes(body)))))


def _unknown(request: Request) -> UnknownChunkError:
    return UnknownChunkError(request.path_params["hash"], RULE)
