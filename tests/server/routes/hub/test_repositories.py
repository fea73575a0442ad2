"""Repositories over HTTP: made, described, changed, moved and deleted, by the real client and by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.server.routes.hub.people import People

NewRepo = Callable[..., str]


def status_of(call: Callable[[], object]) -> int:
    with pytest.raises(HfHubHTTPError) as raised:
        call()
    return raised.value.response.status_code


@pytest.mark.parametrize(
    ("repo_type", "files"),
    [
        ("model", [".gitattributes"]),
        ("dataset", [".gitattributes"]),
        ("space", [".gitattributes", "README.md"]),
        ("kernel", [".gitattributes"]),
    ],
)
def test_a_new_repository_of_each_kind(town: People, repo_type: str, files: list[str]) -> None:
    more = {"space_sdk": "gradio"} if repo_type == "space" else {}
    api = town.api()
    url = api.create_repo(f"new-{repo_type}", repo_type=repo_type, **more)
    assert (url.repo_id, url.repo_type) == (f"alice/new-{repo_type}", repo_type)
    assert sorted(api.list_repo_files(url.repo_id, repo_type=repo_type)) == files
    [commit] = api.list_repo_commits(url.repo_id, repo_type=repo_type)
    assert (commit.title, commit.authors) == ("initial commit", ["alice"])
    town.ask("DELETE", "/api/repos/delete", {"name": url.repo_id, "type": repo_type})
    assert not api.repo_exists(url.repo_id, repo_type=repo_type)


def test_a_name_that_is_taken(town: People, repo: str) -> None:
    api = town.api()
    again = town.ask("POST", "/api/repos/create", {"name": repo.partition("/")[2]})
    assert (again.status, again.json()["url"]) == (409, f"{town.server.url}/{repo}")
    assert api.create_repo(repo.upper(), exist_ok=True).repo_id == repo
    assert api.create_repo("ALICE/Odd.Case").repo_id == "alice/Odd.Case"
    # Another user may not create there; one who does not mind is told what there is.
    assert status_of(lambda: town.api("bob").create_repo(repo)) == 403
    assert town.api("bob").create_repo(repo, exist_ok=True).repo_id == repo
    assert status_of(lambda: town.api("alice-reading").create_repo("alice/other")) == 403
    assert status_of(lambda: town.api(None).create_repo("alice/other")) == 401


def test_organizations_have_roles(town: People) -> None:
    for name, status in (("carol", None), ("dave", 403), ("bob", 403)):
        if status is None:
            town.api(name).create_repo("org/shared", private=True)
        else:
            assert status_of(lambda name=name: town.api(name).create_repo("org/other")) == status  # type: ignore[misc]
    assert town.api("dave").model_info("org/shared").private
    assert not town.api("bob").repo_exists("org/shared")
    assert status_of(lambda: town.api("dave").delete_repo("org/shared")) == 403
    town.api("alice").delete_repo("org/shared")


@pytest.mark.parametrize(
    "name", ["a--b", "a..b", "-a", "a.git", "a b", "a/b/c", "", ".", "..", "x" * 97, "ü", "a\0b", "a%2Fb", "b.ipynb"]
)
def test_names_that_are_none(town: People, name: str) -> None:
    answer = town.ask("POST", "/api/repos/create", {"name": name, "organization": "alice"})
    assert answer.status == 400, answer.body
    answer = town.ask("DELETE", "/api/repos/delete", {"name": name, "organization": "alice"})
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_bodies_that_are_none(town: People) -> None:
    for body in (b"", b"{", b"[]", b'{"name": 3}', b'{"name": "x", "type": "other"}', b"\xff", b"[" * 5000):
        assert town.ask("POST", "/api/repos/create", body).status == 400, body
    assert town.ask("POST", "/api/repos/create", b" " * (9 << 20)).status == 413


def test_files_and_licence_of_a_new_repository(town: People) -> None:
    """As the JavaScript client sends them."""
    files = [
        {"path": "a.txt", "content": "grün"},
        {"path": "b.dat", "content": "AAE=", "encoding": "base64"},
    ]
    assert town.ask("POST", "/api/repos/create", {"name": "with-files", "files": files}).status == 200
    assert town.ask("GET", "/alice/with-files/resolve/main/a.txt").body == "grün".encode()
    assert town.ask("GET", "/alice/with-files/resolve/main/b.dat").body == b"\0\1"
    assert town.ask("GET", "/alice/with-files/resolve/main/.gitattributes").status == 200


def test_info_tells_all_or_what_is_asked_for(town: People, repo: str) -> None:
    card = b"---\nlicense: mit\ntags: [x]\nlibrary_name: lib\npipeline_tag: fill-mask\ndate: 2024-01-01\n---\n# hi"
    api = town.api()
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    info = api.model_info(repo, files_metadata=True)
    assert info.sha == api.list_repo_refs(repo).branches[0].target_commit
    assert (info.card_data.license, info.library_name, info.pipeline_tag) == ("mit", "lib", "fill-mask")
    assert info.tags == ["x", "lib", "fill-mask", "license:mit"]
    assert {file.rfilename: file.size for file in info.siblings}["README.md"] == len(card)
    told = town.ask("GET", f"/api/models/{repo}?expand=private&expand[]=likes").json()
    assert told == {"_id": told["_id"], "id": repo, "private": False, "likes": 0}
    assert town.ask("GET", f"/api/models/{repo}?expand=xetEnabled").json()["xetEnabled"] is True
    assert all("size" not in file for file in town.ask("GET", f"/api/models/{repo}").json()["siblings"])
    first = api.list_repo_commits(repo)[-1].commit_id
    for rev in (first, first[:7], "main", "HEAD", "refs%2Fheads%2Fmain"):
        assert town.ask("GET", f"/api/models/{repo}/revision/{rev}").status == 200
    assert api.model_info(repo, revision=first).sha == first
    missing = town.ask("GET", f"/api/models/{repo}/revision/nope")
    assert (missing.status, missing.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_a_card_that_cannot_be_read_is_no_reason_to_fail(town: People, repo: str) -> None:
    town.commit(repo, ("file", {"path": "README.md", "content": "---\na: [\n---\n"}))
    assert "cardData" not in town.ask("GET", f"/api/models/{repo}").json()


def test_settings(town: People, repo: str) -> None:
    api = town.api()
    for gated in ("auto", "manual", False):
        api.update_repo_settings(repo, gated=gated)
        assert api.model_info(repo).gated == gated
    api.update_repo_settings(repo, private=True)
    assert api.model_info(repo).private
    assert not town.api("bob").repo_exists(repo)
    api.update_repo_settings(repo, visibility="public")
    assert not api.model_info(repo).private
    for name, status in (("bob", 403), ("alice-reading", 403), (None, 401)):
        assert town.ask("PUT", f"/api/models/{repo}/settings", {"private": True}, name=name).status == status
    for body in ({"gated": "other"}, {"gated": True}, {"visibility": "other"}, {"private": 3}):
        assert town.ask("PUT", f"/api/models/{repo}/settings", body).status == 400, body


def test_a_gated_repository_is_seen_and_not_read(town: People, repo: str) -> None:
    town.commit(repo, ("file", {"path": "a.txt", "content": "x"}))
    town.api().update_repo_settings(repo, gated="manual")
    bob = town.api("bob")
    assert bob.model_info(repo).gated == "manual"
    assert [file.path for file in bob.list_repo_tree(repo)] == [".gitattributes", "a.txt"]
    calls: list[Callable[[], object]] = [
        lambda: bob.auth_check(repo),
        lambda: bob.hf_hub_download(repo, "a.txt"),
        lambda: bob.get_hf_file_metadata(url=f"{town.server.url}/{repo}/resolve/main/a.txt"),
        lambda: bob.snapshot_download(repo),
    ]
    for call in calls:
        with pytest.raises(GatedRepoError, match=f"Access to model {repo} is restricted and you are not in the auth"):
            call()
    for path in (f"/api/models/{repo}/xet-read-token/main", f"/{repo}/raw/main/a.txt"):
        assert (answer := town.ask("GET", path, name="bob")).status == 403
        assert answer.headers["X-Error-Code"] == "GatedRepo"
    town.api().auth_check(repo)
    town.api().auth_check(repo, write=True)


def test_moved_repositories_go_on_to_be_found(town: People, new_repo: NewRepo) -> None:
    repo, other = new_repo(private=True), new_repo()
    town.commit(repo, ("file", {"path": "a b.txt", "content": "x"}))
    api = town.api()
    assert status_of(lambda: api.move_repo(repo, other)) == 409
    with pytest.raises(HfHubHTTPError, match=f"A model repository called {other} already exists"):
        api.move_repo(repo, other)
    new = f"{repo}-new"
    api.move_repo(repo, new)
    for path in (f"/{repo}/resolve/main/a%20b.txt?download=true", f"/api/models/{repo}/tree/main?recursive=true"):
        answer = town.ask("GET", path)
        assert answer.status == 307
        assert answer.headers["Location"] == path.replace(repo, new)
        stranger = town.ask("GET", path, name="bob")
        assert (stranger.status, stranger.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert api.model_info(repo).id == new
    assert town.commit(repo, ("file", {"path": "b", "content": "y"})).status == 200
    api.move_repo(new, repo)  # a name that leads elsewhere is free
    assert api.model_info(new).id == repo
    api.create_repo(new)
    assert api.model_info(new).id == new
    assert status_of(lambda: town.api("bob").move_repo(other, "bob/mine")) == 403
    assert status_of(lambda: api.move_repo(other, "bob/mine")) == 403
    with pytest.raises(RepositoryNotFoundError):
        api.move_repo("alice/nothing", "alice/something")


def test_duplicates_are_repositories_of_their_own(town: People, repo: str) -> None:
    api, bob = town.api(), town.api("bob")
    api.upload_file(path_or_fileobj=b"\0" * 100_000, path_in_repo="big.bin", repo_id=repo)
    api.create_tag(repo, tag="v1")
    name = repo.replace("alice", "bob")
    url = bob.duplicate_repo(repo)
    assert url.repo_id == name
    assert bob.duplicate_repo(repo, exist_ok=True).repo_id == name
    assert status_of(lambda: bob.duplicate_repo(repo)) == 409
    assert status_of(lambda: bob.duplicate_repo(repo, "alice/of-bob")) == 403
    assert [ref.name for ref in bob.list_repo_refs(name).tags] == ["v1"]
    api.delete_repo(repo)
    assert town.ask("GET", f"/{name}/resolve/v1/big.bin", name="bob").body == b"\0" * 100_000
    assert len(bob.list_repo_commits(name)) == 2
    bob.upload_file(path_or_fileobj=b"x", path_in_repo="more.txt", repo_id=name)
    assert len(bob.list_repo_commits(name)) == 3


def test_a_copy_of_what_is_private_stays_private(town: People, new_repo: NewRepo) -> None:
    repo = new_repo(private=True)
    town.api().duplicate_repo(repo, f"{repo}-copy")
    assert town.api().model_info(f"{repo}-copy").private
    with pytest.raises(RepositoryNotFoundError):
        town.api("bob").duplicate_repo(repo, "bob/stolen")


def test_ids_that_are_no_ids(town: People) -> None:
    for path in ("/api/models/gpt2", "/gpt2/resolve/main/f", "/api/models/gpt2/commits/main", "/datasets/x/raw/main/f"):
        answer = town.ask("GET", path)
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound"), path
        answer = town.ask("GET", path, name=None)
        assert (answer.status, answer.headers["X-Error-Code"]) == (401, "RepoNotFound"), path


def test_what_a_repository_has_not_is_missing_and_the_repository_is_not(town: People) -> None:
    """A client of a Hub with more to it asks for a space's `runtime`."""
    town.ask("POST", "/api/repos/create", {"name": "beyond", "private": True})
    answer = town.ask("GET", "/api/models/alice/beyond/runtime")
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, None)
    for name in ("bob", None):
        assert town.ask("GET", "/api/models/alice/beyond/runtime", name=name).headers["X-Error-Code"] == "RepoNotFound"


def test_repositories_may_be_called_as_routes_are(town: People) -> None:
    for name in ("resolve", "raw", "tree", "commit"):
        town.ask("POST", "/api/repos/create", {"name": name})
        town.commit(f"alice/{name}", ("file", {"path": "resolve/main/f", "content": "x"}))
        assert town.ask("GET", f"/alice/{name}/resolve/main/resolve/main/f").body == b"x"
