"""A store moves from a directory to a cluster and back while it is served, and clients put into it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.server.nginx import NGINX
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.hf_process import HfProcess
from tests.support.live import until
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from tests.support.servers import Server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas, verify_invariants


@pytest.fixture
def empty_cluster(tmp_path: Path, seaweed: Seaweed, postgres: PostgresServer) -> Iterator[Cluster]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path / "cluster"
    folder.mkdir()
    with clusters.running(folder, seaweed, postgres) as running:
        yield running


class Writer:
    """Puts one file after another by a URL, until it is told to end. ``stored`` has the hash of each."""

    def __init__(self, url: str, token: str, folder: Path, seed: int) -> None:
        self.stored: dict[str, bytes] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, token, folder / f"source{seed}", seed))
        self._thread.start()

    def _run(self, url: str, token: str, source: Path, seed: int) -> None:
        with xetstore.open(url, token=token, cache=False) as store:
            while not self._over.is_set():
                content = splitmix64(seed + len(self.stored), 200_000)
                source.write_bytes(content)
                self.stored[str(store.put(source).hash)] = content

    def more(self) -> None:
        """Wait until some more were put."""
        enough = len(self.stored) + 3
        until(lambda: len(self.stored) >= enough or not self._thread.is_alive())
        assert self._thread.is_alive()

    def end(self) -> dict[str, bytes]:
        self._over.set()
        self._thread.join()
        return self.stored


def require(url: str, token: str, stored: dict[str, bytes], out: Path) -> None:
    """Every one of these files is read from there."""
    with xetstore.open(url, token=token, cache=False) as store:
        for name, content in stored.items():
            store.get(name, out)
            assert out.read_bytes() == content


@pytest.mark.slow
def test_a_store_moves_to_a_cluster_and_back_while_it_is_served(empty_cluster: Cluster, tmp_path: Path) -> None:
    one, back, cluster = tmp_path / "one", tmp_path / "back", empty_cluster
    xet, out = Xet(one), tmp_path / "out"
    copy = ("copy-store", "--since-last")
    with Server(one) as server:
        client = HfProcess(server.connect(), tmp_path / "home")
        (tmp_path / "big").write_bytes(splitmix64(7, 4_000_000))
        infos = client.upload([tmp_path / "big"]).infos
        writer = Writer(server.endpoint, server.token(seconds=3600)[0], tmp_path, 1000)
        try:
            for _ in range(2):
                writer.more()
                before = dict(writer.stored)
                assert xet(*copy, one, cluster.store_file).code == 0
                # The replicas, which have been running, serve what has come meanwhile.
                require(cluster.url, cluster.token("read"), before, out)
                writer.more()
        finally:
            stored = writer.end()
        assert xet(*copy, one, cluster.store_file).code == 0
    assert HfProcess(cluster.connection(), tmp_path / "home2").download(infos) == [(tmp_path / "big").read_bytes()]
    writer = Writer(cluster.url, cluster.token(), tmp_path, 2000)
    try:
        writer.more()
        assert xet(*copy, cluster.store_file, back).code == 0
        writer.more()
    finally:
        stored |= writer.end()
    assert xet(*copy, cluster.store_file, back).code == 0
    with cluster.cas() as cas:
        verify_invariants(cas)
    with EmbeddedCas.open(back) as cas:
        verify_invariants(cas)
    with Server(back) as server:
        token = server.token(seconds=3600)[0]
        require(server.endpoint, token, stored, out)
        assert HfProcess(server.connect(), tmp_path / "home3").download(infos) == [(tmp_path / "big").read_bytes()]
