"""Space that comes back: of versions that the real client has squashed, deleted for good, or deleted by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.hub.conftest import content
from tests.support.hub import Hub, HubClient

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SIZE = 1_000_000
MOST_COLLECTIONS = 8


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("freeing") / "store", ("--collect-seconds", "0")) as running:
        yield running


@pytest.fixture(scope="module")
def ann_token(hub: Hub) -> str:
    return hub.add_user("ann")


def stored_bytes(store: Path) -> int:
    """The bytes of all xorbs and shards."""
    found = (file for name in ("xorbs", "shards") for file in (store / name).rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in found)


def collect(hub: Hub) -> int:
    """Collect until nothing goes any more; the bytes that are stored then. The server is in use meanwhile."""
    before = None
    for _ in range(MOST_COLLECTIONS):
        report = json.loads(hub.xet("gc", "--grace", "0s", "--undelete", "0s", "--json"))
        told = {key: value for key, value in report.items() if key in ("files", "xorbs", "objects", "doomed_xorbs")}
        told |= {key: report["names"][key] for key in ("git_objects", "grants", "bucket_files", "repositories")}
        if not any(told.values()) and before == told:
            break
        before = told
    return stored_bytes(hub.root)


def used(api: HfApi, repo: str) -> int:
    return api.model_info(repo, expand=["usedStorage"]).used_storage or 0


def upload(api: HfApi, repo: str, kept: str) -> None:
    """Versions of a file, one that stays, and one on a branch, of a million bytes each."""
    import os

    api.create_repo(repo)
    for _ in range(4):
        api.upload_file(repo_id=repo, path_in_repo="model.bin", path_or_fileobj=os.urandom(1_000_000))
    api.upload_file(repo_id=repo, path_in_repo="kept.bin", path_or_fileobj=kept)
    api.create_branch(repo, branch="dev")
    api.upload_file(repo_id=repo, path_in_repo="dev.bin", path_or_fileobj=os.urandom(1_000_000), revision="dev")


def squash(api: HfApi, repo: str) -> None:
    api.super_squash_history(repo)
    api.delete_branch(repo, branch="dev")


def forget(api: HfApi, repo: str) -> None:
    files = [file for file in api.list_lfs_files(repo) if file.filename == "model.bin"]
    api.permanently_delete_lfs_files(repo, files)


def download(api: HfApi, repo: str, to: str) -> str:
    path: str = api.hf_hub_download(repo, "kept.bin", local_dir=to)
    return path


def fill_bucket(api: HfApi, bucket: str) -> list[str]:
    import os

    api.create_bucket(bucket)
    api.batch_bucket_files(bucket, add=[(os.urandom(1_000_000), "one"), (os.urandom(1_000_000), "two")])
    api.batch_bucket_files(bucket, add=[(os.urandom(1_000_000), "two")], delete=["one"])
    return [file.path for file in api.list_bucket_tree(bucket)]


def delete(api: HfApi, repo: str, bucket: str) -> None:
    api.delete_bucket(bucket)
    api.delete_repo(repo)


def test_what_real_clients_delete_gives_its_space_back(ann: HubClient, hub: Hub, tmp_path: Path) -> None:
    empty = stored_bytes(hub.root)
    kept = tmp_path / "kept.bin"
    kept.write_bytes(content(SIZE))
    ann.call(upload, "ann/freed", str(kept))
    assert ann.call(used, "ann/freed") == 6 * SIZE
    full = collect(hub)
    assert full > 6 * SIZE

    ann.call(squash, "ann/freed")
    squashed = collect(hub)
    assert ann.call(used, "ann/freed") == 2 * SIZE
    assert 2 * SIZE < squashed < full - 3.9 * SIZE

    ann.call(forget, "ann/freed")
    assert ann.call(used, "ann/freed") == SIZE
    forgotten = collect(hub)
    assert SIZE < forgotten < squashed - 0.9 * SIZE
    assert Path(ann.call(download, "ann/freed", str(tmp_path / "out"))).read_bytes() == kept.read_bytes()

    assert ann.call(fill_bucket, "ann/box") == ["two"]
    with_bucket = collect(hub)
    assert forgotten + SIZE < with_bucket < forgotten + 1.2 * SIZE

    ann.call(delete, "ann/freed", "ann/box")
    assert collect(hub) - empty < 64 << 10
