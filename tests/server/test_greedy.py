"""Greedy and slow clients: whatever one of them holds, a stranger's upload and download go on beside it."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.live import LiveServer, Response, ServerProcess, live_server, until
from tests.support.stored import download, file_of, get_range, scattered, urls_of
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import verification_hash
from xetstore.protocol.suite import FILE_WITH_VERIFICATION, MAX_SHARD_BYTES, SHARD_BOOKEND, SHARD_TAG, SHARD_VERSION
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

KIB, MIB = 1 << 10, 1 << 20
SAMPLE = make_sample(random_bytes(300_000, 1))
LONG = make_sample(random_bytes(4 * MIB, 2))
TINY = make_sample(b"a stranger's tiny file")


def put(server: LiveServer, sample: Sample, token: str, *, version: int = 2) -> None:
    answer = server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
    assert answer.status == 200, answer.body
    answer = server.request("POST", f"/v{version}/shards", body=sample.shard.serialize(), token=token)
    assert answer.status == 200, answer.body
    assert b'"result"' in answer.body


@contextmanager
def trickling(server: LiveServer, path: str, token: str, declared: int, sent: bytes) -> Iterator[socket.socket]:
    """A body that declares much, and of which little comes."""
    with server.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {declared}"
        connection.sendall(head.encode() + b"\r\n\r\n" + sent)
        yield connection


@pytest.mark.parametrize("path", ["/v1/shards", "/v2/shards", f"/v1/xorbs/default/{LONG.xorb.hash}"])
def test_bodies_that_declare_much_and_trickle_stop_nobody(cas: EmbeddedCas, path: str) -> None:
    with live_server(cas, max_bytes_in_flight=32 * MIB, queue_seconds=60) as server, ExitStack() as slow:
        token, stranger = server.token("write", "greedy"), server.token("write", "stranger")
        body = LONG.body[: 1 * MIB]
        for _ in range(20):
            slow.enter_context(trickling(server, path, token, MAX_SHARD_BYTES, body))
        receiving = server.site.limits.receiving
        until(lambda: receiving.used > 0 and receiving.waiting > 0)
        assert receiving.used <= receiving.most == 8 * MIB
        # From here all of them come from one address: only a share of the budget is its own, whoever it says it is.
        other = {"X-Forwarded-For": "192.0.2.7"}
        sent = server.request(
            "POST", f"/v1/xorbs/default/{TINY.xorb.hash}", body=TINY.body, token=stranger, headers=other
        )
        assert sent.status == 200
        shard = TINY.shard.serialize()
        assert server.request("POST", "/v2/shards", body=shard, token=stranger, headers=other).status == 200
        assert download(server, stranger, TINY.file.hash) == TINY.data
        assert receiving.waiting > 0
    assert server.site.limits.receiving.used == 0


def test_a_shard_that_comes_in_is_on_disk(cas: EmbeddedCas) -> None:
    """What has arrived of it, were it all of 64 MiB, is not in memory: a block is reserved for it, and no more."""
    with live_server(cas) as server:
        token = server.token("write")
        limits = server.site.limits
        with trickling(server, "/v1/shards", token, MAX_SHARD_BYTES, bytes(8 * MIB)):
            until(lambda: limits.receiving.used == 2 * MIB)
            assert limits.committing.used == 0
        until(lambda: limits.receiving.used == 0)


def test_a_shard_that_is_long_is_taken_as_a_short_one_is(server: LiveServer) -> None:
    sample = scattered(4000, chunk_bytes=16)
    token = server.token("write")
    posted = server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
    assert posted.status == 200
    file, content, shard = file_of(sample, [(at % 7000, at % 7000 + 1) for at in range(25_000)])
    body = shard.serialize()
    assert len(body) > 2 * MIB
    assert server.request("POST", "/v1/shards", body=body, token=token).json() == {"result": 1}
    assert download(server, token, file) == content


@pytest.mark.parametrize("budget", ["reading", "receiving", "committing"])
def test_budgets_do_not_depend_on_each_other(cas: EmbeddedCas, budget: str) -> None:
    with live_server(cas, queue_seconds=0.1) as server:
        token = server.token("write")
        put(server, LONG, token)
        spent = getattr(server.site.limits, budget)
        spent.used = spent.total
        [(url, [span])] = urls_of(server, token, LONG.file.hash)
        statuses = {
            "reading": get_range(server, url, span).status,
            "receiving": server.request(
                "POST", f"/v1/xorbs/default/{SAMPLE.xorb.hash}", body=SAMPLE.body, token=token
            ).status,
            "committing": server.request("POST", "/v1/shards", body=LONG.shard.serialize(), token=token).status,
        }
        spent.used = 0
    expected = {"reading": 206, "receiving": 200, "committing": 200}
    # A shard has to come in before it can be committed.
    refused = {"receiving", "committing"} if budget == "receiving" else {budget}
    assert statuses == {name: 503 if name in refused else status for name, status in expected.items()}


# --- Slow readers ---------------------------------------------------------------------------------------------


def readers_that_may_be_open() -> int:
    """600, or as many as the limit of descriptors leaves."""
    return min(600, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)


def test_slow_readers_of_signed_urls_do_not_stop_a_stranger(tmp_path: Path) -> None:
    big = make_sample(random_bytes(20 * MIB, 3))
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, big)
    options = ("--max-bytes-in-flight", "64MiB", "--queue-seconds", "60", "--stall-seconds", "600")
    with ServerProcess(tmp_path / "store", *options) as server, ExitStack() as slow:
        answer = server.request("GET", f"/v2/reconstructions/{big.file.hash}", token=server.token())
        [(entry,)] = answer.json()["xorbs"].values()
        [part] = entry["ranges"]
        target = entry["url"].removeprefix(server.url)
        span = f"bytes={part['bytes']['start']}-{part['bytes']['end']}"
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nRange: {span}\r\n\r\n".encode()
        for _ in range(readers_that_may_be_open()):
            connection = slow.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server_address(server.url))
            connection.sendall(request)
        used = re.compile(rb'^xetstore_budget_used_bytes{budget="reading"} (\S+)$', re.MULTILINE)

        def all_is_held() -> bool:
            return [float(number) for number in used.findall(server.request("GET", "/metrics").body)] == [16 * MIB]

        until(all_is_held)
        got = server.request("GET", target, headers={"Range": span, "X-Forwarded-For": "192.0.2.7"})
        assert (got.status, got.body) == (206, big.body)
        # They still hold all that they may.
        until(all_is_held)


def server_address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_a_reader_that_takes_too_little_on_average_is_cut_off(cas: EmbeddedCas) -> None:
    upload(cas, LONG)
    with live_server(cas, min_rate_bytes=64 * MIB, rate_grace_seconds=0.1) as server, server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        [(url, [(start, end)])] = urls_of(server, server.token(), LONG.file.hash)
        target = url.removeprefix(server.url)
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={start}-{end - 1}\r\n\r\n".encode()
        )
        until(lambda: server.site.limits.reading.used > 0)
        until(lambda: server.site.limits.reading.used == 0)


def test_a_body_that_comes_too_slowly_on_average_is_refused(cas: EmbeddedCas) -> None:
    path = f"/v1/xorbs/default/{LONG.xorb.hash}"
    with live_server(cas, min_rate_bytes=64 * MIB, rate_grace_seconds=0.2) as server:
        with trickling(server, path, server.token("write"), len(LONG.body), LONG.body[:MIB]) as connection:
            is_over = threading.Event()

            def drip() -> None:
                with suppress(OSError):
                    while not is_over.wait(0.01):
                        connection.sendall(bytes(KIB))

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                answer = http.client.HTTPResponse(connection, method="POST")
                answer.begin()
                told = json.loads(answer.read())
            finally:
                is_over.set()
                dripping.join()
        assert (answer.status, told["code"]) == (408, "timeout")
        assert "on average" in told["message"]


# --- Shard bombs ----------------------------------------------------------------------------------------------

_RECORD = struct.Struct("<32s4I")
XORB = scattered(4000, chunk_bytes=16)
"""A xorb of 8,000 chunks."""


def bomb(terms: int) -> bytes:
    """A shard of so many terms of 4,000 chunks each, all of them as they say; but they make another file."""
    names, proofs = [], []
    for start in range(terms):
        taken = XORB.xorb.chunks.slice(start, start + 4000)
        names.append(_RECORD.pack(XORB.xorb.hash.digest, 0, taken.total_bytes, start, start + 4000))
        proofs.append(_RECORD.pack(verification_hash(taken.hashes).digest, 0, 0, 0, 0))
    header = struct.pack("<32sQQ", SHARD_TAG, SHARD_VERSION, 0)
    entry = _RECORD.pack(b"\1" * 32, FILE_WITH_VERIFICATION, terms, 0, 0)
    return b"".join([header, entry, *names, *proofs, SHARD_BOOKEND, SHARD_BOOKEND])


@pytest.mark.parametrize("version", [1, 2])
def test_a_tiny_upload_does_not_wait_for_45_bombs_of_another(cas: EmbeddedCas, version: int) -> None:
    bombs = 45
    body = bomb(100)
    with live_server(cas, queue_seconds=60) as server, ThreadPoolExecutor(bombs) as pool:
        greedy, stranger = server.token("write", "greedy"), server.token("write", "stranger")
        posted = server.request("POST", f"/v1/xorbs/default/{XORB.xorb.hash}", body=XORB.body, token=greedy)
        assert posted.status == 200
        limits = server.site.limits

        def explode(_: int) -> Response:
            away = {"X-Forwarded-For": "192.0.2.7"}
            return server.request("POST", f"/v{version}/shards", body=body, token=greedy, headers=away)

        exploding = [pool.submit(explode, number) for number in range(bombs)]
        until(lambda: limits.shards.waiting >= bombs // 2)
        assert limits.shards.used == limits.shards.most == 2
        put(server, TINY, stranger, version=version)
        done = sum(each.done() for each in exploding)
        assert done < bombs // 2, "the stranger waited for the bombs of another"
        for each in exploding:
            answer = each.result()
            assert b"rejected_shard" in answer.body or b"the shard was refused" in answer.body
        assert limits.shards.used == limits.committing.used == 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_of_more_chunks_than_are_verified_at_once_is_refused_at_once(cas: EmbeddedCas, version: int) -> None:
    with live_server(cas, max_shard_chunks=1 << 16) as server:
        token = server.token("write")
        server.request("POST", f"/v1/xorbs/default/{XORB.xorb.hash}", body=XORB.body, token=token)
        answer = server.request("POST", f"/v{version}/shards", body=bomb(17), token=token)
        assert b"have 68000 chunks, at most 65536 are verified at once" in answer.body
        assert answer.status == (400 if version == 1 else 200)
        answer = server.request("POST", f"/v{version}/shards", body=bomb(16), token=token)
        assert b"make file" in answer.body  # this one was verified
