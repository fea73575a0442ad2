"""Functions that the tests have clients run. Each is sent alone: it knows no other name of this file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def upload(api: HfApi, repo: str, source: str, path: str) -> str:
    return api.upload_file(path_or_fileobj=source, path_in_repo=path, repo_id=repo).oid


def upload_text(api: HfApi, repo: str, path: str, text: str) -> str:
    return api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id=repo).oid


def paths_of(api: HfApi, repo: str, revision: str = "main", kind: str = "model") -> list[str]:
    return sorted(api.list_repo_files(repo, revision=revision, repo_type=kind))


def titles(api: HfApi, repo: str, revision: str = "main") -> list[str]:
    return [commit.title for commit in api.list_repo_commits(repo, revision=revision)]


def file_info(api: HfApi, repo: str, path: str, revision: str = "main") -> dict[str, Any]:
    found: Any
    [found] = api.get_paths_info(repo, path, revision=revision)
    lfs = found.lfs and {"sha256": found.lfs.sha256, "size": found.lfs.size, "pointer": found.lfs.pointer_size}
    xet = getattr(found, "xet_hash", None)  # unknown to old versions
    return {"path": found.path, "size": found.size, "oid": found.blob_id, "lfs": lfs, "xet": xet}


def read(api: HfApi, repo: str, path: str, folder: str, revision: str = "main") -> str:
    return api.hf_hub_download(repo, path, revision=revision, cache_dir=folder)
