"""Pages of other sites: what their scripts may ask and read of a server with tokens; of one without, nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError
from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Route
from xetstore.server.site import Site
from xetstore.testing import make_sample, upload

HASH = "ab" * 32
ORIGIN = {"Origin": "https://example.org"}
ASKED = ORIGIN | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,range"}


async def missing(request: Request) -> Response:
    raise NotFoundError("nothing")


async def something(request: Request) -> Response:
    return Response(b"something", headers={"X-Repo-Commit": "c"})


def app(site: Site) -> Edge:
    handlers = {"GET": something, "HEAD": something, "POST": missing}
    return Edge(site, (Route("/open", handlers, answers_pages=True), Route("/closed", handlers)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("pages") / "store") as cas, live_server(cas, app=app) as running:
        yield running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("pages") / "store") as cas, live_server(cas) as running:
        yield running


def test_a_browser_is_told_what_its_page_may_send(server: LiveServer) -> None:
    answer = server.request("OPTIONS", "/open", headers=ASKED)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert answer.headers["Access-Control-Allow-Headers"].startswith("Authorization,")
    assert answer.headers["Access-Control-Allow-Credentials"] is None
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize("headers", [{}, ORIGIN, {"Access-Control-Request-Method": "GET"}])
def test_options_that_no_browser_asks_is_a_method_like_others(server: LiveServer, headers: dict[str, str]) -> None:
    assert server.request("OPTIONS", "/open", headers=headers).status == 405


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_may_be_read_with_the_headers_that_clients_need_and_so_may_an_error(
    server: LiveServer, method: str
) -> None:
    answer = server.request(method, "/open", headers=ORIGIN)
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    exposed = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    wanted = "ETag Link X-Repo-Commit X-Linked-Size X-Linked-Etag X-Xet-Hash X-Error-Code Content-Range X-Request-Id"
    assert {name.lower() for name in wanted.split()} <= exposed
    assert answer.headers["Access-Control-Allow-Credentials"] is None


def test_an_answer_that_a_cache_may_keep_is_the_same_for_pages_and_for_others(server: LiveServer) -> None:
    assert server.request("GET", "/open").headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_a_route_that_is_not_for_pages_says_nothing_of_them(server: LiveServer, method: str) -> None:
    answer = server.request(method, "/closed", headers=ASKED)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert (answer.status == 405) == (method == "OPTIONS")


@pytest.mark.parametrize("path", ["/", "/metrics", "/health/live", "/health/ready", "/openapi.json", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_page_reads_what_goes_by_the_address_of_its_reader(whole: LiveServer, path: str, method: str) -> None:
    answer = whole.request(method, path, headers=ASKED)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_page_downloads_from_the_cas(whole: LiveServer) -> None:
    file = upload(whole.site.cas, make_sample(b"some file"))
    path = f"/cas/v2/reconstructions/{file}"
    assert whole.request("OPTIONS", path, headers=ASKED).status == 204
    answer = whole.request("GET", path, headers=ORIGIN, token=whole.token())
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    [fetch] = next(iter(answer.json()["xorbs"].values()))
    [span] = fetch["ranges"]
    byte_range = f"bytes={span['bytes']['start']}-{span['bytes']['end']}"
    answer = whole.request("GET", fetch["url"], headers=ORIGIN | {"Range": byte_range})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (206, "*")
    answer = whole.request("GET", f"/cas/v1/chunks/default/{HASH}", headers=ORIGIN, token=whole.token())
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (404, "*")
    assert whole.request("GET", path, headers=ORIGIN).status == 401, "a page has no token that it was not given"


@pytest.mark.parametrize("path", ["/open", "/closed"])
def test_without_tokens_no_page_reads_anything(cas: EmbeddedCas, path: str) -> None:
    with live_server(cas, app=app, auth="none") as server:
        for method, status in (("OPTIONS", 405), ("GET", 200), ("POST", 404)):
            answer = server.request(method, path, headers=ASKED)
            assert answer.status == status
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
