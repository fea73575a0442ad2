"""Commits over HTTP: what clients send, what they are told, and what is refused."""

from __future__ import annotations

import hashlib
import http.client
import io
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.errors import RevisionNotFoundError as HfRevisionNotFoundError

from tests.server.routes.hub.people import People
from tests.support.live import PATIENCE_SECONDS, live_server, until
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.cas.index.queries.sha256 import CANDIDATES
from xetstore.hub.names import Kind
from xetstore.hub.rights import LOCAL
from xetstore.testing.samples import make_sample, random_bytes, upload


def file(path: str, content: str | bytes = "x", **more: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(content, bytes):
        return "file", {"path": path, "content": b64encode(content).decode(), "encoding": "base64", **more}
    return "file", {"path": path, "content": content, **more}


def paths_of(town: People, repo: str, rev: str = "main") -> set[str]:
    return {item.path for item in town.api().list_repo_tree(repo, recursive=True, revision=rev) if hasattr(item, "lfs")}


def test_all_operations_of_the_client(town: People, repo: str, tmp_path: Path) -> None:
    api = town.api()
    big = tmp_path / "big.bin"
    big.write_bytes(random_bytes(200_000, 1))
    added = api.create_commit(
        repo,
        [
            CommitOperationAdd("a/small.txt", b"small"),
            CommitOperationAdd("a/big.bin", str(big)),
            CommitOperationAdd("gone/x.txt", b"x"),
            CommitOperationAdd("gone.txt", b"x"),
        ],
        commit_message="one",
        commit_description="and more",
    )
    assert added.commit_url == f"{town.server.url}/{repo}/commit/{added.oid}"
    api.create_commit(
        repo,
        [
            CommitOperationDelete("gone/"),
            CommitOperationDelete("gone.txt"),
            CommitOperationCopy("a/big.bin", "b/copy.bin"),
            CommitOperationCopy("a/small.txt", "b/small.txt"),
        ],
        commit_message="two",
        parent_commit=added.oid,
    )
    assert paths_of(town, repo) == {".gitattributes", "a/small.txt", "a/big.bin", "b/copy.bin", "b/small.txt"}
    of = {item.path: item for item in api.get_paths_info(repo, ["a/big.bin", "b/copy.bin"])}
    assert of["a/big.bin"].lfs == of["b/copy.bin"].lfs
    assert of["a/big.bin"].xet_hash == of["b/copy.bin"].xet_hash is not None
    log = api.list_repo_commits(repo)
    assert [(each.title, each.message, each.authors) for each in log] == [
        ("two", "", ["alice"]),
        ("one", "and more", ["alice"]),
        ("initial commit", "", ["alice"]),
    ]


def test_a_folder_is_uploaded_in_one_commit(town: People, repo: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n")
    for name in ("a.txt", "sub/b.bin", "x.log", "keep.log", "empty.bin"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else name.encode())
    api = town.api()
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    names = {".gitattributes", ".gitignore", "a.txt", "sub/b.bin", "keep.log", "empty.bin"}
    assert paths_of(town, repo) == names
    api.upload_folder(repo_id=repo, folder_path=tmp_path, delete_patterns="*.txt")
    assert paths_of(town, repo) == names
    assert len(api.list_repo_commits(repo)) == 2  # nothing was new
    api.delete_files(repo, ["sub/*", "*.log"])
    assert paths_of(town, repo) == {".gitattributes", ".gitignore", "a.txt", "empty.bin"}


def test_what_is_there_is_told_before_it_is_uploaded(town: People, repo: str) -> None:
    content = b"LFS content"
    town.commit(repo, file("a.bin", content), file("b.txt", "text"), file(".gitignore", "*.tmp"))
    asked = [
        {"path": path, "size": 5, "sample": ""} for path in ("a.bin", "b.txt", "c.bin", "d.tmp", "e.bin", "f.text")
    ]
    asked[4]["size"] = 0
    asked[5]["size"] = 9 << 20
    asked.append({"path": "g.text", "size": 11 << 20})
    answer = town.ask("POST", f"/api/models/{repo}/preupload/main", {"files": asked}).json()
    assert answer["commitOid"] == town.api().model_info(repo).sha
    assert answer["files"] == [
        {"path": "a.bin", "uploadMode": "lfs", "shouldIgnore": False, "oid": hashlib.sha256(content).hexdigest()},
        {
            "path": "b.txt",
            "uploadMode": "regular",
            "shouldIgnore": False,
            "oid": hashlib.sha1(b"blob 4\0text").hexdigest(),
        },
        {"path": "c.bin", "uploadMode": "lfs", "shouldIgnore": False},
        {"path": "d.tmp", "uploadMode": "regular", "shouldIgnore": True},
        {"path": "e.bin", "uploadMode": "regular", "shouldIgnore": False},
        {"path": "f.text", "uploadMode": "regular", "shouldIgnore": False},
        {"path": "g.text", "uploadMode": "lfs", "shouldIgnore": False},
    ]
    said = {"files": asked, "gitIgnore": "*.text", "gitAttributes": "*.tmp filter=lfs"}
    told = {each["path"]: each for each in town.ask("POST", f"/api/models/{repo}/preupload/main", said).json()["files"]}
    assert (told["d.tmp"]["shouldIgnore"], told["f.text"]["shouldIgnore"]) == (False, True)
    assert (told["a.bin"]["uploadMode"], told["d.tmp"]["uploadMode"]) == ("regular", "lfs")


def test_attributes_rule_from_their_commit_on(town: People, repo: str) -> None:
    api = town.api()
    town.commit(repo, file(".gitattributes", "*.png filter=lfs"))
    for name in ("a.png", "b.bin"):
        api.upload_file(path_or_fileobj=b"content", path_in_repo=name, repo_id=repo)
    assert [item.lfs is not None for item in api.get_paths_info(repo, ["a.png", "b.bin"])] == [True, False]


def test_a_large_file_that_comes_in_the_body_is_stored_as_all_large_ones(town: People, repo: str) -> None:
    large = random_bytes(11 << 20, 3)
    answer = town.commit(repo, file("a.bin", b"tiny"), file("b.dat", large), file("empty.bin", b""), file("c.txt"))
    assert answer.status == 200, answer.body
    told = {item["path"]: item for item in town.ask("GET", f"/api/models/{repo}/tree/main").json()}
    assert told["a.bin"]["lfs"] == {"oid": hashlib.sha256(b"tiny").hexdigest(), "size": 4, "pointerSize": 126}
    assert told["b.dat"]["lfs"]["oid"] == hashlib.sha256(large).hexdigest()
    assert all("xetHash" in told[path] for path in ("a.bin", "b.dat"))
    assert all("lfs" not in told[path] for path in ("empty.bin", "c.txt"))
    assert town.ask("GET", f"/{repo}/resolve/main/b.dat").body == large
    # git would else keep it whole
    assert b"/b.dat filter=lfs" in town.ask("GET", f"/{repo}/raw/main/.gitattributes").body


def test_a_file_that_was_never_uploaded_here_cannot_be_committed(town: People, new_repo: Callable[..., str]) -> None:
    repo, other = new_repo(private=True), new_repo()
    content = random_bytes(50_000, 5)
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = ("lfsFile", {"path": "a.bin", "algo": "sha256", "oid": sha256})
    town.commit(repo, file("a.bin", content))
    for token in ("alice", "bob"):
        answer = town.commit(other, pointer, name=token, query="?create_pr=1")
        assert answer.status == 422
        assert sha256 in answer.json()["error"]
    assert town.commit(repo, ("lfsFile", {**pointer[1], "path": "c.bin", "size": 3})).status == 422
    assert town.commit(repo, ("lfsFile", {**pointer[1], "path": "b.bin", "size": 50_000})).status == 200


def test_an_outdated_parent(town: People, repo: str) -> None:
    api = town.api()
    first = api.model_info(repo).sha
    for parent in (first, first[:7]):
        line = file(f"{parent}.txt")
        assert town.commit(repo, line, parentCommit=api.model_info(repo).sha[: len(parent)]).status == 200
        answer = town.commit(repo, file("b"), parentCommit=parent)
        assert answer.status == 412
        assert answer.json()["error"] == (
            "The branch was updated since you opened this page. Please refresh and try again."
        )
    with pytest.raises(HfHubHTTPError, match="The branch was updated") as raised:
        api.create_commit(repo, [CommitOperationAdd("c", b"c")], commit_message="x", parent_commit=first)
    assert raised.value.response.status_code == 412


def test_the_same_commit_twice_is_one(town: People, repo: str) -> None:
    parent = town.api().model_info(repo).sha
    lines = file("a.txt"), file("b.bin", b"\0" * 300)
    first = town.commit(repo, *lines, parentCommit=parent)
    again = town.commit(repo, *lines, parentCommit=parent)
    assert first.json()["commitOid"] == again.json()["commitOid"]
    assert len(town.api().list_repo_commits(repo)) == 2


def test_commits_that_race_are_all_made(town: People, repo: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: town.commit(repo, file(f"{number}.txt"), title=f"{number}"), range(16)))
    assert [answer.status for answer in answers] == [200] * 16
    assert len(paths_of(town, repo)) == 17
    assert town.api().list_repo_commits(repo)[0].commit_id in {answer.json()["commitOid"] for answer in answers}


def test_files_are_deflated_before_other_writers_wait(town: People, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    within: list[None] = []
    change, compress = Index.change, zlib.compress

    def changing(self: Index, *args: Any, **more: Any) -> Any:
        within.append(None)
        try:
            return change(self, *args, **more)
        finally:
            within.pop()

    def compressing(data: bytes, *args: Any) -> bytes:
        if within:
            waiting.append(len(data))
        return compress(data, *args)

    monkeypatch.setattr(Index, "change", changing)
    monkeypatch.setattr("xetstore.hub.objects.zlib.compress", compressing)
    assert town.commit(repo, file("a.txt", "x" * 100_000), file("b.txt", "y" * 100_000)).status == 200
    assert 0 < sum(waiting) < 1000  # a tree and a commit


def test_claims_of_those_who_may_only_propose_keep_no_owner_from_committing(town: People, repo: str) -> None:
    """Such a token registers files in the repository, with whatever SHA-256 it likes."""
    content = random_bytes(50_000, 20)
    sha256 = hashlib.sha256(content).digest()
    cas = town.hub.repository(LOCAL, Kind.MODELS, repo).cas
    mine = make_sample(content)
    upload(cas, replace(mine, file=replace(mine.file, sha256=sha256)))
    for seed in range(CANDIDATES + 2):
        lie = make_sample(random_bytes(50_000, 100 + seed))
        upload(cas, replace(lie, file=replace(lie.file, sha256=sha256)))
    answer = town.commit(repo, ("lfsFile", {"path": "a.bin", "oid": sha256.hex(), "size": 50_000}))
    assert answer.status == 200, answer.body


class GatedBlobs(MemoryBlobStore):
    """Objects that are read only while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.is_asked = threading.Event(), threading.Event()

    def get_range(self, key: str, start: int, end: int) -> Any:
        self.is_asked.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().get_range(key, start, end)


def test_a_commit_that_waits_for_a_sha256_keeps_no_other_from_its_place() -> None:
    """It may wait for hours, because a file may have terabytes; and not for a client that has left."""
    blobs = GatedBlobs()
    with EmbeddedCas(blobs, Index.in_memory()) as cas, live_server(cas, max_commits=1) as server:
        hub, limits = server.site.hub, server.site.limits
        assert hub is not None
        hub.accounts.add_user("alice")
        town = People(server, {"alice": hub.accounts.issue("alice")})
        for name in ("huge", "other"):
            assert town.ask("POST", "/api/repos/create", {"name": name}).status == 200
        content = random_bytes(200_000, 8)
        upload(hub.repository(LOCAL, Kind.MODELS, "alice/huge").cas, make_sample(content))
        value = {"path": "a.bin", "oid": hashlib.sha256(content).hexdigest()}
        body = b"\n".join(
            msgspec.json.encode(line)
            for line in ({"key": "header", "value": {"summary": "x"}}, {"value": value, "key": "lfsFile"})
        )
        client = http.client.HTTPConnection(*server.address, timeout=PATIENCE_SECONDS)
        try:
            sent = {"Authorization": f"Bearer {town.tokens['alice']}"}
            client.request("POST", "/api/models/alice/huge/commit/main", body, sent)
            assert blobs.is_asked.wait(PATIENCE_SECONDS)
            until(lambda: limits.commits.used == 0)
            assert town.commit("alice/other", file("a.txt")).status == 200
            assert limits.spooling.used > 0
            client.close()
            until(lambda: limits.spooling.used == 0)
        finally:
            client.close()
            blobs.gate.set()
        assert town.commit("alice/huge", ("lfsFile", value)).status == 200


def test_deletions(town: People, repo: str) -> None:
    town.commit(repo, file("a/b/c.txt"), file("a/d.txt"), file("e/f.txt"), file("g/h.txt"))
    assert town.commit(repo, ("deletedFile", {"path": "a"}), ("deletedFolder", {"path": "e/"})).status == 200
    assert paths_of(town, repo) == {".gitattributes", "g/h.txt"}
    for key in ("deletedFile", "deletedFolder"):
        answer = town.commit(repo, ("deletedFile", {"path": "g/h.txt"}), (key, {"path": "nothing"}))
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
        assert "A file with this name doesn't exist" in answer.json()["error"]
    assert paths_of(town, repo) == {".gitattributes", "g/h.txt"}
    with pytest.raises(EntryNotFoundError, match="Make sure to differentiate file and folder paths"):
        town.api().delete_file("nothing", repo)
    assert town.commit(repo, file("i/j.txt", "moved", oldPath="g/h.txt")).status == 200
    assert paths_of(town, repo) == {".gitattributes", "i/j.txt"}


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../b", "..\\ddd", "a//b", "/a", "a/", "./a", ".git/config", "a/.GIT/x", "a\0b", "", "x" * 256, "a\nb"],
)
def test_paths_that_are_none(town: People, repo: str, path: str) -> None:
    for line in (file(path), file(path, b"\0" * 20), ("lfsFile", {"path": path, "oid": "ab" * 32})):
        assert town.commit(repo, line).status == 422, path
    answer = town.ask("POST", f"/api/models/{repo}/preupload/main", {"files": [{"path": path, "size": 1}]})
    assert answer.status == 422


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([("other", {})], 400),
        ([("file", {"path": "a", "content": "!", "encoding": "base64"})], 400),
        ([("file", {"path": "a"})], 400),
        ([("header", {"summary": "again"})], 400),
        ([file("a"), file("a/b")], 422),
        ([file(".gitattributes/x")], 422),
        ([("lfsFile", {"path": "a", "oid": "ab"})], 422),
    ],
)
def test_operations_that_are_none(town: People, repo: str, lines: list[Any], status: int) -> None:
    assert town.commit(repo, *lines).status == status
    assert len(town.api().list_repo_commits(repo)) == 1


def test_bodies_that_are_none(town: People, repo: str) -> None:
    for body in (b"", b"{", b"\xff\xfe", b'{"key":"header","value":{"summary":""}}', b"[" * 9999):
        assert town.ask("POST", f"/api/models/{repo}/commit/main", body).status in (400, 422), body[:20]


def test_a_body_that_is_too_long_is_refused_unread(town: People, repo: str) -> None:
    with town.server.connect() as sock:
        head = f"POST /api/models/{repo}/commit/main HTTP/1.1\r\nHost: {town.server.url[7:]}\r\n"
        head += f"Authorization: Bearer {town.tokens['alice']}\r\nContent-Length: {10**10}\r\n\r\n"
        sock.sendall(head.encode())
        assert b" 413 " in sock.recv(1000).partition(b"\r\n")[0]


def test_a_commit_of_nothing(town: People, repo: str) -> None:
    """As clients make the first one of a pull request."""
    answer = town.commit(repo, query="?create_pr=1", title="later")
    assert (answer.status, answer.json()["pullRequestUrl"]) == (200, f"{town.server.url}/{repo}/discussions/1")
    assert paths_of(town, repo, "refs/pr/1") == {".gitattributes"}


def test_many_operations(town: People, repo: str) -> None:
    lines = [file(f"d{number % 50}/{number}.txt", "") for number in range(3000)]
    assert town.commit(repo, *lines).status == 200
    assert len(paths_of(town, repo)) == 3001


def test_proposals_of_those_who_may_not_write(town: People, repo: str, tmp_path: Path) -> None:
    bob = town.api("bob")
    big = tmp_path / "big.bin"
    big.write_bytes(random_bytes(100_000, 8))
    refused = (RepositoryNotFoundError, HfHubHTTPError)
    with pytest.raises(refused):
        bob.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo)
    for source in (b"x", str(big)):
        made = bob.upload_file(path_or_fileobj=source, path_in_repo="a.bin", repo_id=repo, create_pr=True)
        assert made.pr_url.startswith(f"{town.server.url}/{repo}/discussions/")
        assert made.pr_revision == f"refs/pr/{made.pr_num}"
        assert "a.bin" in paths_of(town, repo, made.pr_revision)
    assert paths_of(town, repo) == {".gitattributes"}
    for rev in (town.api().model_info(repo).sha, "nope"):
        with pytest.raises(HfRevisionNotFoundError):
            bob.create_commit(repo, [CommitOperationAdd("b", b"b")], commit_message="x", revision=rev, create_pr=True)
    anonymous = town.commit(repo, file("a"), name=None, query="?create_pr=1")
    assert anonymous.status in (401, 403)


def test_commits_to_what_is_missing(town: People, repo: str) -> None:
    api = town.api()
    with pytest.raises(RepositoryNotFoundError):
        api.create_commit("alice/nothing", [CommitOperationAdd("a", b"a")], commit_message="x")
    with pytest.raises(HfRevisionNotFoundError):
        api.create_commit(repo, [CommitOperationAdd("a", b"a")], commit_message="x", revision="nope")
    answer = town.ask("POST", "/api/models/alice/nothing/preupload/main", {"files": []})
    assert answer.json()["error"] == "Repository not found"
    upper = repo.replace("alice", "Alice").upper()
    api.create_commit(upper, [CommitOperationAdd("a", b"a")], commit_message="x")
    assert "a" in paths_of(town, repo)


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client itself sends bytes so
def test_files_that_come_as_streams(town: People, repo: str) -> None:
    town.api().upload_file(path_or_fileobj=io.BytesIO(b"\1" * 5000), path_in_repo="a.bin", repo_id=repo)
    assert town.ask("GET", f"/{repo}/resolve/main/a.bin").body == b"\1" * 5000


def test_the_log_by_page(town: People, repo: str) -> None:
    for number in range(6):
        town.commit(repo, file(f"{number}"), title=f"<{number}>")
    path = f"/api/models/{repo}/commits/main"
    answer = town.ask("GET", f"{path}?limit=3")
    assert answer.headers["X-Total-Count"] == "7"
    assert answer.headers["Link"] == f'<{town.server.url}{path}?limit=3&p=1>; rel="next"'
    assert [each["title"] for each in answer.json()] == ["<5>", "<4>", "<3>"]
    assert "formatted" not in answer.json()[0]
    last = town.ask("GET", f"{path}?limit=3&p=2")
    assert ([each["title"] for each in last.json()], "Link" in last.headers) == (["initial commit"], False)
    formatted = town.ask("GET", f"{path}?limit=1&expand%5B%5D=formatted").json()
    assert formatted[0]["formatted"] == {"title": "&lt;5&gt;", "message": ""}
    assert town.ask("GET", f"{path}?limit=3&p=99").json() == []
    town.api().create_branch(repo, branch="feat/y")
    for rev in ("feat/y", "feat%2Fy"):
        assert len(town.ask("GET", f"/api/models/{repo}/commits/{rev}").json()) == 7
    assert town.ask("GET", f"/api/models/{repo}/commits/main/nothing").headers["X-Error-Code"] == "RevisionNotFound"


def test_squash(town: People, repo: str) -> None:
    api = town.api()
    town.commit(repo, file("a"))
    town.commit(repo, file("b"), query="?create_pr=1")
    for branch in ("refs/pr/1", "main"):
        api.super_squash_history(repo, branch=branch, commit_message="all in one")
        assert [each.title for each in api.list_repo_commits(repo, revision=branch)] == ["all in one"]
    assert paths_of(town, repo) == {".gitattributes", "a"}
    with pytest.raises(HfHubHTTPError):
        town.api("bob").super_squash_history(repo)


def test_cards_are_checked(town: People, repo: str) -> None:
    api = town.api()
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# hi", path_in_repo="README.md", repo_id=repo)
    with pytest.raises(ValueError, match='"model-index" must be an array'):
        api.upload_file(path_or_fileobj=b"---\nmodel-index: foo\n---\n", path_in_repo="README.md", repo_id=repo)
    for content in ("---\na: [\n---\n", "---\na: &a [*a]\n---\n"):
        answer = town.ask("POST", "/api/validate-yaml", {"content": content, "repoType": "model"}, name=None)
        assert answer.status == 400
        assert answer.json()["errors"][0]["message"]
    ok = town.ask("POST", "/api/validate-yaml", {"content": "---\nlicense: mit\n---\n", "repoType": "model"})
    assert ok.json() == {"errors": [], "warnings": []}
