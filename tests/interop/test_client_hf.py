"""Our client and the reference client at one server: what either writes the other reads, and neither sends twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.interop.test_server_hf import DOWNLOADS, UPLOADS, bf16, edited, patchwork, write
from tests.support.certificates import make_certificate
from tests.support.hf_process import Connection, HfProcess, Wanted
from tests.support.ports import free_port
from tests.support.proxy import Proxy, proxy
from tests.support.servers import Server
from tests.support.strategies import splitmix64, text
from xetstore.errors import AccessDeniedError
from xetstore.records import FileInfo
from xetstore.store import Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


@pytest.fixture
def theirs(server: Server, tmp_path: Path) -> HfProcess:
    return HfProcess(server.connect(), tmp_path / "home")


@pytest.fixture
def ours(server: Server, tmp_path: Path) -> Iterator[Store]:
    with connect(server, tmp_path) as store:
        yield store


@pytest.fixture
def recorded(server: Server) -> Iterator[Proxy]:
    """The same server, with somebody noting what is asked of it."""
    with proxy(server.endpoint) as running:
        yield running


def connect(server: Server, folder: Path, *, endpoint: str | None = None, scope: str = "write") -> Store:
    """A client of ours, which remembers things in ``folder``."""
    return xetstore.open(
        endpoint or server.endpoint, token=lambda _: server.token(scope), cache=folder / "cache-of-ours"
    )


def read(store: Store, info: FileInfo, out: Path) -> bytes:
    """A whole file, which has to come verified."""
    report = store.get(info.hash, out)
    assert report.verified
    assert report.size == info.size
    return out.read_bytes()


# --- What one writes the other reads --------------------------------------------------------------------


@pytest.mark.parametrize("how", UPLOADS)
def test_what_the_reference_client_uploads_ours_downloads(
    theirs: HfProcess, ours: Store, corpus: dict[str, Path], tmp_path: Path, how: str
) -> None:
    paths = [*corpus.values(), write(tmp_path / "weights", bf16(1_500_001))]
    infos = theirs.upload(paths, how).infos
    for path, info in zip(paths, infos, strict=True):
        assert read(ours, info, tmp_path / "out") == path.read_bytes(), path.name
        assert ours.stat(info.hash).size == info.size


def test_what_ours_uploads_the_reference_client_downloads(
    theirs: HfProcess, ours: Store, corpus: dict[str, Path], tmp_path: Path
) -> None:
    paths = [*corpus.values(), write(tmp_path / "weights", bf16(1_500_001))]
    infos = [report.info for report in ours.put_many(paths)]
    assert infos == [xetstore.hash_file(path, sha256=True) for path in paths]
    contents = [path.read_bytes() for path in paths]
    for download in DOWNLOADS:
        assert theirs.download(infos, download) == contents, download


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_who_comes_second_with_a_file_adds_nothing(
    server: Server, theirs: HfProcess, ours: Store, tmp_path: Path, first: str
) -> None:
    path = write(tmp_path / "file", splitmix64(100 + len(first), 3_000_000) + text(500_000))
    puts = [lambda: ours.put(path), lambda: theirs.upload([path]).infos[0]]
    if first == "theirs":
        puts.reverse()
    info = puts[0]()
    before = server.totals()
    assert puts[1]() == info
    assert server.totals() == before


def test_thousands_of_small_files_go_either_way(server: Server, theirs: HfProcess, ours: Store, scratch: Path) -> None:
    contents = [splitmix64(20_000 + i, 1 + i * 37 % 5000) for i in range(1500)]
    paths = [write(scratch / str(i), content) for i, content in enumerate(contents)]
    before = server.totals()
    infos = [report.info for report in ours.put_many(paths[:750])]
    assert server.totals().xorbs - before.xorbs == 1
    assert theirs.download(infos[::7]) == contents[:750:7]
    infos += theirs.upload(paths[750:]).infos
    (scratch / "out").mkdir()
    targets = [scratch / "out" / str(i) for i in range(1500)]
    reports = ours.get_many((info.hash, target) for info, target in zip(infos, targets, strict=True))
    assert all(report.verified for report in reports)
    assert [target.read_bytes() for target in targets] == contents


RANGES = [
    *((0, 1), (3, 4), (1_234_567, 7_654_321), (3_999_999, 4_000_001), (0, 131_072), (5_000_000, None), (0, None)),
    *((4_999_999, 5_000_000), (8_999_999, 9_000_000), (8_999_999, None)),
]


def test_any_range_goes_either_way(theirs: HfProcess, ours: Store, tmp_path: Path) -> None:
    content = splitmix64(41, 4_000_000) + text(3_000_000) + bf16(2_000_000)
    for uploaded_by_us in (True, False):
        path = write(tmp_path / "file", bytes([uploaded_by_us]) + content[1:])
        info = ours.put(path) if uploaded_by_us else theirs.upload([path]).infos[0]
        expected = [path.read_bytes()[start:end] for start, end in RANGES]
        wanted = [Wanted(info.hash, info.size, start, end) for start, end in RANGES]
        assert theirs.download(wanted, "stream") == expected
        with ours.open(info.hash) as file:
            for (start, end), part in zip(RANGES, expected, strict=True):
                assert b"".join(ours.iter_range(info.hash, start, end)) == part
                report = ours.get(info.hash, tmp_path / "part", start=start, end=end)
                assert report.verified, "this server gives chunk hashes"
                assert (tmp_path / "part").read_bytes() == part
                file.seek(start)
                assert file.read(len(part)) == part


def test_of_a_new_version_only_what_changed_is_fetched(theirs: HfProcess, ours: Store, tmp_path: Path) -> None:
    old = splitmix64(62, 12_000_000)
    infos = theirs.upload([write(tmp_path / str(i), content) for i, content in enumerate((old, edited(old)))]).infos
    report = ours.get(infos[1].hash, tmp_path / "out", base=tmp_path / "0")
    assert report.verified
    assert (tmp_path / "out").read_bytes() == edited(old)
    assert report.fetched_bytes < 500_000
    assert report.reused_bytes > len(old) - 500_000


# --- Neither sends what the other has sent --------------------------------------------------------------


def test_ours_deduplicates_against_what_the_reference_client_uploaded(
    server: Server, theirs: HfProcess, tmp_path: Path
) -> None:
    """No more is sent than the reference client itself would have sent from another machine."""
    content = splitmix64(71, 60_000_000)
    theirs.upload([write(tmp_path / "file", content)])
    sent = {}
    for who in ("ours", "theirs"):
        # Another edit for each: what the first one sent is not there for the second to find.
        path = write(tmp_path / who, content[:29_000_000] + who.encode() * 1000 + content[29_000_000:])
        before = server.totals()
        if who == "ours":
            with connect(server, tmp_path / "another machine") as store:
                info = store.put(path)
        else:
            info = HfProcess(server.connect(), tmp_path / "third").upload([path]).infos[0]
        sent[who] = server.totals().unique_bytes - before.unique_bytes
        assert theirs.download([info]) == [path.read_bytes()]
    assert sent["ours"] <= sent["theirs"] + 500_000, sent


def test_the_reference_client_deduplicates_against_what_ours_uploaded(
    server: Server, ours: Store, theirs: HfProcess, tmp_path: Path
) -> None:
    content = splitmix64(72, 20_000_000)
    ours.put(write(tmp_path / "file", content))
    before = server.totals()
    uploaded = theirs.upload([write(tmp_path / "edited", edited(content))])
    assert uploaded.bytes_by_global_dedup > 0
    assert server.totals().unique_bytes - before.unique_bytes == uploaded.new_bytes < 1_000_000
    assert read(ours, uploaded.infos[0], tmp_path / "out") == edited(content)


# --- Ways to a server -----------------------------------------------------------------------------------


def test_tokens_that_soon_expire_are_renewed_by_either(server: Server, tmp_path: Path) -> None:
    asked: list[str] = []

    def next_token(scope: str) -> tuple[str, float]:
        asked.append(scope)
        return server.token(scope, seconds=20 if len(asked) == 1 else 900)

    path = write(tmp_path / "file", splitmix64(81, 2_000_000))
    with xetstore.open(server.endpoint, token=next_token, cache=tmp_path / "cache") as store:
        info = store.put(path)
        assert read(store, info, tmp_path / "out") == path.read_bytes()
    assert len(asked) in (2, 3), "what the first one allows may be asked for again, and the other scope"
    time.sleep(1)
    theirs = HfProcess(
        Connection(server.endpoint, server.token(seconds=1), refreshed=server.token("read")), tmp_path / "home"
    )
    assert theirs.download([info], "download_files") == [path.read_bytes()]


def test_plain_urls_of_xorbs_are_read_by_either(tmp_path: Path) -> None:
    """--xorb-urls edge, where no token is asked for: theirs sends none with them."""
    contents = patchwork(83)
    with Server(tmp_path / "store", ("--xorb-urls", "edge", "--auth", "none")) as server:
        theirs = HfProcess(Connection(server.endpoint), tmp_path / "home")
        with xetstore.open(server.endpoint, cache=tmp_path / "cache") as ours:
            for i, content in enumerate(contents):
                path = write(tmp_path / "file", content)
                info = ours.put(path) if i else theirs.upload([path]).infos[0]
                assert read(ours, info, tmp_path / "out") == content
                assert theirs.download([info]) == [content]


def test_tls_with_a_certificate_authority_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "tls")
    content = splitmix64(84, 2_000_000)
    path = write(tmp_path / "file", content)
    with Server(tmp_path / "store", ("--tls-cert", certificate.cert, "--tls-key", certificate.key)) as server:
        endpoint = server.endpoint.replace("http://127.0.0.1", "https://localhost")
        with (
            connect(server, tmp_path, endpoint=endpoint) as store,
            pytest.raises(AccessDeniedError, match="certificate"),
        ):
            store.put(path)
        monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
        with connect(server, tmp_path, endpoint=endpoint) as store:
            info = store.put(path)
            assert read(store, info, tmp_path / "out") == content
        theirs = HfProcess(server.connect(endpoint=endpoint), tmp_path / "home")
        assert theirs.download([info]) == [content]


def test_a_server_below_a_path(tmp_path: Path) -> None:
    contents = patchwork(85)
    port, prefix = free_port(), "/large/files"
    public = f"http://127.0.0.1:{port}{prefix}"
    with (
        Server(tmp_path / "store", ("--public-url", public)) as server,
        proxy(server.endpoint, prefix=prefix, port=port) as recorded,
    ):
        theirs = HfProcess(server.connect(endpoint=recorded.endpoint), tmp_path / "home")
        for end in ("", "/"):
            with connect(server, tmp_path, endpoint=recorded.endpoint + end) as ours:
                infos = [report.info for report in ours.put_many(write(tmp_path / c[:4].hex(), c) for c in contents)]
                for info, content in zip(infos, contents, strict=True):
                    assert read(ours, info, tmp_path / "out") == content
        assert theirs.download(infos) == list(contents)


def test_a_server_that_has_the_first_version_of_each_call_only(
    server: Server, recorded: Proxy, theirs: HfProcess, tmp_path: Path
) -> None:
    recorded.instead["/v2/"] = (404, b"")
    contents = patchwork(86)
    with connect(server, tmp_path, endpoint=recorded.endpoint) as ours:
        for content in contents:
            info = ours.put(write(tmp_path / "file", content))
            assert read(ours, info, tmp_path / "out") == content
            assert b"".join(ours.iter_range(info.hash, 1000, 2_000_000)) == content[1000:2_000_000]
            assert theirs.download([info]) == [content]
    assert {seen.status for seen in recorded.requests("POST", "/v1/shards")} == {200}
    for call in ("/v2/shards", "/v2/reconstructions"):
        assert [seen.status for seen in recorded.seen if seen.path.startswith(call)] == [404], "asked for once"


def test_tokens_go_to_the_server_and_not_to_signed_urls(server: Server, recorded: Proxy, tmp_path: Path) -> None:
    with connect(server, tmp_path, endpoint=recorded.endpoint) as ours:
        info = ours.put(write(tmp_path / "file", splitmix64(87, 20_000_000)))
        read(ours, info, tmp_path / "out")
    by_url = recorded.requests("GET", "/v1/xorbs/")
    assert by_url
    assert not any(seen.authorization for seen in by_url)
    assert all(seen.authorization for seen in recorded.seen if seen not in by_url)
