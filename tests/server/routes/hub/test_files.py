"""Files by name: HEAD and GET, whole and in part, for clients that speak Xet and for those that do not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

from tests.server.routes.hub.people import People
from xetstore.cas.index import Index, Reader
from xetstore.protocol.hashes import Hash
from xetstore.testing.samples import random_bytes

BIG = random_bytes(3_000_000, 7)
SHA256 = hashlib.sha256(BIG).hexdigest()
GIT_ID = hashlib.sha1(b"blob 5\0hello").hexdigest()


@pytest.fixture(scope="module")
def files(town: People) -> str:
    """A repository with a large file, small ones, an empty one and odd names."""
    api = town.api()
    repo = api.create_repo("files").repo_id
    api.upload_file(path_or_fileobj=BIG, path_in_repo="a/big.bin", repo_id=repo)
    regular = {"hello.txt": "hello", "empty.txt": "", "a/grün 100% #1?.html": "<script>", "b/[x] & y.txt": "odd"}
    lines = [("file", {"path": path, "content": content}) for path, content in regular.items()]
    assert town.commit(repo, *lines).status == 200
    return str(repo)


def test_head_tells_all_of_a_large_file_at_once(town: People, files: str) -> None:
    answer = town.ask("HEAD", f"/{files}/resolve/main/a/big.bin")
    headers = answer.headers
    commit = headers["X-Repo-Commit"]
    base = town.server.url
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert headers["Content-Length"] == headers["X-Linked-Size"] == str(len(BIG))
    assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{SHA256}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Link"] == (
        f'<{base}/api/models/{files}/xet-read-token/{commit}>; rel="xet-auth", '
        f'<{base}/cas/v1/reconstructions/{headers["X-Xet-Hash"]}>; rel="xet-reconstruction-info"'
    )
    assert Hash.parse(headers["X-Xet-Hash"])
    assert "big.bin" in headers["Content-Disposition"]


@pytest.mark.parametrize(("path", "size"), [("hello.txt", 5), ("empty.txt", 0)])
def test_head_of_a_small_file_has_its_length(town: People, files: str, path: str, size: int) -> None:
    headers = town.ask("HEAD", f"/{files}/resolve/main/{path}", Accept_Encoding="gzip").headers
    assert headers["Content-Length"] == str(size)
    assert headers["X-Repo-Commit"]
    assert "X-Xet-Hash" not in headers
    assert "Content-Encoding" not in headers
    if size:
        assert headers["ETag"] == f'"{GIT_ID}"'


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1999", 100, 2000),
        ("bytes=2999999-", 2_999_999, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=1000000-99999999", 1_000_000, 3_000_000),
    ],
)
def test_ranges(town: People, files: str, asked: str, start: int, end: int) -> None:
    answer = town.ask("GET", f"/{files}/resolve/main/a/big.bin", Range=asked)
    assert (answer.status, answer.body) == (206, BIG[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BIG)}"
    small = town.ask("GET", f"/{files}/resolve/main/hello.txt", Range="bytes=1-2")
    assert (small.status, small.body, small.headers["Content-Range"]) == (206, b"el", "bytes 1-2/5")


def test_a_range_behind_the_end_and_an_empty_file(town: People, files: str) -> None:
    for path, size in (("a/big.bin", len(BIG)), ("hello.txt", 5)):
        answer = town.ask("GET", f"/{files}/resolve/main/{path}", Range=f"bytes={size}-")
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
    answer = town.ask("GET", f"/{files}/resolve/main/empty.txt", Range="bytes=0-0")
    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (200, b"", "bytes */0")
    assert answer.headers["Content-Length"] == "0"


def test_what_a_client_has_is_not_sent_again(town: People, files: str) -> None:
    for path, tag in (("a/big.bin", SHA256), ("hello.txt", GIT_ID)):
        for method in ("GET", "HEAD"):
            answer = town.ask(method, f"/{files}/resolve/main/{path}", If_None_Match=f'"{tag}"')
            assert (answer.status, answer.body) == (304, b"")
        assert town.ask("GET", f"/{files}/resolve/main/{path}", If_None_Match='"other"').status == 200


def test_pages_do_not_come_of_files(town: People, files: str) -> None:
    answer = town.ask("GET", f"/{files}/resolve/main/a/gr%C3%BCn%20100%25%20%231%3F.html")
    assert (answer.status, answer.body) == (200, b"<script>")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Disposition"].startswith("inline; ")
    saved = town.ask("GET", f"/{files}/resolve/main/hello.txt?download=true")
    assert saved.headers["Content-Disposition"].startswith("attachment; ")


def test_a_client_may_ask_for_the_names_of_a_file(town: People, files: str) -> None:
    """As the JavaScript client does for each file."""
    headers = {"Accept": "application/vnd.xet-fileinfo+json, */*", "Range": "bytes=0-0"}
    answer = town.ask("GET", f"/{files}/resolve/main/a/big.bin", **headers)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/vnd.xet-fileinfo+json")
    told = answer.json()
    assert told["hash"] == answer.headers["X-Xet-Hash"]
    assert f"<{told['refreshUrl']}>" in answer.headers["Link"]
    assert answer.headers["X-Linked-Size"] == str(len(BIG))
    answer = town.ask("GET", f"/{files}/resolve/main/hello.txt", **headers)
    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (206, b"h", "bytes 0-0/5")


def test_raw_is_what_git_has(town: People, files: str) -> None:
    answer = town.ask("GET", f"/{files}/raw/main/a/big.bin")
    assert answer.body == f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize 3000000\n".encode()
    assert (
        answer.headers["ETag"]
        == f'"{hashlib.sha1(b"blob %d" % len(answer.body) + bytes(1) + answer.body).hexdigest()}"'
    )
    assert town.ask("HEAD", f"/{files}/raw/main/hello.txt").status == 200


def test_revisions_in_all_their_forms(town: People, files: str) -> None:
    api = town.api()
    api.create_branch(files, branch="feat/y")
    api.create_tag(files, tag="v1", tag_message="annotated")
    commit = api.model_info(files).sha
    for rev in (
        "main",
        "HEAD",
        "feat%2Fy",
        "feat/y",
        "v1",
        "refs%2Fheads%2Fmain",
        "refs/heads/main",
        commit,
        commit[:7],
    ):
        answer = town.ask("HEAD", f"/{files}/resolve/{rev}/a/big.bin")
        assert (answer.status, answer.headers["X-Repo-Commit"]) == (200, commit), rev


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_missing_says_what_it_is(town: People, files: str, method: str) -> None:
    for path, code in (
        (f"/{files}/resolve/main/nothing", "EntryNotFound"),
        (f"/{files}/resolve/main/a", "EntryNotFound"),
        (f"/{files}/resolve/main/hello.txt/x", "EntryNotFound"),
        (f"/{files}/resolve/nope/hello.txt", "RevisionNotFound"),
        (f"/{files}/resolve/{'0' * 40}/hello.txt", "RevisionNotFound"),
        ("/alice/nothing/resolve/main/f", "RepoNotFound"),
        (f"/datasets/{files}/resolve/main/hello.txt", "RepoNotFound"),
    ):
        answer = town.ask(method, path)
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, code), path
        assert ("X-Repo-Commit" in answer.headers) == (code == "EntryNotFound")
    for path in ("a/%2e%2e/hello.txt", "a%2F..%2Fhello.txt", "hello%00.txt", "%ff", "..%5chello.txt"):
        assert town.ask(method, f"/{files}/resolve/main/{path}").status == 404


def test_the_client_raises_its_own_errors(town: People, files: str, tmp_path: Path) -> None:
    api = town.api()
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(files, "nothing.txt", cache_dir=tmp_path)
    commit = api.model_info(files).sha
    assert (tmp_path / "models--alice--files" / ".no_exist" / commit / "nothing.txt").exists()
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(files, "hello.txt", revision="nope", cache_dir=tmp_path)


@pytest.mark.parametrize("xet", [True, False])
def test_downloads_and_snapshots(
    town: People, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, xet: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", not xet)
    for name in ("alice", "bob", None):
        folder = tmp_path / str(name)
        assert Path(town.api(name).hf_hub_download(files, "a/big.bin", cache_dir=folder)).read_bytes() == BIG
        whole = Path(town.api(name).snapshot_download(files, cache_dir=folder))
        found = {str(path.relative_to(whole)): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
        assert found["a/big.bin"] == BIG
        assert (found["hello.txt"], found["empty.txt"]) == (b"hello", b"")
        assert set(found) >= {"a/grün 100% #1?.html", "b/[x] & y.txt", ".gitattributes"}


def test_a_warm_snapshot_is_one_call(town: People, files: str, tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    town.api().snapshot_download(files, cache_dir=tmp_path)
    asked()
    town.api().snapshot_download(files, cache_dir=tmp_path)
    assert asked() == [f"GET /api/models/{files}/revision/main"]


def test_resolve_is_two_snapshots_of_the_index(town: People, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/{files}/resolve/main/hello.txt"
    assert town.ask("HEAD", f"/{files}/resolve/main/a/big.bin").status == 200
    taken: list[None] = []
    before = Index.snapshot

    def counted(self: Index) -> AbstractContextManager[Reader]:
        taken.append(None)
        return before(self)

    monkeypatch.setattr(Index, "snapshot", counted)
    assert town.ask("HEAD", f"/{files}/resolve/main/a/big.bin").status == 200
    assert len(taken) <= 2
    assert town.ask("HEAD", path).status == 200
    assert len(taken) <= 4


def test_filesystems_read_parts(town: People, files: str) -> None:
    fs = HfFileSystem(endpoint=town.server.url, token=town.tokens["alice"], skip_instance_cache=True)
    with fs.open(f"{files}/a/big.bin", block_size=100_000) as file:
        file.seek(1_000_000)
        assert file.read(2_000_000) == BIG[1_000_000:3_000_000]
    assert fs.cat(f"{files}/hello.txt") == b"hello"
    assert sorted(map(str, fs.ls(f"{files}/a", detail=False))) == [
        f"{files}/a/big.bin",
        f"{files}/a/grün 100% #1?.html",
    ]
    with pytest.raises((FileNotFoundError, LocalEntryNotFoundError)):
        fs.cat(f"{files}/nothing")
