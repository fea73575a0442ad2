"""The edge: request ids, paths, errors on the wire, answers before the body was read, answers that break off, logs."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import (
    AccessDeniedError,
    NotFoundError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    XetError,
)
from xetstore.server.http.bodies import read_body
from xetstore.server.http.edge import Edge, new_request_id, printable
from xetstore.server.http.router import Handler, Route
from xetstore.server.site import Site, site_of

BODY_BYTES = 64 << 20
"""What a client sends as a xorb, before it looks at the answer, if it is one of those that do not look before."""


def raising(error: Exception) -> Handler:
    async def handler(request: Request) -> Response:
        raise error

    return handler


async def echo(request: Request) -> Response:
    return PlainTextResponse(" ".join([request.method, request.url.path, *request.path_params.values()]))


async def values(request: Request) -> Response:
    return PlainTextResponse(" | ".join(request.path_params.values()))


async def length(request: Request) -> Response:
    body = await read_body(request, site_of(request).limits, 100 << 20)
    return PlainTextResponse(str(len(body)))


async def at_most_a_kilobyte(request: Request) -> Response:
    await read_body(request, site_of(request).limits, 1000)
    return PlainTextResponse("read")


async def broken_off(request: Request) -> Response:
    async def parts() -> Any:
        yield b"the first part"
        raise OSError(errno.EIO, "the disk is gone")

    return StreamingResponse(parts(), headers={"Content-Length": "1000"} if "sized" in request.url.query else None)


def limited(seconds: float) -> TooManyRequestsError:
    error = TooManyRequestsError("too many requests")
    error.retry_after = seconds
    return error


def failing(error: Exception) -> dict[str, Handler]:
    return dict.fromkeys(("GET", "HEAD", "POST"), raising(error))


ROUTES = (
    Route("/echo", {"GET": echo, "HEAD": echo, "POST": echo}),
    Route("/echo/{hash}", {"GET": echo}),
    Route("/echo/{prefix}/{hash}", {"GET": echo}),
    Route("/tree/{rev:text}/{path:path}", {"GET": values}),
    Route("/free", {"GET": echo}, limited=False),
    Route("/length", {"POST": length}),
    Route("/small", {"POST": at_most_a_kilobyte}),
    Route("/broken-off", {"GET": broken_off}),
    Route("/401", failing(UnauthenticatedError("a token is needed", hint="send one"))),
    Route("/404", failing(NotFoundError("there is no file"))),
    Route("/429", failing(limited(1.2))),
    Route("/500", failing(ValueError("the secret is /srv/store"))),
    Route("/memory", failing(MemoryError("/srv"))),
    Route("/thread", failing(RuntimeError("can't start new thread for /srv"))),
    Route("/503", failing(UnavailableError("the index /srv/index.sqlite is locked", hint="see /srv"))),
    Route("/bucket", failing(UnavailableError("object xorbs/a could not be read: s3://srv-models/team broke off"))),
    Route("/denied", failing(AccessDeniedError("cannot write /srv/store"))),
    Route("/full", failing(OSError(errno.ENOSPC, "No space left on device", "/srv/store"))),
    Route("/gone", failing(OSError(errno.ENOENT, "No such file", "/srv/store"))),
    Route("/plain", failing(XetError("what nobody foresaw in /srv"))),
)


def app(site: Site) -> Edge:
    return Edge(site, ROUTES)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests that do not look at what it logs or counts."""
    with EmbeddedCas.open(tmp_path_factory.mktemp("edge") / "store") as opened, edge_with(opened) as running:
        yield running


@pytest.fixture
def fresh(cas: EmbeddedCas) -> Iterator[LiveServer]:
    with edge_with(cas) as running:
        yield running


@contextmanager
def edge_with(cas: EmbeddedCas, **settings: Any) -> Iterator[LiveServer]:
    with live_server(cas, app=app, **settings) as running:
        yield running


def raw(server: LiveServer, data: bytes) -> bytes:
    """All that the server says to these bytes until it closes."""
    with server.connect() as connection:
        connection.sendall(data)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while part := connection.recv(1 << 16):
        received += part
    return bytes(received)


