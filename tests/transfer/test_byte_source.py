"""ByteSource: what is refused by a server that has lost it is read a second time, if it can be."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.errors import UnavailableError
from xetstore.events import Event, Forgotten
from xetstore.remote.http import HttpCas
from xetstore.transfer.byte_source import ByteSource, Readable
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import put_files

DATA = splitmix64(1, 7 << 20)


class Once:
    """Bytes that come once, as from a pipe."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)


@pytest.fixture
def known(tmp_path: Path) -> Iterator[KnownXorbs]:
    known = KnownXorbs(tmp_path / "known.sqlite3")
    yield known
    known.close()


def put(url: str, source: bytes | Readable, known: KnownXorbs, events: list[Event]) -> PutReport:
    cas = HttpCas(url)
    try:
        [report] = put_files(cas, [ByteSource(source)], known=known, emit=events.append)
    finally:
        cas.close()
    return report


@pytest.mark.parametrize("kind", ["bytes", "seekable", "once"])
def test_what_a_server_has_lost_is_read_again_where_that_can_be(known: KnownXorbs, kind: str) -> None:
    sources: dict[str, bytes | Readable] = {"bytes": DATA, "seekable": io.BytesIO(b"before" + DATA), "once": Once(DATA)}
    source = sources[kind]
    if isinstance(source, io.BytesIO):
        source.seek(6)
    events: list[Event] = []
    with EmbeddedCas.in_memory() as store, live_server(store, auth="none") as server:
        first = put(server.url, DATA, known, events)
        again = put(server.url, DATA, known, events)
        assert (again.info, again.new_bytes) == (first.info, 0), "it is remembered"
    with EmbeddedCas.in_memory() as store, live_server(store, auth="none") as server:
        if kind == "once":
            with pytest.raises(UnavailableError, match="cannot be read a second time") as caught:
                put(server.url, source, known, events)
            assert caught.value.hint
            assert list(store.files()) == []
            source = Once(DATA)  # put once more, as the hint says
        assert put(server.url, source, known, events).info == first.info
        assert b"".join(map(bytes, Downloader(store).stream(first.info.hash))) == DATA
    assert [type(event) for event in events].count(Forgotten) == 1
