"""Shards: POST registers files. /v1 answers when it is done, /v2 says how far it is meanwhile (11.6)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import JSONResponse, Response

from xetstore.access.tokens import Scope
from xetstore.errors import QuotaExceededError, RejectedShardError
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import MAX_SHARD_BYTES
from xetstore.server.http.bodies import ClientGoneError, declared_bytes, read_body
from xetstore.server.http.problems import as_xet_error, message_of
from xetstore.server.http.receiving import memory_of_body, receive_body
from xetstore.server.http.sending import until_gone
from xetstore.server.site import Site, holders_of, parse_hash, site_of
from xetstore.server.threads import in_commit_thread, in_thread, settled

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Send
    from starlette.types import Scope as Exchange

    from xetstore.cas.service import EmbeddedCas

TICK_SECONDS: Final = 0.25
"""Seconds after which a commit is looked at for news."""
HEARTBEAT_SECONDS: Final = 20.0
"""Seconds after which the last frame is repeated while there is none: clients and proxies give up on silence."""

MEMORY_FACTOR: Final = 12
"""A shard in memory: its bytes, what they are parsed into, the normalised form that is stored, rows. Measured: 8 to 10.
"""
IN_MEMORY_BYTES: Final = 128 << 10
"""A longer shard is on disk while it comes in, and while it waits for its turn."""

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
    async with _shard_of(request) as work:
        is_new = await in_commit_thread(_put, cas, work.shard, site.settings.max_shard_chunks, work.go_on)
    site.metrics.shard_received(len(work.shard.files), is_new=is_new)
    return JSONResponse({"result": int(is_new)})


async def post_v2(request: Request) -> Response:
    """POST /v2/shards: the same as a stream of JSON frames, one a line, of which the last says what came of it.

    A body that is no shard is refused by its status. What a shard claims wrongly is said in the last frame, of which
    the reference client shows the message to its user; of a status it shows the number. Verification stops when the
    client has left; what is verified is committed.
    """
    site = site_of(request)
    return _Commit(request, site, site.cas_for(site.caller(request, Scope.WRITE)))


@dataclass(frozen=True)
class _Work:
    """A shard, and the client that waits for what comes of it."""

    shard: Shard
    leaving: asyncio.Future[None]

    def go_on(self, *_: int) -> None:
        """Raises ClientGoneError once the client has left: nothing more has to be verified then."""
        if self.leaving.done():
            raise ClientGoneError


@asynccontextmanager
async def _shard_of(request: Request) -> AsyncIterator[_Work]:
    """The shard in a body, while there are a place and the memory to work with it.

    While it comes in it holds a block, as a xorb does: it is on disk. What parsing and committing take is reserved when
    it is whole. Raises FormatError, and as :func:`receive_body`.
    """
    site = site_of(request)
    holders = holders_of(request)
    async with AsyncExitStack() as until_done:
        async with site.limits.receiving.reserve(memory_of_body(request), holders):
            if (declared_bytes(request) or MAX_SHARD_BYTES) <= IN_MEMORY_BYTES:
                body: IO[bytes] = BytesIO(await read_body(request, site.limits, IN_MEMORY_BYTES))
            else:
                body = until_done.enter_context(await in_thread(_on_disk, site.cas))
                await receive_body(request, lambda *parts: body.writelines(parts), site.limits, MAX_SHARD_BYTES)
        leaving = asyncio.ensure_future(until_gone(request.receive))
        until_done.callback(leaving.cancel)
        await until_done.enter_async_context(site.limits.shards.reserve(1, holders))
        memory = MEMORY_FACTOR * body.seek(0, os.SEEK_END)
        await until_done.enter_async_context(site.limits.committing.reserve(memory, holders))
        yield _Work(await in_thread(_parse, body), leaving)


def _on_disk(cas: EmbeddedCas) -> IO[bytes]:
    """A file without a name, on the disk of the store."""
    return TemporaryFile(dir=cas.scratch_folder)


def _parse(body: IO[bytes]) -> Shard:
    body.seek(0)
    return Shard.parse(body.read())


def _put(cas: EmbeddedCas, shard: Shard, most_chunks: int, progress: Callable[[int, int], None]) -> bool:
    """Verify and register a shard, unless it is too much work: a term of 96 bytes may stand for 8,192 chunks."""
    chunks = sum(term.chunk_end - term.chunk_start for file in shard.files for term in file.terms)
    if chunks > most_chunks:
        raise RejectedShardError(
            f"the files of the shard have {chunks} chunks, at most {most_chunks} are verified at once",
            hint="send the files in several shards",
        )
    return cas.put_shard(shard, progress=progress)


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

        async with _shard_of(self._request) as work:
            self._work = work
            n_files = len(work.shard.files)
            self._progress = 0, len(work.shard.xorbs) + n_files
            most = self._site.settings.max_shard_chunks
            commit = asyncio.ensure_future(in_commit_thread(_put, self._cas, work.shard, most, self._note))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._report(commit, send_frame)
            finally:
                await settled(commit)
        await send_frame(self._outcome(commit, n_files), is_last=True)

    def _note(self, verified: int, total: int) -> None:
        # Called in the thread that commits; a tuple is replaced at once.
        self._progress = verified, total
        if verified < total:
            self._work.go_on()

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
        except ClientGoneError:
            raise
        except Exception as error:
            told = as_xet_error(error)
            if told.http_status >= 500 and not isinstance(told, QuotaExceededError):
                _log.error("a shard could not be committed", exc_info=error)
            frame = {"type": "error", "message": message_of(told), "retryable": told.retryable}
            return frame | ({"code": told.code} if isinstance(told, QuotaExceededError) else {})
        self._site.metrics.shard_received(n_files, is_new=is_new)
        return {"type": "result", "result": int(is_new)}
