"""Global deduplication queries: which xorbs a client may use that has a chunk (10.3, 11.4)."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.cas.tokens import Scope
from xetstore.errors import NotFoundError
from xetstore.server.answers import SMALL_BYTES, LargeAnswer
from xetstore.server.edge import Miss
from xetstore.server.site import holders_of, parse_hash, site_of
from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.answers import Offer
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

CHUNK_BYTES: Final = 160
"""Memory that an answer takes for each chunk in it: its footer, its keyed hash, its record, and the whole of these."""

_HEADERS: Final = {
    "Cache-Control": "private, max-age=3600",
    "Vary": "Authorization",
    "X-Content-Type-Options": "nosniff",
}
_log = logging.getLogger(__name__)


async def get_chunk(request: Request) -> Response:
    """GET /v1/chunks/{prefix}/{hash}: a shard of keyed hashes with its footer, or 404.

    A query can only save work. A 200 that is not a whole shard makes the reference client's upload fail, a 5xx makes
    it wait for minutes: so whatever goes wrong in here is a 404.
    """
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    chunk = parse_hash(request.path_params["hash"])
    unknown = _unknown(request)

    def answer_to(offer: Offer | None) -> Response:
        body = _answer(cas, chunk, offer)
        site.metrics.dedup_answered(found=body is not None)
        if body is None:
            raise unknown
        return Response(body, headers=_HEADERS, media_type="application/octet-stream")

    def look() -> Response | Offer:
        offer = _find(cas, chunk)
        return offer if offer is not None and offer.chunk_count * CHUNK_BYTES > SMALL_BYTES else answer_to(offer)

    found = await in_thread(look)
    if isinstance(found, Response):
        return found
    return LargeAnswer(
        partial(answer_to, found),
        found.chunk_count * CHUNK_BYTES,
        limits=site.limits,
        holders=holders_of(request),
        if_busy=unknown,
    )


def miss_at_once(request: Request) -> Miss | None:
    """The 404 of :func:`get_chunk` for a chunk that is seen, in some microseconds, to be unknown: as nine in ten are.

    None where it may be known, and where that cannot be seen at once. Raises what tells who calls, and nothing else.
    """
    site = site_of(request)
    caller = site.authenticate(request, Scope.READ)
    if not site.cas_for(caller).lacks_chunk(parse_hash(request.path_params["hash"])):
        return None
    return Miss(_unknown(request), caller, partial(site.metrics.dedup_answered, found=False))


def _unknown(request: Request) -> NotFoundError:
    return NotFoundError(f"chunk {request.path_params['hash']} is not known here")


def _find(cas: EmbeddedCas, chunk: Hash) -> Offer | None:
    try:
        return cas.find_offer(chunk)
    except Exception:
        _log.exception("the query for chunk %s failed", chunk)
        return None


def _answer(cas: EmbeddedCas, chunk: Hash, offer: Offer | None) -> bytes | None:
    try:
        shard = None if offer is None else cas.answer_with(offer)
        # Without a key the hashes would be plain, and whoever guesses one would learn its neighbours.
        return None if shard is None or shard.key is None else shard.serialize_with_footer()
    except Exception:
        _log.exception("the query for chunk %s failed", chunk)
        return None
