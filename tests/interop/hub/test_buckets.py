"""Buckets by huggingface_hub of today, and `hf sync`: files by their Xet hashes, without revisions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xetstore
from tests.interop.hub.conftest import content, unused
from tests.support.hub import Hub, HubClient, HubError
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


def create(api: HfApi, bucket: str, private: bool = False) -> str:
    return api.create_bucket(bucket, private=private).url


def add(api: HfApi, bucket: str, files: dict[str, str]) -> None:
    api.batch_bucket_files(bucket, add=[(source, path) for path, source in files.items()])


def tree(api: HfApi, bucket: str, prefix: str | None = None, recursive: bool | None = None) -> list[str]:
    found = api.list_bucket_tree(bucket, prefix, recursive=recursive)
    return sorted(entry.path + ("/" if entry.type == "directory" else "") for entry in found)


def download(api: HfApi, bucket: str, path: str, target: str) -> None:
    api.download_bucket_files(bucket, [(path, target)])


@pytest.fixture
def bucket(ann: HubClient) -> str:
    name = unused("bucket")
    ann.call(create, name)
    return name


def test_a_bucket_is_made_seen_and_deleted(ann: HubClient, stranger: HubClient, hub: Hub) -> None:
    name = unused("bucket")
    assert ann.call(create, name) == f"{hub.endpoint}/buckets/{name}"
    with pytest.raises(HubError) as refused:
        ann.call(create, name)
    assert refused.value.status == 409

    def look(api: HfApi, name: str) -> list[Any]:
        found = api.bucket_info(name)
        return [found.id, found.private, found.size, found.total_files]

    def listed(api: HfApi) -> list[str]:
        return [found.id for found in api.list_buckets("ann")]

    assert ann.call(look, name) == stranger.call(look, name) == [name, False, 0, 0]
    assert name in ann.call(listed)
    assert name in stranger.call(listed)

    def delete(api: HfApi, name: str) -> None:
        api.delete_bucket(name)

    ann.call(delete, name)
    with pytest.raises(HubError) as refused:
        ann.call(look, name)
    assert refused.value.names[0] == "BucketNotFoundError"


def test_files_go_up_by_hash_and_come_down(
    watched: HubClient, recorded: Proxy, bucket: str, files: Files, tmp_path: Path
) -> None:
    contents = {"large.bin": content(), "a/small.txt": b"small", "a/empty": b""}
    folder = files(contents)
    watched.call(add, bucket, {path: f"{folder}/{path}" for path in contents})
    assert recorded.requests("POST", f"/api/buckets/{bucket}/batch")
    assert not [seen for seen in recorded.seen if "preupload" in seen.path or "commit" in seen.path]
    for path, data in contents.items():
        watched.call(download, bucket, path, str(tmp_path / "out" / path))
        assert (tmp_path / "out" / path).read_bytes() == data

    def hashes(api: HfApi, bucket: str) -> dict[str, list[Any]]:
        found = api.get_bucket_paths_info(bucket, ["large.bin", "a/empty", "absent"])
        return {entry.path: [entry.size, entry.xet_hash] for entry in found}

    expected = str(xetstore.hash_file(Path(folder, "large.bin")).hash)
    large = [len(contents["large.bin"]), expected]
    assert watched.call(hashes, bucket) == {"large.bin": large, "a/empty": [0, "0" * 64]}


def test_a_bucket_is_listed_by_folder_whole_or_by_prefix(ann: HubClient, bucket: str, files: Files) -> None:
    folder = files({"x": b"x"})
    ann.call(add, bucket, dict.fromkeys(["logs/1", "logs/a/2", "logs.json", "z"], f"{folder}/x"))
    assert ann.call(tree, bucket) == ["logs.json", "logs/1", "logs/a/2", "z"]
    assert ann.call(tree, bucket, None, False) == ["logs.json", "logs/", "z"]
    assert ann.call(tree, bucket, "logs", True) == ["logs.json", "logs/1", "logs/a/2"]
    assert ann.call(tree, bucket, "absent") == []


def test_files_are_deleted_and_copied(ann: HubClient, repo: str, bucket: str, files: Files, tmp_path: Path) -> None:
    data = content()
    folder = files({"large.bin": data})
    ann.call(add, bucket, {"large.bin": f"{folder}/large.bin"})

    def copy(api: HfApi, repo: str, bucket: str, source: str) -> None:
        api.upload_file(path_or_fileobj=source, path_in_repo="model.bin", repo_id=repo)
        api.copy_files(f"hf://{repo}/model.bin", f"hf://buckets/{bucket}/from-model.bin")
        api.copy_files(f"hf://buckets/{bucket}/large.bin", f"hf://buckets/{bucket}/again.bin")
        api.batch_bucket_files(bucket, delete=["large.bin"])

    ann.call(copy, repo, bucket, f"{folder}/large.bin")
    assert ann.call(tree, bucket) == ["again.bin", "from-model.bin"]
    for path in ("again.bin", "from-model.bin"):
        ann.call(download, bucket, path, str(tmp_path / path))
        assert (tmp_path / path).read_bytes() == data


def test_operations_that_fail_are_named_and_the_others_done(ann: HubClient, bucket: str) -> None:
    def batch(api: HfApi, bucket: str) -> list[str]:
        from huggingface_hub.errors import BucketBatchError

        copies = [("bucket", bucket, "f" * 64, "copied.bin")]
        try:
            api.batch_bucket_files(bucket, add=[(b"x", "added.txt")], copy=copies)
        except BucketBatchError as error:
            return [failed["path"] for failed in error.failures]
        return []

    assert ann.call(batch, bucket) == ["copied.bin"]
    assert ann.call(tree, bucket) == ["added.txt"]


def test_a_private_bucket_is_not_there_for_others(ann: HubClient, bob: HubClient, stranger: HubClient) -> None:
    name = unused("private-bucket")
    ann.call(create, name, True)
    assert ann.call(tree, name) == []
    for client in (bob, stranger):
        with pytest.raises(HubError) as refused:
            client.call(tree, name)
        assert refused.value.names[0] == "BucketNotFoundError"


def test_a_moved_bucket_keeps_its_files(ann: HubClient, bucket: str, files: Files) -> None:
    ann.call(add, bucket, {"x": f"{files({'x': b'x'})}/x"})

    def move(api: HfApi, old: str, new: str) -> None:
        api.move_bucket(old, new)

    moved = unused("moved-bucket")
    ann.call(move, bucket, moved)
    assert ann.call(tree, moved) == ["x"]


def test_a_folder_is_synced_up_and_down(ann: HubClient, bucket: str, files: Files, tmp_path: Path) -> None:
    folder = files({"1.txt": b"1", "a/2.txt": b"2", "3.bin": content(300_000)}, "source")
    for number, path in enumerate(sorted(Path(folder).rglob("*.*"))):
        os.utime(path, (1_700_000_000.123 + number, 1_700_000_000.123 + number))

    def sync(api: HfApi, source: str, target: str, delete: bool) -> dict[str, int]:
        plan = api.sync_bucket(source, target, delete=delete, quiet=True)
        actions = [operation.action for operation in plan.operations]
        return {action: actions.count(action) for action in set(actions)}

    remote = f"hf://buckets/{bucket}"
    assert ann.call(sync, folder, remote, False) == {"upload": 3}
    assert ann.call(tree, bucket) == ["1.txt", "3.bin", "a/2.txt"]
    assert ann.call(sync, folder, remote, False) == {"skip": 3}
    Path(folder, "a", "2.txt").unlink()
    assert ann.call(sync, folder, remote, True) == {"skip": 2, "delete": 1}
    target = tmp_path / "target"
    assert ann.call(sync, remote, str(target), False) == {"download": 2}
    assert (target / "3.bin").read_bytes() == Path(folder, "3.bin").read_bytes()
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["1.txt", "3.bin"]
