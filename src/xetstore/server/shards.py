"""Shards: POST registers files. /v1 answers when it is done, /v2 says how far it is meanwhile (11.6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import JSONResponse, Response

from xetstore.cas.tokens import Scope
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import MAX_SHARD_BYTES
from xetstore.server.limits import declared_bytes
from xetstore.server.problems import as_xet_error, message_of
from xetstore.server.site import Site, parse_hash, site_of
from xetstore.server.threads import in_commit_thread, in_thread, settled

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Send
    from starlette.types import Scope as Exchange

    from xetstore.cas.service import EmbeddedCas

TICK_SECONDS: Final = 0.25
"""How often a commit is looked at for news."""
HEARTBEAT_SECONDS: Final = 20.0
"""How often the last frame is repeated while there is none: clients and proxies give up on silence."""

# A shard in memory: its bytes, what they are parsed into, the normalised form that is stored, rows. Measured: 8 to 10.
_MEMORY_FACTOR: Final = 12

_Frame = dict[str, Any]
_log = logging.getLogger(__name__)


async def post_v1(request: Request) -> Response:
    """POST /v1/shards: ``{"result": 1}``, or 0 if all of it was known; durable when it is answered.

    Old clients post to /shard/{prefix}/{hash}, with the hash of the bytes they send. Shards have names of our own.
    """
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.WRITE))
    if "hash" in request.path_params:
        parse_hash(request.path_params["hash"])
    async with site.limits.budget.reserve(_memory_bytes(request)):
        shard = await _read_shard(site, request)
        is_new = await in_commit_thread(cas.put_shard, shard)
    site.metrics.shard_received(len(shard.files), is_new=is_new)
    return JSONResponse({"result": int(is_new)})


async def post_v2(request: Request) -> Response:
    """POST /v2/shards: the same as a stream of JSON frames, one a line, of which the last says what came of it.

    A body that is no shard is refused by its status. What a shard claims wrongly is said in the last frame, of which
    the reference client shows the message to its user; of a status it shows the number. A client that leaves does not
    stop the commit.
    """
    site = site_of(request)
    return _Commit(request, site, site.cas_for(site.caller(request, Scope.WRITE)))


def _memory_bytes(request: Request) -> int:
    declared = declared_bytes(request)
    return _MEMORY_FACTOR * min(MAX_SHARD_BYTES if declared is None else declared, MAX_SHARD_BYTES)


async def _read_shard(site: Site, request: Request) -> Shard:
    body = await site.limits.read_body(request, MAX_SHARD_BYTES)
    return await in_thread(Shard.parse, body)


class _Commit(Response):
    """The answer of /v2, which is also what does the work."""

    def __init__(self, request: Request, site: Site, cas: EmbeddedCas) -> None:
        # X-Accel-Buffering: nginx would keep the frames back until there are enough of them to be worth it.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._request, self._site, self._cas = request, site, cas
        self._progress = (0, 0)

    async def __call__(self, scope: Exchange, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Take in the shard and send the frames, as ASGI has it."""

        async def send_frame(frame: _Frame, *, is_last: bool = False) -> None:
            body = msgspec.json.encode(frame) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})

        async with self._site.limits.budget.reserve(_memory_bytes(self._request)):
            shard = await _read_shard(self._site, self._request)
            self._note(0, len(shard.xorbs) + len(shard.files))
            commit = asyncio.ensure_future(in_commit_thread(self._cas.put_shard, shard, progress=self._note))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._report(commit, send_frame)
            finally:
                await settled(commit)
        await send_frame(self._outcome(commit, len(shard.files)), is_last=True)

    def _note(self, verified: int, total: int) -> None:
        # Called in the thread that commits; a tuple is replaced at once.
        self._progress = verified, total

    async def _report(self, commit: asyncio.Future[bool], send_frame: Callable[[_Frame], Awaitable[None]]) -> None:
        """Send a frame whenever there is news, until the commit is over."""
        loop = asyncio.get_running_loop()
        sent: _Frame = {}
        sent_at = 0.0
        while not (await asyncio.wait([commit], timeout=TICK_SECONDS))[0]:
            frame = self._frame()
            if frame != sent or loop.time() - sent_at >= HEARTBEAT_SECONDS:
                await send_frame(frame)
                sent, sent_at = frame, loop.time()

    def _frame(self) -> _Frame:
        verified, total = self._progress
        if verified < total:
            return {"type": "validating", "verified": verified, "total": total}
        return {"type": "committing", "stage": "syncing"}

    def _outcome(self, commit: asyncio.Future[bool], n_files: int) -> _Frame:
        try:
            is_new = commit.result()
        except Exception as error:
            told = as_xet_error(error)
            if told.http_status >= 500:
                _log.error("a shard could not be committed", exc_info=error)
            return {"type": "error", "message": message_of(told), "retryable": told.retryable}
        self._site.metrics.shard_received(n_files, is_new=is_new)
        return {"type": "result", "result": int(is_new)}
