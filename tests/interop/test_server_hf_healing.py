"""hf_xet, unmodified, against a store that was damaged, or moved while it was served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_healing import CONTENT, DAMAGES, objects
from tests.support.hf_process import HfError, HfProcess
from tests.support.servers import Server
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants

Damage = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def see(server: Server) -> None:
    """What whoever runs the server does about what the client, which checks no hash, does not see: `xet check`."""
    with EmbeddedCas.open(server.root) as cas:
        assert check(cas, read_data=True).problems


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_client_that_remembers_nothing_heals(tmp_path: Path, path: Path, damage: str) -> None:
    with Server(tmp_path / "store") as server:
        uploaded = HfProcess(server.connect(), tmp_path / "home").upload([path])
        DAMAGES[damage](objects(server.root)[0])
        if damage not in ("cut", "removed"):
            see(server)
        fresh = HfProcess(server.connect(), tmp_path / "fresh")
        again = fresh.upload([path])
        assert again.new_bytes == len(CONTENT)
        assert again.infos == uploaded.infos
        assert fresh.download(again.infos) == [CONTENT]
        # The first one, which knows of the xorb, is believed again.
        assert HfProcess(server.connect(), tmp_path / "home").upload([path]).new_bytes == 0
    with EmbeddedCas.open(tmp_path / "store") as cas:
        verify_invariants(cas)


@pytest.mark.parametrize("api", ["1", "2"])
def test_a_client_that_remembers_the_xorb_is_refused_and_told_the_cure(tmp_path: Path, path: Path, api: str) -> None:
    """It sends a shard and no xorb, whatever it is answered: nothing is acknowledged that cannot be read."""
    environment = {"HF_XET_CLIENT_SHARD_API_VERSION": api}
    with Server(tmp_path / "store") as server:
        client = HfProcess(server.connect(), tmp_path / "home", environment)
        uploaded = client.upload([path])
        objects(server.root)[0].unlink()
        with pytest.raises(HfError, match="400" if api == "1" else "not stored.*client cache"):
            client.upload([path])
        shutil.rmtree(tmp_path / "home" / "xet")
        assert client.upload([path]).infos == uploaded.infos
        assert client.download(uploaded.infos) == [CONTENT]


def test_a_download_goes_on_across_a_heal(tmp_path: Path, path: Path) -> None:
    """Compressed in another way the byte ranges move: each download asks for those of the object that counts."""
    with Server(tmp_path / "store") as server:
        first = HfProcess(server.connect(), tmp_path / "home", {"HF_XET_XORB_COMPRESSION_POLICY": "lz4"})
        uploaded = first.upload([path])
        objects(server.root)[0].unlink()
        second = HfProcess(server.connect(), tmp_path / "other", {"HF_XET_XORB_COMPRESSION_POLICY": "none"})
        second.upload([path])
        for client in (first, second):
            assert client.download(uploaded.infos) == [CONTENT]


def test_a_store_that_was_replaced_takes_nothing_until_it_is_back(tmp_path: Path, path: Path) -> None:
    with Server(tmp_path / "store") as server:
        quick = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2"}
        client = HfProcess(server.connect(), tmp_path / "home", quick)
        shutil.copytree(server.root, tmp_path / "copy")
        server.root.rename(tmp_path / "aside")
        (tmp_path / "copy").rename(server.root)
        with pytest.raises(HfError, match="503"):
            client.upload([path])
        assert server.totals().files == 0
        server.root.rename(tmp_path / "copy")
        (tmp_path / "aside").rename(server.root)
        fresh = HfProcess(server.connect(), tmp_path / "fresh", quick)
        assert fresh.download(fresh.upload([path]).infos) == [CONTENT]
    with EmbeddedCas.open(tmp_path / "store") as cas:
        assert cas.totals().files == 1
        verify_invariants(cas)
