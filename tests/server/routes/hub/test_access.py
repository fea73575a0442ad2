"""Callers of routes of the Hub: by tokens in each form that clients have, by none, and by what is none."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.live import LiveServer, live_server
from tests.support.live import Response as Answer
from xetstore.access.tokens import Scope
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import RepositoryNotFoundError
from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Handler, Route
from xetstore.server.ops.logs import redact
from xetstore.server.routes.hub.access import actor_of, identify, require
from xetstore.server.site import Site, holders_of
from xetstore.testing import make_sample, upload

HASH = "ab" * 32


async def whoami(request: Request) -> Response:
    actor = actor_of(request)
    holders = [holder for holder in holders_of(request) if not holder.startswith("address ")]
    return JSONResponse({"name": actor.name, "scope": actor.scope, "is_admin": actor.is_admin, "holders": holders})


async def known(request: Request) -> Response:
    return JSONResponse({"name": require(actor_of(request)).name})


async def missing(request: Request) -> Response:
    actor_of(request)
    raise RepositoryNotFoundError


async def open_to_all(request: Request) -> Response:  # it asks for no caller
    return Response(b"open")


def both(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "POST": handler}


def app(site: Site) -> Edge:
    handlers = {"/whoami": whoami, "/known": known, "/missing": missing, "/open": open_to_all}
    return Edge(site, tuple(Route(path, both(one), is_hub=True) for path, one in handlers.items()), identify=identify)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with (
        EmbeddedCas.open(tmp_path_factory.mktemp("access") / "store") as cas,
        live_server(cas, app=app) as running,
    ):
        assert running.site.hub is not None
        running.site.hub.accounts.add_user("Alice")
        yield running


@pytest.fixture(scope="module")
def token(server: LiveServer) -> str:
    assert server.site.hub is not None
    return server.site.hub.accounts.issue("Alice")


def ask(server: LiveServer, authorization: str | None, path: str = "/whoami", method: str = "GET") -> Answer:
    headers = {} if authorization is None else {"Authorization": authorization}
    return server.request(method, path, headers=headers)


def basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_token_is_a_bearer_token(server: LiveServer, token: str, form: str) -> None:
    told = ask(server, form.format(token)).json()
    assert (told["name"], told["scope"], told["is_admin"]) == ("Alice", "write", False)


@pytest.mark.parametrize(
    ("name", "password"), [("Alice", "{}"), ("anything", "{}"), ("", "{}"), ("{}", ""), ("a b é \x01", "{}")]
)
def test_a_token_is_a_password_or_a_name_without_one(server: LiveServer, token: str, name: str, password: str) -> None:
    answer = ask(server, basic(name.format(token), password.format(token)))
    assert (answer.status, answer.json()["name"]) == (200, "Alice")


def test_a_request_counts_for_its_account_and_its_token(server: LiveServer, token: str) -> None:
    namespace, name = ask(server, f"Bearer {token}").json()["holders"]
    assert namespace == "namespace Alice"
    assert server.site.hub is not None
    assert name == f"token {server.site.hub.accounts.token(token).id}", "by which it is revoked"
    assert ask(server, None).json()["holders"] == [], "strangers share no share"


def test_a_token_to_read_has_that_scope(server: LiveServer) -> None:
    assert server.site.hub is not None
    reader = server.site.hub.accounts.issue("Alice", scope=Scope.READ)
    assert ask(server, f"Bearer {reader}").json()["scope"] == "read"


def test_the_admin_of_the_store_is_the_admin(server: LiveServer) -> None:
    for header in (f"Bearer {server.token('admin')}", basic("admin", server.token("admin"))):
        told = ask(server, header).json()
        assert (told["name"], told["is_admin"]) == ("admin", True)


@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_token_for_the_cas_stands_for_no_account(server: LiveServer, scope: str) -> None:
    answer = ask(server, f"Bearer {server.token(scope, 'models/alice/bert')}")
    assert (answer.status, answer.json()["error"]) == (401, "Invalid username or password.")


def test_without_a_token_the_caller_is_a_stranger(server: LiveServer) -> None:
    assert ask(server, None).json()["name"] is None
    answer = ask(server, None, "/known")
    assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
    assert ask(server, None, "/missing").status == 401
    assert ask(server, "", "/whoami").json()["name"] is None


def test_what_is_missing_is_a_404_for_an_account(server: LiveServer, token: str) -> None:
    assert ask(server, f"Bearer {token}", "/missing").status == 404


INVALID = [
    "Bearer",
    "Bearer ",
    "Bearer hf_" + "x" * 34,
    "Bearer x",
    "Bearer a.b.c",
    "Bearer {} {}",
    "Bearer {}x",
    "{}",
    "Token {}",
    "Basic",
    "Basic {}",
    "Basic ====",
    "Basic " + b64encode(b"alice:wrong").decode(),
    "Basic " + b64encode(b"\xff:\xff").decode(),
    "Basic " + b64encode(b"a:b:c:d:::").decode(),
    "Basic " + b64encode(b"alice:\0").decode(),
    "Basic " + b64encode(b"x" * 30_000).decode(),
    "Bearer " + "x" * 40_000,
    "Digest username=alice",
]


@pytest.mark.parametrize("header", INVALID, ids=lambda header: header[:24])
@pytest.mark.parametrize("path", ["/whoami", "/known", "/missing"])
def test_what_is_no_token_is_a_401_even_where_none_is_needed(
    server: LiveServer, token: str, header: str, path: str
) -> None:
    answer = ask(server, header.format(token, token), path)
    assert (answer.status, answer.json()["error"]) == (401, "Invalid username or password.")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert token.encode() not in answer.body
    assert ask(server, header.format(token, token), "/open").status == 200, "the handler looks at no caller"


def test_credentials_longer_than_any_head_are_refused_as_such(server: LiveServer) -> None:
    with server.connect() as connection:
        head = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic "
        try:
            connection.sendall(head + b"QUFB" * (2 << 20) + b"\r\n\r\n")
        except ConnectionError:
            return  # it was closed while it was sent
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 431 ")


def test_a_revoked_token_and_one_that_has_ended_are_none(server: LiveServer) -> None:
    assert server.site.hub is not None
    accounts = server.site.hub.accounts
    gone = accounts.issue("Alice")
    assert ask(server, f"Bearer {gone}").status == 200
    accounts.revoke(gone)
    assert ask(server, f"Bearer {gone}").status == 401
    short = accounts.issue("Alice", ttl_seconds=1)
    deadline = time.monotonic() + 60
    while ask(server, f"Bearer {short}").status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_token_gets_into_a_log_in_any_form(server: LiveServer, token: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for header in (f"Bearer {token}", basic("x", token), basic(token, ""), f"Bearer {token}x", f"Basic {token}"):
            ask(server, header)
        server.request("GET", f"/{token}", headers={"User-Agent": token, "X-Amzn-Trace-Id": token})
        server.request("GET", f"/whoami?token={token}", headers={"X-Request-Id": token})
    text = redact(caplog.text)
    assert "namespace=Alice" in text
    assert token[3:] not in text
    assert b64encode(token.encode()).decode()[:20] not in text


def test_a_token_that_asks_too_often_is_refused_and_others_are_not(cas: EmbeddedCas) -> None:
    with live_server(cas, app=app, rate_per_token=0.01, burst_seconds=200) as server:
        assert server.site.hub is not None
        accounts = server.site.hub.accounts
        accounts.add_user("alice")
        mine, yours = accounts.issue("alice"), accounts.issue("alice")
        assert [ask(server, f"Bearer {mine}").status for _ in range(4)] == [200, 200, 429, 429]
        assert ask(server, basic("alice", mine)).status == 429, "it is the same token"
        assert ask(server, f"Bearer {yours}").status == 200
        assert ask(server, None).status == 200
        assert ask(server, f"Bearer {mine}").headers["Retry-After"]


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_password_that_a_browser_remembers_is_of_no_use_to_a_page(
    server: LiveServer, token: str, headers: dict[str, str]
) -> None:
    password = {"Authorization": basic("alice", token)}
    assert server.request("POST", "/whoami", headers=password).status == 200
    assert server.request("POST", "/whoami", headers=headers | password).status == 403
    assert server.request("GET", "/whoami", headers=headers | password).status == 200, "which no page may read"
    given = {"Authorization": f"Bearer {token}"}
    assert server.request("POST", "/whoami", headers=headers | given).status == 200, "the page was given the token"


# Without tokens


@pytest.mark.parametrize("header", [None, "Bearer hf_nothing", "Basic ====", "Bearer a.b.c"])
def test_without_tokens_every_caller_is_the_local_one(cas: EmbeddedCas, header: str | None) -> None:
    with live_server(cas, app=app, auth="none", rate_per_token=0.001, burst_seconds=1) as server:
        for _ in range(3):
            told = ask(server, header).json()
            assert (told["name"], told["is_admin"]) == ("local", True)
        assert ask(server, header, "/missing").status == 404


def test_without_tokens_pages_of_other_sites_are_refused(cas: EmbeddedCas) -> None:
    with live_server(cas, app=app, auth="none") as server:
        assert server.request("GET", "/whoami", headers={"Host": "example.org"}).status == 403
        assert server.request("POST", "/whoami", headers={"Origin": "https://example.org"}).status == 403
        assert server.request("POST", "/whoami", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
        assert server.request("POST", "/whoami").status == 200


def test_without_tokens_one_of_this_store_still_counts_for_the_cas(cas: EmbeddedCas) -> None:
    file = upload(cas, make_sample(b"some file"))
    path = f"/v1/files/{file}"
    with live_server(cas, auth="none") as server:
        assert server.request("HEAD", path).status == 200
        assert server.request("HEAD", path, token=server.token()).status == 200
        assert server.request("HEAD", path, token=server.token("read", "models/alice/bert")).status == 404
        assert server.request("HEAD", path, token="of.another.store").status == 200
        assert server.request("HEAD", path, token="hf_something").status == 200
        ended = server.token()
        server.authority.revoke(ended)
        assert server.request("HEAD", path, token=ended).status == 401, "it is not taken for none"
        reader = server.token("read", "models/alice/bert")
        assert server.request("POST", "/v1/shards", token=reader, body=b"x").status == 403
        assert server.request("HEAD", path, token=reader, headers={"Host": "example.org"}).status == 403
