"""@huggingface/hub against our Hub: repositories, files with and without Xet, branches, snapshots, buckets."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.hub.calls import file_info, paths_of, read, upload
from tests.interop.hub.conftest import content, unused
from tests.support.hub import Hub, HubClient, HubError

SCRIPT = Path(__file__).parents[1] / "js" / "calls.mjs"

Files = Callable[..., str]


class Js:
    """A process of the client, with a token or without one. ``with`` ends it."""

    def __init__(self, endpoint: str, folder: Path, token: str = "") -> None:
        command = ["node", str(SCRIPT), endpoint, token, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, function: str, part: tuple[int, int] | None = None, /, **arguments: Any) -> Any:
        """Call a function of the package; of a blob it may be a ``part``. Raises HubError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"name": function, "slice": part, "arguments": arguments}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        if "names" in told:
            raise HubError(**told)
        return told["result"]

    def bytes_of(self, repo: Any, path: str, **more: Any) -> bytes | None:
        """Download a file; None if there is none."""
        found = self("downloadFile", repo=repo, path=path, **more)
        return None if found is None else Path(found["$file"]).read_bytes()

    def __enter__(self) -> Js:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if shutil.which("node") is None:
        pytest.skip("install Node.js, which runs the JavaScript client")
    if not (SCRIPT.parent / "node_modules" / "@huggingface" / "hub").is_dir():
        pytest.skip("run `npm ci --prefix tests/interop/js`, which installs the JavaScript client")


@pytest.fixture(scope="module")
def js(hub: Hub, ann_token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Js]:
    with Js(hub.endpoint, tmp_path_factory.mktemp("js"), ann_token) as running:
        yield running


@pytest.fixture(scope="module")
def js_stranger(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Js]:
    with Js(hub.endpoint, tmp_path_factory.mktemp("js")) as running:
        yield running


def entry(path: str, source: str) -> dict[str, Any]:
    return {"path": path, "content": {"$file": source}}


def paths(entries: list[dict[str, Any]]) -> list[str]:
    return sorted(entry["path"] for entry in entries)


def test_the_caller_is_told_who_it_is(js: Js) -> None:
    found = js("whoAmI")
    assert (found["type"], found["name"]) == ("user", "ann")
    assert found["auth"]["accessToken"]["role"] == "write"


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_repository_is_made_with_files_and_deleted(js: Js, hub: Hub, files: Files, kind: str) -> None:
    name = unused("js")
    repo = {"type": kind, "name": name}
    folder = files({"small.txt": b"small"})
    first = [{"path": "first.txt", "content": {"$file": f"{folder}/small.txt"}}]
    more: dict[str, Any] = {"sdk": "static"} if kind == "space" else {}
    made = js("createRepo", repo=repo, files=first, **more)
    assert made["repoUrl"].endswith(name)
    assert js.bytes_of(repo, "first.txt") == b"small"
    assert js("repoExists", repo=repo)
    js("deleteRepo", repo=repo)
    assert not js("repoExists", repo=repo)


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "without xet"])
def test_files_go_up_and_down(js: Js, ann: HubClient, repo: str, files: Files, tmp_path: Path, xet: bool) -> None:
    data = content()
    folder = files({"large.bin": data, "small.txt": b"small", "empty": b""})
    names = ["large.bin", "small.txt", "empty"]
    uploads = [entry(f"a/{name}", f"{folder}/{name}") for name in names]
    done = js("uploadFiles", repo=repo, files=uploads, useXet=xet, commitTitle="from js")
    assert len(done["commit"]["oid"]) == 40
    assert ann.call(paths_of, repo) == [".gitattributes", *sorted(f"a/{name}" for name in names)]
    assert ann.call(file_info, repo, "a/large.bin")["xet"]
    for name, expected in (("large.bin", data), ("small.txt", b"small"), ("empty", b"")):
        assert js.bytes_of(repo, f"a/{name}", xet=xet) == expected, name
    assert Path(ann.call(read, repo, "a/large.bin", str(tmp_path))).read_bytes() == data


def test_a_part_of_a_file_is_read(js: Js, ann: HubClient, repo: str, files: Files) -> None:
    data = content()
    ann.call(upload, repo, f"{files({'large.bin': data})}/large.bin", "large.bin")
    for xet in (True, False):
        found = js("downloadFile", (1_000_000, 1_500_000), repo=repo, path="large.bin", xet=xet)
        assert Path(found["$file"]).read_bytes() == data[1_000_000:1_500_000]


def test_files_are_listed_looked_at_and_deleted(js: Js, ann: HubClient, repo: str, files: Files) -> None:
    folder = files({"x": b"x"})
    js("uploadFiles", repo=repo, files=[entry(path, f"{folder}/x") for path in ("a/1.txt", "a/b/2.txt", "3.txt")])
    assert paths(js("listFiles", repo=repo)) == [".gitattributes", "3.txt", "a"]
    listed = js("listFiles", repo=repo, recursive=True, expand=True)
    assert paths(listed) == [".gitattributes", "3.txt", "a", "a/1.txt", "a/b", "a/b/2.txt"]
    assert all(set(entry["lastCommit"]) >= {"id", "title", "date"} for entry in listed)
    found = js("pathsInfo", repo=repo, paths=["a/1.txt", "absent"], expand=True)
    assert [one["path"] for one in found] == ["a/1.txt"]
    assert js("fileExists", repo=repo, path="a/1.txt")
    assert not js("fileExists", repo=repo, path="absent")
    assert js.bytes_of(repo, "absent") is None
    js("deleteFiles", repo=repo, paths=["a/1.txt", "3.txt"])
    assert ann.call(paths_of, repo) == [".gitattributes", "a/b/2.txt"]
    with pytest.raises(HubError) as refused:
        js("deleteFile", repo=repo, path="absent")
    assert refused.value.status == 404


