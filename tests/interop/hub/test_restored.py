"""A hub is backed up while huggingface_hub uploads to it, lost, and restored: clients go on with their tokens."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import Xet
from tests.interop.hub.calls import read, titles, upload, upload_text
from tests.interop.hub.conftest import content
from tests.support.hub import Hub, HubClient, HubError
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import verify_invariants
from xetstore.hub.check import verify_names
from xetstore.hub.service import EmbeddedHub

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def create(api: HfApi, repo: str, private: bool) -> str:
    return api.create_repo(repo, private=private).repo_id


def snapshot(api: HfApi, repo: str, folder: str) -> str:
    return api.snapshot_download(repo, cache_dir=folder)


def test_clients_go_on_with_a_restored_hub_and_their_tokens(tmp_path: Path) -> None:
    store, backup = tmp_path / "store", tmp_path / "backup"
    xet = Xet(store)
    large = tmp_path / "large.bin"
    large.write_bytes(content())
    with Hub(store) as hub:
        ann_token, bob_token = hub.add_user("ann"), hub.add_user("bob")
        with HubClient(hub.endpoint, tmp_path / "ann", ann_token) as ann:
            for repo, is_private in (("ann/open", False), ("ann/closed", True)):
                ann.call(create, repo, is_private)
                ann.call(upload, repo, str(large), "large.bin")
            copied: list[int] = []

            def copy() -> None:
                copied.append(xet("copy-store", "--secrets", "--since-last", store, backup).code)

            for number in range(4):
                copier = threading.Thread(target=copy)
                copier.start()
                try:
                    ann.call(upload_text, "ann/open", f"{number}.txt", f"text {number}")
                finally:
                    copier.join()
                with EmbeddedCas.open(backup) as cas:
                    assert verify_names(EmbeddedHub(cas)) == []
            copy()
            assert copied == [0] * 5
            log = ann.call(titles, "ann/open")
        port = hub.port
    with EmbeddedCas.open(backup) as cas:
        verify_invariants(cas)
    store.rename(tmp_path / "lost")
    with Hub(backup, port=port) as hub, HubClient(hub.endpoint, tmp_path / "again", ann_token) as ann:
        assert ann.call(titles, "ann/open") == log
        assert len(log) == 6
        for repo in ("ann/open", "ann/closed"):
            found = Path(ann.call(snapshot, repo, str(tmp_path / "cache")))
            assert (found / "large.bin").read_bytes() == large.read_bytes()
        assert (Path(ann.call(snapshot, "ann/open", str(tmp_path / "cache"))) / "3.txt").read_text() == "text 3"
        with HubClient(hub.endpoint, tmp_path / "bob", bob_token) as bob:
            assert bob.call(read, "ann/open", "large.bin", str(tmp_path / "bob"))
            with pytest.raises(HubError) as refused:
                bob.call(read, "ann/closed", "large.bin", str(tmp_path / "bob"))
            assert "RepositoryNotFoundError" in refused.value.names
        ann.call(upload_text, "ann/open", "new.txt", "after it was restored")
        assert len(ann.call(titles, "ann/open")) == 7
