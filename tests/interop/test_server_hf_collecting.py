"""hf_xet, unmodified, against a store that deletes what it remembers to be stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.hf_process import HfError, HfProcess
from tests.support.servers import Server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.collecting import collect
from xetstore.cas.grace import Grace
from xetstore.cas.lease import COLLECT, Lease
from xetstore.protocol.hashes import Hash

CONTENT = splitmix64(12, 2_000_000)


def collected(root: Path, grace: Grace) -> None:
    with EmbeddedCas.open(root) as cas:
        lease = Lease.take(cas.index, COLLECT)
        assert lease is not None
        with lease:
            collect(cas, lease, grace)


def deleted(root: Path, file: Hash) -> None:
    """Delete a file, and doom its xorbs."""
    with EmbeddedCas.open(root) as cas:
        cas.delete([file])
    collected(root, Grace(undelete=0))


def test_a_client_that_remembers_a_xorb_may_rely_on_it_for_the_grace(tmp_path: Path) -> None:
    """It sends a shard alone, which ends the doom of the xorb."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with Server(tmp_path / "store") as server:
        client = HfProcess(server.connect(), tmp_path / "home")
        uploaded = client.upload([path])
        deleted(server.root, uploaded.infos[0].hash)
        with pytest.raises(HfError):
            client.download(uploaded.infos)
        again = client.upload([path])
        assert again.new_bytes == 0
        assert client.download(again.infos) == [CONTENT]
    with EmbeddedCas.open(tmp_path / "store") as cas:
        verify_invariants(cas)


def test_beyond_the_grace_it_is_told_which_xorb_is_gone_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with Server(tmp_path / "store") as server:
        client = HfProcess(server.connect(), tmp_path / "home")
        uploaded = client.upload([path])
        deleted(server.root, uploaded.infos[0].hash)
        for _ in range(2):
            collected(server.root, Grace(unused=0, undelete=0))
        with pytest.raises(HfError, match=r"not stored.*huggingface/xet"):
            client.upload([path])
        shutil.rmtree(tmp_path / "home" / "xet")
        assert client.upload([path]).new_bytes == len(CONTENT)
        assert client.download(uploaded.infos) == [CONTENT]