def test_histories_are_listed_and_counted(js: Js, repo: str, files: Files) -> None:
    folder = files({"x": b"x"})
    for number in range(3):
        js("uploadFile", repo=repo, file=entry(f"{number}.txt", f"{folder}/x"), commitTitle=f"number {number}")
    commits = js("listCommits", repo=repo, batchSize=2)
    assert [commit["title"] for commit in commits] == ["number 2", "number 1", "number 0", "initial commit"]
    assert commits[0]["authors"][0]["username"] == "ann"
    assert js("countCommits", repo=repo) == 4


def test_branches_are_made_moved_and_deleted(js: Js, ann: HubClient, repo: str, files: Files) -> None:
    folder = files({"x": b"x"})
    js("createBranch", repo=repo, branch="feat/y")
    js("uploadFile", repo=repo, branch="feat/y", file=entry("a.txt", f"{folder}/x"))
    assert paths(js("listFiles", repo=repo, revision="feat/y")) == [".gitattributes", "a.txt"]
    assert js("countCommits", repo=repo, revision="feat/y") == 2
    assert js.bytes_of(repo, "a.txt", revision="feat/y") == b"x"
    js("createBranch", repo=repo, branch="orphan", empty=True)
    assert js("listFiles", repo=repo, revision="orphan") == []
    with pytest.raises(HubError) as refused:
        js("createBranch", repo=repo, branch="orphan", revision="feat/y")
    assert refused.value.status == 409
    js("createBranch", repo=repo, branch="orphan", revision="feat/y", overwrite=True)
    assert paths(js("listFiles", repo=repo, revision="orphan")) == [".gitattributes", "a.txt"]
    js("deleteBranch", repo=repo, branch="feat/y")
    with pytest.raises(HubError) as refused:
        js("listFiles", repo=repo, revision="feat/y")
    assert refused.value.status == 404


def test_a_pull_request_leaves_main_alone(js: Js, ann: HubClient, repo: str, files: Files) -> None:
    folder = files({"large.bin": content()})
    done = js("uploadFile", repo=repo, file=entry("large.bin", f"{folder}/large.bin"), isPullRequest=True)
    assert done["pullRequestUrl"].endswith(f"/{repo}/discussions/1")
    assert ann.call(paths_of, repo) == [".gitattributes"]
    assert paths(js("listFiles", repo=repo, revision="refs/pr/1")) == [".gitattributes", "large.bin"]


def test_a_snapshot_has_every_file(js: Js, ann: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    contents = {"large.bin": content(), "a/small.txt": b"small", "empty": b""}
    js("uploadFiles", repo=repo, files=[entry(path, f"{files(contents)}/{path}") for path in contents])
    found = Path(js("snapshotDownload", repo=repo, cacheDir=str(tmp_path)))
    assert {path: (found / path).read_bytes() for path in contents} == contents


def test_information_about_repositories(js: Js, ann: HubClient, repo: str) -> None:
    info = js("modelInfo", name=repo, additionalFields=["author", "sha"])
    assert (info["name"], info["private"], info["author"]) == (repo, False, "ann")
    assert len(info["sha"]) == 40
    found = js("listModels", search={"owner": "ann"}, limit=1000)
    assert repo in [model["name"] for model in found]


def test_what_is_hidden_is_refused(js: Js, js_stranger: Js, repo: str) -> None:
    hidden = unused("js-hidden")
    js("createRepo", repo=hidden, visibility="private")
    js("checkRepoAccess", repo=hidden)
    js_stranger("checkRepoAccess", repo=repo)
    with pytest.raises(HubError) as refused:
        js_stranger("checkRepoAccess", repo=hidden)
    assert refused.value.status in (401, 404)
    with pytest.raises(HubError) as refused:
        js_stranger("listFiles", repo=hidden)
    assert refused.value.status in (401, 404)


def test_a_bucket_takes_files_and_copies(js: Js, ann: HubClient, repo: str, files: Files) -> None:
    data = content()
    folder = files({"large.bin": data, "small.txt": b"small", "empty": b""})
    name = unused("js-bucket")
    bucket = {"type": "bucket", "name": name}
    js("createRepo", repo=bucket)
    names = ["large.bin", "small.txt", "empty"]
    js("uploadFiles", repo=bucket, files=[entry(f"a/{path}", f"{folder}/{path}") for path in names])
    assert paths(js("listFiles", repo=bucket, recursive=True)) == ["a/empty", "a/large.bin", "a/small.txt"]
    for path, expected in (("large.bin", data), ("small.txt", b"small"), ("empty", b"")):
        assert js.bytes_of(bucket, f"a/{path}") == expected, path
    ann.call(upload, repo, f"{folder}/large.bin", "model.bin")
    source = {"repo": {"type": "model", "name": repo}, "path": "model.bin"}
    js("copyFile", source=source, destination={"repo": bucket, "path": "copied.bin"})
    assert js.bytes_of(bucket, "copied.bin") == data
    js("deleteFiles", repo=bucket, paths=["a/large.bin"])
    assert js.bytes_of(bucket, "a/large.bin") is None
