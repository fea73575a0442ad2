"""Two replicas that point clients at the object store (`--xorb-urls direct`), under the load of several clients."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.cluster.test_replica_faults import all_ready, attempt, load
from tests.interop.js_client import SCRIPT, JsClient
from tests.server.nginx import NGINX
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.hf_process import HfProcess
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from tests.support.strategies import splitmix64
from xetstore.records import FileInfo

ROUNDS = 4


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed, postgres: PostgresServer) -> Iterator[Cluster]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path_factory.mktemp("direct")
    with clusters.running(folder, seaweed, postgres, "--xorb-urls", "direct") as running:
        yield running


@dataclass(frozen=True)
class AtCluster:
    """A cluster as the JavaScript client is told of it."""

    cluster: Cluster

    @property
    def endpoint(self) -> str:
        return self.cluster.url

    def token(self, scope: str) -> tuple[str, int]:
        return self.cluster.token(scope, ttl_seconds=3600), 2**40


def written(folder: Path, seed: int) -> list[Path]:
    """Three files, of which one has parts of two others in it."""
    folder.mkdir()
    contents = [splitmix64(seed, 3_000_000), splitmix64(seed + 1, 500_000)]
    contents.append(contents[0][1_000_000:2_500_000] + contents[1])
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    return sorted(folder.iterdir())


def sent(cluster: Cluster) -> list[float]:
    """The bytes of xorbs that each replica has sent itself."""
    token, counts = cluster.token("admin"), []
    for number in range(2):
        text = cluster.replica(number).request("GET", "/metrics", token=token).body.decode()
        [line] = [line for line in text.splitlines() if line.startswith("xetstore_xorb_served_bytes_total ")]
        counts.append(float(line.rpartition(" ")[2]))
    return counts


@pytest.mark.slow
def test_clients_of_every_kind_get_their_bytes_from_the_object_store(direct: Cluster, tmp_path: Path) -> None:
    """hf_xet and our client at once, what one puts is read by the other; and a replica is killed meanwhile."""

    def hf(client: int) -> list[tuple[FileInfo, Path]]:
        stored = []
        for round_ in range(ROUNDS):
            paths = written(tmp_path / f"hf{client}-{round_}", 1000 * client + 10 * round_)
            process = HfProcess(direct.connection(), tmp_path / f"home{client}-{round_}")
            infos = attempt(lambda process=process, paths=paths: process.upload(paths).infos)  # type: ignore[misc]
            contents = attempt(lambda process=process, infos=infos: process.download(infos))  # type: ignore[misc]
            assert contents == [path.read_bytes() for path in paths]
            stored += list(zip(infos, paths, strict=True))
        return stored

    with load(direct, tmp_path) as at_work, ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(hf, client) for client in (1, 2)]
        at_work.more()
        direct.kill(0)
        at_work.more()
        direct.start(0)
        all_ready(direct)
        stored = [each for client in clients for each in client.result()]
        at_work.more()
    with xetstore.open(direct.url, token=direct.token("read"), cache=False) as store:
        for info, path in stored:
            store.get(info.hash, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == path.read_bytes()
    assert sent(direct) == [0, 0]


def test_the_javascript_client_does_so_too(direct: Cluster, tmp_path: Path) -> None:
    if not (SCRIPT.parent / "node_modules" / "@huggingface" / "hub").is_dir():
        pytest.skip("run `npm ci --prefix tests/interop/js`, which installs the JavaScript client")
    paths = written(tmp_path / "files", 7000)
    at_cluster: Any = AtCluster(direct)
    infos = HfProcess(direct.connection(), tmp_path / "home").upload(paths).infos
    assert JsClient(at_cluster, tmp_path / "js").download(infos) == [path.read_bytes() for path in paths]
    assert sent(direct) == [0, 0]
