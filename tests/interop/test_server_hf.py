"""The reference client of today against our server: every way up, every way down, every file byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xetstore
from tests.support.hf_process import HfProcess, Wanted
from tests.support.proxy import Proxy, proxy
from tests.support.servers import Server
from tests.support.strategies import float32, splitmix64, text

UPLOADS = ["upload_session", "upload_stream", "upload_files", "upload_bytes"]
DOWNLOADS = ["download_session", "download_files", "stream", "stream_unordered"]


def bf16(size: int) -> bytes:
    """The upper halves of small floats: weights as models have them today."""
    return np.frombuffer(float32(2 * size), dtype="<u2")[1::2].tobytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


@pytest.fixture
def client(server: Server, tmp_path: Path) -> HfProcess:
    return HfProcess(server.connect(), tmp_path / "home")


@pytest.fixture
def recorded(server: Server) -> Iterator[Proxy]:
    """The same server, with somebody noting what is asked of it."""
    with proxy(server.endpoint) as running:
        yield running


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def patchwork(seed: int, size: int = 6_000_000) -> tuple[bytes, bytes]:
    """A file, and one of parts of it in another order: several ranges of one xorb, some of them touching."""
    whole = splitmix64(seed, size)
    part = size // 6
    return whole, whole[4 * part : 5 * part] + whole[:part] + whole[3 * part : 4 * part] + splitmix64(seed + 1, 300_000)


# --- Up and down ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", UPLOADS)
def test_every_kind_of_file_comes_back_whichever_way_it_is_moved(
    client: HfProcess, server: Server, corpus: dict[str, Path], tmp_path: Path, how: str
) -> None:
    """Some of them are made of others, two are the same: all in one commit."""
    paths = [*corpus.values(), write(tmp_path / "weights", bf16(1_500_001))]
    contents = [path.read_bytes() for path in paths]
    infos = client.upload(paths, how).infos
    assert [info.hash for info in infos] == [xetstore.hash_file(path).hash for path in paths]
    assert [info.size for info in infos] == [len(content) for content in contents]
    for download in DOWNLOADS:
        assert client.download(infos, download) == contents, download


def test_what_clients_uploaded_is_a_sound_store_of_ours(
    server: Server, client: HfProcess, corpus: dict[str, Path], tmp_path: Path
) -> None:
    infos = client.upload(list(corpus.values())).infos
    with xetstore.open(server.root, create=False) as store:
        report = store.check(read_data=True)
        assert report.problems == ()
        for path, info in zip(corpus.values(), infos, strict=True):
            found = store.get(info.hash, tmp_path / "out")
            assert found.verified
            assert (tmp_path / "out").read_bytes() == path.read_bytes(), path.name


def test_what_our_store_holds_is_downloaded_by_the_client(
    client: HfProcess, corpus: dict[str, Path], tmp_path: Path
) -> None:
    with Server(tmp_path / "store") as server:
        with xetstore.open(server.root, create=False) as store:
            infos = [report.info for report in store.put_many(list(corpus.values()))]
        reader = HfProcess(server.connect("read"), tmp_path / "home")
        contents = [path.read_bytes() for path in corpus.values()]
        assert reader.download(infos) == contents
        assert reader.download(infos, "download_files") == contents


def test_300_mb_that_nothing_shrinks_make_five_xorbs_and_come_back(server: Server, scratch: Path) -> None:
    content = splitmix64(300, 300_000_000)
    client = HfProcess(server.connect(), scratch / "home")
    before = server.totals()
    uploaded = client.upload([write(scratch / "file", content)])
    after = server.totals()
    assert after.xorbs - before.xorbs == 5
    assert after.unique_bytes - before.unique_bytes == uploaded.new_bytes == len(content)
    assert client.download(uploaded.infos) == [content]


def test_3000_small_files_share_xorbs_and_come_back(server: Server, scratch: Path) -> None:
    contents = [splitmix64(10_000 + i, 2000 + i % 97) for i in range(3000)]
    paths = [write(scratch / str(i), content) for i, content in enumerate(contents)]
    client = HfProcess(server.connect(), scratch / "home")
    before = server.totals()
    infos = client.upload(paths).infos
    assert server.totals().xorbs - before.xorbs <= 2
    assert client.download(infos[::3]) == contents[::3]
    assert [info.hash for info in infos] == [xetstore.hash_file(path).hash for path in paths]


def test_a_file_twice_in_one_commit_is_one_file(client: HfProcess, tmp_path: Path) -> None:
    content = splitmix64(31, 2_000_000)
    infos = client.upload([write(tmp_path / str(i), content) for i in range(3)]).infos
    assert len({info.hash for info in infos}) == 1
    assert client.download(infos) == [content] * 3


def test_any_range_of_a_file_can_be_streamed(client: HfProcess, tmp_path: Path) -> None:
    content = splitmix64(41, 4_000_000) + text(3_000_000) + float32(2_000_000)
    [info] = client.upload([write(tmp_path / "file", content)]).infos
    size = len(content)
    ranges = [
        *((None, None), (0, size), (0, 1), (size - 1, size), (size - 1, None), (None, 1)),
        *((3, 4), (1_234_567, 7_654_321), (3_999_999, 4_000_001), (0, 131_072), (5_000_000, None), (None, 5_000_000)),
    ]
    wanted = [Wanted(info.hash, size, start, end) for start, end in ranges]
    expected = [content[start:end] for start, end in ranges]
    assert client.download(wanted, "stream") == expected
    assert client.download(wanted, "stream_unordered") == expected


@pytest.mark.parametrize("how", DOWNLOADS)
def test_a_file_of_unknown_size_is_read_to_its_end(server: Server, recorded: Proxy, tmp_path: Path, how: str) -> None:
    """The client asks for more and more, until it is told that there is nothing."""
    client = HfProcess(server.connect(endpoint=recorded.endpoint), tmp_path / "home")
    contents = [splitmix64(51, 3_000_000), b"x"]
    infos = client.upload([write(tmp_path / str(i), content) for i, content in enumerate(contents)]).infos
    assert client.download([Wanted(info.hash, None) for info in infos], how) == contents
    assert {seen.status for seen in recorded.requests("GET", "/v2/reconstructions/")} == {200, 416}


# --- Deduplication --------------------------------------------------------------------------------------


def edited(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + b"a small insertion" + content[middle:]


def test_an_edited_file_from_another_machine_uploads_only_the_edit(server: Server, tmp_path: Path) -> None:
    content = splitmix64(61, 40_000_000)
    HfProcess(server.connect(), tmp_path / "first").upload([write(tmp_path / "file", content)])
    before = server.totals()
    other = HfProcess(server.connect(), tmp_path / "second")
    uploaded = other.upload([write(tmp_path / "edited", edited(content))])
    after = server.totals()
    assert uploaded.bytes_by_global_dedup > 0
    assert after.unique_bytes - before.unique_bytes == uploaded.new_bytes < 1_000_000
    assert other.download(uploaded.infos) == [edited(content)]


def test_a_client_that_forgot_everything_uploads_nothing_twice(server: Server, tmp_path: Path) -> None:
    client = HfProcess(server.connect(), tmp_path / "home")
    path = write(tmp_path / "file", splitmix64(62, 10_000_000))
    first = client.upload([path])
    before = server.totals()
    for _ in range(2):
        shutil.rmtree(client.home)
        again = client.upload([path])
        assert again.infos == first.infos
        assert again.new_bytes == 0
    assert server.totals() == before
    assert client.download(first.infos) == [path.read_bytes()]


def test_what_our_store_put_is_deduplicated_against(tmp_path: Path) -> None:
    content = splitmix64(63, 20_000_000)
    with Server(tmp_path / "store") as server:
        with xetstore.open(server.root, create=False) as store:
            store.put(write(tmp_path / "file", content))
        client = HfProcess(server.connect(), tmp_path / "home")
        uploaded = client.upload([write(tmp_path / "edited", edited(content))])
        assert uploaded.new_bytes < 1_000_000
        assert client.download(uploaded.infos) == [edited(content)]


# --- Ways to talk ---------------------------------------------------------------------------------------

WAYS = {
    "as it comes": {},
    "multi-range fetches": {"HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "1"},
    "v1 shards": {"HF_XET_CLIENT_SHARD_API_VERSION": "1"},
    "v2 shards": {"HF_XET_CLIENT_SHARD_API_VERSION": "2"},
    "v1 reconstructions": {"HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": "1"},
    "v2 reconstructions": {"HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": "2"},
    "no grants": {"HF_XET_CLIENT_LEGACY_DIRECT_XORB_UPLOAD": "1"},
    "telemetry": {"HF_XET_TELEMETRY_ENABLED": "1"},
    "high performance": {"HF_XET_HIGH_PERFORMANCE": "1"},
    "no compression": {"HF_XET_XORB_COMPRESSION_POLICY": "none"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_talking_works(server: Server, recorded: Proxy, tmp_path: Path, way: str) -> None:
    client = HfProcess(server.connect(endpoint=recorded.endpoint), tmp_path / "home", WAYS[way])
    contents = patchwork(70 + 2 * list(WAYS).index(way))
    infos = [client.upload([write(tmp_path / str(len(content)), content)]).infos[0] for content in contents]
    for download in ("download_session", "stream_unordered"):
        assert client.download(infos, download) == list(contents), download
    grants = recorded.requests("POST", "/v1/xorb-grants/")
    assert {seen.status for seen in grants} == (set() if way == "no grants" else {404})
    assert bool(recorded.requests("POST", "/v1/shards")) == (way == "v1 shards")
    assert bool(recorded.requests("POST", "/v2/shards")) == (way != "v1 shards")
    assert bool(recorded.requests("GET", "/v1/reconstructions/")) == (way == "v1 reconstructions")
    assert bool(recorded.requests("GET", "/v2/reconstructions/")) == (way != "v1 reconstructions")
    ranges = [seen.range for seen in recorded.requests("GET", "/v1/xorbs/")]
    assert any("," in wanted for wanted in ranges) == (way == "multi-range fetches")
    telemetry = recorded.requests("POST", "/v1/telemetry")
    assert bool(telemetry) == (way == "telemetry")
    assert all(seen.status < 300 for seen in telemetry)


def test_an_endpoint_may_end_in_a_slash(server: Server, recorded: Proxy, tmp_path: Path) -> None:
    client = HfProcess(server.connect(endpoint=f"{recorded.endpoint}/"), tmp_path / "home")
    contents = patchwork(200)
    infos = [client.upload([write(tmp_path / str(len(content)), content)]).infos[0] for content in contents]
    assert client.download(infos) == list(contents)
    assert recorded.requests("GET", "//v2/reconstructions/")


# --- Small budgets --------------------------------------------------------------------------------------


def test_it_uploads_and_downloads_where_a_client_has_room_for_two_bodies(tmp_path: Path) -> None:
    """Of 16 MiB a token has a quarter: whatever the client sends at once, two uploads go on, the others wait."""
    contents = [splitmix64(seed, 30_000_000) for seed in range(4)]
    paths = [write(tmp_path / f"{number}", content) for number, content in enumerate(contents)]
    options = ("--max-bytes-in-flight", "16MiB", "--max-commits", "4", "--max-shards", "1")
    with Server(tmp_path / "store", options=options) as server:
        client = HfProcess(server.connect(), tmp_path / "home", environment={"HF_XET_FIXED_UPLOAD_CONCURRENCY": "16"})
        infos = client.upload(paths).infos
        for how in DOWNLOADS:
            assert client.download(infos, how) == contents, how
        with xetstore.open(server.endpoint, token=server.token()[0]) as store:
            for info, content in zip(infos, contents, strict=True):
                store.get(info.hash, tmp_path / "copy")
                assert (tmp_path / "copy").read_bytes() == content
            again = write(tmp_path / "ours", splitmix64(99, 30_000_000))
            report = store.put(again)
            assert b"".join(store.iter_range(report.hash)) == again.read_bytes()
        assert "busy" not in server.log
