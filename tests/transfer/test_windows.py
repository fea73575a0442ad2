"""Reading on where a server does not tell so much at once: a smaller window is asked for until it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.live import LiveServer, live_server
from tests.support.stored import file_of, scattered
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import TooLargeError
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.transfer.compare.versions import StoredVersion
from xetstore.transfer.download.downloader import Downloader

MIB = 1 << 20
CHUNKS, CHUNK_BYTES = 20_000, 64
"""A file of as many tiny chunks as make an answer of more than a MiB with their hashes."""


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def server(cas: EmbeddedCas) -> Iterator[LiveServer]:
    with live_server(cas, max_answer_bytes=MIB) as running:
        yield running


def tiny_chunks(cas: EmbeddedCas) -> tuple[Hash, bytes]:
    sample = scattered(4000, chunk_bytes=CHUNK_BYTES)
    ranges = [(500 * (number % 16), 500 * (number % 16) + 500) for number in range(CHUNKS // 500)]
    file, content, shard = file_of(sample, ranges)
    cas.put_xorb(sample.xorb.hash, sample.body)
    cas.put_shard(shard)
    return file, content


def refusals(server: LiveServer) -> float:
    return server.site.metrics.registry.get_sample_value("xetstore_http_answers_too_large_total") or 0


def test_a_file_whose_hashes_are_too_many_for_one_answer_is_read_in_ranges(
    server: LiveServer, cas: EmbeddedCas, tmp_path: Path
) -> None:
    file, content = tiny_chunks(cas)
    path, token = f"/v1/reconstructions/{file}", server.token()
    answer = server.request("GET", path, headers={"X-Xet-Chunk-Hashes": "true"}, token=token)
    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert "ask for ranges" in answer.json()["message"]
    assert server.request("GET", path, token=token).status == 200  # without the hashes it is short
    with xetstore.open(server.url, token=token) as store:
        report = store.get(str(file), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert report.verified
    assert 2 <= refusals(server) <= 10


def test_a_stored_version_whose_hashes_are_too_many_is_compared_all_the_same(
    server: LiveServer, cas: EmbeddedCas
) -> None:
    file, content = tiny_chunks(cas)
    with closing(HttpCas(server.url, tokens=FixedToken(server.token()))) as remote:
        version = StoredVersion.load(remote, file, by_place=False)
    assert version is not None
    assert (version.size, len(version)) == (len(content), CHUNKS)
    assert refusals(server) >= 1


def test_a_server_that_refuses_everything_is_not_asked_for_ever(cas: EmbeddedCas) -> None:
    file, _ = tiny_chunks(cas)
    asked: list[tuple[int, int]] = []

    class Refusing(EmbeddedCas):
        def reconstruct(self, file: Hash, start: int = 0, end: int | None = None, **_: Any) -> Any:
            assert end is not None
            asked.append((start, end))
            raise TooLargeError("no")

    with pytest.raises(TooLargeError):
        Downloader(Refusing(cas.blobs, cas.index)).download(file, lambda *_: None)
    assert 5 < len(asked) <= 10
