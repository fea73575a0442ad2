"""Lists of repositories: what each caller sees, by page, author, words, tags and order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.routes.hub.people import People, people


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """A server with some models, a dataset and a space."""
    folder: Path = tmp_path_factory.mktemp("shelf")
    with people(folder) as there:
        api = there.api()
        for number in range(7):
            api.create_repo(f"alice/model-{number}", private=number == 6)
        there.api("bob").create_repo("bob/model-of-bob")
        api.create_repo("org/of-all", private=True)
        api.create_repo("alice/data", repo_type="dataset")
        api.create_repo("alice/space", repo_type="space", space_sdk="gradio")
        card = "---\nlicense: mit\ntags: [Red, 50%]\n---\n"
        there.commit("alice/model-2", ("file", {"path": "README.md", "content": card}))
        there.commit("alice/model-4", ("file", {"path": "README.md", "content": card.replace("Red", "blue")}))
        api.update_repo_settings("alice/model-1", gated="auto")
        yield there


def test_each_caller_sees_what_it_may(shelf: People) -> None:
    public = {f"alice/model-{number}" for number in range(6)} | {"bob/model-of-bob"}
    for name, more in (
        (None, set()),
        ("bob", set()),
        ("dave", {"org/of-all"}),
        ("alice", {"org/of-all", "alice/model-6"}),
        ("alice-reading", {"org/of-all", "alice/model-6"}),
    ):
        assert {model.id for model in shelf.api(name).list_models()} == public | more
    assert [item.id for item in shelf.api().list_datasets()] == ["alice/data"]
    assert [item.id for item in shelf.api().list_spaces()] == ["alice/space"]


def test_filters(shelf: People) -> None:
    api = shelf.api()

    def found(**more: object) -> list[str]:
        return [model.id for model in api.list_models(**more)]

    assert found(author="bob") == ["bob/model-of-bob"]
    assert found(author="BOB", limit=5) == ["bob/model-of-bob"]
    assert found(search="of-b") == ["bob/model-of-bob"]
    assert found(search="%") == found(search="a_i") == found(author="nobody") == []
    assert found(filter="red") == ["alice/model-2"]
    assert set(found(filter=["license:mit"])) == {"alice/model-2", "alice/model-4"}
    assert found(filter=["license:mit", "blue"]) == ["alice/model-4"]
    assert found(gated=True) == ["alice/model-1"]
    assert "alice/model-1" not in found(gated=False)
    assert found(sort="created_at")[0] == "org/of-all"
    assert found(sort="last_modified")[0] == "alice/model-4"
    assert found(limit=3) == found()[:3]


def test_pages_have_all_of_them_once(shelf: People) -> None:
    for query in ("limit=2", "limit=2&sort=createdAt", "limit=1&full=true", "limit=2&expand[]=sha"):
        path, found = f"/api/models?{query}", []
        for _ in range(30):
            answer = shelf.ask("GET", path)
            assert len(answer.json()) <= int(query[6])
            found += [item["id"] for item in answer.json()]
            if "Link" not in answer.headers:
                break
            match = re.fullmatch(r'<([^>]*)>; rel="next"', answer.headers["Link"])
            assert match is not None
            path = match[1]
        assert len(found) == len(set(found)) == 9
    for query in ("cursor=x", "cursor=W10=", "limit=x"):
        assert shelf.ask("GET", f"/api/models?{query}").status == 400


def test_details_of_a_list(shelf: People) -> None:
    [item] = shelf.ask("GET", "/api/models?search=model-2&full=true").json()
    assert (item["cardData"]["license"], len(item["sha"])) == ("mit", 40)
    assert {file["rfilename"] for file in item["siblings"]} == {".gitattributes", "README.md"}
    [item] = shelf.ask("GET", "/api/models?search=model-2&expand[]=tags&expand[]=likes").json()
    assert set(item) == {"_id", "id", "tags", "likes"}
    [item] = shelf.ask("GET", "/api/models?search=model-2").json()
    assert {"id", "private", "createdAt", "downloads", "likes", "lastModified", "gated", "author"} <= set(item)


def test_what_an_account_stores(shelf: People) -> None:
    api = shelf.api()
    api.upload_file(path_or_fileobj=b"\0" * 70_000, path_in_repo="a.bin", repo_id="alice/model-0")
    stored = {item.id: item for item in api.list_user_repos()}
    assert len(stored) == 9
    assert (stored["alice/model-0"].storage, stored["alice/model-0"].type) == (70_000, "model")
    assert stored["alice/model-6"].visibility == "private"
    assert {item.type for item in stored.values()} == {"model", "dataset", "space"}
    assert [item.id for item in shelf.api("dave").list_user_repos(namespace="org")] == ["org/of-all"]
    assert list(shelf.api("bob").list_user_repos(namespace="org")) == []
    assert shelf.ask("GET", "/api/settings/repositories", name=None).status == 401
