"""Many clients at once: the same upload is stored once, and who asks for too much is told when to come again."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.clients import Client, at_once, result_of
from tests.support.forked import ForkedServer, ServerWorker
from tests.support.live import PATIENCE_SECONDS, Response
from tests.support.strategies import splitmix64
from xetstore.testing.samples import Sample, make_sample

KIB, MIB = 1 << 10, 1 << 20
RECEIVING = 'xetstore_budget_used_bytes{budget="receiving"}'


@pytest.fixture(scope="module")
def server_worker() -> Iterator[ServerWorker]:
    with ServerWorker() as worker:
        yield worker


@pytest.fixture
def server(server_worker: ServerWorker, scratch: Path) -> Iterator[ForkedServer]:
    with ForkedServer(server_worker, scratch / "store") as running:
        yield running


def post(server: ForkedServer, path: str, body: bytes) -> Response:
    with Client(server.url, server.token) as client:
        return client.request("POST", path, body)


def post_at_once(server: ForkedServer, posts: Sequence[tuple[str, bytes]]) -> list[Response]:
    """Post bodies on a connection each; the last byte of each is sent when all the others have come as far."""
    together = threading.Barrier(len(posts))

    def post_in_time(posted: tuple[str, bytes]) -> Response:
        path, body = posted

        def pieces() -> Iterator[bytes]:
            yield body[:-1]
            together.wait(PATIENCE_SECONDS)
            yield body[-1:]

        with Client(server.url, server.token) as client:
            return client.request("POST", path, pieces(), {"Content-Length": str(len(body))})

    return at_once(post_in_time, posts)


def samples(count: int, size: int) -> list[Sample]:
    return [make_sample(splitmix64(seed, size + seed)) for seed in range(count)]


def xorb_path(sample: Sample) -> str:
    return f"/v1/xorbs/default/{sample.xorb.hash}"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- The same at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("different", [1, 8])
def test_of_64_clients_that_send_the_same_xorb_one_inserts_it(
    server: ForkedServer, scratch: Path, different: int
) -> None:
    sent = samples(different, MIB)
    posts = [(xorb_path(sample), sample.body) for sample in sent] * (64 // different)
    answers = post_at_once(server, posts)
    assert [answer.status for answer in answers] == [200] * 64
    inserted = Counter(path for (path, _), answer in zip(posts, answers, strict=True) if answer.json()["was_inserted"])
    assert inserted == {xorb_path(sample): 1 for sample in sent}
    assert [name[:64] for name in files_in(scratch / "store" / "xorbs")] == sorted(
        str(sample.xorb.hash) for sample in sent
    )
    assert files_in(scratch / "store" / "tmp") == []
    with Client(server.url, server.token) as client:
        for sample in sent:
            result_of(client.post_shard(sample))
            assert client.has_whole(sample)


def test_of_16_clients_that_send_the_same_shard_one_registers_it(server: ForkedServer, scratch: Path) -> None:
    [sample] = samples(1, 3 * MIB)
    with Client(server.url, server.token) as client:
        assert client.post_xorb(sample).status == 200
        answers = post_at_once(server, [("/v1/shards", sample.shard.serialize())] * 16)
        assert sorted(map(result_of, answers)) == [0] * 15 + [1]
        assert client.has_whole(sample)
        assert result_of(client.post_shard(sample, version=2)) == 0
    assert len(files_in(scratch / "store" / "shards")) == 1
    assert files_in(scratch / "store" / "tmp") == []


def test_uploads_of_the_same_files_all_at_once_all_succeed(server: ForkedServer) -> None:
    """Xorbs and shards mixed: whoever registers a file has its xorb stored, by whomever."""
    sent = samples(8, 200 * KIB)

    def upload(first: int) -> list[int]:
        with Client(server.url, server.token) as client:
            for sample in sent[first:] + sent[:first]:
                assert client.post_xorb(sample).status == 200
            return [result_of(client.post_shard(sample, version=2)) for sample in sent]

    results = at_once(upload, range(8))
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * 8
    with Client(server.url, server.token) as client:
        assert all(client.has_whole(sample) for sample in sent)


# --- Too much -------------------------------------------------------------------------------------------------


@contextmanager
def healthy_throughout(server: ForkedServer) -> Iterator[None]:
    """Somebody asks all the time how the server is, and is told that it is well."""
    is_over = threading.Event()

    def watch() -> Counter[tuple[str, int]]:
        seen: Counter[tuple[str, int]] = Counter()
        with Client(server.url) as client:
            while not is_over.is_set():
                for path in ("/health/live", "/health/ready"):
                    seen[path, client.request("GET", path).status] += 1
                is_over.wait(0.01)
        return seen

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            is_over.set()
    assert set(watching.result()) == {("/health/live", 200), ("/health/ready", 200)}


def begin_upload(server: ForkedServer, path: str, body: bytes, first: int) -> socket.socket:
    """A raw connection on which the head of a request and the first bytes of its body were sent."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[:first])
    return connection


