"""Xorbs from the object store itself: reconstructions with presigned URLs, followed by the real clients."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.interop.js_client import SCRIPT, JsClient
from tests.interop.old_clients import COMMAND, VERSIONS, path_of
from tests.support.hf_process import Connection, HfProcess, Wanted
from tests.support.live import LiveServer, live_server, request, until
from tests.support.proxy import Proxy, Seen, proxy
from tests.support.seaweed import Seaweed
from tests.support.stored import scattered
from tests.support.strategies import float32, splitmix64, text
from tests.support.wire import wire
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.direct import RangeUrls
from xetstore.cas.index import Index
from xetstore.cas.service import EmbeddedCas
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import UsageError
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.store import Store
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

SAMPLE = make_sample(random_bytes(3_000_000, 1), before=random_bytes(200_000, 2))
SCATTERED = scattered(130)


@pytest.fixture(scope="module")
def public(seaweed: Seaweed) -> Iterator[Proxy]:
    """The object store as clients reach it, under another name than the server does."""
    with proxy(seaweed.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def blobs(seaweed: Seaweed, public: Proxy) -> BucketBlobStore:
    return BucketBlobStore.open(seaweed.prefix(), {**seaweed.options, "public_endpoint": public.endpoint})


def cas_over(blobs: Any, folder: Path) -> EmbeddedCas:
    return EmbeddedCas(blobs, Index(SqliteDatabase(folder / "index")))


@pytest.fixture(scope="module")
def server(blobs: BucketBlobStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with cas_over(blobs, tmp_path_factory.mktemp("direct")) as cas:
        for sample in (SAMPLE, SCATTERED):
            upload(cas, sample)
        direct = RangeUrls.of(blobs)
        with live_server(cas, direct=direct, xorb_urls="direct", url_ttl_seconds=60) as running:
            yield running


def reconstruction(server: LiveServer, file: object, version: int) -> Reconstruction:
    answer = server.request("GET", f"/v{version}/reconstructions/{file}", token=server.token())
    assert answer.status == 200, answer.body
    return Reconstruction.from_json(answer.body)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sample", [SAMPLE, SCATTERED], ids=["one range", "130 ranges"])
def test_each_url_is_of_the_object_store_and_for_one_range(
    server: LiveServer, public: Proxy, version: int, sample: Sample
) -> None:
    found = reconstruction(server, sample.file.hash, version)
    fetches = [fetch for ranges in found.fetches.values() for fetch in ranges]
    assert len({fetch.url for fetch in fetches}) == len(fetches)
    assert all(fetch.url.startswith(f"{public.endpoint}/xetstore/") for fetch in fetches)
    assert all("X-Amz-Expires=60&" in fetch.url for fetch in fetches)
    for fetch in fetches[:3]:
        url, start, end = fetch.url.partition("#")[0], fetch.byte_start, fetch.byte_end
        assert request(public.endpoint, "GET", url, headers={"Range": f"bytes={start}-{end - 1}"}).status == 206
        for other in (f"bytes={start}-{end}", f"bytes={start + 1}-{end - 1}", f"bytes={start}-", "bytes=0-"):
            assert request(public.endpoint, "GET", url, headers={"Range": other}).status == 403
        assert request(public.endpoint, "GET", url).status == 403


def test_a_batch_has_such_urls_too(server: LiveServer, public: Proxy) -> None:
    files = f"file_id={SAMPLE.file.hash}&file_id={SCATTERED.file.hash}"
    answer = server.request("GET", f"/v1/reconstructions?{files}", token=server.token())
    urls = [entry["url"] for entries in answer.json()["fetch_info"].values() for entry in entries]
    assert len(urls) == len(set(urls)) == 131
    assert all(url.startswith(f"{public.endpoint}/xetstore/") for url in urls)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Files of many xorbs and ranges; the last is made of parts of the first."""
    noise = splitmix64(7, 70_000_000)
    contents = [noise, text(300_000), float32(2_000_000), noise[5_000_000:9_000_000] + noise[:3_000_000]]
    paths = [tmp_path / f"file {number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def bodies(public: Proxy) -> list[Seen]:
    """The requests for bytes that went to the object store; none had a token, and each was answered."""
    seen = public.requests("GET", "/xetstore/")
    assert seen
    assert {one.authorization for one in seen} == {""}
    assert {one.status for one in seen} == {206}
    return seen


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_reference_client_downloads_from_the_object_store(
    server: LiveServer, public: Proxy, files: list[Path], tmp_path: Path, version: str
) -> None:
    connection = Connection(server.url, (server.token("write", ttl_seconds=900), int(time.time()) + 900))
    contents = [path.read_bytes() for path in files]
    infos = HfProcess(connection, tmp_path / "up").upload(files).infos
    settings = {"HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": version}
    client = HfProcess(connection, tmp_path / "down", settings)
    for how in ("download_session", "download_files", "stream"):
        public.seen.clear()
        assert client.download(infos, how) == contents, how
        assert bodies(public)
    wanted = [Wanted(infos[0].hash, infos[0].size, 1_234_567, 66_000_000), Wanted(infos[3].hash, None, 3_999_999, None)]
    assert client.download(wanted, "stream") == [contents[0][1_234_567:66_000_000], contents[3][3_999_999:]]
    several = HfProcess(connection, tmp_path / "many", {"HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "1"})
    assert several.download(infos) == contents


@pytest.mark.parametrize("version", VERSIONS)
def test_older_reference_clients_download_from_the_object_store(
    server: LiveServer, public: Proxy, files: list[Path], tmp_path: Path, version: str
) -> None:
    if not path_of(version).is_dir():
        pytest.skip(f"hf_xet {version} is not installed: {COMMAND}")
    connection = Connection(server.url, (server.token("write", ttl_seconds=900), int(time.time()) + 900))
    infos = HfProcess(connection, tmp_path / "up").upload(files).infos
    public.seen.clear()
    client = HfProcess(connection, tmp_path / "down", path=path_of(version))
    assert client.download(infos, "download_files") == [path.read_bytes() for path in files]
    assert bodies(public)


@dataclass
class AtServer:
    """A server as the JavaScript client is told of it."""

    live: LiveServer

    @property
    def endpoint(self) -> str:
        return self.live.url

    def token(self, scope: str) -> tuple[str, int]:
        return self.live.token(scope, ttl_seconds=900), int(time.time()) + 900


def test_the_javascript_client_downloads_from_the_object_store(
    server: LiveServer, public: Proxy, files: list[Path], tmp_path: Path
) -> None:
    if not (SCRIPT.parent / "node_modules" / "@huggingface" / "hub").is_dir():
        pytest.skip("run `npm ci --prefix tests/interop/js`, which installs the JavaScript client")
    at_server: Any = AtServer(server)
    connection = Connection(server.url, at_server.token("write"))
    infos = HfProcess(connection, tmp_path / "up").upload(files).infos
    public.seen.clear()
    assert JsClient(at_server, tmp_path / "js").download(infos) == [path.read_bytes() for path in files]
    assert bodies(public)


def test_our_client_downloads_from_the_object_store(
    server: LiveServer, public: Proxy, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        xetstore.open(server.url, token=server.token("write"), cache=tmp_path / "cache") as store,
    ):
        infos = [report.info for report in store.put_many(files)]
        public.seen.clear()
        for path, info in zip(files, infos, strict=True):
            store.get(info.hash, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == path.read_bytes()
        assert bodies(public)
        with store.open(infos[0].hash) as opened:
            opened.seek(30_000_000)
            assert opened.read(1000) == files[0].read_bytes()[30_000_000:30_001_000]
    assert "X-Amz-Signature" not in caplog.text
    assert "X-Amz-Signature" not in server.request("GET", "/metrics").body.decode()


def test_our_client_goes_on_where_a_connection_breaks(seaweed: Seaweed, tmp_path: Path) -> None:
    """A URL is for its whole range: what came already is asked for again, and skipped."""
    data = splitmix64(8, 20_000_000)
    source = tmp_path / "file"
    source.write_bytes(data)
    with wire(seaweed.port) as line:
        blobs = BucketBlobStore.open(seaweed.prefix(), {**seaweed.options, "public_endpoint": line.endpoint})
        with (
            cas_over(blobs, tmp_path) as cas,
            live_server(cas, direct=RangeUrls.of(blobs), xorb_urls="direct") as server,
            xetstore.open(server.url, token=server.token("write"), cache=False) as store,
        ):
            info = store.put(source)
            line.cuts[:] = [5_000_000, 12_000_000]
            line.break_all()
            store.get(info.hash, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == data
            assert line.cuts == []


def test_a_url_that_has_expired_is_asked_for_anew(seaweed: Seaweed, tmp_path: Path) -> None:
    """The clock of this server is late at first, and its URLs are of the past."""
    late = [3600.0]
    source = tmp_path / "file"
    source.write_bytes(random_bytes(3_000_000, 5))
    blobs = BucketBlobStore.open(seaweed.prefix(), seaweed.options)
    with cas_over(blobs, tmp_path) as cas:
        info = Store(cas).put(source)

        def clock() -> float:
            return time.time() - (late.pop() if late else 0)

        with live_server(cas, direct=RangeUrls.of(blobs), xorb_urls="direct", auth="none") as server:
            object.__setattr__(server.site, "clock", clock)
            with xetstore.open(server.url, cache=False) as store:
                store.get(info.hash, tmp_path / "copy")
    assert not late
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_without_an_object_store_there_are_none(tmp_path: Path) -> None:
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        pytest.raises(UsageError, match="direct"),
        live_server(cas, xorb_urls="direct"),
    ):
        pass


def test_a_body_that_is_sent_on_to_the_store_is_counted(server: LiveServer) -> None:
    """Four parts of it may be in memory, beside what the connection takes; of a short body no more than it has."""
    receiving, token, mib = server.site.limits.receiving, server.token("write"), 1 << 20
    for declared, held in ((60, 2 + 20), (3, 2 + 3)):
        with server.connect() as connection:
            head = [
                f"POST /v1/xorbs/default/{SAMPLE.xorb.hash} HTTP/1.1",
                "Host: localhost",
                f"Authorization: Bearer {token}",
                f"Content-Length: {declared * mib}",
            ]
            connection.sendall("\r\n".join([*head, "", ""]).encode())
            until(lambda held=held: receiving.used == held * mib)  # type: ignore[misc]
        until(lambda: receiving.used == 0)
