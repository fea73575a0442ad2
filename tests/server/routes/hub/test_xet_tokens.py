"""Tokens for the CAS: for one repository, told twice, and no more than the caller may."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.server.routes.hub.people import People
from xetstore.testing.samples import random_bytes


def test_the_triple_is_in_headers_and_body(town: People, repo: str) -> None:
    for kind in ("read", "write"):
        answer = town.ask("GET", f"/api/models/{repo}/xet-{kind}-token/main")
        told = answer.json()
        assert told["casUrl"] == answer.headers["X-Xet-Cas-Url"] == f"{town.server.url}/cas"
        assert told["accessToken"] == answer.headers["X-Xet-Access-Token"]
        assert str(told["exp"]) == answer.headers["X-Xet-Token-Expiration"]
        assert told["exp"] > time.time() + 1800
        caller = town.server.site.authority.verify(told["accessToken"])
        assert (caller.scope, caller.subject, caller.repo) == (kind, "alice", f"models/{repo}")


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("bob", "xet-read-token/main", 200),
        (None, "xet-read-token/main", 200),
        ("bob", "xet-write-token/main", 403),
        (None, "xet-write-token/main", 401),
        ("alice-reading", "xet-write-token/main", 403),
        ("alice-reading", "xet-write-token/main?create_pr=1", 403),
        (None, "xet-write-token/None?create_pr=1", 401),
        ("bob", "xet-write-token/None?create_pr=1", 200),
        ("bob", "xet-write-token/main?create_pr=true", 200),
        ("alice", "xet-write-token/None", 200),
        ("alice", "xet-read-token/nope", 404),
        ("alice", "xet-write-token/nope", 404),
    ],
)
def test_rights(town: People, repo: str, name: str | None, path: str, status: int) -> None:
    assert town.ask("GET", f"/api/models/{repo}/{path}", name=name).status == status


def test_a_token_reads_its_repository_alone(town: People, new_repo: Callable[..., str]) -> None:
    repo, other = new_repo(private=True), new_repo()
    content = random_bytes(100_000, 9)
    town.api().upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=repo)
    file = town.ask("HEAD", f"/{repo}/resolve/main/a.bin").headers["X-Xet-Hash"]
    for where, status in ((repo, 200), (other, 404)):
        told = town.ask("GET", f"/api/models/{where}/xet-read-token/main").json()
        path = f"/cas/v1/reconstructions/{file}"
        assert town.server.request("GET", path, token=told["accessToken"]).status == status


def test_a_token_ends_with_that_of_its_caller(town: People, repo: str) -> None:
    token = town.hub.accounts.issue("alice", ttl_seconds=100)
    answer = town.server.request("GET", f"/api/models/{repo}/xet-read-token/main", token=token)
    assert answer.json()["exp"] <= time.time() + 100
