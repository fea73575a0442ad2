"""Connection: what one TCP connection may cost before a request of it is known. uvicorn's HTTP protocol, with limits.

What is refused here never reaches the application: too many connections (503), a head that does not arrive in
time (408) or is too long (431), and what is no HTTP at all (400). All of it in the wire form of every other error.

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
from http import HTTPStatus
from typing import Any, Final, cast

from httptools import HttpRequestParser
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from xetstore.server.direct import BODY_SOCKET, BodySocket
from xetstore.server.limits import PROGRESS_BYTES
from xetstore.server.receiving import BODY_SOURCE, LEAST_BYTES, BodySource
from xetstore.server.settings import ServerSettings

MAX_HEAD_BYTES: Final = 64 << 10
"""Most bytes that the request line and the headers of one request may have together."""
LINGER_SECONDS: Final = 1.0
"""How long a refused client's bytes are still read and dropped: closing on unread ones would reset the connection."""
STALL_GRACE_SECONDS: Final = 1.0
"""So much longer than ``stall_seconds`` a client is waited for that takes nothing: an answer that is sent in parts has
its own patience, which is to end first, for it says why.
"""
RETRY_SECONDS: Final = 1
HEAD_READ_BYTES: Final = 256 << 10
BODY_READ_BYTES: Final = 1 << 20
"""How much is read from a socket at a time: more where the application wants a long body, for each time costs as much
as a copy of it does. Nobody who has not been let in gets so much memory.
"""


class Connection(HttpToolsProtocol):
    """One connection. Made into a class for one server by :func:`connection_class`.

    Beside asyncio's protocol methods this relies on some things of uvicorn: the callbacks of its parser
    (``on_message_begin``, ``on_url``, ``on_header``, ``on_headers_complete``, ``on_body``), which may raise to stop the
    parser; ``send_400_response``, which is then called; ``connections``, all that are open; ``flow``, which pauses
    reading; ``cycle``, the latest request, with its ``body``, ``message_event``, ``more_body``, ``response_complete``
    and ``keep_alive``; and ``parser``, which may be replaced. Of asyncio's transport it sets ``max_size``.
    """

    header_timeout_seconds: float
    stall_seconds: float
    max_connections: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        # Bytes read since the last field was whole: the parser holds them back.
        self._held_bytes = 0
        self._in_head = True
        self._is_in_body = False
        self._is_refused = False
        # Of the body of the latest request, where its length was told: what was not received yet, whoever counts it.
        self._body_left = 0
        self._is_past_parser = False
        self._write_timer: asyncio.TimerHandle | None = None
        self.access_log = False  # it would name the query, with what is signed in it

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and give it time for a first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.max_connections:
            # Closed at once: lingering is what a server that is full has no room for.
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "too many connections", linger=False)
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._is_refused:
            return
        if not self.is_answering:
            self._expect_head()
        if self._is_past_parser:
            self._unset_keepalive_if_required()
            body, data = data[: self._body_left], data[self._body_left :]
            self.on_body(body)
            self._end_body()
            if not data:
                return
        self._held_bytes += len(data)
        super().data_received(data)
        if self._in_head and not self._is_refused and self._head_bytes + self._held_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def pause_writing(self) -> None:
        """The client does not keep up with what it asked for. If it takes next to nothing it is cut off."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._stop_expecting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm()
        self._stop_expecting()
        super().connection_lost(exc)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = True
        self._head_bytes = self._held_bytes = 0
        self._is_in_body = False
        self._read_at_a_time(HEAD_READ_BYTES)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header; also one of a trailer, which is counted as if it belonged to the head."""
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request is handed to the application."""
        self._disarm()
        self._in_head = False
        super().on_headers_complete()
        self._body_left = _declared_bytes(self.headers)
        if self._is_plain:
            scope = cast("dict[str, Any]", self.scope)
            scope[BODY_SOCKET] = BodySocket(self.transport, self.cycle)
            if self._body_left >= LEAST_BYTES and not self.parser.should_upgrade():
                scope[BODY_SOURCE] = BodySource(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Let a part of a body be received as it came: gathered in a buffer, as uvicorn has it, it is copied twice."""
        self._body_left -= len(body)
        if self._is_in_body:
            self._read_at_a_time(BODY_READ_BYTES)  # there is a second part only where the first was received
        self._is_in_body = True
        if self.cycle.body or self.cycle.response_complete or self.parser.should_upgrade():
            super().on_body(body)
            return
        self.cycle.body = cast("bytearray", body)
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    # A body that is received directly

    def take_body(self) -> tuple[int, int]:
        """Stop reading, and parsing: for what is left of a body the parser is not needed, and it would copy it.

        How much is left, and a descriptor of the socket, the caller's to close. :meth:`give_body_back` has to follow.
        """
        self.flow.pause_reading()
        self.parser = HttpRequestParser(self)  # the old one waits for bytes that it will not see
        self._is_past_parser = True
        return self._body_left, os.dup(self.transport.get_extra_info("socket").fileno())

    def give_body_back(self, left: int) -> None:
        """Go on reading. So much of the body was not received, and is received as ever."""
        self._body_left = left
        self._end_body()
        self.flow.resume_reading()

    def _end_body(self) -> None:
        if not self._body_left:
            self._is_past_parser = False
            self.on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser stopped: because of what the client sent, or because a callback raised."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "usage", msg)

    def _read_at_a_time(self, nbytes: int) -> None:
        if self._is_plain:
            cast("Any", self.transport).max_size = nbytes

    @property
    def _is_plain(self) -> bool:
        return hasattr(self.transport, "max_size")  # asyncio's own transport, without TLS

    @property
    def is_new(self) -> bool:
        """Whether there was no request on it yet."""
        return self.cycle is None

    @property
    def is_answering(self) -> bool:
        """Whether a request is with the application."""
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
            # The request itself is broken off. An answer of the application may be on its way already.
            self.transport.close()
            return
        self.transport.write(_problem(status, code, message, self.server_state.default_headers))
        if linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


def connection_class(settings: ServerSettings) -> type[Connection]:
    """The protocol class of a server with these settings."""
    limits = {
        "header_timeout_seconds": settings.header_timeout_seconds,
        "stall_seconds": settings.stall_seconds,
        "max_connections": settings.max_connections,
    }
    return type("Connection", (Connection,), limits)


def _declared_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    """What Content-Length says; the parser has seen to it that there is one, and a number, if any. 0 if not."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _problem(status: HTTPStatus, code: str, message: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    request_id = uuid.uuid4().hex
    body = json.dumps({"code": code, "message": message, "request_id": request_id}).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers),
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        *([f"retry-after: {RETRY_SECONDS}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
