"""Other versions of huggingface_hub and hf_xet, and each without Xet: files and folders up and down, branches, errors.

Written for what every version has in common; those of today are tested at length beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.hub.calls import file_info, paths_of, read, titles, upload, upload_text
from tests.interop.hub.conftest import content, unused
from tests.interop.old_clients import COMMAND, HUBS, hub_path_of, path_of
from tests.support.hub import Hub, HubClient, HubError
from tests.support.proxy import Proxy, proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]

TODAY = "2.4.0"
VERSIONS = [(TODAY, None), *((hub, xet) for hub, xets in HUBS.items() for xet in (*xets, None))]
"""Versions of huggingface_hub and hf_xet; None stands for ``HF_HUB_DISABLE_XET=1``."""


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"{version[0]} {version[1] or 'without xet'}")
def version(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    hub, xet = request.param
    missing = [path for path in path_to(hub, xet) if not path.is_dir()]
    if missing:
        pytest.skip(f"{missing[0].name} is not installed: {COMMAND}")
    return hub, xet


def path_to(hub: str, xet: str | None) -> tuple[Path, ...]:
    return (*(() if xet is None else (path_of(xet),)), *(() if hub == TODAY else (hub_path_of(hub),)))


@pytest.fixture(scope="module")
def seen(hub: Hub) -> Iterator[Proxy]:
    with proxy(hub.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def client(
    seen: Proxy, ann_token: str, version: tuple[str, str | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubClient]:
    """A client of ann's, of that version."""
    environment = {} if version[1] else {"HF_HUB_DISABLE_XET": "1"}
    home = tmp_path_factory.mktemp("home")
    with HubClient(seen.endpoint, home, ann_token, environment, path_to(*version)) as running:
        yield running


@pytest.fixture
def repo(client: HubClient, seen: Proxy) -> str:
    def create(api: HfApi, repo: str) -> str:
        return api.create_repo(repo).repo_id

    name = str(client.call(create, unused("version")))
    seen.seen.clear()
    return name


def test_the_versions_are_those_that_were_asked_for(client: HubClient, version: tuple[str, str | None]) -> None:
    def versions() -> list[str]:
        from importlib.metadata import version

        return [version("huggingface_hub"), version("hf_xet")]

    hub, xet = client.call(versions)
    assert hub == version[0]
    assert version[1] in (None, xet)


def test_a_large_file_goes_up_and_down(
    client: HubClient, seen: Proxy, version: tuple[str, str | None], repo: str, files: Files, tmp_path: Path
) -> None:
    data = content()
    client.call(upload, repo, f"{files({'large.bin': data})}/large.bin", "large.bin")
    assert Path(client.call(read, repo, "large.bin", str(tmp_path))).read_bytes() == data
    asked = {seen.path.split("/")[1] for seen in seen.seen}
    assert ("cas" in asked) == (version[1] is not None)
    info = client.call(file_info, repo, "large.bin")
    assert info["size"] == info["lfs"]["size"] == len(data)


def test_a_folder_goes_up_and_a_snapshot_down(client: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    contents = {f"part {i}/{i}.bin": content(60_000) for i in range(5)} | {"config.json": b"{}", "empty": b""}

    def upload_folder(api: HfApi, repo: str, folder: str) -> None:
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="folder")

    def snapshot(api: HfApi, repo: str, folder: str) -> str:
        return api.snapshot_download(repo, cache_dir=folder)

    client.call(upload_folder, repo, files(contents))
    assert client.call(titles, repo) == ["folder", "initial commit"]
    for _ in ("cold", "warm"):
        found = Path(client.call(snapshot, repo, str(tmp_path / "cache")))
        assert {path: (found / path).read_bytes() for path in contents} == contents


def test_what_one_version_uploads_the_one_of_today_downloads(
    client: HubClient, ann: HubClient, repo: str, files: Files, tmp_path: Path
) -> None:
    data = content()
    client.call(upload, repo, f"{files({'large.bin': data})}/large.bin", "large.bin")
    assert Path(ann.call(read, repo, "large.bin", str(tmp_path / "today"))).read_bytes() == data
    data = content()
    ann.call(upload, repo, f"{files({'other.bin': data})}/other.bin", "other.bin")
    assert Path(client.call(read, repo, "other.bin", str(tmp_path / "other"))).read_bytes() == data


def test_branches_tags_and_pull_requests(client: HubClient, repo: str, tmp_path: Path) -> None:
    def work(api: HfApi, repo: str) -> list[Any]:
        api.create_branch(repo, branch="dev/x")
        api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo, revision="dev/x")
        api.create_tag(repo, tag="v1", revision="dev/x")
        proposed = api.upload_file(path_or_fileobj=b"2", path_in_repo="b.txt", repo_id=repo, create_pr=True)
        found = api.list_repo_refs(repo, include_pull_requests=True)
        api.delete_branch(repo, branch="dev/x")
        api.delete_tag(repo, tag="v1")
        names = sorted(ref.name for ref in [*found.branches, *found.tags])
        return [*names, proposed.pr_revision, [ref.ref for ref in found.pull_requests or []]]

    assert client.call(work, repo) == ["dev/x", "main", "v1", "refs/pr/1", ["refs/pr/1"]]
    assert client.call(paths_of, repo, "refs/pr/1") == [".gitattributes", "b.txt"]


def test_errors_are_those_of_the_client(client: HubClient, repo: str, tmp_path: Path) -> None:
    client.call(upload_text, repo, "a.txt", "a")
    missing = {
        ("ann/no-such-repository", "a.txt", "main"): "RepositoryNotFoundError",
        (repo, "a.txt", "no-such-branch"): "RevisionNotFoundError",
        (repo, "absent.txt", "main"): "EntryNotFoundError",
    }
    for (name, path, revision), error in missing.items():
        with pytest.raises(HubError) as refused:
            client.call(read, name, path, str(tmp_path), revision)
        assert error in refused.value.names, (name, path, revision)

    def exists(api: HfApi, name: str) -> bool:
        return api.repo_exists(name)

    assert [client.call(exists, name) for name in (repo, "ann/absent")] == [True, False]


def test_a_moved_repository_is_found_by_its_former_name(client: HubClient, repo: str, tmp_path: Path) -> None:
    client.call(upload_text, repo, "a.txt", "a")

    def move(api: HfApi, old: str, new: str) -> str:
        api.move_repo(old, new)
        return api.model_info(old).id

    moved = unused("version-moved")
    assert client.call(move, repo, moved) == moved
    assert Path(client.call(read, repo, "a.txt", str(tmp_path))).read_text() == "a"


def test_many_files_go_up_in_commits_of_some(
    client: HubClient, version: tuple[str, str | None], repo: str, files: Files, tmp_path: Path
) -> None:
    """By upload_large_folder, which the versions before 2 have. It takes ten seconds, most of which it sleeps."""
    if version[0] == TODAY or version[1] != HUBS[version[0]][-1]:
        pytest.skip("no version but those before 2 has it")
    contents = {f"{i}.bin": content(100_000) for i in range(6)} | {"notes.txt": b"notes"}

    def upload_large(api: HfApi, repo: str, folder: str) -> None:
        api.upload_large_folder(repo, folder, repo_type="model", num_workers=2, print_report=False)  # type: ignore[attr-defined]

    client.call(upload_large, repo, files(contents))
    assert client.call(paths_of, repo) == sorted([".gitattributes", *contents])
