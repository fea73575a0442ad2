"""The OpenAPI document and the routes are one table; and what the document says of answers is so."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import ROUTES
from xetstore.testing import make_sample, random_bytes

HASH = "ab" * 32


@pytest.fixture
def document(server: LiveServer) -> dict[str, Any]:
    answer = server.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, methods in document["paths"].items() for method, found in methods.items()]


def test_every_route_is_in_the_document_and_nothing_else_is(document: dict[str, Any]) -> None:
    routes = {(route.path, method.lower()) for route in ROUTES for method in route.handlers}
    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = {part.split('"')[0] for part in json.dumps(document).split('"$ref": "')[1:]}
    assert used <= names


def test_every_operation_is_complete(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations(document):
        assert operation["summary"], path
        assert {f"{{{one['name']}}}" for one in operation["parameters"] if one["in"] == "path"} == {
            part for part in path.split("/") if part.startswith("{")
        }
        assert any(code < "500" for code in operation["responses"])
        for code, response in operation["responses"].items():
            assert response["description"]
            assert ("content" in response) == (method != "head")
            if code >= "400" and method != "head" and not path.startswith("/health/"):
                assert response["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_whatever_can_be_asked_too_often_says_so(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        assert ("429" in operation["responses"]) == (not path.startswith("/health/")), path


def test_what_needs_a_token_says_so(server: LiveServer, document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        where = path.replace("{hash}", HASH).replace("{prefix}", "default")
        if operation.get("security"):
            assert server.request(method.upper(), where).status == 401, path
            assert "401" in operation["responses"]


def test_names_for_old_clients_are_deprecated(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        is_old = path.startswith(("/chunk", "/xorb", "/shard", "/recon", "/v1/chunk/"))
        assert operation.get("deprecated", False) == is_old, path


def test_a_server_without_tokens_does_not_ask_for_them_in_its_document(cas: EmbeddedCas) -> None:
    with live_server(cas, auth="none", public_url="https://example.org/xet") as server:
        document = server.request("GET", "/openapi.json").json()
    assert not any("security" in operation for _, _, operation in operations(document))
    assert document["servers"] == [{"url": "https://example.org/xet"}]


def test_answers_are_what_the_document_says(server: LiveServer, document: dict[str, Any]) -> None:
    sample = make_sample(random_bytes(300_000))
    token = server.token("write")
    admin = server.token("admin")

    def check(method: str, path: str, template: str, expected: int, **more: Any) -> None:
        answer = server.request(method, path, **more)
        assert answer.status == expected, answer.body
        responses = document["paths"][template][method.lower()]["responses"]
        content = responses[str(expected)].get("content", {})
        if not content:
            assert answer.body == b""
            return
        media_type = answer.headers["Content-Type"].partition(";")[0]
        assert media_type in content
        if media_type == "application/json":
            schema = content[media_type]["schema"] | {"components": document["components"]}
            jsonschema_rs.validator_for(schema).validate(answer.json())

    xorb, shard, file = f"/v1/xorbs/default/{sample.xorb.hash}", sample.shard.serialize(), sample.file.hash
    check("POST", xorb, "/v1/xorbs/{prefix}/{hash}", 200, body=sample.body, token=token)
    check("POST", xorb, "/v1/xorbs/{prefix}/{hash}", 401, body=sample.body)
    check("POST", xorb, "/v1/xorbs/{prefix}/{hash}", 403, body=sample.body, token=server.token("read"))
    check("POST", f"/v1/xorbs/default/{HASH}", "/v1/xorbs/{prefix}/{hash}", 400, body=sample.body, token=token)
    check("POST", "/v1/shards", "/v1/shards", 200, body=shard, token=token)
    check("POST", "/v2/shards", "/v2/shards", 200, body=shard, token=token)
    check("POST", "/v2/shards", "/v2/shards", 400, body=b"no shard", token=token)
    for version in ("v1", "v2"):
        template = f"/{version}/reconstructions/{{hash}}"
        hashes = {"X-Xet-Chunk-Hashes": "true"}
        check("GET", f"/{version}/reconstructions/{file}", template, 200, token=token, headers=hashes)
        check("GET", f"/{version}/reconstructions/{HASH}", template, 404, token=token)
        past = {"Range": "bytes=300000-"}
        check("GET", f"/{version}/reconstructions/{file}", template, 416, token=token, headers=past)
    check("GET", f"/v1/reconstructions?file_id={file}", "/v1/reconstructions", 200, token=token)
    check("GET", "/v1/reconstructions", "/v1/reconstructions", 400, token=token)
    keys = json.dumps([{"prefix": "default", "hash": str(file)}]).encode()
    check("POST", "/v1/reconstructions", "/v1/reconstructions", 200, token=token, body=keys)
    check("HEAD", f"/v1/files/{file}", "/v1/files/{hash}", 200, token=token)
    dirty = {"X-Range-Dirty": "bytes=100000-100009"}
    template = "/v2/file-chunk-hashes/{hash}"
    check("GET", f"/v2/file-chunk-hashes/{file}", template, 200, token=token, headers=dirty)
    check("GET", f"/v2/file-chunk-hashes/{file}", template, 400, token=token)
    check("GET", f"/v1/chunks/default/{HASH}", "/v1/chunks/{prefix}/{hash}", 404, token=token)
    chunk = sample.xorb.chunks.digest(0)
    check("POST", "/v1/chunks", "/v1/chunks", 200, token=token, body=chunk)
    check("POST", "/v1/chunks", "/v1/chunks", 204, token=token, body=bytes(64))
    check("POST", "/v1/chunks", "/v1/chunks", 400, token=token, body=chunk[1:])
    check("GET", xorb, "/v1/xorbs/{prefix}/{hash}", 403, token=token)
    check("HEAD", xorb, "/v1/xorbs/{prefix}/{hash}", 200, token=token)
    check("POST", "/v1/telemetry", "/v1/telemetry", 204, token=token, body=b'{"event":"x"}')
    check("POST", f"/v1/xorb-grants/default/{HASH}", "/v1/xorb-grants/{prefix}/{hash}", 404, token=token)
    check("GET", "/v1/auth/xorb", "/v1/auth/xorb", 403, token=token)
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/"):
        check("GET", path, path, 200, token=admin)
    check("GET", "/", "/", 200, headers={"Accept": "application/json"})
