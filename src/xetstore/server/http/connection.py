"""Connection: limits of one TCP connection before a request of it is known. uvicorn's HTTP protocol, with limits.

What is refused here never reaches the application: too many connections (503), a head that does not arrive in
time (408) or is too long (431), what is no HTTP at all (400), and a message whose end is in doubt (framing.py). All of
it in the wire form of every other error.

An offer to upgrade to another protocol is not taken (RFC 9110, 7.8: "A server MAY ignore a received Upgrade header
field"). The parser knows no such thing: behind a head that makes an offer it takes no body, and what the client sent
as one would be the next request. So the body of such a head is counted off here, or given to a parser of its own.

How uvicorn behaves when an application answers before the body was read, since this is what the edge builds on:
the answer is written at once; once it is complete, ``receive()`` says nothing but ``http.disconnect``, and bytes of
the body that still come in are parsed and thrown away, for ever, while the connection stays open for the next request.
With ``Connection: close`` in the answer the connection is closed at once instead, on unread bytes, which resets it:
a client that is still sending may then never see the answer. So the edge sends the whole answer with
``more_body=True``, reads on for a bounded time, and completes it after that. What it leaves unread on a connection
that stays open has to end, and the next head to be there, within the time for one head.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from xetstore.server.http.direct import BODY_SOCKET, BodySocket
from xetstore.server.http.framing import RefusedHeadError, body_bytes
from xetstore.server.http.receiving import BODY_SOURCE, LEAST_BYTES, BodySource
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.limits import PROGRESS_BYTES
from xetstore.server.ops.peers import address_of
from xetstore.server.settings import ServerSettings

MAX_HEAD_BYTES: Final = 64 << 10
"""Most bytes that the request line and the headers of one request may have together."""
LINGER_SECONDS: Final = 1.0
"""Seconds for which a refused client's bytes are read and dropped: closing on unread ones resets the connection."""
STALL_GRACE_SECONDS: Final = 1.0
"""The wait beyond ``stall_seconds`` for a client that takes nothing: an answer that is sent in parts has
its own patience, which is to end first, for it says why.
"""
RETRY_SECONDS: Final = 1
HEAD_READ_BYTES: Final = 256 << 10
BODY_READ_BYTES: Final = 1 << 20
"""Bytes that are read from a socket at a time: more where the application wants a long body: each time costs as much
as a copy of it does. A client that was not let in gets no such memory.
"""


_CHUNKED_HEAD: Final = b"POST / HTTP/1.1\r\nHost: _\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
"""Leads a parser to the chunks of a body, behind which it reads nothing."""


