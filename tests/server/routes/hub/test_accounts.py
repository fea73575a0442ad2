"""Accounts over HTTP: who the caller is, and what is told of users and organizations."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from tests.server.routes.hub.people import People, people


def test_who_the_caller_is(town: People) -> None:
    told = town.api().whoami()
    assert (told["type"], told["name"], told["fullname"]) == ("user", "alice", "alice")
    assert [(org["name"], org["roleInOrg"]) for org in told["orgs"]] == [("org", "admin")]
    assert told["auth"]["accessToken"]["role"] == "write"
    assert town.api("bob").whoami()["orgs"] == []
    assert town.api("alice-reading").whoami()["auth"]["accessToken"]["role"] == "read"
    for token in ("hf_" + "x" * 34, "nonsense", ""):
        answer = town.server.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 401, token
    with pytest.raises(HfHubHTTPError):
        town.api(None).whoami(token="hf_" + "y" * 34)


def test_accounts_are_told_of(town: People) -> None:
    api = town.api()
    user = api.get_user_overview("carol")
    assert (user.username, [org.name for org in user.orgs]) == ("carol", ["org"])
    org = api.get_organization_overview("ORG")
    assert (org.name, org.num_users) == ("org", 3)
    assert [member.username for member in api.list_organization_members("org")] == ["alice", "carol", "dave"]
    assert list(api.list_user_followers("carol")) == []
    for path in ("users/nobody", "users/org", "organizations/alice", "users/a%2Fb"):
        assert town.ask("GET", f"/api/{path}/overview").status == 404
    assert town.ask("GET", "/api/users/carol/overview", name=None).status == 200


def test_the_only_caller_of_a_server_without_tokens(tmp_path: Path) -> None:
    with people(tmp_path, auth="none") as there:
        api = there.api(None)
        assert there.ask("GET", "/api/whoami-v2", name=None).json()["name"] == "local"
        url = api.create_repo("mine")
        assert url.repo_id == "local/mine"
        api.create_repo("alice/of-alice", private=True)
        api.upload_file(path_or_fileobj=b"\0" * 9000, path_in_repo="a.bin", repo_id="local/mine")
        assert Path(api.hf_hub_download("local/mine", "a.bin")).read_bytes() == b"\0" * 9000
        assert there.ask("GET", "/api/models/alice/of-alice", name=None).status == 200
        page = there.ask("POST", "/api/repos/create", {"name": "x"}, name=None, Origin="https://evil.example")
        assert page.status == 403


def test_without_anonymous_callers_nothing_is_told(tmp_path: Path) -> None:
    with people(tmp_path, anonymous=False) as there:
        there.api().create_repo("alice/public")
        for path in (
            "/api/models/alice/public",
            "/alice/public/resolve/main/.gitattributes",
            "/api/users/bob/overview",
        ):
            assert there.ask("GET", path, name=None).status == 401
        assert there.ask("GET", "/api/models", name=None).json() == []
        assert there.ask("GET", "/api/models/alice/public", name="bob").status == 200
