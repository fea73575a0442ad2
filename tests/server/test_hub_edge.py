"""A server with a Hub as its clients find it: the CAS below /cas, ids of requests, bodies for routes that take none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from tests.server.test_app import HASH, PATHS
from tests.support.hf_process import Connection, HfProcess
from tests.support.live import LiveServer, live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import CAS_ROUTES, ROUTES, routes_of
from xetstore.server.routes.hub import HUB_ROUTES
from xetstore.testing import make_sample, upload

FILE = splitmix64(1, 3_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("hub") / "store") as cas, live_server(cas) as running:
        yield running


# The CAS below /cas


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_path_of_the_cas_is_below_cas_as_well(server: LiveServer, method: str, path: str) -> None:
    assert server.request(method, f"/cas{path}").status == 401
    for token in (server.token("write"), server.token("read")):
        answers = [server.request(method, prefix + path, token=token, body=b"[]") for prefix in ("", "/cas")]
        assert answers[0].status == answers[1].status


@pytest.mark.parametrize(
    "path", ["/health/live", "/metrics", "/openapi.json", "/v1/auth/xorb", "/", "", "/cas/v1/shards", "/api/whoami-v2"]
)
def test_nothing_else_is_below_cas(server: LiveServer, path: str) -> None:
    assert server.request("GET", f"/cas{path}", token=server.token("admin")).status == 404


def test_a_file_is_read_below_cas_and_its_urls_lead_to_the_root(server: LiveServer) -> None:
    sample = make_sample(splitmix64(2, 200_000))
    token = server.token("write")
    xorb = f"/cas/v1/xorbs/default/{sample.xorb.hash}"
    assert server.request("POST", xorb, body=sample.body, token=token).json() == {"was_inserted": True}
    assert server.request("POST", "/cas/v1/shards", body=sample.shard.serialize(), token=token).json() == {"result": 1}
    answer = server.request("GET", f"/cas/v1/reconstructions/{sample.file.hash}", token=token)
    [[fetch]] = answer.json()["fetch_info"].values()
    assert fetch["url"].startswith(f"{server.url}/v1/xorbs/")
    span = {"Range": f"bytes={fetch['url_range']['start']}-{fetch['url_range']['end']}"}
    assert server.request("GET", fetch["url"], headers=span).status == 206
    moved = fetch["url"].replace("/v1/xorbs", "/cas/v1/xorbs")
    assert server.request("GET", moved, headers=span).status == 206, "as where the public URL has that path"


def test_the_url_of_the_cas_is_below_what_the_client_calls_the_server(cas: EmbeddedCas) -> None:
    scope = {"type": "http", "scheme": "http", "headers": [(b"host", b"example.org:81")]}
    with live_server(cas) as server:
        assert server.site.cas_url(Request(scope)) == "http://example.org:81/cas"
    with live_server(cas, public_url="https://example.org/xet") as server:
        assert server.site.cas_url(Request(scope)) == "https://example.org/xet/cas"
        for path in ("/xet/cas/v1/shards", "/cas/v1/shards"):
            assert server.request("POST", path, token=server.token("write")).status == 400


def test_one_route_has_one_name_in_metrics_and_in_the_document(server: LiveServer) -> None:
    for path in (f"/v1/chunks/default/{HASH}", f"/cas/v1/chunks/default/{HASH}", "/cas/nothing"):
        server.request("GET", path, token=server.token())
    assert "/cas" not in server.site.metrics.exposition().decode()
    assert not [path for path in server.request("GET", "/openapi.json").json()["paths"] if path.startswith("/cas")]


@pytest.mark.parametrize("auth", ["tokens", "none"])
def test_the_reference_client_moves_a_file_of_a_repository(cas: EmbeddedCas, tmp_path: Path, auth: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    with live_server(cas, auth=auth) as server:

        def client(namespace: str, scope: str) -> HfProcess:
            token = (server.token(scope, namespace, ttl_seconds=600), int(time.time()) + 600)
            return HfProcess(Connection(f"{server.url}/cas", token), tmp_path / namespace)

        [info] = client("models/alice/bert", "write").upload([path]).infos
        assert client("models/alice/bert", "read").download([info]) == [FILE]
        reader = server.token("read", "models/alice/other")
        assert server.request("HEAD", f"/cas/v1/files/{info.hash}", token=reader).status == 404
        assert server.request("HEAD", f"/cas/v1/files/{info.hash}").status == (401 if auth == "tokens" else 404)


# With and without a Hub


def test_a_bare_cas_has_no_hub(cas: EmbeddedCas) -> None:
    with live_server(cas, hub=False) as server:
        assert server.site.hub is None
        assert not [route for route in routes_of(server.site) if route.is_hub]
        assert server.request("GET", "/api/whoami-v2").status == 404
        assert server.request("GET", f"/v1/chunks/default/{HASH}", token=server.token()).status == 404


def test_the_settings_of_the_hub_get_there(cas: EmbeddedCas) -> None:
    with live_server(cas, default_visibility="private", anonymous=False, private_namespaces=("models/a/b",)) as server:
        assert server.site.hub is not None
        options = server.site.hub.options
    assert (options.default_visibility, options.anonymous_reads) == ("private", False)
    assert options.private_namespaces == {"models/a/b"}


def test_every_route_of_the_hub_is_one(server: LiveServer) -> None:
    routes = [route for route in routes_of(server.site) if route.is_hub]
    assert [route.path for route in routes] == [route.path for route in HUB_ROUTES]
    assert all(route.answers_pages and not route.mount for route in routes)
    assert not [route.path for route in ROUTES if route.is_hub]
    assert all(route.answers_pages for route in CAS_ROUTES)


def test_the_route_labels_of_metrics_are_as_many_as_there_are_routes(server: LiveServer) -> None:
    for path in ("/alice/bert/resolve/main/f", "/api/models/a/b", "/cas/v1/shards", "/a/b/c/d/e/f", "/%00", "/x" * 50):
        server.request("GET", path)
    labels = {
        line.partition('route="')[2].partition('"')[0]
        for line in server.site.metrics.exposition().decode().splitlines()
        if 'route="' in line
    }
    assert labels <= {route.template for route in routes_of(server.site)} | {"unknown"}


# Request ids

IDS = [
    ("X-Request-Id", "my-request.1", "my-request.1"),
    ("X-Amzn-Trace-Id", "my-trace.1", "my-trace.1"),
    ("X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1", None),
    ("X-Amzn-Trace-Id", "x" * 128, None),
]


@pytest.mark.parametrize(("header", "sent", "shown"), IDS)
@pytest.mark.parametrize("path", ["/v1/shards", "/nowhere", "/health/live", "/cas/v1/chunks/default/" + HASH])
def test_a_request_has_the_id_that_its_client_gave_it(
    server: LiveServer, header: str, sent: str, shown: str | None, path: str
) -> None:
    answer = server.request("GET", path, headers={header: sent})
    assert answer.headers.get_all("X-Request-Id") == [shown or sent]


def test_the_id_of_a_request_goes_before_that_of_its_trace(server: LiveServer) -> None:
    headers = {"X-Request-Id": "mine", "X-Amzn-Trace-Id": "trace"}
    assert server.request("GET", "/nowhere", headers=headers).headers["X-Request-Id"] == "mine"
    headers = {"X-Request-Id": "not mine", "X-Amzn-Trace-Id": "trace"}
    assert server.request("GET", "/nowhere", headers=headers).headers["X-Request-Id"] == "trace"


@pytest.mark.parametrize(
    "sent", ["", "a b", "x" * 129, 'a"b', "é", "a/b", "a,b", "a\tb", "a\\nb", "%0d%0aX: y", "<b>", "{}"]
)
def test_a_trace_that_could_mean_something_in_a_header_or_a_log_is_none(server: LiveServer, sent: str) -> None:
    answer = server.request("GET", "/nowhere", headers={"X-Amzn-Trace-Id": sent})
    assert len(answer.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("inside", [b"a\r\nX-Evil: 1", b"a\nX-Evil: 1", b"a\rX-Evil: 1", b"a\0b"])
def test_no_line_gets_into_an_answer_by_a_trace(server: LiveServer, inside: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Amzn-Trace-Id: %b\r\nConnection: close\r\n\r\n" % inside
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    assert b"x-evil" not in answer.lower()


# Bodies for routes that take none


def test_a_long_body_for_a_route_that_takes_none_costs_its_sender_alone(server: LiveServer) -> None:
    file = upload(server.site.cas, make_sample(b"some file"))
    lines = [
        f"GET /cas/v1/reconstructions/{file} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {server.token()}",
        f"Content-Length: {100 << 20}",
    ]
    with server.connect() as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        try:
            for _ in range(100):
                connection.sendall(bytes(1 << 20))
        except ConnectionError:
            pass  # it is not read to its end
    assert server.site.limits.receiving.used == 0
