"""PostgreSQL and S3 that are stopped, hang, and come back, under a server: callers are told, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.cluster import write_store_file
from tests.support.live import Response, ServerProcess, until
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

REQUESTS = 60


@dataclass(frozen=True)
class Served:
    server: ServerProcess
    file: Path
    sample: Sample
    token: str

    def reconstruct(self) -> Response:
        return self.server.request("GET", f"/v1/reconstructions/{self.sample.file.hash}", token=self.token)

    def url(self) -> tuple[str, str]:
        [[fetch]] = self.reconstruct().json()["fetch_info"].values()
        return fetch["url"], f"bytes={fetch['url_range']['start']}-{fetch['url_range']['end']}"

    def get(self, url: str, span: str) -> Response:
        return self.server.request("GET", url, headers={"Range": span})

    def ready(self) -> tuple[int, str | None]:
        answer = self.server.request("GET", "/health/ready")
        return answer.status, answer.json()["reason"]

    def put(self, sample: Sample) -> Response:
        return self.server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=self.token)


@pytest.fixture
def served(seaweed: Seaweed, postgres_url: str, tmp_path: Path) -> Iterator[Served]:
    file = tmp_path / "store.toml"
    write_store_file(file, objects=seaweed.prefix(), index=postgres_url, s3=seaweed.options)
    sample = make_sample(random_bytes(300_000, 5))
    with EmbeddedCas.open(file) as cas:
        upload(cas, sample)
    # Each worker remembers what it has read itself: of several, another one might be asked.
    with ServerProcess(file, "--workers", "1") as server:
        yield Served(server, file, sample, Xet(file)("token", "admin").stdout.strip())


def test_a_database_that_is_stopped_and_comes_back(served: Served, postgres: PostgresServer) -> None:
    url, span = served.url()
    whole = served.get(url, span)
    assert whole.body == served.sample.body
    postgres.stop()
    try:
        until(lambda: served.ready() == (503, "the index does not answer"))
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda _: served.reconstruct(), range(REQUESTS)))
        assert {answer.status for answer in answers} == {503}
        assert all("Retry-After" in answer.headers for answer in answers)
        again = served.get(url, span)
        assert (again.status, again.body) == (206, whole.body), again.body[:200]
        assert "xyzzy" not in served.server.log
    finally:
        postgres.start()
    until(lambda: served.reconstruct().status == 200)
    until(lambda: served.ready() == (200, None))


def test_a_database_that_hangs_keeps_no_other_request_waiting(served: Served, postgres: PostgresServer) -> None:
    url, span = served.url()
    whole = served.get(url, span)
    with postgres.paused():
        until(lambda: served.ready() == (503, "the index does not answer"))
        with ThreadPoolExecutor(REQUESTS) as pool:
            asked = [pool.submit(served.reconstruct) for _ in range(REQUESTS)]
            assert served.server.request("GET", "/health/live").status == 200
            again = served.get(url, span)
            answers = [each.result() for each in asked]
        assert {answer.status for answer in answers} == {503}
        assert all("Retry-After" in answer.headers for answer in answers)
        assert (again.status, again.body) == (206, whole.body), again.body[:200]
    until(lambda: served.reconstruct().status == 200)
    until(lambda: served.ready() == (200, None))


def test_objects_that_are_away_and_come_back(served: Served, seaweed: Seaweed) -> None:
    url, span = served.url()
    assert served.get(url, span).body == served.sample.body
    seaweed.kill()
    try:
        until(lambda: served.ready() == (503, "the objects do not answer"))
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda _: served.get(url, span), range(REQUESTS)))
        assert {answer.status for answer in answers} == {503}, {answer.body[:200] for answer in answers}
        assert all("Retry-After" in answer.headers for answer in answers)
        assert served.put(make_sample(b"something new")).status == 503
        assert served.reconstruct().status == 200, "the index answers"
    finally:
        seaweed.start()
    until(lambda: served.ready() == (200, None))
    until(lambda: served.get(url, span).status == 206)
    with EmbeddedCas.open(served.file, create=False) as cas:
        assert check(cas).problems == ()
        verify_invariants(cas)
        assert read_back(cas, served.sample.file.hash) == served.sample.data
