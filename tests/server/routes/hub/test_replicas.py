"""Two replicas over one database and one bucket: each answers for what was changed by way of the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.support.deployments import REPLICAS, Alternating
from tests.support.live import LiveServer
from xetstore.testing.samples import random_bytes

DEPLOYMENTS = (REPLICAS,)


@pytest.fixture
def apis(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The real client at each of the two, as one user."""
    assert isinstance(server, Alternating)
    hub = server.site.hub
    assert hub is not None
    hub.accounts.add_user("alice")
    token = hub.accounts.issue("alice")
    return HfApi(server.each[0].url, token=token), HfApi(server.each[1].url, token=token)


def test_what_one_replica_does_the_other_one_knows(
    apis: tuple[Any, Any], server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = apis
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", one.endpoint)
    one.create_repo("alice/bert", private=True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", other.endpoint)
    template = f"{other.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    big = tmp_path / "big.bin"
    big.write_bytes(random_bytes(300_000, 4))
    for number, api in enumerate((one, other, one)):
        api.upload_file(path_or_fileobj=str(big), path_in_repo=f"{number}.bin", repo_id="alice/bert")
        api.upload_file(path_or_fileobj=b"small", path_in_repo=f"{number}.txt", repo_id="alice/bert")
    assert len(one.list_repo_commits("alice/bert")) == len(other.list_repo_commits("alice/bert")) == 7
    assert Path(other.hf_hub_download("alice/bert", "0.bin", cache_dir=tmp_path)).read_bytes() == big.read_bytes()
    assert one.model_info("alice/bert", expand=["usedStorage"]).used_storage == 300_000
    other.duplicate_repo("alice/bert", "alice/copy")
    other.create_tag("alice/copy", tag="v1")
    assert [ref.name for ref in one.list_repo_refs("alice/copy").tags] == ["v1"]
    assert {model.id for model in one.list_models()} == {"alice/bert", "alice/copy"}
    other.super_squash_history("alice/bert")
    one.update_repo_settings("alice/bert", private=False)
    other.move_repo("alice/bert", "alice/moved")
    assert one.model_info("alice/bert").id == "alice/moved"
    one.delete_repo("alice/moved")
    with pytest.raises(RepositoryNotFoundError):
        other.model_info("alice/moved")
    answer = server.request("GET", "/alice/copy/resolve/v1/2.bin", token=one.token)
    assert answer.body == big.read_bytes()


def test_commits_to_both_are_all_made(apis: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", apis[0].endpoint)
    apis[0].create_repo("alice/raced")

    def commit(number: int) -> None:
        api = apis[number % 2]
        for _ in range(50):
            try:
                api.upload_file(path_or_fileobj=b"x", path_in_repo=f"{number}.txt", repo_id="alice/raced")
            except HfHubHTTPError as error:
                if error.response.status_code != 503:
                    raise
            else:
                return

    with ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr("huggingface_hub.hf_api.CommitInfo.__post_init__", lambda self: None)
        list(pool.map(commit, range(16)))
    assert len(apis[1].list_repo_files("alice/raced")) == 17
    assert len(apis[0].list_repo_commits("alice/raced")) == 17
