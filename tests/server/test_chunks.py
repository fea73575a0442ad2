"""Dedup queries over HTTP: a shard that any client can use, or a 404; nothing in between, and nothing in clear."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import LiveServer, live_server
from tests.server.stored import error_of
from xetstore import _kernel
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import SHARD_FOOTER_BYTES
from xetstore.testing.samples import make_sample, random_bytes, upload

SAMPLE = make_sample(random_bytes(500_000, 1))
FIRST = Hash(SAMPLE.xorb.chunks.digest(0))
UNKNOWN = "ab" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("chunks") / "store") as cas:
        upload(cas, SAMPLE)
        with live_server(cas) as running:
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
    (stored,) = (tmp_path / "store" / "xorbs").rglob(str(SAMPLE.xorb.hash))
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
