"""Clients of two replicas see one store: each request may go to another replica than the one before."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import xetstore
from tests.support.cluster import Cluster
from tests.support.hf_process import HfProcess
from tests.support.live import until
from tests.support.strategies import splitmix64
from xetstore.access.keys import KeyKind, KeyRing
from xetstore.access.tokens import TokenAuthority
from xetstore.cas.check import verify_invariants
from xetstore.cas.layout import SHARDS, XORBS
from xetstore.limits import Limits
from xetstore.testing.samples import make_sample

CLIENTS = 64


def asked(cluster: Cluster) -> list[int]:
    """The requests that each replica has answered."""
    token = cluster.token("admin")
    counts = []
    for number in range(2):
        text = cluster.replica(number).request("GET", "/metrics", token=token).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("xetstore_http_requests_total")]
        counts.append(int(sum(float(line.rpartition(" ")[2]) for line in lines)))
    return counts


def all_answer(cluster: Cluster, path: str, token: str, status: int) -> bool:
    return all(cluster.replica(number).request("GET", path, token=token).status == status for number in range(2))


def test_hf_xet_reads_from_one_replica_what_it_put_to_the_other(cluster: Cluster, tmp_path: Path) -> None:
    before = asked(cluster)
    contents = [splitmix64(seed, 3_000_000 + seed) for seed in range(4)]
    paths = [tmp_path / f"file{number}" for number in range(4)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    client = HfProcess(cluster.connection(), tmp_path / "home")
    infos = client.upload(paths).infos
    assert client.download(infos) == contents
    assert all(now > then + 3 for now, then in zip(asked(cluster), before, strict=True)), "both were asked"


def test_our_client_does_so_too_and_the_store_is_sound(cluster: Cluster, tmp_path: Path) -> None:
    with xetstore.open(cluster.url, token=cluster.token(), cache=False) as store:
        for seed in range(10, 14):
            (tmp_path / "source").write_bytes(splitmix64(seed, 2_000_000))
            record = store.put(tmp_path / "source")
            store.get(record.hash, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == (tmp_path / "source").read_bytes()
    with cluster.cas() as cas:
        verify_invariants(cas)
    with xetstore.open(cluster.store_file) as store:
        assert store.check(read_data=True).problems == ()


def test_of_many_clients_that_put_the_same_xorb_and_shard_one_puts_it(cluster: Cluster) -> None:
    sample = make_sample(b"the same for all" * 20_000)
    token = cluster.token()
    start = threading.Barrier(CLIENTS)

    def put(_: int) -> tuple[object, object]:
        start.wait()
        xorb = cluster.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
        shard = cluster.request("POST", "/v1/shards", body=sample.shard.serialize(), token=token)
        assert (xorb.status, shard.status) == (200, 200), (xorb.body, shard.body)
        return xorb.json()["was_inserted"], shard.json()["result"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(put, range(CLIENTS)))
    assert [inserted for inserted, _ in answers].count(True) == 1
    assert [result for _, result in answers].count(1) == 1
    with cluster.cas() as cas:
        keys = [info.key for prefix in (XORBS, SHARDS) for info in cas.blobs.list(prefix)]
        assert sum(str(sample.xorb.hash) in key for key in keys) == 1, "one object"
        with cas.index.snapshot() as reader:
            assert reader.file(sample.file.hash, "default") is not None
            assert len(reader.shards_of(sample.file.hash)) == 1
        shards = [key for key in keys if key.startswith(SHARDS)]
        assert len(shards) == len({key.split("-")[0] for key in shards}), "one object of each shard"


def test_a_token_that_was_revoked_is_refused_by_all(cluster: Cluster) -> None:
    token = cluster.token("read")
    path = f"/v2/reconstructions/{'0' * 64}"
    assert all_answer(cluster, path, token, 404)
    with cluster.cas() as cas:
        TokenAuthority(KeyRing.of(cas.secrets())).revoke(token)

    until(partial(all_answer, cluster, path, token, 401))


def test_a_key_that_was_replaced_serves_both_at_once(cluster: Cluster) -> None:
    old = cluster.token("read")
    with cluster.cas() as cas:
        KeyRing.of(cas.secrets()).rotate(KeyKind.TOKEN)
    new = cluster.token("read")
    path = f"/v2/reconstructions/{'0' * 64}"
    for token in (old, new):
        until(partial(all_answer, cluster, path, token, 404))


def test_a_url_that_one_replica_signed_is_good_for_the_other(cluster: Cluster, tmp_path: Path) -> None:
    content = splitmix64(99, 500_000)
    (tmp_path / "source").write_bytes(content)
    with xetstore.open(cluster.url, token=cluster.token(), cache=False) as store:
        record = store.put(tmp_path / "source")
    token = cluster.token("read")
    answer = cluster.replica(0).request("GET", f"/v1/reconstructions/{record.hash}", token=token).json()
    for fetches in answer["fetch_info"].values():
        for fetch in fetches:
            bounds = fetch["url_range"]
            headers = {"Range": f"bytes={bounds['start']}-{bounds['end']}"}
            path = fetch["url"].removeprefix(cluster.url)
            answers = [cluster.replica(number).request("GET", path, headers=headers) for number in range(2)]
            assert [each.status for each in answers] == [206, 206]
            assert answers[0].body == answers[1].body


def has_gone_on(moved: list[int], enough: int, running: list[Future[None]]) -> bool:
    return len(moved) >= enough or any(each.done() for each in running)


def test_a_rolling_restart_fails_no_transfer(cluster: Cluster, tmp_path: Path) -> None:
    """Each replica is told to stop and is started again, while clients put and get."""
    over = threading.Event()
    moved: list[int] = []

    def transfer(seed: int) -> None:
        with xetstore.open(cluster.url, token=cluster.token(), cache=False, limits=Limits(jobs=2)) as store:
            number = 0
            while not over.is_set():
                source, out = tmp_path / f"source{seed}", tmp_path / f"out{seed}"
                source.write_bytes(splitmix64(1000 * seed + number, 300_000))
                store.get(store.put(source).hash, out)
                assert out.read_bytes() == source.read_bytes()
                number += 1
                moved.append(seed)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(transfer, seed) for seed in range(1, 5)]
        try:
            for number in (0, 1):
                enough = len(moved) + 4
                until(partial(has_gone_on, moved, enough, running))
                assert cluster.terminate(number) == 0
                cluster.start(number)
        finally:
            over.set()
        for each in running:
            each.result()
    assert len(moved) >= 8
