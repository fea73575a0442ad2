"""Odd requests to every route of the Hub: none is a failure of the server, and none leads to another file."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.support.deployments import BOTH, Deployment
from tests.support.live import PATIENCE_SECONDS, LiveServer
from xetstore.errors import ExistsError
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.server.http.router import Route
from xetstore.server.routes.hub import HUB_ROUTES

DEPLOYMENTS = BOTH
FIXED = {"owner": "alice", "name": "bert", "rev": "main", "path": "a/secret.txt", "branch": "main", "org": "team"}
ODD = [
    *("%00", "..", ".", "%2e%2e", "%2F", "a%2F..%2Fb", "..%2F..%2Fetc%2Fpasswd", "a%2F%2Fb", "%2Fetc%2Fpasswd", ""),
    *("%ff", "%ed%a0%80", "%C0%AF", "%C3", "%", "%zz", "%F0%9F%98%80", "%E2%80%AE", "%EF%BF%BF", "%CC%81", "%7F"),
    *("a%0Ab", "a%0D%0AX:%20y", "%1B%5B2J", "%5C..%5C", "%22", "'", "*", "%3Cscript%3E", "%25", "%2500", "%u0041"),
    *("refs%2Fpr%2F1", "refs%2Fpr%2F0", "refs%2Fheads%2Fmain", "refs%2Fheads%2F", "refs%2Ftags%2Fx", "HEAD", "None"),
    *("main%5E", "main~1", "@%7B0%7D", "0" * 40, "f" * 7, "abc", "-1", "0", "9" * 30, "1e5", "--", "x" * 300),
    *(".git", ".git%2Fconfig", "con", "a.git", "bert.git", "%E2%84%AAim", "me", "cas", "api", ":", "~", "a|b", "[0]"),
    "/".join("a" * 200),
    "%2F".join("a" * 2000),
]
BODIES = [
    *(b"", b"{}", b"[]", b"null", b"1", b"\xff\xfe", b'"x"', b"[" * 50_000, b'{"a":' * 50_000, b"{}\n{}", b"\n" * 100),
    b'{"key":"header","value":{"summary":""}}',
    b'{"key":"header","value":{"summary":"x"}}\n'
    b'{"key":"file","value":{"path":"../x","content":"%%","encoding":"base64"}}',
    b'{"key":"header","value":{"summary":"x"}}\n{"key":"file","value":{"path":"a\\u0000b","content":""}}',
    b'{"key":"header","value":{"summary":"\\ud800"}}\n{"key":"deletedFile","value":{"path":"\\ud800"}}',
    b'{"key":"header","value":{"summary":"x","parentCommit":"\\u0000"}}\n'
    b'{"key":"lfsFile","value":{"path":"a","oid":"x"}}',
    b'{"files":[{"path":"\\ud800","sample":"!","size":-1}],"paths":["\\u0000",".."],"expand":"x"}',
    b'{"operation":"upload","transfers":["x"],"objects":[{"oid":"..","size":-1}]}',
    b'{"operation":"download","objects":[{"oid":"' + b"a" * 64 + b'","size":1e30}]}',
    b'{"type":"model","name":"\\u0000","organization":"..","visibility":"x","private":"x","sdk":1}',
    b'{"name":"alice/..","type":"nothing"}',
    b'{"fromRepo":"alice/bert","toRepo":"../..","type":"model"}',
    b'{"startingPoint":"\\u0000","tag":"..","message":null,"title":"\\u0000","description":7,"pullRequest":"x"}',
    b'{"content":"---\\na: [\\n---"}',
    b'{"type":"addFile","path":"..","xetHash":"x"}\n{"type":"copyFile"}\n{"type":"deleteFile","path":"\\u0000"}',
    b"paths=%00&paths=%ff&expand=%zz",
]


SECRET = b"the secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, deployment: Deployment) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("odd")) as cas, deployment.serve(cas) as running:
        yield running


@pytest.fixture(scope="module")
def hub(server: LiveServer) -> EmbeddedHub:
    assert server.site.hub is not None
    server.site.hub.accounts.add_user("alice")
    return server.site.hub


@pytest.fixture(autouse=True)
def repositories(hub: EmbeddedHub) -> None:
    """A repository of each kind, also where an odd request has deleted it."""
    for kind in Kind:
        with suppress(ExistsError):
            made = hub.create(LOCAL, RepositoryName.parse("alice/bert", kind))
            if kind.is_git:
                made.commit("main", [AddFile(FIXED["path"], SECRET)], "a file")


class Asker:
    """One caller, on one connection as long as that lasts."""

    def __init__(self, server: LiveServer, token: str | None) -> None:
        self._address = server.address
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def status(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        for _ in range(2):
            try:
                self._connection.request(method, path, body or None, self._headers)
                answer = self._connection.getresponse()
                content = answer.read()
                assert answer.headers["X-Request-Id"]
                return answer.status, content
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()
        raise AssertionError(f"{method} {path[:200]}: no answer")


def path_of(route: Route, **odd: str) -> str:
    path = route.path
    for name, kind in route.parameters.items():
        path = path.replace(f"{{{name}:{kind}}}" if kind else f"{{{name}}}", odd.get(name, FIXED.get(name, "0")))
    return path


@pytest.fixture
def owner(server: LiveServer, hub: EmbeddedHub) -> Iterator[Asker]:
    with closing(Asker(server, hub.accounts.issue("alice"))) as asker:
        yield asker


@pytest.fixture
def stranger(server: LiveServer) -> Iterator[Asker]:
    with closing(Asker(server, None)) as asker:
        yield asker


ROUTES = [route for route in HUB_ROUTES if not re.search("/(datasets|spaces|kernels)(/|$)", route.path)]
"""One kind stands for those that have the same handlers."""


def test_a_request_that_is_not_odd_is_answered(owner: Asker) -> None:
    [resolve] = [route for route in ROUTES if route.path.startswith("/{owner:text}/{name:text}/resolve/")]
    assert owner.status("GET", path_of(resolve)) == (200, SECRET)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
def test_no_path_is_a_failure_of_the_server(owner: Asker, route: Route) -> None:
    ask_for_odd_paths(owner, route)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
def test_no_path_of_a_stranger_is_a_failure_of_the_server(stranger: Asker, one_server: None, route: Route) -> None:
    """On one deployment: of what the index is asked, most is asked for an owner alone."""
    ask_for_odd_paths(stranger, route)


def ask_for_odd_paths(asker: Asker, route: Route) -> None:
    for name in route.parameters:
        for odd in ODD:
            for method in route.handlers:
                path = path_of(route, **{name: odd})
                status, content = asker.status(method, path)
                assert status < 500, (method, path[:200], content[:300])
                if name == "path" and odd not in FIXED.values():
                    assert SECRET not in content, path


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
def test_no_body_is_a_failure_of_the_server(owner: Asker, route: Route) -> None:
    for method in route.handlers:
        for body in BODIES if method not in ("GET", "HEAD") else BODIES[:4]:
            status, content = owner.status(method, path_of(route), body)
            assert status < 500, (method, route.path, body[:100], content[:300])


QUERIES = [
    *("limit=-1", "limit=0", "limit=x", "limit=99999999999999999999", "p=-1", "p=1e9", "cursor=%00", "cursor=x"),
    *(
        "cursor=%ff",
        "recursive=true&cursor=../..",
        "recursive=x",
        "expand=%00",
        "expand[]=x",
        "create_pr=x",
        "search=%00%25",
    ),
    *("author=%ff", "%00=%00", "&&=&", "sort=x", "direction=x", "filter=%00", "full=x", "blobs=x", "download=x"),
    *("include_prs=x", "X-Xet-Signature=x", "status=x", "type=x"),
]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
def test_no_query_is_a_failure_of_the_server(owner: Asker, route: Route) -> None:
    for method in route.handlers:
        for query in QUERIES:
            status, content = owner.status(method, f"{path_of(route)}?{query}")
            assert status < 500, (method, route.path, query, content[:300])
