"""Errors of routes of the Hub: the status, the headers and the body by which its clients tell one from another."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from huggingface_hub import errors as hf
from huggingface_hub.utils._http import get_session, hf_raise_for_status
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    ForbiddenError,
    GatedError,
    NotFoundError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UnprocessableError,
    UsageError,
    XetError,
)
from xetstore.server.http.edge import Edge
from xetstore.server.http.problems import HubCaller, header_text, problem_message
from xetstore.server.http.router import Handler, Route
from xetstore.server.site import Site

COMMIT = "0123456789" * 4
MOVED = "The branch was updated since you opened this page. Please refresh and try again."
ERRORS: dict[str, XetError] = {
    "repository": RepositoryNotFoundError(),
    "revision": RevisionNotFoundError("there is no revision 'x'"),
    "entry": EntryNotFoundError("there is no file 'naïve'", commit=COMMIT),
    "entry-anywhere": EntryNotFoundError("there is no file"),
    "gated": GatedError("Access to model alice/bert is restricted and you are not in the authorized list"),
    "forbidden": ForbiddenError("this takes the right to write"),
    "exists": ExistsError("Reference refs/heads/x already exists"),
    "outdated": OutdatedError(MOVED),
    "unprocessable": UnprocessableError("'..' is no path", hint="take another"),
    "usage": UsageError("one\ntwo\r\nSet-Cookie: a=b"),
    "unauthenticated": UnauthenticatedError("Invalid username or password."),
    "busy": UnavailableError("the index /srv/xet/index is locked"),
}


def failing(error: Exception) -> dict[str, Handler]:
    async def handler(request: Request) -> Response:
        raise error

    return dict.fromkeys(("GET", "HEAD", "POST"), handler)


async def from_the_query(request: Request) -> None:
    request.scope["state"]["is_anonymous"] = request.query_params.get("as") != "user"


def app(site: Site) -> Edge:
    hub = [Route(f"/hub/{name}", failing(error), is_hub=True) for name, error in ERRORS.items()]
    lfs = Route("/{name}.git/info/lfs/objects/batch", failing(ERRORS["repository"]), is_hub=True)
    return Edge(site, (*hub, lfs, Route("/plain", failing(ERRORS["repository"]))), identify=from_the_query)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with (
        EmbeddedCas.open(tmp_path_factory.mktemp("problems") / "store") as cas,
        live_server(cas, app=app, hub=False) as running,
    ):
        yield running


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("repository", 404, "RepoNotFound"),
        ("revision", 404, "RevisionNotFound"),
        ("entry", 404, "EntryNotFound"),
        ("entry-anywhere", 404, "EntryNotFound"),
        ("gated", 403, "GatedRepo"),
        ("forbidden", 403, None),
        ("exists", 409, None),
        ("outdated", 412, None),
        ("unprocessable", 422, None),
        ("usage", 400, None),
        ("unauthenticated", 401, None),
        ("busy", 503, None),
    ],
)
def test_an_error_has_its_status_and_its_code_and_a_message_in_both_places(
    server: LiveServer, name: str, status: int, code: str | None
) -> None:
    answer = server.request("GET", f"/hub/{name}?as=user")
    assert (answer.status, answer.headers["X-Error-Code"]) == (status, code)
    told = answer.json()
    assert told.keys() == {"error", "code", "message", "request_id"}
    assert told["error"] == told["message"]
    assert told["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Repo-Commit"] == (COMMIT if name == "entry" else None)
    assert "srv" not in str(answer.headers) + str(told)
    head = server.request("HEAD", f"/hub/{name}?as=user")
    assert (head.status, head.body, head.headers["X-Error-Code"]) == (status, b"", code)
    assert head.headers["X-Error-Message"] == answer.headers["X-Error-Message"]


def test_the_message_in_the_header_is_one_line_of_ascii(server: LiveServer) -> None:
    answer = server.request("HEAD", "/hub/usage?as=user")
    assert answer.headers["X-Error-Message"] == "one two Set-Cookie: a=b"
    assert answer.headers["Set-Cookie"] is None
    assert server.request("HEAD", "/hub/entry?as=user").headers["X-Error-Message"] == "there is no file 'na?ve'"
    assert (
        server.request("HEAD", "/hub/unprocessable?as=user").headers["X-Error-Message"]
        == "'..' is no path; take another"
    )


@given(st.text(max_size=2000))
def test_any_text_makes_a_header_of_one_line(text: str) -> None:
    shown = header_text(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 600


def test_a_repository_that_is_missing_is_told_in_three_words_and_no_more(server: LiveServer) -> None:
    answer = server.request("GET", "/hub/repository?as=user")
    assert (answer.json()["error"], answer.headers["X-Error-Message"]) == ("Repository not found",) * 2


@pytest.mark.parametrize(
    ("name", "code"), [("repository", "RepoNotFound"), ("gated", "GatedRepo"), ("forbidden", None)]
)
def test_a_stranger_is_asked_who_it_is(server: LiveServer, name: str, code: str | None) -> None:
    for method in ("GET", "HEAD"):
        answer = server.request(method, f"/hub/{name}")
        assert (answer.status, answer.headers["X-Error-Code"]) == (401, code)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["revision", "entry", "exists", "usage"])
def test_of_what_a_stranger_may_see_it_is_told_as_all_are(server: LiveServer, name: str) -> None:
    assert server.request("GET", f"/hub/{name}").status == ERRORS[name].http_status


def test_git_is_asked_in_the_one_way_that_it_knows(server: LiveServer) -> None:
    answer = server.request("POST", "/bert.git/info/lfs/objects/batch")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.headers["LFS-Authenticate"] == "Basic"
    assert server.request("POST", "/bert.git/info/lfs/objects/batch?as=user").status == 404


def test_other_routes_and_paths_fail_as_they_did(server: LiveServer) -> None:
    for path in ("/plain", "/api/nothing", "/api/models/alice/bert/nothing"):
        answer = server.request("GET", path)
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, None)
        assert answer.json().keys() == {"code", "message", "request_id"}
        assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("repository", hf.RepositoryNotFoundError),
        ("repository?as=user", hf.RepositoryNotFoundError),
        ("revision", hf.RevisionNotFoundError),
        ("entry", hf.RemoteEntryNotFoundError),
        ("gated", hf.GatedRepoError),
        ("gated?as=user", hf.GatedRepoError),
        ("usage", hf.BadRequestError),
        ("outdated", hf.HfHubHTTPError),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_client_of_the_hub_raises_its_own_error(
    server: LiveServer, name: str, kind: type[hf.HfHubHTTPError], method: str
) -> None:
    answer = get_session().request(method, f"{server.url}/hub/{name}")
    with pytest.raises(hf.HfHubHTTPError) as caught:
        hf_raise_for_status(answer)
    assert type(caught.value) is kind
    assert answer.headers["X-Request-Id"] in str(caught.value)
    if name == "gated":
        assert "you are not in the authorized list" in str(caught.value)
    elif name.startswith("repository"):
        assert caught.value.server_message in (None, "Repository not found")


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Amzn-Trace-Id"])
@pytest.mark.parametrize("path", ["hub/entry", "nowhere"])
def test_the_client_finds_its_own_id_of_a_request(server: LiveServer, header: str, path: str) -> None:
    answer = get_session().get(f"{server.url}/{path}", headers={header: "custom-id"})
    assert answer.headers["X-Request-Id"] == "custom-id"


def test_an_error_that_is_not_of_the_hub_has_none_of_its_headers() -> None:
    status, headers, body = problem_message(NotFoundError("no file"), "id")
    assert status == 404
    assert not [name for name, _ in headers if name.startswith(b"x-error")]
    assert "error" not in json.loads(body)
    status, headers, _ = problem_message(RepositoryNotFoundError(), "id", HubCaller(is_anonymous=True))
    assert (status, dict(headers)[b"x-error-code"]) == (401, b"RepoNotFound")
