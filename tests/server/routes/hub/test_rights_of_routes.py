"""Rights, for every route there is: a repository that a caller may not know of is as if it were missing.

The routes are those of the server's own table: a new one is asked here without being named.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest

from tests.server.routes.hub.people import People
from xetstore.access.tokens import Scope
from xetstore.errors import ExistsError
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import Actor
from xetstore.server.http.router import Route
from xetstore.server.routes.hub import HUB_ROUTES
from xetstore.server.routes.hub.handling import find_nothing

PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
VALUES = {"rev": "main", "path": ".gitattributes", "branch": "dev", "tag": "v1", "number": "1", "num": "1"}
READING_POSTS = ("/paths-info", "/duplicate", "/info/lfs/", "/discussions", "/user-access-request", "/ask-access")
"""Paths of POSTs that take no right to write."""


CREATION = ("POST", "/api/buckets/{owner:text}/{name:text}")
"""It names a bucket that is not there yet: test_buckets.py asks it."""


def path_of(route: Route, repo: str) -> str:
    owner, name = repo.split("/")
    values = VALUES | {"owner": owner, "name": name}
    return PARAMETER.sub(lambda match: values.get(match[1], "x"), route.path)


def kind_of(route: Route) -> Kind:
    segments = route.path.split("/")
    for segment in segments[1:3]:
        if segment in list(Kind):
            return Kind(segment)
    return Kind.MODELS


CASES = [
    pytest.param(route, method, id=f"{method} {route.path}")
    for route in HUB_ROUTES
    for method in route.handlers
    if "{owner" in route.path and "{name" in route.path and (method, route.path) != CREATION
]


@pytest.fixture
def secret(town: People) -> str:
    """A private repository of each kind, of an organization; and another one, for whose CAS there is a token.

    What a test before has deleted is there again.
    """
    alice = Actor(
        name="alice", scope=Scope.WRITE, orgs={"org": __import__("xetstore.hub.rights").hub.rights.Role.ADMIN}
    )
    for kind in Kind:
        for name in ("secret", "other"):
            with suppress(ExistsError):
                town.hub.create(alice, RepositoryName(kind, "org", name), visibility="private")
    return "org/secret"


def told(town: People, route: Route, method: str, repo: str, token: str | None) -> dict[str, Any]:
    """All that an answer tells, with the name of the repository taken out."""
    answer = town.server.request(method, path_of(route, repo), token=token, body=b"")
    kept = {key.lower(): value for key, value in answer.headers.items()}
    for key in ("x-request-id", "date", "content-length"):
        kept.pop(key, None)
    body: object = answer.body.decode("latin-1")
    if answer.body.startswith(b"{"):
        body = {key: value for key, value in answer.json().items() if key != "request_id"}
    found = {"status": answer.status, **kept, "body": body}
    return {key: str(value).replace(repo.partition("/")[2], "NAME") for key, value in found.items()}


def test_every_route_of_a_repository_is_asked() -> None:
    """A route without an owner in its path is of no repository: of accounts, lists, bodies that name one, and the like.

    One with a name alone says that there is no such repository.
    """
    others = [route for route in HUB_ROUTES if not ("{owner" in route.path and "{name" in route.path)]
    for route in others:
        if "{name" in route.path:
            assert set(route.handlers.values()) == {find_nothing}, route.path
    assert len(CASES) > 60


@pytest.mark.parametrize(("route", "method"), CASES)
def test_what_a_caller_may_not_know_of_is_as_if_missing(town: People, secret: str, route: Route, method: str) -> None:
    authority = town.server.authority
    assert authority is not None
    of_another = authority.issue(namespace=f"{kind_of(route)}/org/other", scope=Scope.WRITE)
    for token in (None, town.tokens["bob"], of_another):
        of_secret = told(town, route, method, secret, token)
        of_nothing = told(town, route, method, "org/absent", token)
        assert of_secret == of_nothing
        assert of_secret["status"] in ("401", "404")
    # The owner shows that the path is one of this route, and the repository there.
    known = told(town, route, method, secret, town.tokens["alice"])
    assert known.get("x-error-code") != "RepoNotFound"


@pytest.mark.parametrize(("route", "method"), CASES)
def test_a_reader_changes_nothing(town: People, secret: str, route: Route, method: str) -> None:
    is_reading = (
        method in ("GET", "HEAD")
        or route.path.endswith(("/like", "/{rest:text}"))  # the second leads to nothing
        or any(part in route.path for part in READING_POSTS)
    )
    answer = told(town, route, method, secret, town.tokens["dave"])
    if is_reading and "write" not in route.path:
        assert answer["status"] not in ("401", "404") or answer.get("x-error-code") != "RepoNotFound"
    else:
        assert answer["status"] == "403"
        assert "x-error-code" not in answer


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "delete"), ("POST", "move"), ("POST", "create"), ("POST", "undelete")]
)
def test_names_in_bodies(town: People, secret: str, method: str, path: str) -> None:
    for kind in Kind:
        for name, status in (("bob", (403, 404)), (None, (401, 401)), ("dave", (403, 404))):
            for repo, expected in zip((secret, "org/absent"), status, strict=True):
                body = {"type": kind.word, "name": repo, "fromRepo": repo, "toRepo": "bob/mine"}
                answer = town.ask(method, f"/api/repos/{path}", body, name=name)
                if path == "create":
                    assert answer.status in (401, 403)
                elif name == "bob" or (path == "undelete" and name is not None):  # it may not know of either
                    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")
                else:
                    assert answer.status == expected