def get(server: LiveServer, target: bytes) -> tuple[int, bytes]:
    """Status and body for a path as it stands."""
    answer = raw(server, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# Request ids


def test_every_answer_has_a_request_id_of_its_own(edge: LiveServer) -> None:
    answers = [edge.request("GET", path) for path in ("/echo", "/echo", "/404", "/nowhere", "/500")]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == 5
    assert all(len(name) == 32 for name in ids)
    assert answers[2].json()["request_id"] == answers[2].headers["X-Request-Id"]


def test_the_request_id_of_a_caller_is_kept(edge: LiveServer) -> None:
    answer = edge.request("GET", "/404", headers={"X-Request-Id": "my-request.1"})
    assert answer.headers.get_all("X-Request-Id") == ["my-request.1"]
    assert answer.json()["request_id"] == "my-request.1"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, 'a"b', "é", "a/b"])
def test_a_request_id_that_could_mean_something_in_a_log_is_not_kept(edge: LiveServer, name: str) -> None:
    answer = edge.request("GET", "/404", headers={"X-Request-Id": name})
    assert len(answer.headers["X-Request-Id"]) == 32


def test_request_ids_sort_by_time() -> None:
    first = new_request_id()
    time.sleep(0.002)
    assert first < new_request_id()


# Paths


def test_double_slashes_are_squeezed(edge: LiveServer) -> None:
    assert get(edge, b"//echo") == (200, b"GET /echo")
    assert get(edge, b"/echo///default//ab?x=//y") == (200, b"GET /echo/default/ab default ab")


@pytest.mark.parametrize(
    "target",
    [
        b"/echo%2fab",
        b"/echo/%61b",
        b"/echo/../ab",
        b"/echo/..",
        b"/echo/.",
        b"/echo/./ab",
        b"/echo/a%00b",
        b"/echo/%ff",
        b"/echo/%",
        b"/echo/a;b",
        b"/echo/a\\b",
        b"/echo/",
        b"/echo/ab/",
        b"/echo/a/b/c",
        b"/Echo",
        b"/" + b"a/" * 5000,
        b"/echo/\xc3\xa9",
        b"/echo/a\x01b",
        b"*",
        b"echo",
    ],
)
def test_a_path_that_is_none_of_ours_is_an_error_of_the_client(edge: LiveServer, target: bytes) -> None:
    status, body = get(edge, target)
    assert status in (400, 404)
    assert json.loads(body).keys() == {"code", "message", "request_id"}


def test_an_absolute_form_names_the_same_path(edge: LiveServer) -> None:
    assert get(edge, b"http://localhost/echo/ab") == (200, b"GET /echo/ab ab")


def test_the_path_of_the_public_url_may_be_there_or_not(cas: EmbeddedCas) -> None:
    with edge_with(cas, public_url="https://example.org/some/where") as server:
        assert get(server, b"/some/where/echo/ab") == (200, b"GET /echo/ab ab")
        assert get(server, b"/some//where//echo") == (200, b"GET /echo")
        assert get(server, b"/echo/ab") == (200, b"GET /echo/ab ab")
        assert get(server, b"/some/wherever/echo")[0] == 404
    with edge_with(cas, public_url="https://example.org/echo") as server:
        assert get(server, b"/echo/ab") == (200, b"GET /echo/ab ab")
        assert get(server, b"/echo/echo/ab/cd") == (200, b"GET /echo/ab/cd ab cd")


def test_a_decoded_parameter_comes_out_and_the_path_is_logged_as_it_was_sent(
    fresh: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "xetstore.access"):
        assert get(fresh, b"/tree/refs%2Fpr%2F1/a/b%20c") == (200, b"refs/pr/1 | a/b c")
    [record] = caplog.records
    assert "GET /tree/refs%2Fpr%2F1/a/b%20c 200" in record.getMessage()
    assert 'route="/tree/{rev}/{path}"' in fresh.site.metrics.exposition().decode()


# Errors on the wire


def test_an_unknown_path_is_a_404_in_json(edge: LiveServer) -> None:
    answer = edge.request("GET", "/nowhere")
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["DELETE", "PUT", "OPTIONS", "PATCH", "TRACE"])
def test_another_method_is_a_405_that_says_which_ones_there_are(edge: LiveServer, method: str) -> None:
    answer = edge.request(method, "/echo")
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


def test_a_hint_is_a_part_of_the_message(edge: LiveServer) -> None:
    answer = edge.request("GET", "/401")
    assert (answer.status, answer.json()["message"]) == (401, "a token is needed; send one")
    told = 'Bearer realm="xetstore", error="invalid_token", error_description="a token is needed"'
    assert answer.headers["WWW-Authenticate"] == told


def test_an_error_to_head_has_no_body(edge: LiveServer) -> None:
    answer = edge.request("HEAD", "/404")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["X-Request-Id"]


