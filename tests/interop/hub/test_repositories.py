"""huggingface_hub of today looks around and tidies up: trees, branches, tags, histories, moves, copies, settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.hub.calls import file_info, paths_of, read, titles, upload_text
from tests.interop.hub.conftest import LARGE, NewRepository, content, unused
from tests.support.hub import HubClient, HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


def upload_folder(api: HfApi, repo: str, folder: str, title: str = "files") -> str:
    return api.upload_folder(repo_id=repo, folder_path=folder, commit_message=title).oid


# --- Looking around -----------------------------------------------------------------------------------------


def test_information_about_a_repository(ann: HubClient, repo: str, files: Files) -> None:
    oid = ann.call(upload_folder, repo, files({"large.bin": content(), "small.txt": b"small"}))

    def look(api: HfApi, repo: str) -> dict[str, Any]:
        found = api.model_info(repo, files_metadata=True)
        siblings = {one.rfilename: [one.size, one.lfs and one.lfs.size] for one in found.siblings or []}
        del siblings[".gitattributes"]
        assert found.created_at
        assert found.last_modified
        assert found.created_at <= found.last_modified
        return {
            "id": found.id,
            "author": found.author,
            "sha": found.sha,
            "private": found.private,
            "gated": found.gated,
            "disabled": found.disabled,
            "siblings": siblings,
        }

    assert ann.call(look, repo) == {
        "id": repo,
        "author": "ann",
        "sha": oid,
        "private": False,
        "gated": False,
        "disabled": False,
        "siblings": {"large.bin": [LARGE, LARGE], "small.txt": [5, None]},
    }


def test_only_what_is_asked_for_is_told(ann: HubClient, repo: str) -> None:
    def look(api: HfApi, repo: str) -> list[Any]:
        found = api.model_info(repo, expand=["private", "usedStorage"])
        return [found.id, found.private, found.used_storage, found.siblings, found.sha]

    assert ann.call(look, repo) == [repo, False, 0, None, None]


def tree(api: HfApi, repo: str, folder: str | None, recursive: bool, expand: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in api.list_repo_tree(repo, folder, recursive=recursive, expand=expand):
        assert entry.path not in found
        found[entry.path] = entry.last_commit and entry.last_commit.title if expand else type(entry).__name__
    return found


def test_a_tree_is_listed_by_folder_or_whole(ann: HubClient, repo: str, files: Files) -> None:
    contents = {"a/1.txt": b"1", "a/b/2.txt": b"2", "ü/3.txt": b"3", "4.txt": b"4"}
    ann.call(upload_folder, repo, files(contents))
    whole = ann.call(tree, repo, None, True)
    folders = {"a": "RepoFolder", "a/b": "RepoFolder", "ü": "RepoFolder"}
    assert whole == {".gitattributes": "RepoFile", **folders, **dict.fromkeys(contents, "RepoFile")}
    top = {"a": "RepoFolder", "ü": "RepoFolder", "4.txt": "RepoFile", ".gitattributes": "RepoFile"}
    assert ann.call(tree, repo, None, False) == top
    assert ann.call(tree, repo, "a", False) == {"a/1.txt": "RepoFile", "a/b": "RepoFolder"}
    assert ann.call(tree, repo, "ü", True) == {"ü/3.txt": "RepoFile"}
    with pytest.raises(HubError) as refused:
        ann.call(tree, repo, "absent", False)
    assert refused.value.names[0] == "RemoteEntryNotFoundError"


def test_a_tree_of_many_files_is_listed_page_by_page(ann: HubClient, repo: str) -> None:
    def upload_many(api: HfApi, repo: str) -> None:
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(f"many/{i:04}.txt", b"%d" % i) for i in range(2500)]
        api.create_commit(repo, operations, commit_message="many")

    ann.call(upload_many, repo)
    assert list(ann.call(tree, repo, "many", True)) == [f"many/{i:04}.txt" for i in range(2500)]


def test_the_last_commit_of_each_path_is_told(ann: HubClient, repo: str, files: Files) -> None:
    ann.call(upload_folder, repo, files({"a/1.txt": b"1", "2.txt": b"2"}, "first"), "first")
    ann.call(upload_folder, repo, files({"a/3.txt": b"3"}, "second"), "second")
    expected = {"a": "second", "a/1.txt": "first", "a/3.txt": "second", "2.txt": "first"}
    assert ann.call(tree, repo, None, True, True) == expected | {".gitattributes": "initial commit"}


def test_paths_are_asked_about_and_absent_ones_left_out(ann: HubClient, repo: str, files: Files) -> None:
    ann.call(upload_folder, repo, files({"a/1.txt": b"1", "b & c.txt": b"2"}))

    def look(api: HfApi, repo: str) -> list[str]:
        found = api.get_paths_info(repo, ["b & c.txt", "absent", "a", "a/1.txt", "a/absent"])
        return sorted(entry.path for entry in found)

    assert ann.call(look, repo) == ["a", "a/1.txt", "b & c.txt"]


def test_existence_is_told_without_errors(ann: HubClient, stranger: HubClient, repo: str) -> None:
    def look(api: HfApi, repo: str) -> list[bool]:
        return [
            *(api.repo_exists(repo), api.repo_exists("ann/absent"), api.repo_exists("absent")),
            *(api.revision_exists(repo, "main"), api.revision_exists(repo, "absent")),
            *(api.file_exists(repo, ".gitattributes"), api.file_exists(repo, "absent")),
        ]

    for client in (ann, stranger):
        assert client.call(look, repo) == [True, False, False, True, False, True, False]


def test_repositories_are_listed(ann: HubClient, stranger: HubClient, new_repository: NewRepository) -> None:
    public, hidden = new_repository(), new_repository(private=True)

    def listed(api: HfApi, search: str | None) -> list[str]:
        return [found.id for found in api.list_models(author="ann", search=search)]

    assert {public, hidden} <= set(ann.call(listed, None))
    assert public in stranger.call(listed, None)
    assert hidden not in stranger.call(listed, None)
    assert ann.call(listed, hidden.partition("/")[2]) == [hidden]

    def first(api: HfApi) -> int:
        return len(list(api.list_models(author="ann", limit=1)))

    assert ann.call(first) == 1


def test_the_caller_is_told_who_it_is(ann: HubClient, stranger: HubClient) -> None:
    def look(api: HfApi) -> list[Any]:
        found = api.whoami()
        return [found["type"], found["name"], found["fullname"], isinstance(found["orgs"], list)]

    assert ann.call(look) == ["user", "ann", "ann", True]

    def with_another_token(api: HfApi) -> None:
        api.whoami(token="hf_of_no_account")

    with pytest.raises(HubError) as refused:
        stranger.call(with_another_token)
    assert refused.value.status == 401


# --- Branches and tags --------------------------------------------------------------------------------------


def refs(api: HfApi, repo: str) -> dict[str, list[str]]:
    found = api.list_repo_refs(repo, include_pull_requests=True)
    return {
        "branches": sorted(ref.ref for ref in found.branches),
        "tags": sorted(ref.ref for ref in found.tags),
        "pull_requests": [ref.ref for ref in found.pull_requests or []],
    }


def test_branches_come_and_go(ann: HubClient, repo: str) -> None:
    first = ann.call(upload_text, repo, "a.txt", "1")
    ann.call(upload_text, repo, "a.txt", "2")

    def branch(api: HfApi, repo: str, name: str, revision: str | None) -> None:
        api.create_branch(repo, branch=name, revision=revision)

    ann.call(branch, repo, "feature/x", first[:7])
    assert ann.call(titles, repo, "feature/x") == ann.call(titles, repo)[1:]
    assert ann.call(refs, repo)["branches"] == ["refs/heads/feature/x", "refs/heads/main"]
    for taken in ("feature/x", "main"):
        with pytest.raises(HubError, match=f"Reference refs/heads/{taken} already exists") as refused:
            ann.call(branch, repo, taken, None)
        assert refused.value.status == 409

    def delete(api: HfApi, repo: str, name: str) -> None:
        api.delete_branch(repo, branch=name)

    ann.call(delete, repo, "feature/x")
    assert ann.call(refs, repo)["branches"] == ["refs/heads/main"]
    with pytest.raises(HubError, match="Invalid rev id"):
        ann.call(delete, repo, "feature/x")
    with pytest.raises(HubError, match="Cannot delete refs/heads/main"):
        ann.call(delete, repo, "main")


def test_tags_come_and_go(ann: HubClient, repo: str) -> None:
    first = ann.call(upload_text, repo, "a.txt", "1")
    ann.call(upload_text, repo, "a.txt", "2")

    def tag(api: HfApi, repo: str, name: str, revision: str | None, message: str | None) -> None:
        api.create_tag(repo, tag=name, revision=revision, tag_message=message)

    ann.call(tag, repo, "v1", first, "the first")
    ann.call(tag, repo, "v2", None, None)
    assert ann.call(refs, repo)["tags"] == ["refs/tags/v1", "refs/tags/v2"]
    assert ann.call(titles, repo, "v1") == ann.call(titles, repo)[1:]
    with pytest.raises(HubError) as refused:
        ann.call(tag, repo, "v1", None, None)
    assert refused.value.status == 409
    with pytest.raises(HubError) as refused:
        ann.call(tag, repo, "v3", "absent", None)
    assert refused.value.names[0] == "RevisionNotFoundError"

    def delete(api: HfApi, repo: str, name: str) -> None:
        api.delete_tag(repo, tag=name)

    ann.call(delete, repo, "v1")
    assert ann.call(refs, repo)["tags"] == ["refs/tags/v2"]
    with pytest.raises(HubError) as refused:
        ann.call(delete, repo, "v1")
    assert refused.value.names[0] == "RevisionNotFoundError"


# --- Histories ----------------------------------------------------------------------------------------------


def test_a_history_is_squashed_and_its_files_stay(ann: HubClient, repo: str) -> None:
    for text in ("1", "2", "3"):
        ann.call(upload_text, repo, "a.txt", text)

    def squash(api: HfApi, repo: str) -> None:
        api.super_squash_history(repo, commit_message="all of it")

    before = ann.call(file_info, repo, "a.txt")
    ann.call(squash, repo)
    assert ann.call(titles, repo) == ["all of it"]
    assert ann.call(file_info, repo, "a.txt") == before


def test_files_and_folders_are_deleted(ann: HubClient, repo: str, files: Files) -> None:
    names = ["a/1.txt", "a/2.log", "b/3.txt", "4.txt", "5.log"]
    ann.call(upload_folder, repo, files(dict.fromkeys(names, b"x")))

    def delete(api: HfApi, repo: str) -> None:
        api.delete_file("4.txt", repo)
        api.delete_folder("b", repo)
        api.delete_files(repo, ["*.log"])

    ann.call(delete, repo)
    assert ann.call(paths_of, repo) == [".gitattributes", "a/1.txt"]


def test_large_files_are_taken_out_of_a_history(ann: HubClient, repo: str, files: Files) -> None:
    ann.call(upload_folder, repo, files({"secret.bin": content(), "open.bin": content()}))

    def forget(api: HfApi, repo: str) -> list[str]:
        known = list(api.list_lfs_files(repo))
        api.permanently_delete_lfs_files(repo, [file for file in known if file.filename == "secret.bin"])
        return sorted(file.filename for file in known)

    assert ann.call(forget, repo) == ["open.bin", "secret.bin"]
    assert ann.call(paths_of, repo) == [".gitattributes", "open.bin"]


# --- Whole repositories -------------------------------------------------------------------------------------


def test_a_moved_repository_is_found_by_its_former_name(
    ann: HubClient, repo: str, files: Files, tmp_path: Path
) -> None:
    data = content()
    ann.call(upload_folder, repo, files({"large.bin": data, "small.txt": b"small"}))

    def move(api: HfApi, old: str, new: str) -> None:
        api.move_repo(old, new)

    def identity(api: HfApi, repo: str) -> str:
        return api.model_info(repo).id

    moved = unused("moved")
    ann.call(move, repo, moved)
    assert ann.call(identity, repo) == moved
    for name in (moved, repo):
        assert Path(ann.call(read, name, "large.bin", str(tmp_path / name))).read_bytes() == data
        assert Path(ann.call(read, name, "small.txt", str(tmp_path / name))).read_bytes() == b"small"
    ann.call(move, moved, repo)
    assert ann.call(identity, repo) == repo


def test_a_repository_is_not_moved_over_another_one(ann: HubClient, repo: str, new_repository: NewRepository) -> None:
    def move(api: HfApi, old: str, new: str) -> None:
        api.move_repo(old, new)

    other = new_repository()
    with pytest.raises(HubError, match=f"A model repository called {other} already exists"):
        ann.call(move, repo, other)


def test_a_deleted_repository_is_gone_and_its_name_free(ann: HubClient, repo: str) -> None:
    def delete(api: HfApi, repo: str) -> None:
        api.delete_repo(repo)

    ann.call(delete, repo)
    with pytest.raises(HubError) as refused:
        ann.call(paths_of, repo)
    assert refused.value.names[0] == "RepositoryNotFoundError"
    with pytest.raises(HubError) as refused:
        ann.call(delete, repo)
    assert refused.value.names[0] == "RepositoryNotFoundError"

    def create(api: HfApi, repo: str) -> list[str]:
        api.create_repo(repo)
        return api.list_repo_files(repo)

    assert ann.call(create, repo) == [".gitattributes"]


def test_a_name_is_found_whatever_its_case(ann: HubClient, repo: str) -> None:
    ann.call(upload_text, repo.upper(), "a.txt", "a")
    assert ann.call(paths_of, repo) == [".gitattributes", "a.txt"]


def test_files_are_copied_between_repositories_by_name_alone(
    watched: HubClient, repo: str, new_repository: NewRepository, files: Files, tmp_path: Path
) -> None:
    data, other = content(), new_repository("dataset")
    watched.call(upload_folder, repo, files({"folder/large.bin": data, "folder/small.txt": b"small"}))

    def copy(api: HfApi, source: str, target: str) -> list[Any]:
        api.copy_files(f"hf://{source}/folder/", f"hf://datasets/{target}/copy/")
        names = ["copy/large.bin", "copy/small.txt"]
        found: dict[str, Any] = {entry.path: entry for entry in api.get_paths_info(target, names, repo_type="dataset")}
        return [found["copy/large.bin"].xet_hash, found["copy/small.txt"].size]

    copied = watched.call(copy, repo, other)
    assert copied == [watched.call(file_info, repo, "folder/large.bin")["xet"], 5]

    def fetch(api: HfApi, target: str, folder: str) -> str:
        return api.hf_hub_download(target, "copy/large.bin", repo_type="dataset", cache_dir=folder)

    assert Path(watched.call(fetch, other, str(tmp_path))).read_bytes() == data


def test_a_repository_is_duplicated(ann: HubClient, bob: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    data = content()
    ann.call(upload_folder, repo, files({"large.bin": data, "small.txt": b"small"}))

    def duplicate(api: HfApi, source: str, target: str) -> str:
        return str(api.duplicate_repo(source, target).repo_id)

    target = unused("duplicate", "bob")
    assert bob.call(duplicate, repo, target) == target
    assert Path(bob.call(read, target, "large.bin", str(tmp_path))).read_bytes() == data
    assert Path(bob.call(read, target, "small.txt", str(tmp_path))).read_bytes() == b"small"
