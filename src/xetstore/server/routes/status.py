"""The state of the server: alive, ready, metrics, the page at ``/``. None of it waits for what uploads wait for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.cas.lease import COLLECT, SCRUB
from xetstore.errors import AccessDeniedError, UsageError
from xetstore.platform.threads import Threads
from xetstore.server.ops.metrics import CONTENT_TYPE
from xetstore.server.ops.peers import address_of
from xetstore.server.settings import is_loopback
from xetstore.server.site import names_loopback, site_of
from xetstore.server.web.page import CONTENT_POLICY, Insight, render
from xetstore.server.web.ways import ways_to

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.server.site import Site

READY_AGE_SECONDS: Final = 1.0
READY_SECONDS: Final = 5.0
"""A part of the store that takes longer to answer is not ready."""
COUNT_SECONDS: Final = 5.0
"""The longest wait of the page for sums that are new."""

DAMAGED: Final = "stored objects are damaged: xet check names them and their files"

_JSON: Final = "application/json"
_FRESH: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_PAGE: Final = {
    **_FRESH,
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Authorization",
}
_log = logging.getLogger("xetstore.server")

T = TypeVar("T")


class Shared(Generic[T]):
    """A value that a thread of ``pool`` computes once for all who ask within ``max_age_seconds``. One event loop's."""

    def __init__(self, compute: Callable[[], T], max_age_seconds: float, pool: Threads) -> None:
        self._compute = compute
        self._max_age = max_age_seconds
        self._pool = pool
        self._latest: asyncio.Future[T] | None = None
        self._done_at = 0.0

    async def get(self) -> T:
        """The value, or the error that computing it raised."""
        latest = self._latest
        if latest is None or (latest.done() and time.monotonic() - self._done_at >= self._max_age):
            latest = self._latest = asyncio.get_running_loop().run_in_executor(self._pool, self._compute)
            latest.add_done_callback(self._note)
        return await asyncio.shield(latest)

    def _note(self, latest: asyncio.Future[T]) -> None:
        self._done_at = time.monotonic()
        if not latest.cancelled():
            latest.exception()  # the client may have left meanwhile


class _Part:
    """A part of the store, which is asked whether it answers. ``sentence`` says that it does not."""

    def __init__(self, sentence: str, ping: Callable[[], None], pool: Threads) -> None:
        self.sentence = sentence
        self._ping = ping
        self._answers = Shared(self._ask, READY_AGE_SECONDS, pool)
        self._did_answer = True

    async def answers(self) -> bool:
        """True if it answers within 5 s."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await self._answers.get()
        except TimeoutError:
            return False

    def _ask(self) -> bool:
        try:
            self._ping()
        except Exception as error:
            if self._did_answer:
                _log.error("%s: %s", self.sentence, error)
            self._did_answer = False
        else:
            self._did_answer = True
        return self._did_answer


class Status:
    """The state of one server, and the threads that find it out. `request.app.state.status`."""

    def __init__(self, site: Site, version: str) -> None:
        self.version = version
        self.started_at = site.limits.shared.started_at
        self._site = site
        # Its own threads: a part that hangs keeps only itself waiting, and those who want sums keep none from health.
        self.pool = Threads(4, "xetstore-status")
        self._health = Threads(4, "xetstore-health")
        self._parts = (
            _Part("the index does not answer", site.cas.ping_index, self._health),
            _Part("the objects do not answer", site.cas.ping_objects, self._health),
        )

    async def not_ready_because(self) -> str | None:
        """Why no requests should be sent here; None if they should."""
        if self._site.draining.is_set():
            return "draining"
        answers = await asyncio.gather(*(part.answers() for part in self._parts))
        away = [part.sentence for part, does_answer in zip(self._parts, answers, strict=True) if not does_answer]
        return ", and ".join(away) or None

    async def is_damaged(self) -> bool:
        """True if objects are marked as damaged."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                found = await asyncio.get_running_loop().run_in_executor(self._health, self._site.soundness.get)
        except TimeoutError:
            return False
        return bool(found.damaged_xorbs or found.damaged_shards)

    def insight(self, with_namespaces: bool) -> Insight:
        """The state of the store. Its sums are waited for some seconds, and are then those of before."""
        holdings, soundness = self._site.holdings, self._site.soundness.get()
        totals = holdings.totals.latest(COUNT_SECONDS)
        namespaces = holdings.namespaces.latest(COUNT_SECONDS) if with_namespaces else None
        with self._site.cas.index.snapshot() as reader:
            ended = {row.name: row.ended_at for row in reader.chores()}
        return Insight(
            uptime_seconds=time.monotonic() - self.started_at,
            totals=None if totals is None else totals[0],
            disks=holdings.disks(),
            damaged=soundness.damaged_xorbs + soundness.damaged_shards,
            last_check=ended.get(SCRUB),
            oldest_check=soundness.oldest_check,
            last_collection=ended.get(COLLECT),
            namespaces=None if namespaces is None else namespaces[0],
        )

    def close(self) -> None:
        """End the threads, as soon as they have done what they are at."""
        for pool in (self.pool, self._health):
            pool.shutdown(wait=False, cancel_futures=True)


