"""huggingface_hub of today downloads: files, snapshots and revisions, in as few calls as they can be made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.hub.calls import read, upload_text
from tests.interop.hub.conftest import LARGE, content
from tests.support.hub import HubClient, HubError
from tests.support.proxy import Proxy
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


def upload_folder(api: HfApi, repo: str, folder: str) -> str:
    return api.upload_folder(repo_id=repo, folder_path=folder).oid


def snapshot(api: HfApi, repo: str, folder: str, revision: str = "main") -> str:
    return api.snapshot_download(repo, cache_dir=folder, revision=revision)


def kinds_of(recorded: Proxy) -> list[str]:
    """The method and the route of each request, in order."""
    kinds = []
    for seen in recorded.seen:
        words = [word for word in seen.path.split("/") if word in ROUTES]
        kinds.append(f"{seen.method} {words[0] if words else seen.path}")
    return kinds


ROUTES = ("resolve", "xet-read-token", "reconstructions", "xorbs", "revision", "tree")


def test_a_cold_download_asks_for_each_thing_once_and_a_warm_one_only_if_it_changed(
    watched: HubClient, recorded: Proxy, repo: str, files: Files, tmp_path: Path
) -> None:
    data = content()
    watched.call(upload_folder, repo, files({"large.bin": data, "small.txt": b"small"}))
    recorded.seen.clear()
    assert Path(watched.call(read, repo, "large.bin", str(tmp_path))).read_bytes() == data
    assert kinds_of(recorded) == ["HEAD resolve", "GET xet-read-token", "GET reconstructions", "GET xorbs"]
    recorded.seen.clear()
    assert Path(watched.call(read, repo, "large.bin", str(tmp_path))).read_bytes() == data
    assert kinds_of(recorded) == ["HEAD resolve"]
    recorded.seen.clear()
    assert Path(watched.call(read, repo, "small.txt", str(tmp_path))).read_bytes() == b"small"
    assert kinds_of(recorded) == ["HEAD resolve", "GET resolve"]
    assert {seen.status for seen in recorded.seen} == {200}


def test_a_warm_snapshot_costs_one_call(
    watched: HubClient, recorded: Proxy, repo: str, files: Files, tmp_path: Path
) -> None:
    contents = {f"{i}.bin": content(200_000) for i in range(5)} | {"config.json": b"{}", "sub/notes.txt": b"notes"}
    watched.call(upload_folder, repo, files(contents))
    recorded.seen.clear()
    found = Path(watched.call(snapshot, repo, str(tmp_path / "cache")))
    assert {path: (found / path).read_bytes() for path in contents} == contents
    kinds = kinds_of(recorded)
    assert kinds[:2] == ["GET revision", "GET tree"]
    # Three regular files: those two and .gitattributes. The large ones need no HEAD, and one token together.
    assert (kinds.count("HEAD resolve"), kinds.count("GET resolve"), kinds.count("GET xet-read-token")) == (3, 3, 1)
    recorded.seen.clear()
    assert watched.call(snapshot, repo, str(tmp_path / "cache")) == str(found)
    assert kinds_of(recorded) == ["GET revision"]


def test_only_what_changed_is_downloaded_of_the_next_revision(
    watched: HubClient, recorded: Proxy, repo: str, files: Files, tmp_path: Path
) -> None:
    watched.call(upload_folder, repo, files({"large.bin": content(), "notes.txt": b"1"}))
    watched.call(snapshot, repo, str(tmp_path))
    watched.call(upload_text, repo, "notes.txt", "2")
    recorded.seen.clear()
    assert Path(watched.call(snapshot, repo, str(tmp_path)), "notes.txt").read_bytes() == b"2"
    assert not recorded.requests("GET", "/cas/")
    assert kinds_of(recorded).count("GET resolve") == 1


def test_a_revision_is_a_branch_a_tag_or_a_commit(ann: HubClient, repo: str, tmp_path: Path) -> None:
    def name_them(api: HfApi, repo: str) -> str:
        first = api.upload_file(path_or_fileobj=b"1", path_in_repo="n.txt", repo_id=repo).oid
        api.create_tag(repo, tag="v1", tag_message="the first")
        api.upload_file(path_or_fileobj=b"2", path_in_repo="n.txt", repo_id=repo)
        api.create_branch(repo, branch="feature/x", revision=first)
        return first

    first = ann.call(name_them, repo)
    revisions = ["v1", "feature/x", "refs/heads/feature/x", first, first[:7]]
    found = [Path(ann.call(read, repo, "n.txt", str(tmp_path / "cache"), revision)) for revision in revisions]
    assert [path.read_bytes() for path in found] == [b"1"] * 5
    assert {path.parent.name for path in found} == {first}
    assert Path(ann.call(read, repo, "n.txt", str(tmp_path / "cache"))).read_bytes() == b"2"


def test_an_absent_file_is_remembered_as_absent(watched: HubClient, recorded: Proxy, repo: str, tmp_path: Path) -> None:
    oid = watched.call(upload_text, repo, "a.txt", "a")

    def probe(api: HfApi, repo: str, folder: str) -> str:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        try:
            api.hf_hub_download(repo, "absent.json", cache_dir=folder)
        except EntryNotFoundError:
            return repr(try_to_load_from_cache(repo, "absent.json", cache_dir=folder, revision="main"))
        return "it is there"

    assert "object object" in watched.call(probe, repo, str(tmp_path))  # the client's sign for: known to be absent
    assert list(tmp_path.glob(f"models--*/.no_exist/{oid}/absent.json"))


def test_metadata_of_a_file_says_all_that_a_cache_needs(ann: HubClient, repo: str, files: Files) -> None:
    oid = ann.call(upload_folder, repo, files({"large.bin": content(), "ünï cödé.txt": b"small"}))

    def look(api: HfApi, repo: str, path: str) -> list[Any]:
        from huggingface_hub import hf_hub_url

        found = api.get_hf_file_metadata(url=hf_hub_url(repo, path))
        xet = found.xet_file_data
        return [found.commit_hash, found.size, len(found.etag or ""), xet and xet.file_hash]

    *known, hash_text = ann.call(look, repo, "large.bin")
    assert known == [oid, LARGE, 64]
    assert Hash.parse(hash_text)
    assert ann.call(look, repo, "ünï cödé.txt") == [oid, 5, 40, None]


def test_a_folder_that_was_downloaded_to_is_compared_and_not_downloaded_again(
    watched: HubClient, recorded: Proxy, repo: str, files: Files, tmp_path: Path
) -> None:
    contents = {"large.bin": content(), "small.txt": b"small"}
    watched.call(upload_folder, repo, files(contents))

    def fetch(api: HfApi, repo: str, folder: str) -> None:
        api.snapshot_download(repo, local_dir=folder)

    watched.call(fetch, repo, str(tmp_path / "local"))
    assert {path: (tmp_path / "local" / path).read_bytes() for path in contents} == contents
    recorded.seen.clear()
    watched.call(fetch, repo, str(tmp_path / "local"))
    assert not recorded.requests("GET", "/cas/")
    assert not recorded.requests("GET", f"/{repo}/resolve")


def test_what_is_not_there_is_said_in_the_clients_own_errors(ann: HubClient, repo: str, tmp_path: Path) -> None:
    missing = {
        ("ann/no-such-repository", "a.txt", "main"): "RepositoryNotFoundError",
        (repo, "a.txt", "no-such-branch"): "RevisionNotFoundError",
        (repo, "a.txt", "0" * 40): "RevisionNotFoundError",
        (repo, "absent.txt", "main"): "RemoteEntryNotFoundError",
        (repo, "a.txt/absent", "main"): "RemoteEntryNotFoundError",
    }
    for (name, path, revision), error in missing.items():
        with pytest.raises(HubError) as refused:
            ann.call(read, name, path, str(tmp_path), revision)
        assert refused.value.names[0] == error, (name, path, revision)
        assert refused.value.status == 404


def test_downloaded_files_are_verified_against_the_repository(
    ann: HubClient, repo: str, files: Files, tmp_path: Path
) -> None:
    """As `hf cache verify` does: hashes of the tree against the bytes that are here."""
    ann.call(upload_folder, repo, files({"large.bin": content(), "small.txt": b"small"}))

    def verify(api: HfApi, repo: str, folder: str) -> list[Any]:
        api.snapshot_download(repo, cache_dir=folder)
        found = api.verify_repo_checksums(repo, cache_dir=folder)
        return [found.checked_count, list(found.mismatches), list(found.missing_paths)]

    assert ann.call(verify, repo, str(tmp_path)) == [3, [], []]
