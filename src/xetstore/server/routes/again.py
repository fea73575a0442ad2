"""POST /v1/files/again: files whose bytes are here, put by their hashes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.errors import UsageError
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.protocol.binding import BINDING_HEADER, again_question, binding
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.suite import HASH_BYTES
from xetstore.server.http.bodies import read_body
from xetstore.server.site import holders_of, site_of
from xetstore.server.threads import in_commit_thread, in_search_thread

if TYPE_CHECKING:
    from starlette.requests import Request

ASKED_BYTES: Final = 1000
"""Memory for each of the files while it is looked for: its hash, its row, its xorbs."""


async def put_again(request: Request) -> Response:
    """POST /v1/files/again: those of these files that the caller has and that can be read, as if they were put now.

    The body are their hashes, 32 bytes each, and so is the answer. With ``?dry_run=true`` nothing is changed, and a
    token for reading is enough. A file of another namespace is as one that is not there.
    """
    site = site_of(request)
    is_try = {"": False, "false": False, "true": True}.get(request.query_params.get("dry_run", ""))
    cas = site.cas_for(site.caller(request, Scope.READ if is_try else Scope.WRITE))
    if is_try is None:
        raise UsageError("dry_run is true or false")
    most = MANY_PUT_AGAIN * HASH_BYTES
    async with site.limits.receiving.reserve(most, holders_of(request)):
        body = bytes(await read_body(request, site.limits, most))
    if not body or len(body) % HASH_BYTES:
        raise UsageError("the body are hashes of 32 bytes each, and at least one")
    files = [*map(Hash, split_hashes(body))]
    async with site.limits.reading.reserve(len(files) * ASKED_BYTES, holders_of(request)):
        if is_try:
            here = await in_search_thread(lambda: cas.put_again(files, dry_run=True))
        else:
            async with site.limits.commits.reserve(1, holders_of(request)):
                here = await in_commit_thread(cas.put_again, files)
    told = b"".join(sorted(file.digest for file in here))
    answers = binding(again_question(body), hashlib.sha256(told).digest())
    headers = {"Cache-Control": "private, no-store", BINDING_HEADER: answers}
    return Response(told, headers=headers, media_type="application/octet-stream")
