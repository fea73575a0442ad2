"""Receiving past the parser: every byte of a long body and no other, whatever comes before, behind, or not at all."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from tests.support.faulty import flip
from tests.support.live import LiveServer, live_server, open_sockets, until
from xetstore.cas.service import EmbeddedCas
from xetstore.server.http import receiving
from xetstore.server.http.receiving import LEAST_BYTES, WAKE_BYTES
from xetstore.testing.samples import Sample, make_sample, random_bytes

SAMPLE = make_sample(random_bytes(5_000_000, 1))
BODY = SAMPLE.body
NEXT = make_sample(random_bytes(LEAST_BYTES + 1, 2))


def head(server: LiveServer, sample: Sample = SAMPLE, *more: str) -> list[str]:
    return [
        f"POST /v1/xorbs/default/{sample.xorb.hash} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {server.token('write')}",
        f"Content-Length: {len(sample.body)}",
        *more,
    ]


def text(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


class Conversation:
    """A connection on which several requests may be sent before the first is answered."""

    def __init__(self, server: LiveServer) -> None:
        self.socket = server.connect()
        self.send = self.socket.sendall
        self._answers = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._answers.close()
        self.socket.close()

    def answer(self) -> tuple[int, Any]:
        status = int(self._answers.readline().split()[1])
        headers = http.client.parse_headers(self._answers)
        return status, json.loads(self._answers.read(int(headers["content-length"])))

    def line(self) -> bytes:
        return self._answers.readline()


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How much was left of each body that was received directly: each test has to be about one at least."""
    found: list[int] = []
    receiver = receiving._Receiver

    class Noted(receiver):  # type: ignore[misc, valid-type]
        def __init__(self, sock: socket.socket, left: int, take: receiving.Take) -> None:
            found.append(left)
            super().__init__(sock, left, take)

    monkeypatch.setattr(receiving, "_Receiver", Noted)
    yield found
    assert found


@pytest.mark.parametrize("piece", [1 << 20, WAKE_BYTES + 1, 100_003, 7_001])
def test_a_body_in_pieces_of_any_size_is_followed_by_the_next_request(server: LiveServer, piece: int) -> None:
    sent = (
        text(head(server))
        + BODY
        + text(head(server, NEXT))
        + NEXT.body
        + text(["GET /health/live HTTP/1.1", "Host: x"])
    )
    with Conversation(server) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), piece):
            connection.send(sent[at : at + piece])
        assert connection.answer() == (200, {"was_inserted": True})
        assert connection.answer() == (200, {"was_inserted": True})
        assert connection.answer()[0] == 200
    counted = server.site.metrics.registry.get_sample_value
    route = {"route": "/v1/xorbs/{prefix}/{hash}"}
    until(lambda: counted("xetstore_http_received_bytes_total", route) == len(BODY) + len(NEXT.body))


def test_one_connection_serves_bodies_and_answers_in_turn(server: LiveServer) -> None:
    with Conversation(server) as connection:
        for round_ in range(3):
            for sample in (SAMPLE, NEXT):
                connection.send(text(head(server, sample)) + sample.body)
                assert connection.answer() == (200, {"was_inserted": not round_})


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server: LiveServer) -> None:
    with Conversation(server) as connection:
        connection.send(text(head(server, SAMPLE, "Expect: 100-continue")))
        assert connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert connection.line() == b"\r\n"
        connection.send(BODY)
        assert connection.answer() == (200, {"was_inserted": True})


@pytest.mark.parametrize("place", [2_000_000, len(BODY) - 100_000])
def test_a_body_that_is_found_damaged_in_the_middle_is_answered(server: LiveServer, place: int) -> None:
    with Conversation(server) as connection:
        connection.send(text(head(server)) + flip(BODY, place))
        status, told = connection.answer()
        assert status == 400, told
    assert server.request("GET", "/health/live").status == 200
    until(lambda: server.site.limits.receiving.used == 0)


def test_what_is_left_of_a_damaged_body_does_not_reach_the_next_request(
    server: LiveServer, directly: list[int]
) -> None:
    damaged = flip(BODY, len(BODY) - 800_000)
    with Conversation(server) as connection:
        # All but the last bytes: the answer comes while they are still to come.
        connection.send(text(head(server)) + damaged[:-100_000])
        until(lambda: bool(directly))
        connection.send(damaged[-100_000:] + text(head(server, NEXT)) + NEXT.body)
        assert connection.answer()[0] == 400
        assert connection.answer() == (200, {"was_inserted": True})


def test_who_sends_more_than_was_announced_is_answered_and_cut_off(server: LiveServer) -> None:
    with Conversation(server) as connection:
        connection.send(text(head(server)) + BODY + b"\0more\r\n\r\n")
        assert connection.answer() == (200, {"was_inserted": True})
        while connection.line():
            pass


def test_a_slow_client_is_waited_for_as_long_as_something_comes(cas: EmbeddedCas) -> None:
    with live_server(cas, stall_seconds=2) as server, Conversation(server) as connection:
        connection.send(text(head(server)))
        for at in range(0, len(BODY), 200_000):  # less than the server is woken for
            connection.send(BODY[at : at + 200_000])
            time.sleep(0.1)
        assert connection.answer() == (200, {"was_inserted": True})


def test_no_socket_is_left_whatever_becomes_of_a_body(cas: EmbeddedCas) -> None:
    def whole(connection: Conversation) -> None:
        connection.send(BODY)
        assert connection.answer()[0] == 200

    def damaged(connection: Conversation) -> None:
        connection.send(flip(BODY, 3_000_000))
        assert connection.answer()[0] == 400

    def cut(connection: Conversation) -> None:
        connection.send(BODY[:4_000_000])

    def stalled(connection: Conversation) -> None:
        connection.send(BODY[:4_000_000])
        assert connection.answer()[0] == 408

    ends: list[Callable[[Conversation], None]] = [damaged, cut, stalled, whole]
    with live_server(cas, stall_seconds=0.3) as server:
        server.request("GET", "/health/live")
        until(lambda: server.connections == 0)
        before = open_sockets()
        for end in ends:
            with Conversation(server) as connection:
                connection.send(text(head(server)))
                end(connection)
            until(lambda: server.connections == 0)
        until(lambda: open_sockets() == before)
        assert server.site.limits.receiving.used == 0
