"""The application: its paths under all their names, who may call them, and what the server is called in answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import ROUTES
from xetstore.server.http.router import Routes
from xetstore.server.site import names_loopback
from xetstore.testing import make_sample, upload

HASH = "ab" * 32

PATHS = [
    ("GET", f"/v1/reconstructions/{HASH}"),
    ("GET", f"/v2/reconstructions/{HASH}"),
    ("GET", f"/reconstructions/{HASH}"),
    ("GET", f"/reconstruction/{HASH}"),
    ("GET", f"/v1/reconstructions?file_id={HASH}"),
    ("POST", "/v1/reconstructions"),
    ("HEAD", f"/v1/files/{HASH}"),
    ("GET", f"/v2/file-chunk-hashes/{HASH}"),
    ("GET", f"/v1/chunks/default/{HASH}"),
    ("GET", f"/v1/chunks/default-merkledb/{HASH}"),
    ("GET", f"/chunks/default/{HASH}"),
    ("GET", f"/v1/chunk/default/{HASH}"),
    ("GET", f"/chunk/default/{HASH}"),
    ("POST", f"/v1/xorbs/default/{HASH}"),
    ("POST", f"/xorbs/default/{HASH}"),
    ("POST", f"/xorb/default/{HASH}"),
    ("HEAD", f"/v1/xorbs/default/{HASH}"),
    ("POST", "/v1/shards"),
    ("POST", "/v2/shards"),
    ("POST", "/shards"),
    ("POST", f"/shard/default/{HASH}"),
    ("POST", "/v1/telemetry"),
]
"""Every path that needs a token, as clients spell it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests here that leave nothing behind."""
    with EmbeddedCas.open(tmp_path_factory.mktemp("app") / "store") as cas, live_server(cas) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_token_there_is_nothing_to_be_had(server: LiveServer, method: str, path: str) -> None:
    answer = server.request(method, path)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="xetstore"'
    if method != "HEAD":
        assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_token_of_this_store_is_let_in_everywhere(server: LiveServer, method: str, path: str) -> None:
    answer = server.request(method, path, token=server.token("write"))
    assert answer.status in (204, 400, 404)
    if answer.status == 404 and method != "HEAD":
        assert "path" not in answer.json()["message"]


@pytest.mark.parametrize(("method", "path"), [pair for pair in PATHS if pair[0] == "POST"])
def test_a_read_token_cannot_upload(server: LiveServer, method: str, path: str) -> None:
    answer = server.request(method, path, token=server.token("read"), body=b"[]")
    reads = path in ("/v1/reconstructions", "/v1/telemetry")
    assert answer.status == (400 if reads else 403)
    assert answer.json()["code"] == ("usage" if reads else "forbidden")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {}", "bearer{}", "{}", "Token {}", "Bearer {} x", "Bearer x", "Bearer {}x"],
)
def test_what_is_no_bearer_token_is_a_401(server: LiveServer, header: str) -> None:
    token = server.token("read")
    answer = server.request("GET", PATHS[0][1], headers={"Authorization": header.format(token)})
    assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
    assert token.encode() not in answer.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_read_in_any_case(server: LiveServer, scheme: str) -> None:
    answer = server.request("GET", PATHS[0][1], headers={"Authorization": f"{scheme} {server.token()}"})
    assert answer.status == 404


def test_a_token_that_asks_too_often_is_refused_and_others_are_not(cas: EmbeddedCas) -> None:
    with live_server(cas, rate_per_token=0.01, burst_seconds=200) as server:
        mine, yours = server.token(), server.token()
        path = f"/v1/chunks/default/{HASH}"
        assert [server.request("GET", path, token=mine).status for _ in range(4)] == [404, 404, 429, 429]
        assert server.request("GET", path, token=yours).status == 404
        refused = server.request("GET", path, token=mine)
        assert 1 <= int(refused.headers["Retry-After"]) <= 100
        assert 'rate_limited_total{by="token"} 3.0' in server.site.metrics.exposition().decode()


@pytest.mark.parametrize("name", ["AB" * 32, "ab" * 31, "ab" * 32 + "0", "xy" * 32, "..", "~"])
@pytest.mark.parametrize("kind", ["v1/reconstructions", "v2/file-chunk-hashes", "v1/chunks/default"])
def test_what_is_no_hash_is_an_error_of_the_client(server: LiveServer, kind: str, name: str) -> None:
    answer = server.request("GET", f"/{kind}/{name}", token=server.token())
    assert answer.status in (400, 404)
    assert answer.json()["code"] in ("usage", "not_found")


def test_old_names_lead_to_the_same_handlers() -> None:
    routes = Routes(ROUTES)

    def handlers(path: str) -> object:
        found = routes.find(path)
        assert found is not None, path
        return found[0].handlers

    file = handlers("/v1/reconstructions/h")
    chunk, xorb, shard = handlers("/v1/chunks/p/h"), handlers("/v1/xorbs/p/h"), handlers("/v1/shards")
    assert handlers("/reconstructions/h") is handlers("/reconstruction/h") is file
    assert handlers("/chunks/p/h") is handlers("/v1/chunk/p/h") is handlers("/chunk/p/h") is chunk
    assert handlers("/xorbs/p/h") is handlers("/xorb/p/h") is xorb
    assert handlers("/shards") is handlers("/shard/p/h") is shard


def test_grants_for_direct_uploads_are_exactly_a_404(server: LiveServer) -> None:
    answer = server.request(
        "POST", f"/v1/xorb-grants/default/{HASH}", token=server.token("write"), body=b'{"length":1}'
    )
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["Connection"] is None, "the upload follows on the same connection"


# What the server is called


def urls(server: LiveServer, file: object, host: str | None = None) -> str:
    headers = {} if host is None else {"Host": host}
    answer = server.request("GET", f"/v1/reconstructions/{file}", token=server.token(), headers=headers)
    assert answer.status == 200, answer.body
    (fetches,) = answer.json()["fetch_info"].values()
    return str(fetches[0]["url"])


def test_urls_in_answers_start_with_what_the_client_called_the_server(server: LiveServer) -> None:
    file = upload(server.site.cas, make_sample(b"some file"))
    assert urls(server, file).startswith(server.url + "/v1/xorbs/")
    assert urls(server, file, "Example.org:81").startswith("http://Example.org:81/v1/xorbs/")
    assert urls(server, file, "[::1]:81").startswith("http://[::1]:81/v1/xorbs/")


def test_urls_in_answers_start_with_the_public_url_if_there_is_one(cas: EmbeddedCas) -> None:
    file = upload(cas, make_sample(b"some file"))
    with live_server(cas, public_url="https://example.org/xet/") as server:
        assert urls(server, file, "other").startswith("https://example.org/xet/v1/xorbs/")


@pytest.mark.parametrize("host", ["", "a b", "user@host", "host/path", "host:port", "host:", "[::1", "ho\xe9st", "a?b"])
def test_a_host_header_that_names_no_host_gets_into_no_url(server: LiveServer, host: str) -> None:
    file = upload(server.site.cas, make_sample(b"some file"))
    with server.connect() as connection:
        token = server.token()
        head = f"GET /v1/reconstructions/{file} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        connection.sendall(head.encode("latin-1") + b"Connection: close\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).startswith(b"HTTP/1.1 400 ")


def test_a_request_that_names_no_host_gets_no_urls(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(
            f"GET /v1/reconstructions/{HASH} HTTP/1.0\r\nAuthorization: Bearer {server.token()}\r\n\r\n".encode()
        )
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).startswith(b"HTTP/1.1 400 ")


# Without tokens


def test_without_tokens_anyone_on_this_machine_may_do_anything(cas: EmbeddedCas) -> None:
    sample = make_sample(b"some file")
    with live_server(cas, auth="none") as server:
        answer = server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body)
        assert (answer.status, answer.json()) == (200, {"was_inserted": True})
        assert server.request("POST", "/v1/shards", body=sample.shard.serialize()).json() == {"result": 1}
        assert server.request("GET", f"/v1/reconstructions/{sample.file.hash}").status == 200


@pytest.mark.parametrize(
    "host", ["example.org", "localhost.example.org", "0.0.0.0", "[::2]", "128.0.0.1", "127.0.0.1.x"]
)
def test_without_tokens_a_page_that_a_browser_brought_here_is_refused(cas: EmbeddedCas, host: str) -> None:
    with live_server(cas, auth="none") as server:
        for path in (f"/v1/reconstructions/{HASH}", f"/v1/chunks/default/{HASH}"):
            answer = server.request("GET", path, headers={"Host": host})
            assert (answer.status, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost:{port}"},
        {"Origin": "http://localhost:{port}.example.org"},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:{port}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": ""},
    ],
)
def test_without_tokens_a_page_of_another_site_can_change_nothing(cas: EmbeddedCas, headers: dict[str, str]) -> None:
    sample = make_sample(b"some file")
    with live_server(cas, auth="none") as server:
        port = str(server.address[1])
        sent = {name: value.replace("{port}", port) for name, value in headers.items()}
        for path in (f"/v1/xorbs/default/{sample.xorb.hash}", "/v1/shards", "/v2/shards", "/v1/telemetry"):
            answer = server.request("POST", path, headers={"Host": f"localhost:{port}", **sent}, body=sample.body)
            assert (answer.status, answer.json()["code"]) == (403, "forbidden")
    assert cas.totals().xorbs == 0


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_without_tokens_its_own_pages_and_the_user_may(cas: EmbeddedCas, name: str) -> None:
    sample = make_sample(b"some file")
    path = f"/v1/xorbs/default/{sample.xorb.hash}"
    with live_server(cas, auth="none") as server:
        host = f"{name}:{server.address[1]}"
        for headers in (
            {"Origin": f"http://{host.lower()}", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ):
            answer = server.request("POST", path, headers={"Host": host, **headers}, body=sample.body)
            assert answer.status == 200
    with live_server(cas) as server:
        answer = server.request(
            "POST", path, headers={"Origin": "https://example.org"}, body=sample.body, token=server.token("write")
        )
        assert answer.status == 200, "no page has a token that was not given to it"


def test_a_loopback_name_is_known_in_all_its_forms() -> None:
    assert all(map(names_loopback, ["localhost", "LOCALHOST:80", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:80"]))
    assert not any(map(names_loopback, [None, "", "localhost:x", "::1", "localhost.", "127.0.0.1 ", "[127.0.0.1"]))


def test_a_websocket_is_refused(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        connection.shutdown(socket.SHUT_WR)
        assert b" 101 " not in connection.recv(100)


def test_many_requests_use_one_connection(server: LiveServer) -> None:
    token = server.token()
    request = f"GET /v1/chunks/default/{HASH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(request.encode() * 20)
        for _ in range(20):
            assert answers.readline() == b"HTTP/1.1 404 Not Found\r\n"
            headers = dict(line.strip().lower().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            assert json.loads(answers.read(int(headers[b"content-length"])))["code"] == "not_found"


def test_a_bare_cas_loads_no_names() -> None:
    code = (
        "import sys, xetstore.server.run, xetstore.server.app;"
        "print(any(name.startswith(('xetstore.hub', 'xetstore.server.routes.hub', 'dulwich')) for name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "False\n"
