"""Two replicas over one store, asked in turn: both answer, and what one has issued, signed or stored serves the other.

The same is asked of them as of one server by the modules in ``routes/`` that say so in their ``DEPLOYMENTS``.
"""

from __future__ import annotations

from tests.support import deployments
from tests.support.deployments import Alternating
from tests.support.live import LiveServer, until
from tests.support.stored import urls_of
from xetstore.protocol.hashes import Hash
from xetstore.testing.samples import make_sample, random_bytes, upload

DEPLOYMENTS = (deployments.REPLICAS,)

SAMPLE = make_sample(random_bytes(300_000, 1))


def test_each_replica_takes_what_the_other_gave(server: LiveServer) -> None:
    assert isinstance(server, Alternating)
    write = server.token("write")
    posts = [(f"/v1/xorbs/default/{SAMPLE.xorb.hash}", SAMPLE.body), ("/v1/shards", SAMPLE.shard.serialize())]
    assert [server.request("POST", path, body=body, token=write).status for path, body in posts] == [200, 200]
    tokens = [each.token("read") for each in server.each]
    urls = [urls_of(each, token, SAMPLE.file.hash) for each, token in zip(server.each, tokens, strict=True)]
    for ((url, ((start, end),)),), token in zip(urls, reversed(tokens), strict=True):
        path = url.removeprefix(server.url)
        for each in server.each:
            assert each.request("GET", path, headers={"Range": f"bytes={start}-{end - 1}"}).body == SAMPLE.body
            assert each.request("HEAD", f"/v1/files/{SAMPLE.file.hash}", token=token).status == 200


def test_each_replica_finds_what_it_had_to_miss_before_the_other_took_it(server: LiveServer) -> None:
    assert isinstance(server, Alternating)
    token = server.token("write")
    chunk = Hash(SAMPLE.xorb.chunks.digest(0))
    paths = [f"/v1/chunks/default/{chunk}", f"/v1/reconstructions/{SAMPLE.file.hash}"]
    for each in server.each:
        assert [each.request("GET", path, token=token).status for path in paths] == [404, 404]
    upload(server.site.cas, SAMPLE)
    for each in server.each:
        assert [each.request("GET", path, token=token).status for path in paths] == [200, 200]


def test_requests_alternate(server: LiveServer) -> None:
    assert isinstance(server, Alternating)
    for _ in range(6):
        assert server.request("GET", "/health/live").status == 200
    until(lambda: [requests_of(each) for each in server.each] == [3, 3])  # each is counted when it was answered


def requests_of(server: LiveServer) -> float:
    lines = server.site.metrics.exposition().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if "http_requests_total{" in line)
