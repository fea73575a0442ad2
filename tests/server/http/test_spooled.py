"""Spooled bodies: whole, within their bounds, counted while they are there, and gone afterwards."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.support.live import LiveServer, live_server
from tests.support.live import request as send
from xetstore.cas.service import EmbeddedCas
from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Route
from xetstore.server.http.spooled import spool_body
from xetstore.server.site import Site, site_of
from xetstore.server.threads import in_thread
from xetstore.testing.samples import random_bytes

MOST = 8 << 20


async def digest(request: Request) -> Response:
    async with spool_body(request, MOST) as body:
        content = await in_thread(body.read)
        used = site_of(request).limits.spooling.used
    return PlainTextResponse(f"{hashlib.sha256(content).hexdigest()} {used}")


async def failing(request: Request) -> Response:
    async with spool_body(request, MOST):
        raise ValueError("after the body")


class Held:
    """A handler that keeps a body until it is told to go on."""

    def __init__(self) -> None:
        self.has_body = threading.Event()
        self.go_on = threading.Event()

    async def __call__(self, request: Request) -> Response:
        async with spool_body(request, MOST):
            self.has_body.set()
            await in_thread(self.go_on.wait, 60)
        return Response(b"")


def app(site: Site) -> Edge:
    return Edge(site, (Route("/digest", {"POST": digest}), Route("/failing", {"POST": failing})))


@pytest.fixture
def server(cas: EmbeddedCas) -> Iterator[LiveServer]:
    with live_server(cas, app=app, stall_seconds=1) as running:
        yield running
        assert running.site.limits.spooling.used == running.site.limits.receiving.used == 0
        assert not files_of(cas)


def files_of(cas: EmbeddedCas) -> list[Path]:
    return [] if cas.scratch_folder is None else list(cas.scratch_folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, (1 << 20) + 1, MOST])
def test_a_body_is_there_as_it_was_sent(server: LiveServer, size: int) -> None:
    body = random_bytes(size)
    answer = server.request("POST", "/digest", body=body)
    assert answer.body.decode() == f"{hashlib.sha256(body).hexdigest()} {size}"


def test_a_body_of_untold_length_is_counted_as_the_longest(server: LiveServer) -> None:
    body = random_bytes(300_000)
    with server.connect() as connection:
        connection.sendall(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.endswith(f"{hashlib.sha256(body).hexdigest()} {MOST}".encode())


def test_one_that_is_too_long_is_refused_before_it_is_read(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (MOST + 1))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_one_that_gets_too_long_is_refused(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(9):
            connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("declared", [1000, 5 << 20])
def test_nothing_is_left_of_one_that_stalls_or_whose_client_leaves(server: LiveServer, declared: int) -> None:
    for leaves in (True, False):
        with server.connect() as connection:
            connection.sendall(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % declared)
            connection.sendall(bytes(min(declared - 1, 2 << 20)))
            if not leaves:
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_nothing_is_left_of_one_whose_handler_fails(server: LiveServer) -> None:
    assert server.request("POST", "/failing", body=random_bytes(1 << 20)).status == 500


def test_the_disk_is_shared_and_one_too_many_is_told_to_come_back(cas: EmbeddedCas) -> None:
    held = Held()

    def with_held(site: Site) -> Edge:
        return Edge(site, (Route("/held", {"POST": held}), Route("/digest", {"POST": digest})))

    with live_server(cas, app=with_held, max_spooled_bytes=10 << 20, max_share=1.0, queue_seconds=0.2) as server:
        first = threading.Thread(target=send, args=(server.url, "POST", "/held"), kwargs={"body": bytes(6 << 20)})
        first.start()
        try:
            assert held.has_body.wait(60)
            busy = server.request("POST", "/digest", body=bytes(5 << 20))
            assert (busy.status, busy.json()["code"]) == (503, "unavailable")
            assert busy.headers["Retry-After"]
            assert server.request("POST", "/digest", body=bytes(4 << 20)).status == 200
        finally:
            held.go_on.set()
            first.join(60)
        assert server.request("POST", "/digest", body=bytes(5 << 20)).status == 200
