"""Trees over HTTP: levels and whole ones, by page, with last commits; and what is at some paths."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlencode

import pytest
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.server.routes.hub.people import People
from tests.support.live import until


@pytest.fixture(scope="module")
def tree(town: People) -> str:
    """A repository of some folders, made by two commits."""
    repo = town.api().create_repo("tree").repo_id
    paths = [f"data/part-{number:02}.txt" for number in range(30)] + ["a/b/c.txt", "grün/ö.txt", "top.txt"]
    assert town.commit(repo, *(("file", {"path": path, "content": path}) for path in paths), title="one").status == 200
    lines = ("file", {"path": "a/b/c.txt", "content": "new"}), ("file", {"path": "x.bin", "content": "large"})
    assert town.commit(repo, *lines, title="two").status == 200
    return str(repo)


def test_a_level_and_all_levels(town: People, tree: str) -> None:
    api = town.api()
    level = {item.path: type(item) for item in api.list_repo_tree(tree)}
    assert level == {
        ".gitattributes": RepoFile,
        "a": RepoFolder,
        "data": RepoFolder,
        "grün": RepoFolder,
        "top.txt": RepoFile,
        "x.bin": RepoFile,
    }
    every = [item.path for item in api.list_repo_tree(tree, recursive=True)]
    assert len(every) == len(set(every)) == 39
    assert {"a", "a/b", "a/b/c.txt"} <= set(every)
    assert [item.path for item in api.list_repo_tree(tree, "a/b")] == ["a/b/c.txt"]
    assert [item.path for item in api.list_repo_tree(tree, "grün")] == ["grün/ö.txt"]
    assert [item.path for item in api.list_repo_tree(tree, "top.txt")] == ["top.txt"]


def test_keys_are_absent_and_not_null(town: People, tree: str) -> None:
    told = {item["path"]: item for item in town.ask("GET", f"/api/models/{tree}/tree/main").json()}
    assert set(told["top.txt"]) == {"type", "oid", "size", "path"}
    assert (told["a"]["type"], told["a"]["size"]) == ("directory", 0)
    assert set(told["x.bin"]) == {"type", "oid", "size", "path", "lfs", "xetHash"}
    assert set(told["x.bin"]["lfs"]) == {"oid", "size", "pointerSize"}


def test_last_commits(town: People, tree: str) -> None:
    for listed in (
        town.api().list_repo_tree(tree, recursive=True, expand=True),
        town.api().get_paths_info(tree, ["a", "a/b/c.txt", "data", "top.txt", "x.bin"], expand=True),
    ):
        last = {item.path: item.last_commit.title for item in listed}
        assert (last["a"], last["a/b/c.txt"], last["x.bin"]) == ("two", "two", "two")
        assert (last["data"], last["top.txt"]) == ("one", "one")


@pytest.mark.parametrize("query", ["limit=7", "limit=7&expand=true", "limit=1"])
def test_pages_follow_each_other(town: People, tree: str, query: str) -> None:
    path = f"/api/models/{tree}/tree/main?recursive=true&{query}"
    found: list[str] = []
    for _ in range(100):
        answer = town.ask("GET", path)
        found += [item["path"] for item in answer.json()]
        if "Link" not in answer.headers:
            break
        match = re.fullmatch(r'<(http://127[^>]*)>; rel="next"', answer.headers["Link"])
        assert match is not None
        path = match[1]
    assert found == sorted(found)
    assert len(found) == len(set(found)) == 39


@pytest.mark.parametrize("rev", ["refs/pr/1", "refs%2Fpr%2F1", "feat/y", "feat%2Fy"])
@pytest.mark.parametrize(("path", "count"), [("", 7), ("/a%2Fb", 1), ("/a/b", 1), ("/a/b/", 1)])
def test_revisions_as_one_segment_and_as_several(town: People, tree: str, rev: str, path: str, count: int) -> None:
    api = town.api()
    api.create_branch(tree, branch="feat/y", exist_ok=True)
    if not api.list_repo_refs(tree, include_pull_requests=True).pull_requests:
        line = ("file", {"path": "pr.txt", "content": "x"})
        assert town.commit(tree, line, query="?create_pr=1", name="bob").status == 200
    answer = town.ask("GET", f"/api/models/{tree}/tree/{rev}{path}")
    assert answer.status == 200
    assert len(answer.json()) == count - (not path and "feat" in rev)


def test_what_is_missing(town: People, tree: str) -> None:
    for path, code in (("main/nothing", "EntryNotFound"), ("nope", "RevisionNotFound"), ("nope/a", "RevisionNotFound")):
        answer = town.ask("GET", f"/api/models/{tree}/tree/{path}")
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, code)
        assert ("X-Repo-Commit" in answer.headers) == (code == "EntryNotFound")
    for query in ("cursor=%C3%BC", "limit=x", "limit=-1", "limit=1" + "&x" * 1001):
        assert town.ask("GET", f"/api/models/{tree}/tree/main?{query}").status == 400


def test_paths_by_form_and_by_json(town: People, tree: str) -> None:
    wanted = ["a/b/c.txt", "nothing", "a", "../x", "", "x.bin"]
    form = urlencode({"paths": wanted, "expand": "True"}, doseq=True).encode()
    path = f"/api/models/{tree}/paths-info/main"
    by_form = town.ask("POST", path, form, Content_Type="application/x-www-form-urlencoded")
    by_json = town.ask("POST", path, {"paths": wanted, "expand": True})
    assert by_form.json() == by_json.json()
    assert [item["path"] for item in by_form.json()] == ["a/b/c.txt", "a", "x.bin"]
    assert by_form.json()[0]["lastCommit"]["title"] == "two"
    assert town.ask("POST", path, {"paths": "top.txt"}).json()[0]["path"] == "top.txt"
    for body in ({"paths": 3}, {}, {"paths": ["x"] * 10_001}):
        assert town.ask("POST", path, body).status == 400
    assert town.ask("POST", path, b"paths=" + b"x" * (9 << 20)).status == 413


def test_a_long_list_is_sent_at_the_pace_of_its_client(town: People, repo: str) -> None:
    """It holds its bytes of the budget until the client has them all."""
    lines = [("file", {"path": f"a-long-name-{number:05}.txt", "content": ""}) for number in range(4000)]
    assert town.commit(repo, *lines).status == 200
    reading = town.server.site.limits.reading
    with town.server.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET /api/models/{repo}/tree/main HTTP/1.1\r\nHost: {town.server.url[7:]}\r\n\r\n".encode())
        until(lambda: reading.used > 400_000)
    until(lambda: reading.used == 0)
    assert len(town.ask("GET", f"/api/models/{repo}/tree/main").json()) == 4001
