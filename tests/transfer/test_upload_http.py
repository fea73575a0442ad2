"""Uploads to a real server: what it has lost is sent again, what it has is not, and nobody waits for a dead one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import UnavailableError
from xetstore.events import Event, FilesRegistered, Forgotten, XorbStored
from xetstore.remote.http import HttpCas
from xetstore.remote.transport import Patience, Transport
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

MIB = 1 << 20
PATIENCE_SECONDS = 60
SMALL_XORBS = UploadOptions(sizes=UploadSizes(2 * MIB, in_flight=20))


@pytest.fixture
def known(tmp_path: Path) -> Iterator[KnownXorbs]:
    with KnownXorbs(tmp_path / "known") as known:
        yield known


def put(url: str, path: Path, known: KnownXorbs) -> tuple[PutReport, list[Event]]:
    events: list[Event] = []
    cas = HttpCas(url)
    try:
        [report] = put_files(cas, [path], SMALL_XORBS, known=known, emit=events.append)
    finally:
        cas.close()
    return report, events


def test_what_a_server_has_is_not_sent_and_what_it_has_lost_is(tmp_path: Path, known: KnownXorbs) -> None:
    data = splitmix64(1, 7 * MIB)
    path = tmp_path / "file"
    path.write_bytes(data)
    with EmbeddedCas.in_memory() as store, live_server(store, auth="none") as server:
        report, events = put(server.url, path, known)
        assert sum(isinstance(event, XorbStored) for event in events) == 4
        again, events = put(server.url, path, known)
        assert (again.info, again.new_bytes) == (report.info, 0)
        assert events == [FilesRegistered(1)]
    with EmbeddedCas.in_memory() as store, live_server(store, auth="none") as server:
        after, events = put(server.url, path, known)
        assert after == report
        assert [type(event) for event in events] == [Forgotten, *[XorbStored] * 4, FilesRegistered]
        assert b"".join(map(bytes, Downloader(store).stream(report.info.hash))) == data
        assert check(store, read_data=True).problems == ()


def test_an_upload_to_a_server_that_takes_nothing_can_be_given_up(tmp_path: Path, known: KnownXorbs) -> None:
    (tmp_path / "file").write_bytes(splitmix64(1, 7 * MIB))
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(PATIENCE_SECONDS)
        cas = HttpCas(f"http://127.0.0.1:{deaf.getsockname()[1]}")

        def files() -> Iterator[Path]:
            yield tmp_path / "file"
            for _ in range(2):
                stack.enter_context(deaf.accept()[0])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(put_files(cas, files(), SMALL_XORBS, known=known))
        cas.close()


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path, known: KnownXorbs) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    transport = Transport(patience=Patience(attempts=1))
    cas = HttpCas(url, transport=transport)
    with pytest.raises(UnavailableError):
        list(put_files(cas, [tmp_path / "file"], SMALL_XORBS, known=known))
    cas.close()
    transport.close()