async def live(_request: Request) -> Response:
    """The process serves requests. Asks neither index nor disk."""
    return Response(b'{"status":"live"}', 200, _FRESH, _JSON)


async def ready(request: Request) -> Response:
    """Say whether requests should be sent here: 503 while it drains, and with its name while a part does not answer.

    Degraded, 200: all but what is damaged is served.
    """
    status = _status_of(request)
    reason = await status.not_ready_because()
    state = "unavailable" if reason else "ready"
    told = reason
    if not reason and await status.is_damaged():
        state, told = "degraded", DAMAGED
    body = msgspec.json.encode({"status": state, "reason": told})
    return Response(body, 503 if reason else 200, {**_FRESH, "Retry-After": "1"} if reason else _FRESH, _JSON)


async def metrics(request: Request) -> Response:
    """All metrics, for Prometheus. Who may see them is a setting."""
    _require_insight(request)
    site, status = site_of(request), _status_of(request)
    text = await asyncio.get_running_loop().run_in_executor(status.pool, site.exposition)
    return Response(text, 200, {**_FRESH, "Content-Type": CONTENT_TYPE})


async def page(request: Request) -> Response:
    """The page at ``/``, or the same as JSON. A client that may not see the state of it all sees name and version."""
    status = _status_of(request)
    accept = request.headers.get("accept", "")
    as_json = "application/json" in accept and "text/html" not in accept
    insight: Insight | None = None
    with suppress(AccessDeniedError):
        _require_insight(request)
        insight = await asyncio.get_running_loop().run_in_executor(
            status.pool, status.insight, _may_see_namespaces(request)
        )
    if as_json:
        known = {"name": "xetstore", "version": status.version}
        return Response(msgspec.json.encode(known if insight is None else known | _told(insight)), 200, _PAGE, _JSON)
    return Response(render(status.version, insight, _ways(request)), 200, _PAGE, "text/html")


def _told(insight: Insight) -> dict[str, Any]:
    told = asdict(insight)
    totals = told.pop("totals") or {}
    return {**told, "uptime_seconds": int(insight.uptime_seconds), **totals}


def _ways(request: Request) -> list[tuple[str, str]]:
    """The ways to this server by the name that the client has for it; none where that is no name."""
    site = site_of(request)
    try:
        url = site.base_url(request)
    except UsageError:
        return []
    return ways_to(url, has_hub=site.hub is not None, asks_for_tokens=site.asks_for_tokens)


def _status_of(request: Request) -> Status:
    status: Status = request.app.state.status
    return status


def _require_insight(request: Request) -> None:
    """Raises UnauthenticatedError or ForbiddenError unless the caller may see how the store is doing."""
    site = site_of(request)
    if site.settings.status == "open" or (site.settings.status == "local" and _is_local(request)):
        return
    site.caller(request, Scope.ADMIN)


def _may_see_namespaces(request: Request) -> bool:
    """True if the caller may read the files of all namespaces: the admin, or the owner of a server without tokens."""
    site = site_of(request)
    if not site.asks_for_tokens:
        return _is_local(request)
    try:
        site.authenticate(request, Scope.ADMIN)
    except AccessDeniedError:
        return False
    return True


def _is_local(request: Request) -> bool:
    """True if a client on this machine asks directly: no proxy for another, no page in a browser."""
    if not is_loopback(address_of(request.scope)):
        return False
    headers = request.headers
    is_forwarded = "x-forwarded-for" in headers or "forwarded" in headers
    return not is_forwarded and names_loopback(headers.get("host"))
