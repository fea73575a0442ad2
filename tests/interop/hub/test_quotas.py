"""A quota that is exceeded: each real client shows the reason at once, and gives up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xetstore
from tests.interop.hub.calls import paths_of, upload
from tests.interop.hub.conftest import LARGE, NewRepository, content
from tests.interop.hub.test_js import SCRIPT, Js, entry
from tests.support.hf_process import HfError, HfProcess
from tests.support.hub import Hub, HubClient, HubError
from xetstore.errors import QuotaExceededError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]

REASON = "is exceeded: "
PATIENCE = 60.0
"""Clients that try again after a refusal do so for longer: two minutes and more."""
AS_USUAL = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "3000ms"}
"""The delay that clients have by themselves; the tests' is short."""


@pytest.fixture
def repo(hub: Hub, ann: HubClient, new_repository: NewRepository, files: Files) -> str:
    """A repository that has one file, and room for half of another one of the same size."""
    repo = new_repository("model")
    folder = files({"a": content(LARGE)})
    ann.call(upload, repo, f"{folder}/a", "a.bin")
    hub.xet("quota", "set", repo, "--bytes", str(LARGE * 3 // 2))
    return repo


def refusal_of(work: Callable[[], Any]) -> str:
    """The words that a call ends with, soon."""
    begun = time.monotonic()
    with pytest.raises((HubError, HfError)) as refused:
        work()
    assert time.monotonic() - begun < PATIENCE
    return str(refused.value)


@pytest.mark.parametrize("more", [0, 1], ids=["when it is registered", "before it is sent"])
def test_huggingface_hub_tells_why(
    hub: Hub, ann_token: str, ann: HubClient, repo: str, files: Files, tmp_path: Path, more: int
) -> None:
    """A file of another size than any there is certainly new: it is refused before a byte of it is sent."""
    folder = files({"b": content(LARGE + more)})
    with HubClient(hub.endpoint, tmp_path, ann_token, AS_USUAL) as client:
        told = refusal_of(lambda: client.call(upload, repo, f"{folder}/b", "b.bin"))
    assert REASON in told
    assert f"{LARGE:,} of {LARGE * 3 // 2:,} bytes are used, and this needs {LARGE + more:,} more" in told
    assert ann.call(paths_of, repo) == [".gitattributes", "a.bin"]


def test_what_is_there_may_be_uploaded_again(hub: Hub, ann: HubClient, repo: str, files: Files, tmp_path: Path) -> None:
    hub.xet("quota", "set", repo, "--bytes", str(LARGE), "--files", "1")

    def again(api: HfApi, repo: str, folder: str) -> int:
        path = api.hf_hub_download(repo, "a.bin", cache_dir=folder)
        api.upload_file(path_or_fileobj=path, path_in_repo="copy.bin", repo_id=repo)
        return 0

    ann.call(again, repo, str(tmp_path))
    assert "copy.bin" in ann.call(paths_of, repo)


def test_plain_lfs_tells_why(hub: Hub, ann_token: str, repo: str, files: Files, tmp_path: Path) -> None:
    folder = files({"b": content(LARGE)})
    with HubClient(hub.endpoint, tmp_path, ann_token, {"HF_HUB_DISABLE_XET": "1"}) as client:
        assert REASON in refusal_of(lambda: client.call(upload, repo, f"{folder}/b", "b.bin"))


@pytest.mark.skipif(not (SCRIPT.parent / "node_modules").is_dir() or shutil.which("node") is None, reason="no Node.js")
@pytest.mark.parametrize("xet", [True, False])
def test_the_javascript_client_tells_why(
    hub: Hub, ann_token: str, repo: str, files: Files, tmp_path: Path, xet: bool
) -> None:
    folder = files({"b": content(LARGE)})
    with Js(hub.endpoint, tmp_path, ann_token) as js:
        told = refusal_of(lambda: js("uploadFiles", repo=repo, files=[entry("b.bin", f"{folder}/b")], useXet=xet))
    assert REASON in told


def test_hf_xet_tells_why(hub: Hub, tmp_path: Path) -> None:
    """Without huggingface_hub in front: a shard is refused with the reason, a xorb of a full namespace at once."""
    (tmp_path / "a").write_bytes(content(LARGE))
    (tmp_path / "b").write_bytes(content(LARGE))
    client = HfProcess(hub.connect(namespace="quota/bare"), tmp_path / "home", AS_USUAL)
    hub.xet("quota", "set", "quota/bare", "--bytes", str(LARGE * 3 // 2))
    client.upload([tmp_path / "a"])
    assert REASON in refusal_of(lambda: client.upload([tmp_path / "b"]))
    hub.xet("quota", "set", "quota/bare", "--files", "1")
    (tmp_path / "c").write_bytes(content(LARGE))
    assert "413" in refusal_of(lambda: client.upload([tmp_path / "c"]))


def test_our_own_client_tells_why(hub: Hub, repo: str, files: Files, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(content(LARGE))
    token, _ = hub.connect(namespace=f"models/{repo}").token or ("", 0)
    for limits in (("--bytes", str(LARGE * 3 // 2)), ("--files", "1")):
        hub.xet("quota", "set", repo, *limits)
        with xetstore.open(hub.endpoint, token=token) as store:
            with pytest.raises(QuotaExceededError, match=REASON) as refused:
                store.put(tmp_path / "b")
            assert "attempts" not in str(refused.value)
