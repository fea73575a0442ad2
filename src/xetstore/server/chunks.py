"""Global deduplication queries: which xorbs a client may use that has a chunk (10.3, 11.4)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.responses import Response

from xetstore.cas.tokens import Scope
from xetstore.errors import NotFoundError
from xetstore.server.site import parse_hash, site_of
from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

_log = logging.getLogger(__name__)


async def get_chunk(request: Request) -> Response:
    """GET /v1/chunks/{prefix}/{hash}: a shard of keyed hashes with its footer, or 404.

    A query can only save work. A 200 that is not a whole shard makes the reference client's upload fail, a 5xx makes
    it wait for minutes: so whatever goes wrong in here is a 404.
    """
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    chunk = parse_hash(request.path_params["hash"])
    answer = await in_thread(_find, cas, chunk)
    site.metrics.dedup_answered(found=answer is not None)
    if answer is None:
        raise NotFoundError(f"chunk {chunk} is not known here")
    headers = {"Cache-Control": "private, max-age=3600", "Vary": "Authorization", "X-Content-Type-Options": "nosniff"}
    return Response(answer, headers=headers, media_type="application/octet-stream")


def _find(cas: EmbeddedCas, chunk: Hash) -> bytes | None:
    try:
        shard = cas.find_chunk(chunk)
        # Without a key the hashes would be plain, and whoever guesses one would learn its neighbours.
        return None if shard is None or shard.key is None else shard.serialize_with_footer()
    except Exception:
        _log.exception("the query for chunk %s failed", chunk)
        return None
