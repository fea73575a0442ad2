"""Edge: the one ASGI middleware. Finds the route, turns every error into an answer, and sees each exchange to its end.

What it owes a client: an answer with a request id to every request that could be parsed; that answer in full even
where a body is still on its way; and a connection that breaks off, never a body that looks whole, when an answer
fails after its first byte.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request

from xetstore.errors import DamagedError, TimedOutError, TooManyRequestsError
from xetstore.server.http.bodies import ClientGoneError, discard
from xetstore.server.http.pages import ALLOW_ALL, EXPOSE, is_preflight, preflight
from xetstore.server.http.problems import (
    HubCaller,
    MethodNotAllowedError,
    NoSuchPathError,
    as_xet_error,
    problem,
    problem_message,
)
from xetstore.server.http.receiving import BODY_SOURCE
from xetstore.server.http.router import Miss, Route, Routes
from xetstore.server.ops.logs import Entry
from xetstore.server.ops.peers import address_of

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from xetstore.server.site import Site

KEEP_ALIVE_BYTES: Final = 1 << 20
"""A body that is not wanted, of at most this length, is read to its end, and the connection serves the next request."""
CLIENT_CLOSED: Final = 499
"""Stands in the log for the status of a request whose client left before it was answered."""
UNKNOWN_ROUTE: Final = "unknown"

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_TRACE_ID = re.compile(rb"[A-Za-z0-9._=;:-]{1,128}")
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_WANTED: Final = frozenset(
    b"x-request-id x-amzn-trace-id content-length transfer-encoding expect user-agent x-forwarded-for origin".split()
)

_log = logging.getLogger("xetstore.server")
_access_log = logging.getLogger("xetstore.access")


class Edge:
    """The ASGI application: ``routes`` and nothing around them but this. ``state`` is `request.app.state`.

    ``identify`` finds out who calls a route of the Hub, and leaves that for its handler.
    """

    def __init__(
        self,
        site: Site,
        routes: tuple[Route, ...],
        on_shutdown: Callable[[], None] | None = None,
        identify: Callable[[Request], Awaitable[None]] | None = None,
    ) -> None:
        self.state = State({"site": site})
        self.site = site
        public_url = site.settings.public_url or ""
        prefix = "/" + public_url.partition("://")[2].partition("/")[2] if public_url.count("/") > 2 else ""
        self.routes = Routes(routes, prefix)
        self._on_shutdown = on_shutdown
        self.identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's event, as ASGI has it."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def answer_at_once(self, scope: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
        """Status, headers and body for a GET without a body that is answered in this call; None: in the ordinary way.

        It is limited, counted and logged as any other: where a limit is reached the ordinary way says so.
        """
        started_at = perf_counter()
        headers = _wanted(scope)
        try:
            found = self._miss_at_once(scope, headers)
        except Exception:  # the ordinary way meets it again, and says it
            found = None
        if found is None:
            scope["state"].pop("caller", None)
            return None
        route, miss = found
        miss.count()
        request_id = _request_id(headers)
        status, head, body = problem_message(miss.error, request_id)
        if self.site.asks_for_tokens and route.answers_pages:
            head.append(ALLOW_ALL)
        head.append((b"x-request-id", request_id.encode()))
        record(
            self.site,
            scope,
            headers,
            route=route.template,
            status=status,
            seconds=perf_counter() - started_at,
            received_bytes=0,
            sent_bytes=len(body),
            request_id=request_id,
        )
        return status, head, body

    def client(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """The client by whose address a request is counted."""
        return self.site.peers.key(address_of(scope), headers.get(b"x-forwarded-for"))

    def _miss_at_once(self, scope: dict[str, Any], headers: Mapping[bytes, bytes]) -> tuple[Route, Miss] | None:
        """A miss that was counted against the limits, and its route."""
        state = scope.setdefault("state", {})
        path, route, parameters = self.routes.resolve(scope["raw_path"])
        if route.miss_at_once is None or b"origin" in headers:
            return None
        scope["app"], scope["path_params"] = self, parameters
        miss = route.miss_at_once(Request(scope))
        if miss is None:
            return None
        limits = [(self.site.limits.addresses, self.client(scope, headers))]
        if self.site.is_counted(miss.caller):
            limits.append((self.site.limits.tokens, miss.caller.token_id))
        if not all(buckets.has_room(key) for buckets, key in limits):
            return None
        for buckets, key in limits:
            buckets.admit(key)
        state["address"] = limits[0][1]
        scope["path"], scope["raw_path"] = path, path.encode()
        return route, miss

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown" and self._on_shutdown is not None:
                self._on_shutdown()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return


class _Exchange:
    """One request and its answer: counts both, and knows how far each of them has come."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self._edge, self._scope, self._receive, self._send = edge, scope, receive, send
        found = self._headers = _wanted(scope)
        self.request_id = _request_id(found)
        self._route: Route | None = None
        self._status = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._started_at = perf_counter()
        self._ended_at = 0.0
        # Of the request's body
        length = found.get(b"content-length", b"")
        self._body_bytes = int(length) if length.isdigit() and len(length) < 20 else None
        self._body_ended = length in (b"", b"0") and b"transfer-encoding" not in found
        self._body_asked_for = b"expect" not in found
        self._client_gone = False
        self._linger = True

    async def run(self) -> None:
        """Answer, whatever happens, unless the client has left."""
        metrics = self._edge.site.metrics
        self._scope["app"] = self._edge
        self._scope.setdefault("state", {})["request_id"] = self.request_id
        metrics.in_flight += 1
        try:
            try:
                await self._answer()
            except (ClientGoneError, ClientDisconnect):
                self._client_gone = True
            except Exception as error:
                await self._fail(error)
        finally:
            metrics.in_flight -= 1
            self._record()

    async def _answer(self) -> None:
        scope = self._scope
        raw_path = scope.get("raw_path")
        try:
            raw_path = scope["path"].encode() if raw_path is None else raw_path
            path, route, parameters = self._edge.routes.resolve(raw_path)
        except NoSuchPathError:
            self._admit()
            raise
        self._route = route
        scope["path"], scope["raw_path"], scope["path_params"] = path, path.encode(), parameters
        if route.limited:
            self._admit()
        handler = route.handlers.get(scope["method"])
        if handler is None and self._answers_pages and is_preflight(scope):
            handler = preflight(route.handlers)
        if handler is None:
            raise MethodNotAllowedError(route.handlers)
        request = Request(scope, self.receive, self.send)
        if route.is_hub and self._edge.identify is not None:
            await self._edge.identify(request)
        response = await handler(request)
        await response(scope, self.receive, self.send)

    @property
    def _answers_pages(self) -> bool:
        """True if pages of any site may read the answer."""
        return self._route is not None and self._route.answers_pages and self._edge.site.asks_for_tokens

    def _admit(self) -> None:
        address = self._scope["state"]["address"] = self._edge.client(self._scope, self._headers)
        try:
            self._edge.site.limits.addresses.admit(address)
        except TooManyRequestsError:
            self._edge.site.metrics.rate_limited("address")
            raise

    async def _fail(self, error: Exception) -> None:
        told = as_xet_error(error)
        if self._status:
            # Too late for another answer. Returning before the end of this one makes the server close the connection,
            # and so the client sees that the body is cut off.
            if told.http_status >= 500 and not isinstance(told, DamagedError):
                _log.error("the answer to request %s broke off", self.request_id, exc_info=error)
            else:
                _log.warning("the answer to request %s broke off: %s", self.request_id, error)
            return
        if told.http_status >= 500 and not told.retryable and not isinstance(told, DamagedError):
            _log.error("request %s failed", self.request_id, exc_info=error)
        elif told.http_status >= 500:
            _log.warning("request %s: %s", self.request_id, str(error) or repr(error))
        self._linger = not isinstance(told, TimedOutError)
        response = problem(told, self._scope, self.request_id, self._hub_caller())
        await response(self._scope, self.receive, self.send)

    def _hub_caller(self) -> HubCaller | None:
        route = self._route
        if route is None or not route.is_hub:
            return None
        return HubCaller(
            is_anonymous=self._scope["state"].get("is_anonymous", False), is_git="/info/" in route.template
        )

    async def receive(self) -> Message:
        """The server's ``receive``, counted."""
        self._body_asked_for = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._received_bytes += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
        else:
            self._client_gone = True
        return message

    async def send(self, message: Message) -> None:
        """The server's ``send``, with a request id; the end of an answer is held back while a body is coming in."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if self._answers_pages:
                # Always, because an answer that is kept by a cache may be for a page the next time.
                headers.append(ALLOW_ALL)
                if b"origin" in self._headers:
                    headers.append(EXPOSE)
            if self._body_is_pending and self._closes():
                headers.append((b"connection", b"close"))
            await self._send({**message, "headers": headers})
            return
        self._sent_bytes += len(message.get("body", b"")) + message.get("sent_bytes", 0)
        if message.get("more_body", False):
            await self._send(message)
            return
        self._ended_at = perf_counter()
        if self._body_is_pending and self._linger and self._body_asked_for:
            await self._send({**message, "more_body": True})
            await discard(self.receive)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    @property
    def _body_is_pending(self) -> bool:
        return not (self._body_ended or self._client_gone)

    def _closes(self) -> bool:
        """True if the connection ends with an answer that comes before the end of the body."""
        if not (self._linger and self._body_asked_for) or self._body_bytes is None:
            return True
        return self._body_bytes - self._received > KEEP_ALIVE_BYTES

    @property
    def _received(self) -> int:
        """Bytes of the body that came in, by either way."""
        source = self._scope.get(BODY_SOURCE)
        return self._received_bytes + (source.received_bytes if source is not None else 0)

    def _record(self) -> None:
        record(
            self._edge.site,
            self._scope,
            self._headers,
            route=UNKNOWN_ROUTE if self._route is None else self._route.template,
            status=self._status or CLIENT_CLOSED,
            seconds=(self._ended_at or perf_counter()) - self._started_at,
            received_bytes=self._received,
            sent_bytes=self._sent_bytes,
            request_id=self.request_id,
        )


def record(
    site: Site,
    scope: Scope,
    headers: Mapping[bytes, bytes],
    *,
    route: str,
    status: int,
    seconds: float,
    received_bytes: int,
    sent_bytes: int,
    request_id: str,
) -> None:
    """Count an exchange that is over, and log it."""
    site.metrics.answered(
        route, scope["method"], status, seconds=seconds, received_bytes=received_bytes, sent_bytes=sent_bytes
    )
    if not _access_log.isEnabledFor(logging.INFO):
        return
    caller = scope["state"].get("caller")
    fields: dict[str, Any] = {
        "method": printable(scope["method"].encode(), 16),
        "path": printable(scope.get("raw_path") or scope["path"].encode(), 256),
        "status": status,
        "received_bytes": received_bytes,
        "sent_bytes": sent_bytes,
        "milliseconds": round(seconds * 1000, 1),
        "request_id": request_id,
        "namespace": caller.namespace if caller else "-",
        "token_id": caller.token_id if caller else "-",
        "peer": address_of(scope),
        "user_agent": printable(headers.get(b"user-agent", b"-"), 128),
    }
    _access_log.handle(Entry(_access_log.name, _ACCESS_LINE, fields))


def _wanted(scope: Scope | dict[str, Any]) -> dict[bytes, bytes]:
    return {name: value for name, value in scope["headers"] if name in _WANTED}


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id of a request, else that of its trace, if it is fit for a log; else a new one."""
    for name, pattern in ((b"x-request-id", _REQUEST_ID), (b"x-amzn-trace-id", _TRACE_ID)):
        if (given := headers.get(name)) and pattern.fullmatch(given):
            return given.decode("ascii")
    return new_request_id()


_ACCESS_LINE: Final = (
    "%(method)s %(path)s %(status)d in=%(received_bytes)d out=%(sent_bytes)d ms=%(milliseconds)s id=%(request_id)s"
    ' namespace=%(namespace)s token=%(token_id)s peer=%(peer)s agent="%(user_agent)s"'
)


def new_request_id() -> str:
    """A name for a request: 32 hexadecimal digits that start with the time, so that they sort by it."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def printable(data: bytes, most: int) -> str:
    """Bytes of a stranger as text for a log line: printable ASCII, no quotes, not longer than ``most``."""
    if len(data) <= most and _PLAIN.fullmatch(data):
        return data.decode("ascii")
    text = data[:most].decode("latin-1").replace("\\", "\\x5c").replace('"', "\\x22")
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text)
    return text + "…" * (len(data) > most)