def answer_on(connection: socket.socket) -> Response:
    answer = http.client.HTTPResponse(connection, method="POST")
    answer.begin()
    return Response(answer.status, answer.headers, answer.read())


def expect_refusal(answer: Response, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert int(answer.headers["Retry-After"]) >= 1


def test_uploads_for_which_there_is_no_room_in_memory_are_told_to_come_again(
    server_worker: ServerWorker, scratch: Path
) -> None:
    held, refused = samples(2, 700 * KIB)
    with (
        ForkedServer(server_worker, scratch / "store", max_bytes_in_flight=MIB, queue_seconds=0.2) as server,
        Client(server.url, server.token) as client,
        healthy_throughout(server),
    ):
        with begin_upload(server, xorb_path(held), held.body, 100 * KIB) as connection:
            client.wait_for(RECEIVING, len(held.body))
            for answer in at_once(lambda _: post(server, xorb_path(refused), refused.body), range(32)):
                expect_refusal(answer, 503, "unavailable")
            assert client.xorb_size(refused.xorb.hash) is None
            connection.sendall(held.body[100 * KIB :])
            assert answer_on(connection).json() == {"was_inserted": True}
        client.wait_for(RECEIVING, 0)
        client.upload(refused)
        assert client.has_whole(refused)


def test_clients_that_come_again_when_they_are_told_to_all_succeed(server_worker: ServerWorker, scratch: Path) -> None:
    sent = samples(24, 700 * KIB)
    running = ForkedServer(server_worker, scratch / "store", max_bytes_in_flight=MIB, queue_seconds=0.01)

    def upload(sample: Sample) -> int:
        refusals = 0
        with Client(running.url, running.token) as client:
            while (answer := client.post_xorb(sample)).status != 200:
                expect_refusal(answer, 503, "unavailable")
                refusals += 1
                time.sleep(0.02)  # how long one waits is not what is tested
            while client.post_shard(sample).status != 200:
                time.sleep(0.02)
        return refusals

    with running, healthy_throughout(running):
        assert sum(at_once(upload, sent)) > 0
        with Client(running.url, running.token) as client:
            assert all(client.has_whole(sample) for sample in sent)
    assert files_in(scratch / "store" / "tmp") == []


def test_downloads_go_on_while_uploads_wait_for_the_index(server: ForkedServer, scratch: Path) -> None:
    """Another process writes to the index, or one upload for long: all others wait for it. What is there is served."""
    stored, *waiting = samples(65, 20 * KIB)
    with Client(server.url, server.token) as client, ThreadPoolExecutor(len(waiting)) as pool:
        client.upload(stored)
        index = sqlite3.connect(scratch / "store" / "index.sqlite3", isolation_level=None)
        index.execute("BEGIN IMMEDIATE")
        try:
            posts = [pool.submit(post, server, xorb_path(sample), sample.body) for sample in waiting]
            client.wait_for("xetstore_http_requests_in_flight", len(waiting) + 1)
            assert client.has_whole(stored)
            assert not any(each.done() for each in posts)
        finally:
            index.execute("ROLLBACK")
            index.close()
        assert [each.result().status for each in posts] == [200] * len(posts)


# --- Too slow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["xorb", "/v1/shards", "/v2/shards", "/v1/reconstructions"])
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "a byte now and then"])
def test_a_body_that_does_not_come_on_is_cut_off(
    server_worker: ServerWorker, scratch: Path, path: str, drips: bool
) -> None:
    [sample] = samples(1, 150 * KIB)
    with ForkedServer(server_worker, scratch / "store", stall_seconds=0.2) as server:
        with begin_upload(server, xorb_path(sample) if path == "xorb" else path, sample.body, 1000) as connection:
            connection.setblocking(False)
            answered = b""
            deadline = time.monotonic() + PATIENCE_SECONDS
            while b"\r\n\r\n" not in answered:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                if drips:
                    with suppress(ConnectionError):  # it was cut off meanwhile: the answer is there
                        connection.send(b"x")
                with suppress(BlockingIOError):
                    answered += connection.recv(MIB)
        assert answered.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"timeout"' in answered
        assert b"\r\nconnection: close\r\n" in answered.lower()
        assert files_in(scratch / "store" / "tmp") == []
        with Client(server.url, server.token) as client:
            client.upload(sample)


