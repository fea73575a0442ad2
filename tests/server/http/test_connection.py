"""Connections: heads that come too late or are too long, too many connections, and what is no HTTP. On raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send

from tests.support.live import PATIENCE_SECONDS, Response, served
from xetstore.server.http.connection import MAX_HEAD_BYTES
from xetstore.server.settings import ServerSettings

HEAD_SECONDS = 0.3
"""The time for a head, in these tests."""

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body was: before it was read at /early, and at /late long after."""
    assert scope["type"] == "http" or scope["type"] == "lifespan"
    if scope["type"] == "lifespan":
        raise NotImplementedError
    length = 0
    if scope["path"] != "/early":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
    if scope["path"] == "/late":
        await asyncio.sleep(3 * HEAD_SECONDS)
    body = b"%d" % length
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    if scope["path"] == "/early":
        assert (await receive())["type"] == "http.disconnect"


class Raw:
    """A connection, by the bytes."""

    def __init__(self, url: str, source: str | None = None) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection(
            (parts.hostname, parts.port),
            timeout=PATIENCE_SECONDS,
            source_address=None if source is None else (source, 0),
        )
        # One for all answers: it may read more than one of them at once.
        self._reader = self.socket.makefile("rb")

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def trickle(self, data: bytes) -> None:
        """Send byte by byte, for much longer than a head may take, or until the server has had enough."""
        with contextlib.suppress(OSError):
            for byte in data:
                self.socket.sendall(bytes([byte]))
                time.sleep(HEAD_SECONDS / 20)

    def answer(self) -> Response:
        status = self._reader.readline().split()
        if not status:
            raise ConnectionResetError("the server closed instead of answering")
        headers = http.client.parse_headers(self._reader)
        body = self._reader.read(int(headers["Content-Length"]))
        return Response(int(status[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes, and says nothing more."""
        with contextlib.suppress(ConnectionError):
            return self._reader.read(1) == b""
        return True

    def refusal(self) -> tuple[int, str]:
        """Status and code of a last answer, in the form of every error."""
        answer = self.answer()
        told = answer.json()
        assert set(told) == {"code", "message", "request_id"}
        assert told["request_id"] == answer.headers["X-Request-Id"]
        assert answer.headers["Connection"] == "close"
        assert answer.headers["Content-Type"] == "application/json"
        assert self.is_closed()
        return answer.status, told["code"]


class Serving:
    """A server with short patience; connections to it."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self.url = url
        self._stack = stack

    def connect(self, source: str | None = None) -> Raw:
        raw = Raw(self.url, source)
        self._stack.callback(raw.close)
        return raw


@contextlib.contextmanager
def serving(**settings: float) -> Iterator[Serving]:
    chosen = ServerSettings(**{"port": 0, "header_timeout_seconds": HEAD_SECONDS, **settings})  # type: ignore[arg-type]
    with served(application, chosen) as (url, _), contextlib.ExitStack() as stack:
        yield Serving(url, stack)


@pytest.fixture(scope="module")
def live() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def patient() -> Iterator[Serving]:
    """For tests in which nothing is to come too late, however slow the machine is."""
    with serving(header_timeout_seconds=PATIENCE_SECONDS) as running:
        yield running


# Heads that come too late


def test_a_head_that_trickles_in_is_cut_off(live: Serving) -> None:
    raw = live.connect()
    raw.trickle(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
    assert raw.refusal() == (408, "timeout")


def test_a_connection_that_says_nothing_is_closed(live: Serving) -> None:
    assert live.connect().refusal() == (408, "timeout")


def test_a_second_request_has_time_for_its_head_too_and_no_more(live: Serving) -> None:
    raw = live.connect()
    raw.send(GET)
    assert raw.answer().status == 200
    time.sleep(2 * HEAD_SECONDS)  # idle, which is another limit's business
    raw.send(GET)
    assert raw.answer().status == 200
    raw.trickle(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
    assert raw.refusal() == (408, "timeout")


def test_blank_lines_do_not_keep_a_connection_open(live: Serving) -> None:
    raw = live.connect()
    raw.send(GET)
    assert raw.answer().status == 200
    raw.send(b"\r\n")
    assert raw.refusal() == (408, "timeout")


def test_a_body_may_take_longer_than_a_head(live: Serving) -> None:
    raw = live.connect()
    raw.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n")
    raw.trickle(b"x" * 40)
    assert raw.answer().body == b"40"


def test_an_answer_may_take_longer_than_a_head_and_what_comes_meanwhile_does_no_harm(live: Serving) -> None:
    raw = live.connect()
    raw.send(GET.replace(b"/ ", b"/late "))
    raw.send(b"\r\n")
    raw.send(GET[:-2])
    assert raw.answer().status == 200
    raw.send(GET[-2:])
    assert raw.answer().status == 200


def test_an_idle_connection_is_closed_after_a_while() -> None:
    with serving(keep_alive_seconds=0) as running:
        raw = running.connect()
        raw.send(GET)
        assert raw.answer().status == 200
        assert raw.is_closed()


# Heads that are too long


def headers_of(n_bytes: int, each: int) -> bytes:
    """Headers that have this many bytes together, in lines of ``each``."""
    lines, rest = divmod(n_bytes, each)
    return (b"X: " + b"x" * (each - 5) + b"\r\n") * lines + b"Y: " + b"y" * max(0, rest - 5) + b"\r\n"


@pytest.mark.parametrize("each", [100, MAX_HEAD_BYTES // 2])
def test_a_head_of_nearly_64_kib_is_read(patient: Serving, each: int) -> None:
    raw = patient.connect()
    raw.send(b"GET / HTTP/1.1\r\nHost: test\r\n" + headers_of(MAX_HEAD_BYTES - 1000, each) + b"\r\n")
    assert raw.answer().status == 200


def test_a_head_of_nearly_64_kib_that_offers_an_upgrade_is_read_and_so_is_its_body(patient: Serving) -> None:
    raw = patient.connect()
    offer = b"Host: test\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n"
    raw.send(b"POST / HTTP/1.1\r\n" + offer + headers_of(MAX_HEAD_BYTES - len(offer) - 30, 100) + b"\r\n")
    raw.send(b"1\r\nx\r\n0\r\n\r\n")
    assert raw.answer().body == b"1"


@pytest.mark.parametrize("each", [100, 2 * MAX_HEAD_BYTES])
def test_a_longer_head_is_refused(patient: Serving, each: int) -> None:
    raw = patient.connect()
    raw.send(b"GET / HTTP/1.1\r\n" + headers_of(MAX_HEAD_BYTES + 100, each) + b"\r\n")
    assert raw.refusal() == (431, "too_large")


def test_a_longer_head_is_refused_before_it_ends(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"GET / HTTP/1.1\r\n" + headers_of(MAX_HEAD_BYTES + 100, 100))
    assert raw.refusal() == (431, "too_large")


def test_a_request_line_counts_as_head(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: test\r\n\r\n")
    assert raw.refusal() == (431, "too_large")


def test_a_client_that_goes_on_sending_its_head_still_sees_the_refusal(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"GET / HTTP/1.1\r\nX: " + b"x" * (8 << 20))
    assert raw.refusal() == (431, "too_large")


def test_a_short_head_behind_a_long_body_is_not_taken_for_a_long_one(patient: Serving) -> None:
    raw = patient.connect()
    body = b"x" * (1 << 20)
    raw.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET)
    assert raw.answer().body == b"%d" % len(body)
    assert raw.answer().status == 200


def test_a_whole_request_gets_its_answer_whatever_is_sent_behind_it(patient: Serving) -> None:
    for rest in (b"GET / HTTP/1.1\r\n" + headers_of(MAX_HEAD_BYTES + 100, 100), b"\x00\x01\x02 garbage\r\n\r\n"):
        raw = patient.connect()
        raw.send(GET.replace(b"/ ", b"/late ") + rest)
        assert raw.answer().status == 200
        assert raw.is_closed()


@pytest.mark.parametrize(
    "endless",
    [
        b"1\r\nx\r\n0\r\n" + headers_of(MAX_HEAD_BYTES, 100),
        b"1\r\nx\r\n0\r\nX: " + b"x" * 3 * MAX_HEAD_BYTES,
        b"1;" + b"x" * 3 * MAX_HEAD_BYTES,
        b"0" * 3 * MAX_HEAD_BYTES,
    ],
    ids=["trailer lines", "a trailer line", "a chunk's extension", "a chunk's length"],
)
@pytest.mark.parametrize("offer", [b"", b"Connection: upgrade\r\nUpgrade: x\r\n"], ids=["plain", "upgrade"])
def test_a_chunked_body_with_something_endless_beside_its_bytes_is_refused(
    patient: Serving, endless: bytes, offer: bytes
) -> None:
    raw = patient.connect()
    raw.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n" + offer + b"\r\n")
    for at in range(0, len(endless), 10_000):
        raw.send(endless[at : at + 10_000])
        time.sleep(0.001)
    assert raw.refusal() == (431, "too_large")


def test_a_long_chunked_body_in_short_chunks_is_no_long_head(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    raw.send(b"1;name=value\r\nx\r\n" * 50_000 + b"0\r\nX: y\r\n\r\n" + GET)
    assert raw.answer().body == b"50000"
    assert raw.answer().status == 200


# What is no HTTP


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, to a port without
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: one\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test\r\nX : 1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_the_form_of_every_error(patient: Serving, garbage: bytes) -> None:
    raw = patient.connect()
    raw.send(garbage)
    assert raw.refusal() == (400, "usage")


def test_a_broken_body_is_refused(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n")
    assert raw.refusal() == (400, "usage")


def test_a_broken_body_behind_a_request_that_is_being_answered_closes_the_connection(patient: Serving) -> None:
    raw = patient.connect()
    broken = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n"
    raw.send(GET.replace(b"/ ", b"/late ") + broken)
    assert raw.is_closed()


# Too many


UPLOAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n"
"""The head of a request that is being answered until its body comes."""


def test_one_connection_too_many_is_told_so_and_closed_where_all_others_are_in_use() -> None:
    with serving(max_connections=2, header_timeout_seconds=PATIENCE_SECONDS) as running:
        first, second = running.connect(), running.connect()
        for raw in (first, second):
            raw.send(GET + UPLOAD)
            assert raw.answer().status == 200
        answer = (third := running.connect()).answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert third.is_closed()
        for raw in (first, second):
            raw.send(b"x")
            assert raw.answer().body == b"1", "those who were there first are not disturbed"


def test_for_one_connection_too_many_the_one_that_was_idle_for_longest_is_closed() -> None:
    with serving(max_connections=3, header_timeout_seconds=PATIENCE_SECONDS) as running:
        silent, slow = running.connect(), running.connect()
        slow.send(b"GET / HTTP/1.1\r\nX: ")  # a head that does not end is no request
        busy = running.connect()
        busy.send(GET + UPLOAD)
        assert busy.answer().status == 200
        for closed in (silent, slow):
            raw = running.connect()
            raw.send(GET + UPLOAD)
            assert raw.answer().status == 200
            assert closed.is_closed()
        busy.send(b"x" + GET)
        assert [busy.answer().body, busy.answer().body] == [b"1", b"0"]


def test_an_idle_client_that_was_used_last_stays() -> None:
    with serving(max_connections=2, header_timeout_seconds=PATIENCE_SECONDS) as running:
        first, second = running.connect(), running.connect()
        for raw in (first, second, first):
            raw.send(GET)
            assert raw.answer().status == 200
        third = running.connect()
        third.send(GET)
        assert third.answer().status == 200
        assert second.is_closed()
        first.send(GET)
        assert first.answer().status == 200


def test_however_many_connect_and_say_nothing_who_has_something_to_say_is_answered() -> None:
    with serving(max_connections=20, header_timeout_seconds=PATIENCE_SECONDS) as running:
        for _ in range(10):
            for _ in range(30):
                running.connect()
            raw = running.connect()
            raw.send(GET)
            assert raw.answer().status == 200


def test_one_address_has_its_share_of_all_places_and_closes_its_own() -> None:
    limits = {"max_connections": 10, "max_connections_per_address": 2, "header_timeout_seconds": PATIENCE_SECONDS}
    with serving(**limits) as running:
        other = running.connect("127.0.0.3")
        mine = [running.connect("127.0.0.2") for _ in range(3)]
        assert mine[0].is_closed(), "though the other one is idle for longer"
        for raw in mine[1:]:
            raw.send(GET + UPLOAD)
            assert raw.answer().status == 200
        assert running.connect("127.0.0.2").refusal() == (503, "unavailable")
        other.send(GET)
        assert other.answer().status == 200
        proxy = [running.connect("127.0.0.1") for _ in range(4)]
        for raw in proxy:
            raw.send(GET)
            assert raw.answer().status == 200, "a proxy speaks for many"


def test_a_place_that_becomes_free_is_taken() -> None:
    with serving(max_connections=1, header_timeout_seconds=PATIENCE_SECONDS) as running:
        first = running.connect()
        first.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert first.answer().status == 200
        assert first.is_closed()
        status = 503
        while status == 503:  # the server sees the end of a connection a moment after its client
            raw = running.connect()
            with contextlib.suppress(OSError):
                raw.send(GET)
                status = raw.answer().status
        assert status == 200


# What the edge builds on


def test_the_rest_of_a_body_that_was_answered_early_is_dropped_and_the_connection_goes_on(patient: Serving) -> None:
    raw = patient.connect()
    raw.send(b"POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
    assert raw.answer().body == b"0"
    raw.send(b"x" * 1_000_000 + GET)
    assert raw.answer().status == 200


def test_a_body_that_was_answered_early_has_to_end(live: Serving) -> None:
    raw = live.connect()
    raw.send(b"POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
    assert raw.answer().body == b"0"
    raw.send(b"x")
    assert raw.refusal() == (408, "timeout")
