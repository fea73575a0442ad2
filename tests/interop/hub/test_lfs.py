"""Clients that speak no Xet, and the server of long files in short parts: plain LFS as the real clients have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xetstore
from tests.interop.hub.calls import read, upload
from tests.interop.hub.conftest import content, unused
from tests.interop.hub.test_js import SCRIPT, Js, entry
from tests.interop.hub.test_versions import VERSIONS, path_to
from tests.interop.old_clients import COMMAND
from tests.support.hub import Hub, HubClient
from tests.support.live import request
from tests.support.proxy import Proxy, proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]

PART = 1 << 20
WITHOUT_XET = [hub for hub, xet in VERSIONS if xet is None]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("lfs") / "store", ("--lfs-part-bytes", str(PART))) as running:
        yield running


@pytest.fixture(scope="module")
def ann_token(hub: Hub) -> str:
    return hub.add_user("ann")


@pytest.fixture(scope="module")
def seen(hub: Hub) -> Iterator[Proxy]:
    with proxy(hub.endpoint) as running:
        yield running


@pytest.fixture(scope="module", params=WITHOUT_XET)
def client(
    seen: Proxy, ann_token: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubClient]:
    """A client of ann's, of some version, that speaks no Xet."""
    path = path_to(request.param, None)
    if missing := [folder for folder in path if not folder.is_dir()]:
        pytest.skip(f"{missing[0].name} is not installed: {COMMAND}")
    home = tmp_path_factory.mktemp("home")
    with HubClient(seen.endpoint, home, ann_token, {"HF_HUB_DISABLE_XET": "1"}, path) as running:
        yield running


def xet_hash_of(hub: Hub, repo: str, path: str) -> str:
    """The Xet hash of a file, which not every version of the client shows."""
    listed = request(hub.endpoint, "GET", f"/api/models/{repo}/tree/main").json()
    return str(next(each["xetHash"] for each in listed if each["path"] == path))


def create(api: HfApi, repo: str) -> str:
    return api.create_repo(repo).repo_id


@pytest.mark.parametrize("size", [3 * PART, 3 * PART + 12_345])
def test_a_long_file_goes_up_in_parts(
    hub: Hub, client: HubClient, seen: Proxy, files: Files, tmp_path: Path, size: int
) -> None:
    repo = client.call(create, unused("parts"))
    data = content(size)
    source = f"{files({'long.bin': data})}/long.bin"
    seen.seen.clear()
    client.call(upload, repo, source, "long.bin")
    assert len(seen.requests("PUT", "/api/lfs/")) == -(-size // PART)
    assert not seen.requests("POST", "/cas/")
    assert xet_hash_of(hub, repo, "long.bin") == str(xetstore.hash_file(Path(source)).hash)
    assert Path(client.call(read, repo, "long.bin", str(tmp_path / "cache"))).read_bytes() == data


def test_bytes_that_are_there_are_not_sent_again(hub: Hub, client: HubClient, seen: Proxy, files: Files) -> None:
    repo = client.call(create, unused("again"))
    source = f"{files({'large.bin': content()})}/large.bin"
    client.call(upload, repo, source, "large.bin")
    seen.seen.clear()
    client.call(upload, repo, source, "copy.bin")
    assert not seen.requests("PUT", "/")
    assert xet_hash_of(hub, repo, "copy.bin") == xet_hash_of(hub, repo, "large.bin")


@pytest.mark.skipif(not (SCRIPT.parent / "node_modules").is_dir(), reason="the JavaScript client is not installed")
def test_the_javascript_client_sends_parts(
    seen: Proxy, ann_token: str, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = content(3 * PART + 12_345)
    folder = files({"long.bin": data})
    repo = unused("js-parts")
    with Js(seen.endpoint, tmp_path_factory.mktemp("js"), ann_token) as js:
        js("createRepo", repo=repo)
        seen.seen.clear()
        js("uploadFiles", repo=repo, files=[entry("long.bin", f"{folder}/long.bin")], useXet=False)
        assert len(seen.requests("PUT", "/api/lfs/")) == 4
        assert js.bytes_of(repo, "long.bin", xet=False) == data
