"""A dedup query that finds nothing is answered at once: as any other, with every limit, count and log line, by nothing
but what is in the index now.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import LiveServer, live_server
from tests.support.stored import error_of
from xetstore.access.tenant import DedupDomain
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas.folder import open_directory
from xetstore.cas.index import Index
from xetstore.cas.service import EmbeddedCas
from xetstore.database.sqlite import SqliteDatabase
from xetstore.protocol.hashes import Hash
from xetstore.server.app import create_app
from xetstore.server.http.edge import Edge
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

SAMPLES = [make_sample(random_bytes(50_000, seed)) for seed in range(3)]
UNKNOWN = "ab" * 32
PATH = f"/v1/chunks/default/{UNKNOWN}"
VARYING = {"x-request-id", "date"}


def opened(root: Path) -> EmbeddedCas:
    """A store that is looked into at once however long a look takes, on a busy machine."""
    database = SqliteDatabase(open_directory(root, create=True), slow_look_seconds=math.inf)
    return EmbeddedCas(LocalBlobStore(root), Index(database))


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with opened(tmp_path / "store") as cas:
        yield cas


def first(sample: Sample) -> Hash:
    return Hash(sample.xorb.chunks.digest(0))


@contextmanager
def serving(cas: EmbeddedCas, **settings: Any) -> Iterator[tuple[LiveServer, list[bool]]]:
    """A server, and of each request that could be answered at once whether it was."""
    told: list[bool] = []

    class Watched(Edge):
        def answer_at_once(self, scope: dict[str, Any]) -> Any:
            answer = super().answer_at_once(scope)
            told.append(answer is not None)
            return answer

    def app(site: Any) -> Edge:
        made = create_app(site)
        made.__class__ = Watched
        return made

    with live_server(cas, app=app, **settings) as server:
        yield server, told


def ask(server: LiveServer, *requests: str, token: str) -> bytes:
    """What comes to these requests, sent together on one connection; the last one closes it."""
    shared = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    heads = [f"{request} HTTP/1.1\r\n{shared}" for request in requests]
    heads[-1] += "Connection: close\r\n"
    with server.connect() as connection:
        connection.sendall("".join(f"{head}\r\n" for head in heads).encode())
        got = bytearray()
        while part := connection.recv(1 << 16):
            got += part
    return bytes(got)


# As any other


def test_an_answer_at_once_is_that_of_the_ordinary_way(cas: EmbeddedCas) -> None:
    with serving(cas) as (server, told):
        token = server.token()
        at_once = server.request("GET", PATH, token=token)
        ordinary = server.request("GET", PATH, token=token, headers={"Connection": "close"})
    assert told == [True]
    assert error_of(at_once) == error_of(ordinary) == (404, "not_found")
    assert at_once.json()["message"] == ordinary.json()["message"]
    for answer in (at_once, ordinary):
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
        assert len(answer.headers["X-Request-Id"]) == 32
    kept = [
        sorted((name, value) for name, value in answer.headers.items() if name not in VARYING | {"connection"})
        for answer in (at_once, ordinary)
    ]
    assert kept[0] == kept[1]
    assert at_once.headers["Date"]


def test_it_is_counted_and_logged_as_in_the_ordinary_way(cas: EmbeddedCas, caplog: pytest.LogCaptureFixture) -> None:
    with serving(cas) as (server, told), caplog.at_level(logging.INFO, "xetstore.access"):
        token = server.token()
        for headers in ({}, {"Connection": "close"}):
            server.request("GET", PATH, token=token, headers={"User-Agent": 'a "b"', **headers})
        metrics = server.request("GET", "/metrics", token=token).body.decode()
    assert told.count(True) == 1
    route = 'route="/v1/chunks/{prefix}/{hash}"'
    assert f'xetstore_http_requests_total{{method="GET",{route},status="404"}} 2.0' in metrics
    assert f"xetstore_http_request_seconds_count{{{route}}} 2.0" in metrics
    assert 'xetstore_dedup_queries_total{found="false"} 2.0' in metrics
    fields = [record.fields for record in caplog.records if PATH in record.getMessage()]  # type: ignore[attr-defined]
    assert len(fields) == 2
    varying = ("request_id", "milliseconds")
    one, other = ({name: value for name, value in told.items() if name not in varying} for told in fields)
    assert one == other
    assert one["user_agent"] == "a \\x22b\\x22"
    assert one["namespace"] == "default"
    assert len(one["token_id"]) == 32


def test_every_client_is_answered_so_by_its_own_path(cas: EmbeddedCas) -> None:
    with serving(cas, public_url="https://example.org/some") as (server, told):
        for path in ("/v1/chunks/default-merkledb", "//v1//chunks/x", "/chunk/default", "/some/v1/chunks/default"):
            assert error_of(server.request("GET", f"{path}/{UNKNOWN}?x=1", token=server.token())) == (404, "not_found")
    assert told == [True] * 4


def test_requests_behind_each_other_are_answered_in_their_order(cas: EmbeddedCas) -> None:
    upload(cas, SAMPLES[0])
    with serving(cas) as (server, told):
        hit = f"GET /v1/chunks/default/{first(SAMPLES[0])}"
        got = ask(server, f"GET {PATH}", f"GET {PATH}", hit, f"GET {PATH}", f"HEAD {PATH}", token=server.token())
    statuses = [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [404, 404, 200, 404, 404]
    # What comes behind an answer that is not given yet waits for it.
    assert told[:3] == [True, True, False]


def test_a_connection_stays_open_and_the_rest_of_a_head_has_its_time(cas: EmbeddedCas) -> None:
    with serving(cas, header_timeout_seconds=0.3, keep_alive_seconds=30) as (server, told):
        head = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token()}\r\n\r\n".encode()
        with server.connect() as connection:
            for _ in range(3):
                connection.sendall(head)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
            connection.settimeout(0.6)
            with pytest.raises(TimeoutError):  # an idle connection is no late head
                connection.recv(1)
            connection.settimeout(20)
            connection.sendall(head[:-5])
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert told == [True] * 3


def test_a_connection_on_which_nothing_is_asked_any_more_is_closed(cas: EmbeddedCas) -> None:
    with serving(cas, keep_alive_seconds=1) as (server, told):
        head = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token()}\r\n\r\n".encode()
        with server.connect() as connection:
            for _ in range(3):
                connection.sendall(head)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
            assert connection.recv(1) == b""
    assert told == [True] * 3


def test_a_server_that_stops_waits_for_no_connection_on_which_nothing_is_asked(cas: EmbeddedCas) -> None:
    with serving(cas, drain_seconds=20) as (server, told):
        connection = server.connect()
        head = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token()}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
    assert told == [True]
    with connection:
        assert connection.recv(1) == b""


# Limits and rights


def test_a_token_that_is_not_valid_any_more_is_refused_at_the_next_query(cas: EmbeddedCas) -> None:
    with serving(cas) as (server, told):
        token = server.token()
        assert server.request("GET", PATH, token=token).status == 404
        server.authority.revoke(token)
        assert error_of(server.request("GET", PATH, token=token)) == (401, "unauthenticated")
        assert error_of(server.request("GET", PATH)) == (401, "unauthenticated")
    assert told == [True, False, False]


@pytest.mark.parametrize("limit", ["rate_per_token", "rate_per_address"])
def test_a_limit_is_one_here_too(cas: EmbeddedCas, limit: str) -> None:
    with serving(cas, **{limit: 1.0, "burst_seconds": 3.0}) as (server, told):
        token = server.token()
        answers = [server.request("GET", PATH, token=token) for _ in range(5)]
        metrics = server.request("GET", "/metrics", token=token).body.decode()
    assert [answer.status for answer in answers] == [404, 404, 404, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert told[:5] == [True, True, True, False, False]
    assert f'xetstore_http_rate_limited_total{{by="{limit.removeprefix("rate_per_")}"}} 2.0' in metrics


def test_without_tokens_a_page_of_another_site_is_refused(cas: EmbeddedCas) -> None:
    with serving(cas, auth="none") as (server, told):
        assert server.request("GET", PATH).status == 404
        assert error_of(server.request("GET", PATH, headers={"Host": "evil.example"})) == (403, "forbidden")
    assert told == [True, False]


# Never a wrong answer


def test_what_another_process_has_stored_is_found_by_the_next_query(cas: EmbeddedCas, tmp_path: Path) -> None:
    with serving(cas) as (server, told):
        path, token = f"/v1/chunks/default/{first(SAMPLES[0])}", server.token()
        assert server.request("GET", path, token=token).status == 404
        code = (
            "import sys; from xetstore.cas.service import EmbeddedCas; from xetstore.testing.samples import *\n"
            "with EmbeddedCas.open(sys.argv[1]) as cas: upload(cas, make_sample(random_bytes(50_000, 0)))"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=True, timeout=60)
        assert server.request("GET", path, token=token).status == 200
    assert told == [True, False]


def test_nothing_is_seen_at_once_that_an_answer_does_not_tell(cas: EmbeddedCas) -> None:
    """What other namespaces have takes the same way as what nobody has; so it takes the same time."""
    for number, namespace in enumerate(("ours", "theirs", "hidden")):
        upload(cas.in_namespace(namespace), SAMPLES[number])
    chunks = (*map(first, SAMPLES), Hash.parse(UNKNOWN))

    def lacked(**access: Any) -> list[bool]:
        view = cas.in_namespace("ours", **access)
        return [view.lacks_chunk(chunk) for chunk in chunks]

    assert lacked() == [False, False, False, True]
    assert lacked(private=frozenset({"hidden"})) == [False, False, True, True]
    assert lacked(private=frozenset({"hidden", "it's"})) == [False, False, True, True]
    assert lacked(private=frozenset({"ours"})) == [False, True, True, True]
    assert lacked(dedup=DedupDomain.NAMESPACE) == [False, True, True, True]
    assert lacked(dedup=DedupDomain.OFF) == [True, True, True, True]


def test_what_cannot_be_seen_at_once_is_looked_for(cas: EmbeddedCas) -> None:
    assert not EmbeddedCas.in_memory().lacks_chunk(Hash.parse(UNKNOWN))
    assert cas.lacks_chunk(Hash.parse(UNKNOWN))
    cas.close()
    assert not cas.lacks_chunk(Hash.parse(UNKNOWN))


def test_a_damaged_index_is_left_to_the_ordinary_way(cas: EmbeddedCas, caplog: pytest.LogCaptureFixture) -> None:
    with serving(cas) as (server, told):
        token = server.token()
        assert server.request("GET", PATH, token=token).status == 404
        with cas.index.transaction() as writer:
            writer.connection.change("ALTER TABLE dedup RENAME TO lost")
        with caplog.at_level(logging.ERROR):
            assert error_of(server.request("GET", PATH, token=token)) == (404, "not_found")
    assert told == [True, False]
    assert UNKNOWN in caplog.text
