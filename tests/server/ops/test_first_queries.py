"""The first dedup queries of a session are answered with what its namespace put last, where nothing else is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.live import LiveServer, Response, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.server.ops.first_queries import FIRST_QUERIES, MAX_SESSIONS, FirstQueries
from xetstore.testing.samples import make_sample, random_bytes, upload

SAMPLE = make_sample(random_bytes(500_000, 1))
SESSION = "019ac000-0000-7000-8000-000000000000"


@pytest.fixture
def server(cas: EmbeddedCas) -> Iterator[LiveServer]:
    upload(cas, SAMPLE)
    with live_server(cas) as running:
        yield running


def ask(
    server: LiveServer, number: int, session: str | None = SESSION, *, scope: str = "write", namespace: str = "default"
) -> Response:
    """A query for a chunk that is not known."""
    headers = {} if session is None else {"X-Xet-Session-Id": session}
    token = server.token(scope, namespace)
    return server.request("GET", f"/v1/chunks/default/{number:064x}", headers=headers, token=token)


def test_the_first_queries_are_told_what_was_put_last_and_no_others(server: LiveServer) -> None:
    for number in range(FIRST_QUERIES):
        answer = ask(server, number)
        assert answer.status == 200
        shard = Shard.parse(answer.body)
        assert [xorb.hash for xorb in shard.xorbs] == [SAMPLE.xorb.hash]
        assert answer.headers["Cache-Control"] == "private, no-store", "it is no answer about this chunk"
        assert shard.key is not None
        assert not any(chunk.digest in answer.body for chunk, _ in SAMPLE.xorb.chunks)
    assert ask(server, FIRST_QUERIES).status == 404
    assert ask(server, 0, "another").status == 200
    metrics = server.request("GET", "/metrics", token=server.token("admin")).body.decode()
    assert f'xetstore_dedup_queries_total{{found="false"}} {FIRST_QUERIES + 2}.0' in metrics, "none was found"


@pytest.mark.parametrize(
    "asked",
    [{"session": None}, {"session": ""}, {"session": 65 * "s"}, {"scope": "read"}, {"namespace": "other"}],
    ids=str,
)
def test_who_has_put_nothing_cannot_write_or_names_no_session_is_told_nothing(
    server: LiveServer, asked: dict[str, str]
) -> None:
    assert ask(server, 1, **asked).status == 404


def test_queries_that_find_something_count_too(server: LiveServer) -> None:
    first = f"/v1/chunks/default/{Hash(SAMPLE.xorb.chunks.digest(0))}"
    headers = {"X-Xet-Session-Id": SESSION}
    for _ in range(FIRST_QUERIES):
        server.request("GET", first, headers=headers, token=server.token("write"))
    assert ask(server, 1).status == 404


def test_sessions_are_forgotten_when_there_are_too_many() -> None:
    queries = FirstQueries()
    for number in range(MAX_SESSIONS):
        assert all(queries.take("default", str(number)) for _ in range(FIRST_QUERIES))
    assert not queries.expects("default", "0")
    assert queries.take("default", "one more")
    assert queries.expects("default", "0")
    assert not queries.take("default", "1")


def test_our_own_client_asks_for_more_chunks_and_is_not_told(server: LiveServer) -> None:
    client = HttpCas(server.url, tokens=FixedToken(server.token("write")))
    assert client.find_chunks(Hash(bytes(31) + b"1")) is None
    assert client.find_chunks(Hash(SAMPLE.xorb.chunks.digest(0))) is not None
    client.close()
