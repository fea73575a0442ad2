"""Downloads through a real server, by hf_xet and by our client, whose xorbs are rewritten and gone before they come."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cas.deleting import NO_GRACE, objects
from tests.support.hf_process import HfProcess
from tests.support.proxy import proxy
from tests.support.servers import Server
from tests.support.strategies import splitmix64
from xetstore import Store
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.collecting import collect
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting import rewrite
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken

MIB = 1 << 20
KEPT, GONE = splitmix64(1, 8 * MIB), splitmix64(2, 8 * MIB)


def rewrite_all(root: Path, gone: Hash) -> None:
    """Delete a file, collect it, rewrite its xorb, and collect that: all without a grace."""
    with EmbeddedCas.open(root) as cas:
        cas.index.change(lambda writer: writer.revoke("default", [gone], now=cas.now()))
        before = objects(cas, "xorbs/")
        for _ in range(4):
            time.sleep(0.01)  # what is done at one moment is due at a later one
            lease = Lease.take(cas.index, "collect")
            assert lease is not None
            with lease:
                collect(cas, lease, NO_GRACE)
                rewrite(cas, lease, grace=NO_GRACE)
        assert not objects(cas, "xorbs/") & before
        verify_invariants(cas)


@pytest.mark.parametrize("client", ["hf_xet", "ours"])
def test_a_download_under_way_goes_on_when_its_xorbs_are_rewritten_and_gone(tmp_path: Path, client: str) -> None:
    paths = [tmp_path / name for name in ("kept", "gone")]
    for path, content in zip(paths, (KEPT, GONE), strict=True):
        path.write_bytes(content)
    with Server(tmp_path / "store") as server, proxy(server.endpoint) as between:
        kept, gone = HfProcess(server.connect(), tmp_path / "home").upload(paths).infos
        done: list[str] = []

        def rewrite_once(method: str, path: str) -> None:
            if method == "GET" and "/xorbs/" in path and not done:
                done.append(path)
                rewrite_all(server.root, Hash.parse(str(gone.hash)))

        between.before = rewrite_once
        if client == "hf_xet":
            fresh = HfProcess(server.connect("read", endpoint=between.endpoint), tmp_path / "fresh")
            assert fresh.download([kept]) == [KEPT]
        else:
            token, _ = server.token("read")
            with Store(HttpCas(between.endpoint, tokens=FixedToken(token))) as store:
                store.get(kept.hash, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == KEPT
        assert done
        assert 403 in {seen.status for seen in between.seen}
        assert len({seen.path for seen in between.seen if "/xorbs/" in seen.path}) > 1
