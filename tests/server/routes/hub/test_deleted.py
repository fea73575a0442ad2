"""What was deleted by its name, over HTTP: given back by who could delete it, and nothing of it told to others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.routes.hub.people import People
from xetstore.access.tokens import Scope
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.names import Kind
from xetstore.hub.rights import LOCAL
from xetstore.testing import make_sample, random_bytes, upload


def listed(town: People, repo: str, name: str | None = "alice", **query: str) -> Any:
    told = "&".join(f"{key}={value}" for key, value in {"type": "model", "name": repo, **query}.items())
    return town.ask("GET", f"/api/repos/deleted?{told}", name=name)


@pytest.mark.parametrize("visibility", ["public", "private"])
def test_a_deleted_repository_is_missing_for_all_and_given_back_by_its_admins(town: People, visibility: str) -> None:
    repo = f"org/gone-{visibility}"
    api = town.api()
    api.create_repo(repo, private=visibility == "private")
    api.upload_file(repo_id=repo, path_in_repo="large.bin", path_or_fileobj=random_bytes(5000, 9))
    namespace = f"models/{repo}"
    [file] = town.hub.repository(LOCAL, Kind.MODELS, repo).entries_at(
        town.hub.repository(LOCAL, Kind.MODELS, repo).revision(), ["large.bin"]
    )
    authority = town.server.authority
    assert authority is not None
    token = authority.issue(namespace=namespace, scope=Scope.WRITE)
    read = f"/v1/reconstructions/{file.file}"
    assert town.server.request("GET", read, token=token).status == 200
    assert [each["hash"] for each in town.server.request("GET", "/v1/files", token=token).json()["files"]] == [
        file.file
    ]
    api.delete_repo(repo)
    # A token of before reads nothing of it, and cannot give any of it back.
    assert town.server.request("GET", read, token=token).status == 404
    absent = town.server.request("GET", f"/v1/reconstructions/{'0' * 63}1", token=token)
    assert town.server.request("GET", read, token=token).headers.keys() == absent.headers.keys()
    assert town.server.request("POST", f"/v1/files/{file.file}/undelete", token=token).status == 404
    for listing in ("/v1/files/deleted", "/v1/files"):
        assert town.server.request("GET", listing, token=token).json() == {"files": [], "next": None}
    for name in ("carol", "dave", "bob"):
        answers = listed(town, repo, name), town.ask("POST", "/api/repos/undelete", {"name": repo}, name=name)
        nothing = (
            listed(town, "org/nothing", name),
            town.ask("POST", "/api/repos/undelete", {"name": "org/nothing"}, name=name),
        )
        for answer, other in zip(answers, nothing, strict=True):
            assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")
            assert answer.status == other.status
            assert answer.json().keys() == other.json().keys()
    assert listed(town, repo, None).status == 401
    [told] = listed(town, repo).json()
    assert (told["kind"], told["name"]) == ("repository", repo)
    assert town.ask("POST", "/api/repos/undelete", {"name": repo, "to": "bob/mine"}).status == 403
    answer = town.ask("POST", "/api/repos/undelete", {"name": repo})
    assert answer.json()["url"].endswith(repo)
    assert api.model_info(repo).private is (visibility == "private")
    assert town.server.request("GET", read, token=token).status == 200
    assert town.ask("POST", "/api/repos/undelete", {"name": repo}).status == 404


def test_refs_are_given_back_by_who_may_write(town: People, repo: str) -> None:
    api = town.api()
    api.create_branch(repo, branch="dev")
    api.delete_branch(repo, branch="dev")
    [told] = listed(town, repo).json()
    assert (told["kind"], told["name"]) == ("branch", "dev")
    route = f"/api/models/{repo}/undelete"
    assert town.ask("POST", route, {"ref": "main"}).status == 404
    assert town.ask("POST", route, {"ref": "dev", "to": "main"}).status == 409
    assert town.ask("POST", route, {"ref": "dev", "to": "refs/pr/1"}).status == 400
    assert town.ask("POST", route, {"ref": "dev", "to": "feature/x"}).json()["name"] == "feature/x"
    assert {ref.name for ref in api.list_repo_refs(repo).branches} == {"main", "feature/x"}
    assert town.ask("POST", route, {"ref": "dev"}).status == 404
    for body in (b"", b"[]", b'{"ref": 1}'):
        assert town.ask("POST", route, body).status == 400


def test_files_of_a_bucket_are_given_back(town: People) -> None:
    town.api().create_bucket("alice/box", exist_ok=True)
    bucket = Bucket(town.hub.repository(LOCAL, Kind.BUCKETS, "alice/box"))
    file = upload(bucket.cas, make_sample(random_bytes(3000, 4)))
    bucket.change([PutFile(path, file) for path in ("a/1", "a/2", "b")])
    bucket.change([DropFile(path) for path in ("a/1", "a/2", "b")])
    [*told] = listed(town, "alice/box", type="bucket", path="a").json()
    assert [(each["kind"], each["name"], each["size"]) for each in told] == [
        ("file", "a/1", 3000),
        ("file", "a/2", 3000),
    ]
    route = "/api/buckets/alice/box/undelete"
    assert town.ask("POST", route, {"path": "a"}).json() == {"paths": ["a/1", "a/2"], "more": False}
    assert town.ask("POST", route, {"path": "b", "to": "c"}).json() == {"paths": ["c"], "more": False}
    assert town.ask("POST", route, {"path": "b"}).status == 404
    assert town.ask("POST", route, {"path": "../b"}).status == 422
    assert {file.path for file in town.api().list_bucket_tree("alice/box")} == {"a/1", "a/2", "c"}
