"""Private and gated repositories as huggingface_hub tells them to its callers: in its own errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.hub.calls import paths_of, read, upload_text
from tests.interop.hub.conftest import NewRepository, content, unused
from tests.support.hub import Hub, HubClient, HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


def upload_file(api: HfApi, repo: str, source: str) -> str:
    return api.upload_file(path_or_fileobj=source, path_in_repo="large.bin", repo_id=repo).oid


def information(api: HfApi, repo: str) -> str:
    return api.model_info(repo).id


def make_gated(api: HfApi, repo: str, mode: str) -> str:
    api.update_repo_settings(repo, gated=mode)  # type: ignore[arg-type]
    return str(api.model_info(repo).gated)


def test_a_private_repository_is_not_there_for_others(
    ann: HubClient, bob: HubClient, stranger: HubClient, new_repository: NewRepository, files: Files, tmp_path: Path
) -> None:
    repo, data = new_repository(private=True), content()
    ann.call(upload_file, repo, f"{files({'large.bin': data})}/large.bin")
    assert Path(ann.call(read, repo, "large.bin", str(tmp_path / "ann"))).read_bytes() == data

    def commits(api: HfApi, repo: str) -> None:
        api.list_repo_commits(repo)

    def references(api: HfApi, repo: str) -> None:
        api.list_repo_refs(repo)

    def delete(api: HfApi, repo: str) -> None:
        api.delete_repo(repo)

    def branch(api: HfApi, repo: str) -> None:
        api.create_branch(repo, branch="b")

    for client, status in ((bob, 404), (stranger, 401)):
        for call in (information, paths_of, commits, references, branch):
            with pytest.raises(HubError) as refused:
                client.call(call, repo)
            assert (refused.value.names[0], refused.value.status) == ("RepositoryNotFoundError", status), call.__name__
        with pytest.raises(HubError) as refused:
            client.call(delete, repo)
        assert refused.value.status == status
        with pytest.raises(HubError) as refused:
            client.call(read, repo, "large.bin", str(tmp_path / "other"))
        assert "RepositoryNotFoundError" in refused.value.names
        with pytest.raises(HubError) as refused:
            client.call(upload_text, repo, "a.txt", "a")
        assert "RepositoryNotFoundError" in refused.value.names


def test_a_repository_becomes_private_and_public_again(ann: HubClient, stranger: HubClient, repo: str) -> None:
    def set_visibility(api: HfApi, repo: str, private: bool) -> bool | None:
        api.update_repo_settings(repo, private=private)
        return api.model_info(repo).private

    assert ann.call(set_visibility, repo, True) is True
    with pytest.raises(HubError):
        stranger.call(information, repo)
    assert ann.call(set_visibility, repo, False) is False
    assert stranger.call(information, repo) == repo


@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_a_gated_repository_is_seen_and_not_read(
    ann: HubClient, bob: HubClient, stranger: HubClient, repo: str, tmp_path: Path, mode: str
) -> None:
    ann.call(upload_text, repo, "a.txt", "a")
    assert ann.call(make_gated, repo, mode) == mode

    def check(api: HfApi, repo: str) -> None:
        api.auth_check(repo)

    for client in (bob, stranger):
        assert client.call(information, repo) == repo
        for call, arguments in ((read, ("a.txt", str(tmp_path))), (check, ())):
            with pytest.raises(HubError, match=f"Access to model {repo} is restricted") as refused:
                client.call(call, repo, *arguments)
            assert "GatedRepoError" in refused.value.names
    ann.call(check, repo)
    assert Path(ann.call(read, repo, "a.txt", str(tmp_path / "ann"))).read_text() == "a"


def test_a_user_who_was_granted_access_reads_a_gated_repository(
    ann: HubClient, bob: HubClient, repo: str, tmp_path: Path
) -> None:
    ann.call(upload_text, repo, "a.txt", "a")
    ann.call(make_gated, repo, "manual")

    def grant(api: HfApi, repo: str) -> list[str | None]:
        api.grant_access(repo, "bob")
        return [request.username for request in api.list_accepted_access_requests(repo)]

    assert ann.call(grant, repo) == ["bob"]
    assert Path(bob.call(read, repo, "a.txt", str(tmp_path))).read_text() == "a"


def test_a_read_token_changes_nothing(
    hub: Hub, ann: HubClient, repo: str, tmp_path: Path, new_repository: NewRepository
) -> None:
    private = new_repository(private=True)
    with HubClient(hub.endpoint, tmp_path / "reader", hub.user_token("ann", "read")) as reader:
        assert reader.call(information, private) == private

        def create(api: HfApi, repo: str) -> None:
            api.create_repo(repo)

        def delete(api: HfApi, repo: str) -> None:
            api.delete_repo(repo)

        def branch(api: HfApi, repo: str) -> None:
            api.create_branch(repo, branch="b")

        def commit(api: HfApi, repo: str) -> None:
            api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=repo)

        for call, name in ((create, unused("new")), (delete, repo), (branch, repo), (commit, repo)):
            with pytest.raises(HubError) as refused:
                reader.call(call, name)
            assert refused.value.status == 403, call.__name__
    assert ann.call(paths_of, repo) == [".gitattributes"]


def test_the_repositories_of_an_organization_are_its_members(hub: Hub, stranger: HubClient, tmp_path: Path) -> None:
    tokens = [hub.add_user(name) for name in ("carla", "dave")]
    hub.add_org("acme", {"carla": "write", "dave": "read"})
    with (
        HubClient(hub.endpoint, tmp_path / "carla", tokens[0]) as writer,
        HubClient(hub.endpoint, tmp_path / "dave", tokens[1]) as reader,
    ):
        look_at_an_organization(writer, reader, stranger, tmp_path)


def look_at_an_organization(writer: HubClient, reader: HubClient, stranger: HubClient, tmp_path: Path) -> None:

    def create(api: HfApi, repo: str) -> str:
        return api.create_repo(repo, private=True).repo_id

    repo = writer.call(create, unused("secret", "acme"))
    writer.call(upload_text, repo, "a.txt", "a")
    assert Path(reader.call(read, repo, "a.txt", str(tmp_path))).read_text() == "a"
    with pytest.raises(HubError) as refused:
        reader.call(upload_text, repo, "b.txt", "b")
    assert refused.value.status == 403
    with pytest.raises(HubError) as refused:
        stranger.call(information, repo)
    assert refused.value.names[0] == "RepositoryNotFoundError"

    def organizations(api: HfApi) -> list[str]:
        return [org["name"] for org in api.whoami()["orgs"]]

    assert writer.call(organizations) == reader.call(organizations) == ["acme"]


def test_a_repository_is_not_made_in_the_name_of_another(bob: HubClient, repo: str) -> None:
    def create(api: HfApi, repo: str, exist_ok: bool) -> str:
        return api.create_repo(repo, exist_ok=exist_ok).repo_id

    with pytest.raises(HubError) as refused:
        bob.call(create, unused("not-his"), False)
    assert refused.value.status == 403
    assert bob.call(create, repo, True) == repo


def test_a_server_without_accounts_takes_every_caller(files: Files, tmp_path: Path) -> None:
    data = content()
    folder = files({"large.bin": data, "small.txt": b"small"})

    def there_and_back(api: HfApi, folder: str, cache: str) -> list[str]:
        name = api.create_repo("bert").repo_id
        api.upload_folder(repo_id=name, folder_path=folder)
        return [name, api.snapshot_download(name, cache_dir=cache)]

    with (
        Hub(tmp_path / "store", ("--auth", "none")) as open_to_all,
        HubClient(open_to_all.endpoint, tmp_path / "home") as client,
    ):
        name, found = client.call(there_and_back, folder, str(tmp_path / "cache"))
    assert name == "local/bert"
    assert Path(found, "large.bin").read_bytes() == data


def test_a_server_closed_to_strangers_is_open_to_its_users(tmp_path: Path) -> None:
    options = ("--no-anonymous", "--default-visibility", "private")
    with Hub(tmp_path / "store", options) as closed:
        tokens = [closed.add_user(name) for name in ("erin", "frank")]

        def create(api: HfApi, repo: str, private: bool | None) -> bool | None:
            api.create_repo(repo, private=private)
            return api.model_info(repo).private

        with (
            HubClient(closed.endpoint, tmp_path / "erin", tokens[0]) as erin,
            HubClient(closed.endpoint, tmp_path / "frank", tokens[1]) as frank,
            HubClient(closed.endpoint, tmp_path / "stranger") as stranger,
        ):
            assert erin.call(create, "erin/by-default", None) is True
            assert erin.call(create, "erin/public", False) is False
            assert frank.call(information, "erin/public") == "erin/public"
            for client, repo in ((frank, "erin/by-default"), (stranger, "erin/public")):
                with pytest.raises(HubError) as refused:
                    client.call(information, repo)
                assert refused.value.names[0] == "RepositoryNotFoundError"
