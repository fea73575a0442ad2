"""Dedup queries over HTTP: a shard that any client can use, or a 404; nothing in between, and nothing in clear."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import deployments
from tests.support.live import LiveServer, Response, live_server
from tests.support.stored import error_of, exchange, scattered
from xetstore import _kernel
from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.cas.service import EmbeddedCas
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol.dedup import WIRE_QUERIES
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import SHARD_FOOTER_BYTES
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

SAMPLE = make_sample(random_bytes(500_000, 1))
FIRST = Hash(SAMPLE.xorb.chunks.digest(0))
UNKNOWN = "ab" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, deployment: deployments.Deployment) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("chunks")) as cas:
        upload(cas, SAMPLE)
        with deployment.serve(cas) as running:
            yield running


def test_the_answer_is_a_shard_with_footer_that_holds_the_chunk_by_its_keyed_hash(server: LiveServer) -> None:
    answer = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token("write"))
    assert answer.status == 200
    assert int.from_bytes(answer.body[40:48], "little") == SHARD_FOOTER_BYTES
    shard = Shard.parse(answer.body)
    assert shard.files == ()
    assert shard.key is not None
    assert shard.expires_at > shard.created_at > 0
    (xorb,) = shard.xorbs
    assert xorb.hash == SAMPLE.xorb.hash
    assert xorb.chunks.digest(0) == _kernel.keyed_hash(shard.key, FIRST.digest)


def test_no_chunk_hash_leaves_in_clear(server: LiveServer) -> None:
    body = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token()).body
    assert not any(SAMPLE.xorb.chunks.digest(index) in body for index in range(SAMPLE.xorb.chunk_count))


def test_an_answer_may_be_kept_for_a_while_by_its_client_alone(server: LiveServer) -> None:
    headers = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token()).headers
    assert headers["Cache-Control"] == "private, max-age=3600"
    assert headers["Vary"] == "Authorization"
    assert headers["Content-Type"] == "application/octet-stream"


def test_a_refusal_is_not_kept_by_anybody(server: LiveServer) -> None:
    answer = server.request("GET", f"/v1/chunks/default/{UNKNOWN}", token=server.token())
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/v1/chunks/default", "/v1/chunks/default-merkledb", "/v1/chunks/x", "/chunks/default", "/chunk/default"]
)
def test_every_client_finds_the_route_by_its_own_name(server: LiveServer, path: str) -> None:
    assert server.request("GET", f"{path}/{FIRST}", token=server.token()).status == 200
    assert error_of(server.request("GET", f"{path}/{UNKNOWN}", token=server.token())) == (404, "not_found")


def test_a_chunk_that_is_stored_but_not_eligible_is_not_found(server: LiveServer) -> None:
    second = Hash(SAMPLE.xorb.chunks.digest(1))
    assert second.last_u64 % 1024
    assert error_of(server.request("GET", f"/v1/chunks/default/{second}", token=server.token())) == (404, "not_found")


def test_a_query_needs_a_token(server: LiveServer) -> None:
    assert error_of(server.request("GET", f"/v1/chunks/default/{FIRST}")) == (401, "unauthenticated")


@pytest.mark.parametrize("name", ["x", "AB" * 32, "ab" * 33])
def test_only_a_hash_names_a_chunk(server: LiveServer, name: str) -> None:
    assert error_of(server.request("GET", f"/v1/chunks/default/{name}", token=server.token())) == (400, "usage")


def test_another_namespace_is_told_under_another_key(server: LiveServer) -> None:
    path = f"/v1/chunks/default/{FIRST}"
    here = Shard.parse(server.request("GET", path, token=server.token()).body)
    there = Shard.parse(server.request("GET", path, token=server.token("read", "elsewhere")).body)
    assert here.key != there.key


@pytest.mark.parametrize("settings", [{"dedup": "namespace"}, {"private_namespaces": ("default",)}], ids=str)
def test_what_is_not_shared_looks_as_if_it_were_missing(cas: EmbeddedCas, settings: dict[str, Any]) -> None:
    upload(cas, SAMPLE)
    with live_server(cas, **settings) as server:
        stranger = server.token("write", "strangers")
        foreign = server.request("GET", f"/v1/chunks/default/{FIRST}", token=stranger)
        missing = server.request("GET", f"/v1/chunks/default/{UNKNOWN}", token=stranger)
        assert error_of(foreign) == error_of(missing) == (404, "not_found")
        assert foreign.json()["message"] == missing.json()["message"].replace(UNKNOWN, str(FIRST))
        assert server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token()).status == 200


def test_without_dedup_nothing_is_found(cas: EmbeddedCas) -> None:
    upload(cas, SAMPLE)
    with live_server(cas, dedup="off") as server:
        answer = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token())
        assert error_of(answer) == (404, "not_found")


def test_damage_never_becomes_an_answer_nor_an_error(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, SAMPLE)
    (stored,) = (tmp_path / "store" / "xorbs").rglob(f"{SAMPLE.xorb.hash}-*")
    stored.chmod(0o600)
    stored.write_bytes(stored.read_bytes()[: SAMPLE.xorb.region_bytes])
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as server:
        answer = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token())
        assert error_of(answer) == (404, "not_found")


def test_whatever_goes_wrong_in_a_query_is_not_found_and_in_the_log(
    cas: EmbeddedCas, caplog: pytest.LogCaptureFixture
) -> None:
    upload(cas, SAMPLE)
    with live_server(cas) as server:
        token = server.token()
        cas.index.close()
        with caplog.at_level(logging.ERROR):
            answer = server.request("GET", f"/v1/chunks/default/{FIRST}", token=token)
    assert error_of(answer) == (404, "not_found")
    assert str(FIRST) in caplog.text


# The rule, and several chunks at once

RULE = "modulus=64, most=1024"
OTHERS = [make_sample(random_bytes(50_000, seed)) for seed in range(2, 5)]


def first_of(sample: Sample) -> Hash:
    return Hash(sample.xorb.chunks.digest(0))


def packed(*chunks: Hash) -> bytes:
    return b"".join(chunk.digest for chunk in chunks)


def unknown(count: int) -> list[Hash]:
    return [chunk_hash(b"%d" % number) for number in range(count)]


def ask(server: LiveServer, body: bytes, token: str | None = None, **headers: str) -> Response:
    return server.request("POST", "/v1/chunks", body=body, token=token or server.token(), headers=headers)


def test_every_answer_to_a_query_tells_the_rule(server: LiveServer) -> None:
    at_once, ordinary = (
        server.request("GET", f"/v1/chunks/default/{UNKNOWN}", token=server.token(), headers=headers)
        for headers in ({}, {"Connection": "close"})
    )
    assert at_once.status == ordinary.status == 404
    found = server.request("GET", f"/v1/chunks/default/{FIRST}", token=server.token())
    several = [ask(server, packed(FIRST)), ask(server, packed(*unknown(3)))]
    assert [answer.status for answer in (found, *several)] == [200, 200, 204]
    for answer in (at_once, ordinary, found, *several):
        assert answer.headers["X-Xet-Chunk-Queries"] == RULE
    assert "X-Xet-Chunk-Queries" not in server.request("GET", "/v1/files/x", token=server.token()).headers


def test_the_rule_is_that_of_the_index_as_our_client_reads_it(server: LiveServer) -> None:
    client = HttpCas(server.url, tokens=FixedToken(server.token()))
    assert client.queries == WIRE_QUERIES
    assert client.find_chunks(*unknown(1)) is None
    told = client.queries
    client.close()
    assert (told.modulus, told.most_at_once) == (INDEXED_CHUNKS.modulus, MANY_CHUNKS)
    assert f"modulus={told.modulus}, most={told.most_at_once}" == RULE


def test_one_shard_answers_for_several_chunks(cas: EmbeddedCas) -> None:
    for sample in (SAMPLE, *OTHERS):
        upload(cas, sample)
    with live_server(cas) as server:
        answer = ask(server, packed(*unknown(2), first_of(OTHERS[2]), FIRST, first_of(OTHERS[2])))
        metrics = server.request("GET", "/metrics", token=server.token("admin")).body.decode()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert int.from_bytes(answer.body[40:48], "little") == SHARD_FOOTER_BYTES
    shard = Shard.parse(answer.body)
    assert shard.key is not None
    assert [xorb.hash for xorb in shard.xorbs[:2]] == [OTHERS[2].xorb.hash, SAMPLE.xorb.hash]
    assert shard.xorbs[1].chunks.digest(0) == _kernel.keyed_hash(shard.key, FIRST.digest)
    for sample in (SAMPLE, *OTHERS):
        assert not any(chunk.digest in xorb.chunks.hashes for chunk, _ in sample.xorb.chunks for xorb in shard.xorbs)
    assert not any(chunk.digest in answer.body for chunk, _ in SAMPLE.xorb.chunks)
    # Each chunk counts, once.
    assert 'xetstore_dedup_queries_total{found="true"} 2.0' in metrics
    assert 'xetstore_dedup_queries_total{found="false"} 2.0' in metrics


def test_where_none_is_known_there_is_no_content(server: LiveServer) -> None:
    for count in (1, 2, 1024):
        answer = ask(server, packed(*unknown(count)))
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Content-Length" not in answer.headers


def test_as_many_as_the_rule_tells_can_be_asked_for(server: LiveServer) -> None:
    assert ask(server, packed(*unknown(1023), FIRST)).status == 200


@pytest.mark.parametrize("body", [b"", bytes(31), bytes(33), bytes(32 * 1025), bytes(32 * 1024 + 1), bytes(1 << 20)])
@pytest.mark.parametrize("chunked", [False, True])
def test_no_hashes_or_too_many_are_refused(server: LiveServer, body: bytes, *, chunked: bool) -> None:
    if chunked:
        with server.connect() as connection:
            head = ["POST /v1/chunks HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token()}"]
            framed = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            refused = exchange(connection, [*head, "Transfer-Encoding: chunked"], framed + b"0\r\n\r\n")
            assert (refused.status, json.loads(refused.read())["code"]) == (400, "usage")
    else:
        answer = ask(server, body)
        assert error_of(answer) == (400, "usage")
        assert "between 1 and 1024 hashes" in answer.json()["message"]


def test_several_chunks_need_a_token_and_count_as_one_request(cas: EmbeddedCas) -> None:
    with live_server(cas, rate_per_token=1.0, burst_seconds=2.0) as server:
        refused = server.request("POST", "/v1/chunks", body=packed(*unknown(3)))
        assert error_of(refused) == (401, "unauthenticated")
        token = server.token()
        assert [ask(server, packed(*unknown(1000)), token).status for _ in range(3)] == [204, 204, 429]


def test_without_tokens_a_page_of_another_site_cannot_ask(cas: EmbeddedCas) -> None:
    with live_server(cas, auth="none") as server:
        assert server.request("POST", "/v1/chunks", body=packed(FIRST)).status == 204
        page = {"Origin": "https://evil.example"}
        assert error_of(server.request("POST", "/v1/chunks", body=packed(FIRST), headers=page)) == (403, "forbidden")


@pytest.mark.parametrize(
    "settings", [{"dedup": "namespace"}, {"dedup": "off"}, {"private_namespaces": ("default",)}], ids=str
)
def test_of_several_chunks_what_is_not_shared_looks_as_if_it_were_missing(
    cas: EmbeddedCas, settings: dict[str, Any]
) -> None:
    upload(cas, SAMPLE)
    with live_server(cas, **settings) as server:
        answer = ask(server, packed(FIRST, *unknown(2)), server.token("read", "strangers"))
    assert (answer.status, answer.body) == (204, b"")


def test_whatever_goes_wrong_in_a_query_for_several_is_no_content_and_in_the_log(
    cas: EmbeddedCas, caplog: pytest.LogCaptureFixture
) -> None:
    upload(cas, SAMPLE)
    asked = [FIRST, *unknown(20)]
    with live_server(cas) as server:
        token = server.token()
        cas.index.close()
        with caplog.at_level(logging.ERROR):
            answer = ask(server, packed(*asked), token)
    assert (answer.status, answer.body) == (204, b"")
    assert f"the query for chunk {FIRST} and 20 more failed" in caplog.text
    assert str(asked[1]) not in caplog.text


def test_where_there_is_no_room_for_a_long_answer_nothing_is_known(cas: EmbeddedCas) -> None:
    sample = scattered(1000, chunk_bytes=100)
    upload(cas, sample)
    first = first_of(sample)
    with live_server(cas, queue_seconds=0.05) as server:
        server.site.limits.reading.used = server.site.limits.reading.total
        many, one = ask(server, packed(first)), server.request("GET", f"/v1/chunks/x/{first}", token=server.token())
        server.site.limits.reading.used = 0
        assert (many.status, many.body) == (204, b"")
        assert error_of(one) == (404, "not_found")
        assert many.headers["X-Xet-Chunk-Queries"] == one.headers["X-Xet-Chunk-Queries"] == RULE
        assert ask(server, packed(first)).status == 200
