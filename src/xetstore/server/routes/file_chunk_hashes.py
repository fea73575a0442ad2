"""GET /v2/file-chunk-hashes: all that an editor of a file has to know of the parts it does not touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.errors import DamagedError, UsageError, XetError
from xetstore.protocol.range_edit import ByteRange, parse_dirty_ranges, plan_edit
from xetstore.server.routes.answers import LargeAnswer, enough_terms, memory_of, require_room
from xetstore.server.site import holders_of, parse_hash, site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import Term

DIRTY_HEADER: Final = "X-Range-Dirty"
CHUNK_BYTES: Final = 256
"""Memory that an answer takes for each chunk of the file while it is made, at most."""

MAX_NODES: Final = 1 << 20
"""Most nodes of gaps in an answer, which is some 100 MB then. Only files that repeat themselves endlessly have more."""


async def get_file_chunk_hashes(request: Request) -> Response:
    """GET /v2/file-chunk-hashes/{hash}: how to edit the bytes that X-Range-Dirty names; see protocol/range_edit.py."""
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    file = parse_hash(request.path_params["hash"])
    dirty = _dirty_ranges(request)
    count = await in_asking_thread(cas.count_terms, file, enough=enough_terms(site))
    amount = count.chunks * CHUNK_BYTES + memory_of(count, hashes=False)
    require_room(site, amount, "the file is too long, or repeats itself too often: upload the whole file")

    def make() -> Response:
        body = _plan(cas, file, cas.reconstruct(file).terms, dirty)
        return Response(body, headers={"Cache-Control": "private, no-store"}, media_type="application/json")

    return LargeAnswer(make, amount, limits=site.limits, holders=holders_of(request))


def _dirty_ranges(request: Request) -> tuple[ByteRange, ...]:
    headers = request.headers.getlist(DIRTY_HEADER)
    if len(headers) != 1:
        raise UsageError(
            f"there are {len(headers)} {DIRTY_HEADER} headers, one is needed",
            hint=f"name the bytes to be edited, as in `{DIRTY_HEADER}: bytes=0-99,500-599`",
        )
    return parse_dirty_ranges(headers[0])


def _plan(cas: EmbeddedCas, file: Hash, terms: Sequence[Term], dirty: Sequence[ByteRange]) -> bytes:
    try:
        plan = plan_edit(cas.file_chunks(file), terms, dirty)
    except XetError:
        raise
    except ValueError as error:
        raise DamagedError(f"file {file}: {error}") from error
    nodes = sum(gap.node_count for gap in plan.gaps if gap is not None)
    if nodes > MAX_NODES:
        raise UsageError(f"the gaps of this edit have {nodes} nodes, too many to send", hint="upload the whole file")
    return plan.to_json()