def test_a_client_that_takes_nothing_is_cut_off(server_worker: ServerWorker, scratch: Path) -> None:
    sample = make_sample(splitmix64(1, 32 * MIB))
    with (
        ForkedServer(server_worker, scratch / "store", stall_seconds=0.2) as server,
        Client(server.url, server.token) as client,
    ):
        client.upload(sample)
        [fetch] = client.fetches(sample.file.hash)
        with Client(server.url) as slow:
            connection = slow.socket
            span = f"bytes={fetch.byte_start}-{fetch.byte_end - 1}"
            target = fetch.url.removeprefix(server.url)
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nRange: {span}\r\n\r\n".encode())
            deadline = time.monotonic() + PATIENCE_SECONDS
            while "the client took the answer at less than" not in server_worker.log:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            answer = http.client.HTTPResponse(connection, method="GET")
            answer.begin()
            assert answer.status == 206
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()
        assert client.has_whole(sample)


# --- Too often ------------------------------------------------------------------------------------------------


def test_a_token_that_is_used_too_often_is_refused_and_others_are_not(
    server_worker: ServerWorker, scratch: Path
) -> None:
    path = "/v1/reconstructions/" + "ab" * 32
    with ForkedServer(server_worker, scratch / "store", rate_per_token=0.001, burst_seconds=3000) as server:
        other = server_worker.call("issue", "token", store=str(scratch / "store"), scope="read")
        with Client(server.url, server.token) as client:
            assert [client.request("GET", path).status for _ in range(3)] == [404] * 3
            for _ in range(3):
                expect_refusal(client.request("GET", path), 429, "too_many_requests")
            assert client.request("GET", "/health/ready").status == 200
        with Client(server.url, other) as client:
            assert client.request("GET", path).status == 404


def test_an_address_that_asks_too_often_is_refused_and_others_are_not(
    server_worker: ServerWorker, scratch: Path
) -> None:
    path = "/v1/reconstructions/" + "ab" * 32
    with (
        ForkedServer(server_worker, scratch / "store", rate_per_address=0.001, burst_seconds=3000) as server,
        Client(server.url, server.token) as client,
    ):
        assert [client.request("GET", path).status for _ in range(3)] == [404] * 3
        for authorized in (True, False):
            expect_refusal(client.request("GET", path, authorized=authorized), 429, "too_many_requests")
        for path_of_watchers in ("/health/live", "/health/ready", "/metrics"):
            assert client.request("GET", path_of_watchers).status == 200
        another = {"X-Forwarded-For": "192.0.2.1"}
        assert client.request("GET", path, headers=another).status == 404
        assert json.loads(client.request("GET", path).body)["code"] == "too_many_requests"
