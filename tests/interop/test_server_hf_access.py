"""The reference client against our server where access ends: tokens, scopes and URLs, and stores that were wiped."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.hf_process import Connection, HfError, HfProcess
from tests.support.live import live_server
from tests.support.proxy import proxy
from tests.support.servers import Server, token_hub
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.testing.clock import FakeClock

CONTENT = splitmix64(91, 3_000_000)
UPLOADS = ["upload_session", "upload_files"]
DOWNLOADS = ["download_session", "download_files", "stream"]
TELLING = ["download_session", "download_files"]
"""The downloads that fail where the server refuses them. A stream of the client now and then just ends."""
URL_TTL_SECONDS = 900


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


# --- Tokens and scopes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", UPLOADS)
def test_a_read_token_cannot_upload(server: Server, tmp_path: Path, how: str) -> None:
    path = tmp_path / "new"
    path.write_bytes(splitmix64(92, 500_000))
    before = server.totals()
    with pytest.raises(HfError, match="403"):
        HfProcess(server.connect("read"), tmp_path / "home").upload([path], how)
    assert server.totals() == before


def test_a_read_token_can_download(server: Server, tmp_path: Path, path: Path) -> None:
    uploaded = HfProcess(server.connect(), tmp_path / "home").upload([path])
    reader = HfProcess(server.connect("read"), tmp_path / "home")
    for how in DOWNLOADS:
        assert reader.download(uploaded.infos, how) == [CONTENT], how


@pytest.mark.parametrize("token", ["wrong", "of another store", "none"])
def test_a_wrong_token_is_told_so(server: Server, tmp_path: Path, path: Path, token: str) -> None:
    connection = Connection(server.endpoint)
    if token == "wrong":
        genuine, expires = server.token()
        connection = replace(connection, token=(genuine[:-8] + "AAAAAAAA", expires))
    if token == "of another store":
        with Server(tmp_path / "other") as other:
            connection = replace(connection, token=other.token())
    uploaded = HfProcess(server.connect(), tmp_path / "writer").upload([path])
    client = HfProcess(connection, tmp_path / "home")
    for how in UPLOADS:
        with pytest.raises(HfError, match="401"):
            client.upload([path], how)
    for how in TELLING:
        with pytest.raises(HfError, match="401"):
            client.download(uploaded.infos, how)


def test_another_namespace_has_no_such_file(server: Server, tmp_path: Path, path: Path) -> None:
    ours = HfProcess(server.connect(namespace="ours"), tmp_path / "ours")
    theirs = HfProcess(server.connect(namespace="theirs"), tmp_path / "theirs")
    uploaded = ours.upload([path])
    for how in TELLING:
        with pytest.raises(HfError, match="404"):
            theirs.download(uploaded.infos, how)
    assert ours.download(uploaded.infos) == [CONTENT]
    # Whoever has the content may have the file.
    assert theirs.upload([path]).infos == uploaded.infos
    assert theirs.download(uploaded.infos) == [CONTENT]


def test_an_expired_token_is_refreshed_by_a_callable(server: Server, tmp_path: Path, path: Path) -> None:
    connection = Connection(server.endpoint, server.token(seconds=1), refreshed=server.token())
    time.sleep(1)
    client = HfProcess(connection, tmp_path / "home")
    uploaded = client.upload([path], "upload_files")
    assert uploaded.told["refreshes"] == 1
    assert client.download(uploaded.infos, "download_files") == [CONTENT]


def test_tokens_come_from_where_the_client_is_sent_for_them(server: Server, tmp_path: Path, path: Path) -> None:
    """At the end of their life, or when it has none yet; the endpoint too, if it was not given."""
    with token_hub(server, server.token) as hub:
        soon_over = server.token(seconds=20)
        for connection in (
            Connection(server.endpoint, soon_over, refresh_url=hub.url),
            Connection(None, refresh_url=hub.url),
        ):
            asked = hub.asked
            client = HfProcess(connection, tmp_path / "home")
            uploaded = client.upload([path])
            assert hub.asked == asked + 1
            for how in ("download_session", "stream", "stream_unordered"):
                assert client.download(uploaded.infos, how) == [CONTENT]


def test_without_tokens_everybody_may_do_everything(tmp_path: Path, path: Path) -> None:
    with Server(tmp_path / "store", ("--auth", "none")) as server:
        client = HfProcess(Connection(server.endpoint), tmp_path / "home")
        for how in UPLOADS:
            assert client.download(client.upload([path], how).infos) == [CONTENT]


# --- URLs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["download_session", "stream"])
@pytest.mark.parametrize("api", ["1", "2"])
def test_a_url_that_expired_on_the_way_is_asked_for_anew(tmp_path: Path, path: Path, how: str, api: str) -> None:
    clock = FakeClock(time.time())
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, clock=clock, url_ttl_seconds=URL_TTL_SECONDS) as server,
        proxy(server.url) as recorded,
    ):
        token = server.token("write", ttl_seconds=10 * URL_TTL_SECONDS), int(time.time()) + 900
        uploaded = HfProcess(Connection(server.url, token), tmp_path / "home").upload([path])
        held: list[str] = []

        def hold(method: str, path: str) -> None:
            if method == "GET" and path.startswith("/v1/xorbs/") and not held:
                held.append(path)
                clock.advance(URL_TTL_SECONDS + 1)

        recorded.before = hold
        environment = {"HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": api}
        client = HfProcess(Connection(recorded.endpoint, token), tmp_path / "home", environment)
        assert client.download(uploaded.infos, how) == [CONTENT]
        assert [seen.status for seen in recorded.requests("GET", "/v1/xorbs/")] == [403, 206]
        assert len(recorded.requests("GET", f"/v{api}/reconstructions/")) == 2


def test_urls_without_a_signature_are_read_where_no_token_is_asked_for(tmp_path: Path, path: Path) -> None:
    """The client sends no token with them: --xorb-urls edge is for a proxy in front that asks, or for no tokens."""
    with Server(tmp_path / "store", ("--xorb-urls", "edge", "--auth", "none")) as server:
        client = HfProcess(Connection(server.endpoint), tmp_path / "home")
        uploaded = client.upload([path])
        for how in DOWNLOADS:
            assert client.download(uploaded.infos, how) == [CONTENT], how


# --- What was wiped -------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["1", "2"])
def test_a_wiped_server_names_the_xorb_that_a_client_left_out(tmp_path: Path, path: Path, api: str) -> None:
    """The client remembers, by the endpoint, what it uploaded; it leaves it out, and can be told only by the error."""
    environment = {"HF_XET_CLIENT_SHARD_API_VERSION": api}
    with Server(tmp_path / "first") as first:
        HfProcess(first.connect(), tmp_path / "home", environment).upload([path])
        names = [path.name for path in (first.root / "xorbs").rglob("*") if path.is_file()]
        [xorb] = [named[1] for name in names if (named := re.fullmatch(r"([0-9a-f]{64})-[0-9a-f]{16}", name))]
    with Server(tmp_path / "second", port=first.port) as second:
        client = HfProcess(second.connect(), tmp_path / "home", environment)
        # Of an answer to the older call, the client passes on nothing but the status.
        with pytest.raises(HfError, match="400" if api == "1" else rf"{xorb}, which is not stored.*client cache"):
            client.upload([path])
        assert second.totals().files == 0
        # The cure that the message speaks of.
        fresh = HfProcess(second.connect(), tmp_path / "fresh", environment)
        assert fresh.download(fresh.upload([path]).infos) == [CONTENT]