def test_429_and_503_say_when_to_try_again_in_whole_seconds(edge: LiveServer) -> None:
    assert edge.request("GET", "/429").headers["Retry-After"] == "2"
    assert edge.request("GET", "/503").headers["Retry-After"] == "1"
    assert edge.request("GET", "/404").headers["Retry-After"] is None


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/500", 500, "internal"),
        ("/plain", 500, "internal"),
        ("/gone", 500, "internal"),
        ("/denied", 503, "denied"),
        ("/503", 503, "unavailable"),
        ("/bucket", 503, "unavailable"),
        ("/memory", 503, "unavailable"),
        ("/thread", 503, "unavailable"),
        ("/full", 507, "storage_full"),
    ],
)
def test_a_failure_of_ours_says_nothing_of_this_machine(
    edge: LiveServer, path: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = edge.request("GET", path)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert b"srv" not in answer.body
    assert "/srv" in caplog.text, "whoever runs the server is told"
    assert answer.headers["X-Request-Id"] in caplog.text


# Answers before the body was read


def post(server: LiveServer, path: str, size: int, *more: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: localhost", f"Content-Length: {size}".encode(), *more]
    return b"\r\n".join([*lines, b"", b""])


@pytest.mark.parametrize(
    ("path", "status"), [("/401", 401), ("/404", 404), ("/429", 429), ("/nowhere", 404), ("/small", 413)]
)
def test_a_client_that_sends_all_of_a_large_body_first_still_gets_the_answer(
    edge: LiveServer, path: str, status: int
) -> None:
    connection = http.client.HTTPConnection(*edge.address, timeout=60)
    try:
        connection.request("POST", path, bytes(BODY_BYTES))
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert json.loads(answer.read()).keys() == {"code", "message", "request_id"}
    finally:
        connection.close()


def test_the_answer_is_there_while_a_large_body_is_still_being_sent(edge: LiveServer) -> None:
    with edge.connect() as connection:
        connection.sendall(post(edge, "/401", BODY_BYTES))
        connection.sendall(bytes(1 << 20))
        head = connection.recv(1 << 16)
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in head.lower()
        for _ in range(63):
            connection.sendall(bytes(1 << 20))
        read_all(connection)


def test_a_body_declared_too_long_is_refused_before_any_of_it_is_sent(edge: LiveServer) -> None:
    with edge.connect() as connection:
        connection.sendall(post(edge, "/small", 1 << 40))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_waits_for_100_continue_is_answered_without_it(edge: LiveServer) -> None:
    answer = raw(edge, post(edge, "/401", BODY_BYTES, b"Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer


def test_a_client_that_waits_for_100_continue_gets_it_where_the_body_is_wanted(edge: LiveServer) -> None:
    with edge.connect() as connection:
        connection.sendall(post(edge, "/length", 3, b"Expect: 100-continue", b"Connection: close"))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert read_all(connection).endswith(b"\r\n\r\n3")


@pytest.mark.parametrize("size", [1, 82, 64 << 10, 1 << 20])
def test_after_a_small_body_nobody_wanted_the_connection_serves_the_next_request(edge: LiveServer, size: int) -> None:
    connection = http.client.HTTPConnection(*edge.address, timeout=60)
    try:
        connection.connect()
        used = connection.sock
        for _ in range(3):
            connection.request("POST", "/404", bytes(size))
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["Connection"]) == (404, None)
        connection.request("POST", "/length", b"abc")
        assert connection.getresponse().read() == b"3"
        assert connection.sock is used
    finally:
        connection.close()


def test_a_chunked_body_nobody_wanted_ends_the_connection_after_the_answer(edge: LiveServer) -> None:
    with edge.connect() as connection:
        connection.sendall(b"POST /401 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n" + b"0\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()


def test_a_body_that_grows_too_long_is_refused_while_it_is_sent(edge: LiveServer) -> None:
    with edge.connect() as connection:
        connection.sendall(b"POST /small HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        connection.sendall(b"0\r\n\r\n")
        read_all(connection)


def test_a_sender_that_stalls_is_told_so_and_cut_off(cas: EmbeddedCas) -> None:
    with edge_with(cas, stall_seconds=0.05) as server, server.connect() as connection:
        connection.sendall(post(server, "/length", 1000) + b"a few bytes")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "timeout"


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_error_behind(
    fresh: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xetstore")
    with fresh.connect() as connection:
        connection.sendall(post(fresh, "/length", 1000) + b"a few bytes")
    logged = wait_for(lambda: [record for record in caplog.records if "/length" in record.getMessage()])
    assert " 499 " in logged[0].getMessage()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# Answers that break off


@pytest.mark.parametrize("path", ["/broken-off?sized", "/broken-off?chunked"])
def test_an_answer_that_fails_after_its_start_does_not_look_whole(
    edge: LiveServer, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(http.client.IncompleteRead):
        edge.request("GET", path)
    assert "the disk is gone" in caplog.text


# Rates


def test_an_address_that_asks_too_often_is_refused_and_health_is_not(cas: EmbeddedCas) -> None:
    with edge_with(cas, rate_per_address=0.01, burst_seconds=300) as server:
        assert [server.request("GET", "/echo").status for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = server.request("GET", "/404")
        assert (refused.status, refused.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["Retry-After"]) <= 100
        assert server.request("GET", "/nowhere").status == 429
        assert {server.request("GET", "/free").status for _ in range(5)} == {200}


def test_clients_behind_a_proxy_on_this_machine_are_counted_apart(cas: EmbeddedCas) -> None:
    with edge_with(cas, rate_per_address=0.01, burst_seconds=100) as server:

        def status(forwarded_for: str) -> int:
            return server.request("GET", "/echo", headers={"X-Forwarded-For": forwarded_for}).status

        assert [status("192.0.2.1"), status("192.0.2.2"), status("192.0.2.1")] == [200, 200, 429]
        assert status("192.0.2.9, 192.0.2.2") == 429, "what the client itself says does not count"


def test_clients_behind_a_proxy_elsewhere_are_counted_apart_if_it_is_trusted(cas: EmbeddedCas) -> None:
    with edge_with(cas, rate_per_address=0.01, burst_seconds=100, trusted_proxies=("192.0.2.0/24",)) as server:

        def status(forwarded_for: str) -> int:
            return server.request("GET", "/echo", headers={"X-Forwarded-For": forwarded_for}).status

        assert [status("198.51.100.1, 192.0.2.7"), status("198.51.100.2, 192.0.2.7")] == [200, 200]
        assert status("203.0.113.9, 198.51.100.2, 192.0.2.8") == 429, "the last one that is no proxy counts"


# Logs and metrics


def wait_for(found: Callable[[], Any]) -> Any:
    """What is found, which may take the server a moment after its answer."""
    deadline = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
    return result


def test_each_request_is_one_line_in_the_log_without_its_query(
    fresh: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xetstore.access")
    agent = 'me/1 "quoted" \t\xe9'
    fresh.request(
        "POST", "/length?X-Xet-Signature=secret", body=b"abc", headers={"User-Agent": agent, "X-Request-Id": "r1"}
    )
    fresh.request("GET", "/echo/%0a%1b")
    first, second = wait_for(lambda: logged if len(logged := caplog.records) == 2 else None)
    line = first.getMessage()
    assert line.startswith("POST /length 200 in=3 out=1 ms=")
    assert " id=r1 " in line
    assert "secret" not in line
    assert r'agent="me/1 \x22quoted\x22 \x09\xe9"' in line
    assert first.fields["status"] == 200
    assert "GET /echo/%0a%1b 404 " in second.getMessage()


def test_nothing_a_stranger_sends_can_forge_a_line() -> None:
    assert printable(b'a"b\\c\r\n\xe9\x00', 20) == r"a\x22b\x5cc\x0d\x0a\xe9\x00"
    assert printable(b"x" * 300, 5) == "xxxxx…"


@given(st.binary(max_size=50))
def test_what_is_logged_of_a_stranger_is_printable_ascii(data: bytes) -> None:
    text = printable(data, 50)
    assert text.isascii()
    assert '"' not in text
    assert not text or text.isprintable()


def test_requests_are_counted_by_route_and_never_by_path(fresh: LiveServer) -> None:
    for path in ("/echo/one", "/echo/two", "/nowhere", "/nowhere-else"):
        fresh.request("GET", path)
    fresh.request("BREW", "/echo")
    text = fresh.site.metrics.exposition().decode()
    assert 'requests_total{method="GET",route="/echo/{hash}",status="200"} 2.0' in text
    assert 'requests_total{method="GET",route="unknown",status="404"} 2.0' in text
    assert "nowhere" not in text
    assert "BREW" not in text


def test_bytes_both_ways_are_counted(fresh: LiveServer) -> None:
    fresh.request("POST", "/length", body=bytes(200_000))
    text = wait_for(lambda: t if "sent_bytes_total{" in (t := fresh.site.metrics.exposition().decode()) else None)
    assert 'received_bytes_total{route="/length"} 200000.0' in text
    assert 'sent_bytes_total{route="/length"} 6.0' in text
    assert "requests_in_flight 0.0" in text