class Connection(HttpToolsProtocol):
    """One connection. Made into a class for one server by :func:`connection_class`."""

    header_timeout_seconds: float
    stall_seconds: float
    connection_limit: ConnectionLimit

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        # Bytes read since the last field was whole, or a part of a body: the parser holds them back.
        self._held_bytes = 0
        self._in_head = True
        self._is_in_body = False
        self._is_refused = False
        # Of the body of the latest request, where its length was told: what was not received yet, in either way.
        self._body_left = 0
        self._body_is_chunked = False
        self._is_past_parser = False
        # The head just parsed offers an upgrade: until the parser has said so, too, it knows nothing of the body.
        self._has_offer = False
        self._refused_head: RefusedHeadError | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        # The latest request was answered without uvicorn, which knows nothing of it.
        self._is_answered_at_once = False
        self._idle_since = 0.0
        self._is_new = True
        self.access_log = False  # it would name the query, with what is signed in it

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find a place for the connection, and give it time for a first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        if self.connection_limit.take(self, address_of({"client": self.client})):
            self._expect_head()
        else:
            # Closed at once: lingering is what a server that is full has no room for.
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "too many connections", linger=False)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._is_refused:
            return
        if self._is_past_parser:
            if not self.is_answering:
                self._expect_head()
            self._unset_keepalive_if_required()
            body, data = data[: self._body_left], data[self._body_left :]
            self.on_body(body)
            self._end_body()
            if not data:
                return
        self._held_bytes += len(data)
        self._parse(data)
        if not self._is_answered_at_once:
            self._unset_keepalive_if_required()
        if not (self.is_answering or self._is_refused or self._is_answered_at_once):
            self._expect_head()  # more of it than came at once
        # In a head, in a trailer, or in what a chunk has beside its bytes.
        if not self._is_refused and self._head_bytes + self._held_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser, which stops behind each head with an offer: from there on it is told where to go on."""
        while data and not self._is_refused:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as stop:
                data = self._behind_offer(memoryview(data)[stop.args[0] :])
            except HttpParserError as error:
                self._refuse_what_stopped_it(error)
            else:
                return

    def _behind_offer(self, data: memoryview) -> memoryview:
        """Take the body of a head with an offer, which starts with ``data``; what is behind it, the next request."""
        self._has_offer = False
        if self._body_is_chunked:
            # One parser for the chunks alone. Only it knows where they end; so no request may follow.
            self.cycle.keep_alive = False
            self._head_bytes = 0  # what is counted from here on are trailers
            self.parser = _new_parser(
                SimpleNamespace(
                    on_header=self.on_header, on_body=self.on_body, on_message_complete=self.on_message_complete
                )
            )
            self.parser.feed_data(_CHUNKED_HEAD)
            return data
        self.parser = _new_parser(self)
        self._is_past_parser = True
        body, data = data[: self._body_left], data[self._body_left :]
        if body:
            self.on_body(bytes(body))
        self._end_body()
        return data

    def pause_writing(self) -> None:
        """The client does not keep up with what it asked for. If it takes next to nothing it is cut off."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._stop_expecting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and leave the place."""
        self.connection_limit.leave(self)
        self._disarm()
        self._stop_expecting()
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Close: another client needs the place, and no request is being answered here."""
        self._is_refused = True
        self._disarm()
        if self.transport.get_write_buffer_size():
            self.transport.close()  # when the rest of the last answer is taken
        else:
            self.transport.abort()  # with TLS, closing would wait for the client to agree

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = True
        self._is_answered_at_once = False
        self._head_bytes = self._held_bytes = 0
        self._is_in_body = False
        self._read_at_a_time(HEAD_READ_BYTES)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header. One of a trailer is counted as if it belonged to the head, and dropped (RFC 9110, 6.5.1)."""
        self._held_bytes = 0
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._head_bytes > MAX_HEAD_BYTES:
            self._count(0)
        if self._in_head:
            # RFC 9112, 5.1: the blanks around a value are not part of it. The parser takes off those before it.
            value = value.rstrip(b" \t")
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The request is handed to the application, unless its message may end elsewhere for another reader."""
        version = self.parser.get_http_version()
        try:
            length = body_bytes(self.parser.get_method().decode("ascii"), version, self.headers)
        except RefusedHeadError as refused:
            self._refused_head = refused
            raise
        self._disarm()
        self._in_head = self._is_new = False
        self._has_offer = self.parser.should_upgrade()
        if length == 0 and self._answer_at_once():
            return
        self.connection_limit.set_busy(self)
        self._body_is_chunked = length is None
        self._body_left = length or 0
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1: an HTTP/1.0 client does not know what comes
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        super().on_headers_complete()
        if self._is_plain:
            scope = cast("dict[str, Any]", self.scope)
            scope[BODY_SOCKET] = BodySocket(self.transport, self.cycle)
            if self._body_left >= LEAST_BYTES:
                scope[BODY_SOURCE] = BodySource(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Let a part of a body be received as it came: gathered in a buffer, as uvicorn has it, it is copied twice."""
        self._body_left -= len(body)
        self._held_bytes = 0
        if self._is_in_body:
            self._read_at_a_time(BODY_READ_BYTES)  # there is a second part only where the first was received
        self._is_in_body = True
        if self.cycle.body or self.cycle.response_complete:
            super().on_body(body)
            return
        self.cycle.body = cast("bytearray", body)
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request's last byte; the parser says so behind a head with an offer, too, whatever body follows."""
        if not (self._has_offer or self._is_answered_at_once):
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was handed over; if no other request waits, the connection is idle."""
        super().on_response_complete()
        if not self.is_answering:
            self.connection_limit.set_idle(self)

    def _answer_at_once(self) -> bool:
        """Answer a request without a body in this very call, where the application can; False: in the ordinary way.

        What uvicorn does for a request beside costs as much as such an answer.
        """
        find: Callable[[dict[str, Any]], tuple[int, list[tuple[bytes, bytes]], bytes] | None] | None
        find = getattr(self.app, "answer_at_once", None)
        if (
            find is None
            or self._has_offer
            or self.is_answering
            or self.expect_100_continue
            or self.flow.write_paused
            or self.transport.is_closing()
            or self.parser.get_method() != b"GET"
            or not self.parser.should_keep_alive()
            or not self.url.startswith(b"/")
        ):
            return False
        scope = cast("dict[str, Any]", self.scope)
        scope["method"], scope["raw_path"] = "GET", self.url.partition(b"?")[0].partition(b"#")[0]
        answer = find(scope)
        if answer is None:
            return False
        status, headers, body = answer
        self.transport.write(_message(status, [*self.server_state.default_headers, *headers], body))
        self._is_answered_at_once = True
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_next(self.timeout_keep_alive)
        self.connection_limit.set_idle(self)
        return True

    def timeout_keep_alive_handler(self) -> None:
        """Close, unless requests were answered at once since the timer was set, which cost no timer each."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_next(left)
        else:
            super().timeout_keep_alive_handler()

    def _await_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _take_host_of_target(self) -> None:
        """Name the host as the target does (RFC 9112, 3.2.2: "MUST ignore the received Host header field")."""
        target = parse_url(self.url)
        if target.host is None:
            return  # `*`
        host = b"[%b]" % target.host if b":" in target.host else target.host
        host = host if target.port is None else b"%b:%d" % (host, target.port)
        self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]

    # A body that is received directly

    def take_body(self) -> tuple[int, int]:
        """Stop reading, and parsing: for what is left of a body the parser is not needed, and it would copy it.

        How much is left, and a descriptor of the socket, the caller's to close. :meth:`give_body_back` has to follow.
        """
        self.flow.pause_reading()
        self.parser = _new_parser(self)  # the old one waits for bytes that it will not see
        self._is_past_parser = True
        return self._body_left, os.dup(self.transport.get_extra_info("socket").fileno())

    def give_body_back(self, left: int) -> None:
        """Go on reading. What of the body was not received is received as ever."""
        self._body_left = left
        self._end_body()
        self.flow.resume_reading()

    def _end_body(self) -> None:
        if not self._body_left:
            self._is_past_parser = False
            self.on_message_complete()

    def _refuse_what_stopped_it(self, error: HttpParserError) -> None:
        """The parser stopped: because of what the client sent, or because a callback raised."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._refused_head is not None:
            self._refuse(self._refused_head.status, "usage", str(self._refused_head))
        elif isinstance(error.__context__, MemoryError):
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "the server has no memory left for this request"
            )
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "usage", "this is not a valid HTTP request")

    def _read_at_a_time(self, nbytes: int) -> None:
        if self._is_plain:
            cast("Any", self.transport).max_size = nbytes

    @property
    def _is_plain(self) -> bool:
        return hasattr(self.transport, "max_size")  # asyncio's own transport, without TLS

    @property
    def is_new(self) -> bool:
        """True if there was no request on it yet."""
        return self._is_new

    @property
    def is_answering(self) -> bool:
        """True if a request is with the application."""
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_reading(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        patience = self.stall_seconds + STALL_GRACE_SECONDS
        self._write_timer = self.loop.call_later(patience, self._reading_is_late, unsent)

    def _stop_expecting(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _reading_is_late(self, unsent: int) -> None:
        # Closing would wait for the rest to be sent: for ever, if the client keeps the connection but reads nothing.
        if unsent - self.transport.get_write_buffer_size() < PROGRESS_BYTES:
            self.transport.abort()
        else:
            self._expect_reading()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_seconds, self._head_is_late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        seconds = self.header_timeout_seconds
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "timeout", f"no whole request head came within {seconds:g} seconds")

    def _count(self, n_bytes: int) -> None:
        self._held_bytes = 0
        self._head_bytes += n_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too long")

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too_large",
            f"a request head has at most {MAX_HEAD_BYTES} bytes",
        )

    def _refuse(self, status: HTTPStatus, code: str, message: str, *, linger: bool = True) -> None:
        """Answer without the application, and close; nothing that still comes in is looked at."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._disarm()
        if self.is_answering and not self.cycle.more_body:
            # What is refused was sent behind a whole request: that one gets its answer, then the connection closes.
            self.cycle.keep_alive = False
            return
        if self.is_answering:
            # The request itself is broken off. Unless an answer of the application, or one before it, is on its way:
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
            self.cycle.disconnected = True  # the application finds that the client has left
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        self.transport.write(_problem(status, code, message, self.server_state.default_headers))
        if linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


def connection_class(settings: ServerSettings, limit: ConnectionLimit) -> type[Connection]:
    """The protocol class of a server with these settings, whose connections are at most as many as ``limit`` says."""
    limits = {
        "header_timeout_seconds": settings.header_timeout_seconds,
        "stall_seconds": settings.stall_seconds,
        "connection_limit": limit,
    }
    return type("Connection", (Connection,), limits)


def _new_parser(callbacks: object) -> HttpRequestParser:
    parser = HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn: what follows a last request is dropped
    return parser


def _problem(status: HTTPStatus, code: str, message: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    request_id = uuid.uuid4().hex
    body = json.dumps({"code": code, "message": message, "request_id": request_id}).encode()
    lines = [
        *headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *([(b"retry-after", b"%d" % RETRY_SECONDS)] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        (b"connection", b"close"),
    ]
    return _message(status.value, lines, body)


def _message(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """A whole answer."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
