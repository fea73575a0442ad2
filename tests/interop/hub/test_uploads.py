"""huggingface_hub of today uploads: small files, large ones, folders, pull requests; what races is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xetstore
from tests.interop.hub.calls import file_info, paths_of, read, titles, upload, upload_text
from tests.interop.hub.conftest import LARGE, NewRepository, content, unused
from tests.support.hub import Hub, HubClient, HubError
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# --- Repositories -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_new_repository_has_one_commit(ann: HubClient, hub: Hub, new_repository: NewRepository, kind: str) -> None:
    repo = new_repository(kind)

    def look(api: HfApi, repo: str, kind: str) -> dict[str, Any]:
        [commit] = api.list_repo_commits(repo, repo_type=kind)
        info = api.repo_info(repo, repo_type=kind)
        return {"title": commit.title, "authors": commit.authors, "commit": commit.commit_id, "sha": info.sha}

    looked = ann.call(look, repo, kind)
    assert (looked["title"], looked["authors"]) == ("initial commit", ["ann"])
    assert looked["sha"] == looked["commit"]
    expected = [".gitattributes", "README.md"] if kind == "space" else [".gitattributes"]
    assert ann.call(paths_of, repo, "main", kind) == expected


def test_a_repository_is_made_once(ann: HubClient, hub: Hub) -> None:
    def create(api: HfApi, repo: str, exist_ok: bool) -> str:
        return str(api.create_repo(repo, exist_ok=exist_ok))

    repo = unused("once")
    assert ann.call(create, repo, False) == f"{hub.endpoint}/{repo}"
    assert ann.call(create, repo, True) == f"{hub.endpoint}/{repo}"
    with pytest.raises(HubError) as refused:
        ann.call(create, repo, False)
    assert refused.value.status == 409


def test_a_name_without_an_owner_is_the_callers(ann: HubClient) -> None:
    def create(api: HfApi, name: str) -> str:
        return api.create_repo(name).repo_id

    repo = unused("mine")
    assert ann.call(create, repo.partition("/")[2]) == repo


# --- Files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_file_comes_back_from_every_kind_of_repository(
    ann: HubClient, new_repository: NewRepository, files: Files, tmp_path: Path, kind: str
) -> None:
    repo, data = new_repository(kind), content()
    folder = files({"small.txt": b"a small one\n", "sub/large.bin": data})

    def there_and_back(api: HfApi, repo: str, kind: str, folder: str, cache: str) -> list[str]:
        api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder)
        names = ["small.txt", "sub/large.bin"]
        return [api.hf_hub_download(repo, name, repo_type=kind, cache_dir=cache) for name in names]

    small, large = ann.call(there_and_back, repo, kind, folder, str(tmp_path / "cache"))
    assert Path(small).read_bytes() == b"a small one\n"
    assert Path(large).read_bytes() == data


def test_a_small_file_is_sent_inside_its_commit(watched: HubClient, recorded: Proxy, repo: str, tmp_path: Path) -> None:
    oid = watched.call(upload_text, repo, "notes.txt", "hello")
    assert [(seen.method, seen.path.split("/")[-2], seen.status) for seen in recorded.seen] == [
        ("POST", "preupload", 200),
        ("POST", "commit", 200),
    ]
    info = watched.call(file_info, repo, "notes.txt", oid)
    assert info == {"path": "notes.txt", "size": 5, "oid": git_oid(b"hello"), "lfs": None, "xet": None}


def test_a_large_file_is_a_pointer_in_git_and_a_file_in_the_store(
    watched: HubClient, recorded: Proxy, repo: str, files: Files, tmp_path: Path
) -> None:
    data = content()
    folder = files({"weights.safetensors": data})
    watched.call(upload, repo, f"{folder}/weights.safetensors", "weights.safetensors")
    assert not [seen for seen in recorded.seen if "info/lfs" in seen.path]
    assert [seen.status for seen in recorded.requests("GET", f"/api/models/{repo}/xet-write-token/main")] == [200]
    assert [seen.status for seen in recorded.requests("POST", "/cas/v1/xorbs/default/")] == [200]
    sha256, xet = hashlib.sha256(data).hexdigest(), str(xetstore.hash_file(Path(folder, "weights.safetensors")).hash)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {LARGE}\n".encode()
    assert watched.call(file_info, repo, "weights.safetensors") == {
        "path": "weights.safetensors",
        "size": LARGE,
        "oid": git_oid(pointer),
        "lfs": {"sha256": sha256, "size": LARGE, "pointer": len(pointer)},
        "xet": xet,
    }


def test_a_file_object_goes_by_lfs_and_has_a_hash_all_the_same(
    watched: HubClient, recorded: Proxy, repo: str, files: Files
) -> None:
    def upload_object(api: HfApi, repo: str, source: str) -> None:
        from pathlib import Path

        with Path(source).open("rb") as stream:
            api.upload_file(path_or_fileobj=stream, path_in_repo="object.bin", repo_id=repo)

    source = f"{files({'object.bin': content()})}/object.bin"
    watched.call(upload_object, repo, source)
    assert [seen.status for seen in recorded.requests("POST", f"/{repo}.git/info/lfs/objects/batch")] == [200]
    assert not recorded.requests("POST", "/cas/")
    info = watched.call(file_info, repo, "object.bin")
    assert info["xet"] == str(xetstore.hash_file(Path(source)).hash)
    assert info["lfs"]["size"] == LARGE


def test_what_is_there_already_makes_no_commit(ann: HubClient, repo: str, files: Files) -> None:
    source = f"{files({'large.bin': content()})}/large.bin"
    first = [ann.call(upload, repo, source, "large.bin"), ann.call(upload_text, repo, "small.txt", "the same")]
    again = [ann.call(upload, repo, source, "large.bin"), ann.call(upload_text, repo, "small.txt", "the same")]
    assert again == [first[1], first[1]]
    assert len(ann.call(titles, repo)) == 3


def test_an_empty_file_is_a_file(ann: HubClient, repo: str, tmp_path: Path) -> None:
    ann.call(upload_text, repo, "empty.bin", "")
    assert ann.call(file_info, repo, "empty.bin")["size"] == 0
    assert Path(ann.call(read, repo, "empty.bin", str(tmp_path))).read_bytes() == b""


def test_a_readme_is_checked_and_its_metadata_shown(ann: HubClient, repo: str) -> None:
    ann.call(upload_text, repo, "README.md", "---\nlicense: mit\ntags:\n- tiny\n---\n# A model\n")

    def card(api: HfApi, repo: str) -> Any:
        found: Any = api.model_info(repo).card_data
        return found and found.to_dict()

    assert ann.call(card, repo) == {"license": "mit", "tags": ["tiny"]}
    with pytest.raises(HubError, match="model-index") as refused:
        ann.call(upload_text, repo, "README.md", "---\nmodel-index: foo\n---\n")
    assert "ValueError" in refused.value.names


# --- Folders ------------------------------------------------------------------------------------------------


def test_a_folder_is_one_commit(ann: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    contents = {f"part {i}/{i}.bin": content(50_000) for i in range(20)} | {"config.json": b"{}", "a/b/c/d.txt": b"d"}

    def upload_folder(api: HfApi, repo: str, folder: str) -> None:
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="all of it")

    ann.call(upload_folder, repo, files(contents))
    assert ann.call(titles, repo) == ["all of it", "initial commit"]
    assert ann.call(paths_of, repo) == sorted([".gitattributes", *contents])

    def snapshot(api: HfApi, repo: str, folder: str) -> str:
        return api.snapshot_download(repo, local_dir=folder)

    found = Path(ann.call(snapshot, repo, str(tmp_path / "out")))
    assert {path: (found / path).read_bytes() for path in contents} == contents


def test_a_folder_replaces_what_its_patterns_name(ann: HubClient, repo: str, files: Files) -> None:
    def upload_folder(api: HfApi, repo: str, folder: str, delete: list[str] | None) -> None:
        api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo="run", delete_patterns=delete)

    ann.call(upload_folder, repo, files({"1.log": b"1", "2.log": b"2", "keep.txt": b"k"}, "first"), None)
    ann.call(upload_folder, repo, files({"3.log": b"3"}, "second"), ["*.log"])
    assert ann.call(paths_of, repo) == [".gitattributes", "run/3.log", "run/keep.txt"]


def test_what_gitignore_names_is_left_out(ann: HubClient, repo: str, files: Files) -> None:
    def upload_folder(api: HfApi, repo: str, folder: str) -> None:
        api.upload_folder(repo_id=repo, folder_path=folder)

    ann.call(upload_folder, repo, files({".gitignore": b"*.log\n", "a.log": b"x", "a.txt": b"x"}))
    assert ann.call(paths_of, repo) == [".gitattributes", ".gitignore", "a.txt"]


# --- Commits ------------------------------------------------------------------------------------------------


def test_operations_of_one_commit_happen_together(ann: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    data = content()
    source = f"{files({'large.bin': data})}/large.bin"
    ann.call(upload, repo, source, "large.bin")
    ann.call(upload_text, repo, "folder/old.txt", "old")

    def commit(api: HfApi, repo: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        operations: list[Any] = [
            CommitOperationAdd("new.txt", b"new"),
            CommitOperationCopy("large.bin", "copies/large.bin"),
            CommitOperationCopy("folder/old.txt", "copies/old.txt"),
            CommitOperationDelete("folder/"),
        ]
        return api.create_commit(repo, operations, commit_message="title", commit_description="more").oid

    oid = ann.call(commit, repo)
    assert ann.call(paths_of, repo) == [".gitattributes", "copies/large.bin", "copies/old.txt", "large.bin", "new.txt"]
    assert Path(ann.call(read, repo, "copies/large.bin", str(tmp_path), oid)).read_bytes() == data
    copied, original = (ann.call(file_info, repo, path) for path in ("copies/large.bin", "large.bin"))
    assert (copied["lfs"], copied["xet"], copied["oid"]) == (original["lfs"], original["xet"], original["oid"])


def test_a_commit_behind_the_branch_is_refused(ann: HubClient, repo: str) -> None:
    def commit(api: HfApi, repo: str, parent: str, path: str) -> str:
        return api.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id=repo, parent_commit=parent).oid

    before = ann.call(upload_text, repo, "a.txt", "a")
    ann.call(commit, repo, before, "b.txt")
    with pytest.raises(HubError, match="The branch was updated since you opened this page") as refused:
        ann.call(commit, repo, before, "c.txt")
    assert refused.value.status == 412
    assert ann.call(paths_of, repo) == [".gitattributes", "a.txt", "b.txt"]


def test_what_is_not_there_cannot_be_deleted(ann: HubClient, repo: str) -> None:
    def delete(api: HfApi, repo: str, path: str) -> None:
        api.delete_file(path, repo)

    with pytest.raises(HubError, match="A file with this name doesn't exist") as refused:
        ann.call(delete, repo, "absent.txt")
    assert refused.value.names[0] == "RemoteEntryNotFoundError"


def test_a_path_that_escapes_is_refused(ann: HubClient, repo: str) -> None:
    def commit(api: HfApi, repo: str, path: str) -> None:
        from huggingface_hub import CommitOperationAdd

        operation = CommitOperationAdd("x.txt", b"x")
        operation.path_in_repo = path  # past the client's own check
        api.create_commit(repo, [operation], commit_message="x")

    for path in ("../x", "a/../../x", "a//x", "..\\x", ".git/config", "a/.git/x"):
        with pytest.raises(HubError) as refused:
            ann.call(commit, repo, path)
        assert refused.value.status == 422, path
    assert ann.call(titles, repo) == ["initial commit"]


def test_a_pointer_to_what_only_another_repository_has_is_refused(
    ann: HubClient, repo: str, new_repository: NewRepository, files: Files
) -> None:
    never, elsewhere = (f"{files({'large.bin': content()}, name)}/large.bin" for name in ("never", "elsewhere"))
    ann.call(upload, new_repository(), elsewhere, "large.bin")

    def commit(api: HfApi, repo: str, source: str) -> None:
        from huggingface_hub import CommitOperationAdd

        operation = CommitOperationAdd("large.bin", source)
        operation._upload_mode, operation._is_uploaded, operation._should_ignore = "lfs", True, False
        api.create_commit(repo, [operation], commit_message="a lie")

    for source in (never, elsewhere):
        with pytest.raises(HubError) as refused:
            ann.call(commit, repo, source)
        assert refused.value.status == 422
    assert ann.call(titles, repo) == ["initial commit"]


# --- Pull requests ------------------------------------------------------------------------------------------


def test_a_pull_request_leaves_main_alone(ann: HubClient, repo: str, files: Files, tmp_path: Path, hub: Hub) -> None:
    def propose(api: HfApi, repo: str, source: str) -> list[Any]:
        done = api.upload_file(path_or_fileobj=source, path_in_repo="new.bin", repo_id=repo, create_pr=True)
        return [done.pr_url, done.pr_num, done.pr_revision]

    data = content()
    source = f"{files({'new.bin': data})}/new.bin"
    assert ann.call(propose, repo, source) == [f"{hub.endpoint}/{repo}/discussions/1", 1, "refs/pr/1"]
    assert ann.call(paths_of, repo) == [".gitattributes"]
    assert ann.call(paths_of, repo, "refs/pr/1") == [".gitattributes", "new.bin"]
    assert Path(ann.call(read, repo, "new.bin", str(tmp_path), "refs/pr/1")).read_bytes() == data


def test_readers_of_a_public_repository_may_propose_and_not_commit(
    ann: HubClient, bob: HubClient, repo: str, files: Files
) -> None:
    def propose(api: HfApi, repo: str, folder: str) -> str | None:
        return api.upload_folder(repo_id=repo, folder_path=folder, create_pr=True, commit_message="mine").pr_revision

    assert bob.call(propose, repo, files({"large.bin": content(), "small.txt": b"s"})) == "refs/pr/1"
    assert ann.call(paths_of, repo, "refs/pr/1") == [".gitattributes", "large.bin", "small.txt"]
    with pytest.raises(HubError) as refused:
        bob.call(upload_text, repo, "a.txt", "a")
    assert refused.value.status == 403


def test_a_pull_request_is_committed_to_again(ann: HubClient, repo: str) -> None:
    def propose(api: HfApi, repo: str) -> list[str]:
        opened = api.create_pull_request(repo, "  Something better ")
        revision = f"refs/pr/{opened.num}"
        api.upload_file(path_or_fileobj=b"1", path_in_repo="1.txt", repo_id=repo, revision=revision)
        api.upload_file(path_or_fileobj=b"2", path_in_repo="2.txt", repo_id=repo, revision=revision)
        return [opened.title, opened.status, *api.list_repo_files(repo, revision=revision)]

    assert ann.call(propose, repo) == ["Something better", "draft", ".gitattributes", "1.txt", "2.txt"]
    assert ann.call(paths_of, repo) == [".gitattributes"]
