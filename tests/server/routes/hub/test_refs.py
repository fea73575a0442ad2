"""Branches and tags over HTTP, by the real client and as the JavaScript client sends them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from tests.server.routes.hub.people import People


def refused(call: Callable[[], object], *statuses: int, text: str | None = None) -> None:
    with pytest.raises(HfHubHTTPError, match=text) as raised:
        call()
    assert raised.value.response.status_code in statuses


def test_branches(town: People, repo: str) -> None:
    api = town.api()
    first = api.model_info(repo).sha
    town.commit(repo, ("file", {"path": "a", "content": "x"}))
    api.create_tag(repo, tag="dev")
    api.create_branch(repo, branch="dev")  # a tag of that name is no conflict
    api.create_branch(repo, branch="feature/x", revision=first)
    for name in ("dev", "main"):
        refused(lambda name=name: api.create_branch(repo, branch=name), 409, text=f"refs/heads/{name} already exists")  # type: ignore[misc]
        api.create_branch(repo, branch=name, exist_ok=True)
    found = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).branches}
    assert set(found) == {"main", "dev", "feature/x"}
    assert (found["feature/x"], found["dev"] == found["main"]) == (first, True)
    api.delete_branch(repo, branch="feature/x")
    refused(lambda: api.delete_branch(repo, branch="feature/x"), 404, text="Invalid rev id")
    refused(lambda: api.delete_branch(repo, branch="main"), 403, text="Cannot delete refs/heads/main")
    api.create_tag(repo, tag="only-tag")
    refused(lambda: api.delete_branch(repo, branch="only-tag"), 404, text="Invalid rev id")
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(repo, branch="z", revision="nope")


@pytest.mark.parametrize(
    "name", ["a b", "a..b", "a~1", "-x", "a.lock", "@", "x%00", "refs%2Fpr%2F9", "refs%2Ftags%2Fx"]
)
def test_names_that_no_branch_has(town: People, repo: str, name: str) -> None:
    assert town.ask("POST", f"/api/models/{repo}/branch/{name.replace(' ', '%20')}", {}).status in (400, 404)


def test_branches_as_the_javascript_client_makes_them(town: People, repo: str) -> None:
    town.commit(repo, ("file", {"path": "a", "content": "x"}))
    first = town.api().list_repo_commits(repo)[-1].commit_id
    path = f"/api/models/{repo}/branch/js"
    assert town.ask("POST", path, {"emptyBranch": True}).status == 200
    assert town.ask("GET", f"/api/models/{repo}/tree/js").json() == []
    assert town.ask("POST", path, {"startingPoint": "main"}).status == 409
    assert town.ask("POST", path, {"startingPoint": "main", "overwrite": True}).status == 200
    assert len(town.ask("GET", f"/api/models/{repo}/tree/js").json()) == 2
    assert town.ask("POST", path, {"startingPoint": first, "overwrite": True}).status == 200
    assert len(town.ask("GET", f"/api/models/{repo}/tree/js").json()) == 1


def test_tags(town: People, repo: str) -> None:
    api = town.api()
    first = api.model_info(repo).sha
    api.create_tag(repo, tag="v1", tag_message="annotated", revision=first[:7])
    api.create_tag(repo, tag="v2/x", revision="main")
    town.commit(repo, ("file", {"path": "a", "content": "x"}))
    found = {ref.name: (ref.ref, ref.target_commit) for ref in api.list_repo_refs(repo).tags}
    assert found == {"v1": ("refs/tags/v1", first), "v2/x": ("refs/tags/v2/x", first)}
    assert api.model_info(repo, revision="v1").sha == first
    refused(lambda: api.create_tag(repo, tag="v1"), 409)
    api.create_tag(repo, tag="v1", exist_ok=True)
    refused(lambda: api.create_tag(repo, tag="a b"), 400)
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(repo, tag="v3", revision="nope")
    api.delete_tag(repo, tag="v2/x")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(repo, tag="v2/x")
    refused(lambda: api.delete_tag(repo, tag="main"), 404)


def test_pull_requests_are_told_when_asked_for(town: People, repo: str) -> None:
    assert town.commit(repo, ("file", {"path": "a", "content": "x"}), query="?create_pr=1", name="bob").status == 200
    assert "pullRequests" not in town.ask("GET", f"/api/models/{repo}/refs").json()
    refs = town.api().list_repo_refs(repo, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
