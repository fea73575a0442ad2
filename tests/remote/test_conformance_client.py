"""The rules of the protocol that bind a client, held by what goes over real sockets to a real server of ours."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import xetstore
from tests.support.live import LiveServer, live_server
from tests.support.proxy import Proxy, proxy
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import IntegrityError, UsageError, XetError
from xetstore.records import FileInfo
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import CallbackTokens
from xetstore.remote.transport import Patience, Transport
from xetstore.store import Store
from xetstore.testing.clock import FakeClock
from xetstore.transfer.upload.session import put_files

URL_TTL_SECONDS = 900
CONTENT = splitmix64(1, 3_000_000)


@dataclass
class Issuer:
    """Gives our client its tokens, and notes which it asked for.

    The first one may be short-lived. The first one for writing may be for reading only.
    """

    server: LiveServer
    log: list[str]
    asked: list[str] = field(default_factory=list)
    first_seconds: int = 900
    is_weak: bool = False
    given: list[str] = field(default_factory=list)

    def __call__(self, scope: str) -> tuple[str, float]:
        self.log.append(f"token for {scope}")
        self.asked.append(scope)
        seconds = self.first_seconds if len(self.asked) == 1 else 900
        weak = self.is_weak and self.asked.count("write") == 1
        token = self.server.token("read" if weak else scope, ttl_seconds=100_000)
        self.given.append(token)
        return token, time.time() + seconds


@dataclass
class Way:
    """One way from a client of ours to a server, with somebody in between who notes what passes."""

    server: LiveServer
    between: Proxy
    tokens: Issuer
    folder: Path
    clock: FakeClock
    log: list[str]

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def open(self, *, is_forgetful: bool = False) -> Store:
        return xetstore.open(self.between.endpoint, token=self.tokens, cache=False if is_forgetful else self.cache)

    def file(self, content: bytes = CONTENT) -> Path:
        path = self.folder / "file"
        path.write_bytes(content)
        return path

    def stored(self, content: bytes = CONTENT) -> FileInfo:
        """A file on the server, and a proxy and an issuer that have seen nothing yet."""
        with self.open() as store:
            info = store.put(self.file(content))
        for noted in (self.between.seen, self.tokens.asked, self.log):
            noted.clear()
        return info


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    clock = FakeClock(time.time())
    log: list[str] = []
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, clock=clock, url_ttl_seconds=URL_TTL_SECONDS, max_inline_bytes=0) as server,
        proxy(server.url) as between,
    ):
        between.before = lambda method, path: log.append(f"{method} {path}")
        yield Way(server, between, Issuer(server, log), tmp_path, clock, log)


# --- Reading --------------------------------------------------------------------------------------------


def offered(way: Way, info: FileInfo, headers: dict[str, str] | None = None) -> set[str]:
    """Every byte range that a reconstruction gives a URL for, as a Range header."""
    answer = way.server.request(
        "GET", f"/v2/reconstructions/{info.hash}", headers=headers, token=way.server.token("read")
    )
    entries = [entry for xorb in answer.json()["xorbs"].values() for entry in xorb]
    ranges = [wanted["bytes"] for entry in entries for wanted in entry["ranges"]]
    return {f"bytes={wanted['start']}-{wanted['end']}" for wanted in ranges}


def test_every_fetch_of_a_xorb_asks_for_the_bytes_of_an_entry(way: Way) -> None:
    """Whole chunks, however the range of the file is cut."""
    info = way.stored()
    with way.open(is_forgetful=True) as store:
        for start, end in ((0, None), (1, 2), (1_000_001, 2_000_001)):
            way.between.seen.clear()
            part = b"".join(store.iter_range(info.hash, start, end))
            assert part == CONTENT[start:end]
            wanted = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
            fetched = [seen.range for seen in way.between.requests("GET", "/v1/xorbs/")]
            assert fetched
            assert set(fetched) <= offered(way, info, wanted)


@pytest.mark.parametrize("by", [10, -10])
def test_a_server_that_tells_other_lengths_is_not_believed(way: Way, by: int) -> None:
    content = CONTENT + splitmix64(2, 400_000) + CONTENT[:1_000_000]
    info = way.stored(content)

    def alter(path: str, body: bytes) -> bytes:
        if "/reconstructions/" not in path:
            return body
        told = json.loads(body)
        first, second = told["terms"][:2]
        first["unpacked_length"] += by
        second["unpacked_length"] -= by
        return json.dumps(told).encode()

    way.between.alter = alter
    with way.open() as store:
        with pytest.raises(IntegrityError):
            store.get(info.hash, way.folder / "out")
        with pytest.raises(IntegrityError):
            list(store.iter_range(info.hash, 0, len(content)))
    assert not (way.folder / "out").exists()


def test_a_url_that_has_expired_is_asked_for_again(way: Way) -> None:
    info = way.stored()
    held: list[str] = []

    def hold(method: str, path: str) -> None:
        if method == "GET" and path.startswith("/v1/xorbs/") and not held:
            held.append(path)
            way.clock.advance(URL_TTL_SECONDS + 1)

    way.between.before = hold
    with way.open() as store:
        report = store.get(info.hash, way.folder / "out")
    assert report.verified
    assert (way.folder / "out").read_bytes() == CONTENT
    statuses = [seen.status for seen in way.between.requests("GET", "/v1/xorbs/")]
    assert statuses[0] == 403
    assert set(statuses[1:]) == {206}
    assert len(way.between.requests("GET", "/v2/reconstructions/")) == 2


def test_urls_are_not_kept_from_one_read_to_the_next(way: Way) -> None:
    """Neither in memory nor on disk: each read asks for its own."""
    info = way.stored()
    with way.open() as store:
        for out in ("one", "two"):
            store.get(info.hash, way.folder / out)
            way.clock.advance(URL_TTL_SECONDS + 1)
    assert {seen.status for seen in way.between.requests("GET", "/v1/xorbs/")} == {206}
    assert len(way.between.requests("GET", "/v2/reconstructions/")) == 2


def test_no_url_signature_or_token_is_ever_written_to_disk(way: Way) -> None:
    """After uploads, downloads, one that failed and left its parts, ranges, and reads of an open file."""
    info = way.stored()
    outs = way.folder / "outs"
    outs.mkdir()
    with way.open() as store:
        store.put(way.file(CONTENT[:2_000_000] + b"an edit" + CONTENT[2_000_000:]))
        store.get(info.hash, outs / "whole")
        store.get(info.hash, outs / "with a base", base=way.folder / "file")
        b"".join(store.iter_range(info.hash, 100_000, 2_000_000))
        with store.open(info.hash) as file:
            file.seek(2_500_000)
            file.read(100_000)
        way.between.instead["/v1/xorbs/"] = (404, b"")
        with pytest.raises(XetError):
            store.get(info.hash, outs / "failed")
    telling = re.compile(rb"https?://|X-Xet-Sig|[?&](?:sig|signature|key|expires)=|Bearer ", re.IGNORECASE)
    secrets = [token.encode() for token in way.tokens.given]
    files = [path for folder in (way.cache, outs) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        held = str(path).encode() + path.read_bytes()
        if outs not in path.parents or path.name.startswith("."):
            assert not telling.search(held), path
        assert not any(secret in held for secret in secrets), path


# --- Writing --------------------------------------------------------------------------------------------


def test_every_xorb_is_acknowledged_before_a_shard_is_sent(way: Way) -> None:
    with way.open() as store:
        store.put(way.file(splitmix64(5, 80_000_000)))
    posts = [seen.path.split("/")[2] for seen in way.between.seen if seen.method == "POST" and seen.status == 200]
    assert posts.count("xorbs") > 1
    assert posts[-1] == "shards"
    assert posts.count("shards") == 1


STREAMS = {
    "an error": b'{"type":"validating","verified":1,"total":1}\n'
    b'{"type":"error","message":"no room","retryable":false}\n',
    "no end": b'{"type":"validating","verified":1,"total":1}\n{"type":"committing","stage":"syncing"}\n',
    "nothing": b"",
    "no JSON": b"{}\n<html>\n",
}


def put(way: Way) -> FileInfo:
    """Upload a file by a client that soon gives up."""
    patience = Patience(attempts=2, base_delay=0.01)
    with Transport(patience=patience) as transport:
        cas = HttpCas(way.between.endpoint, tokens=CallbackTokens(way.tokens), transport=transport)
        [report] = put_files(cas, [way.file()])
        cas.close()
    return report.info


@pytest.mark.parametrize("stream", STREAMS)
def test_the_last_event_of_a_shard_decides_and_not_the_status(way: Way, stream: str) -> None:
    way.between.instead["/v2/shards"] = (200, STREAMS[stream])
    with pytest.raises(XetError) as raised:
        put(way)
    assert raised.value.hint or "no room" in str(raised.value)
    posted = len(way.between.requests("POST", "/v2/shards"))
    assert posted == (1 if stream == "an error" else 2), "what may pass is tried again"


def test_events_before_the_last_one_are_no_answer(way: Way) -> None:
    way.between.instead["/v2/shards"] = (200, b'\n{"type":"unheard of"}\n\n{"type":"result"}')
    assert put(way) == xetstore.hash_file(way.folder / "file", sha256=True)


def test_after_a_403_for_a_xorb_another_write_token_is_used(way: Way) -> None:
    way.tokens.is_weak = True
    with way.open() as store:
        store.put(way.file())
    assert way.tokens.asked.count("write") == 2
    refused = [seen for seen in way.between.seen if seen.status == 403]
    assert refused
    assert len({seen.authorization for seen in refused}) == 1
    taken = [seen for seen in way.between.requests("POST", "/v1/xorbs/") if seen.status == 200]
    assert taken
    assert {seen.authorization for seen in taken}.isdisjoint(seen.authorization for seen in refused)


# --- Tokens ---------------------------------------------------------------------------------------------


def test_a_token_is_obtained_before_any_call(way: Way) -> None:
    info = way.stored()
    with way.open() as store:
        store.get(info.hash, way.folder / "out")
    assert way.log[0] == "token for read"
    way.log.clear()
    with way.open() as store:
        store.put(way.file(CONTENT[::-1]))
    assert way.log[0].startswith("token for ")


def test_reading_asks_for_nothing_but_a_read_token(way: Way) -> None:
    info = way.stored()
    with way.open() as store:
        store.stat(info.hash)
        store.get(info.hash, way.folder / "out")
        b"".join(store.iter_range(info.hash, 5, 10))
    assert way.tokens.asked == ["read"]
    assert not [seen for seen in way.between.seen if seen.status in (401, 403)]


def test_writing_asks_for_a_write_token_and_uses_it_for_xorbs_and_shards(way: Way) -> None:
    with way.open() as store:
        store.put(way.file())
    assert "write" in way.tokens.asked
    writer = f"Bearer {way.tokens.given[way.tokens.asked.index('write')]}"
    posts = way.between.requests("POST", "/v")
    assert posts
    assert {seen.authorization for seen in posts} == {writer}
    assert not [seen for seen in way.between.seen if seen.status in (401, 403)]


def test_a_token_is_renewed_before_it_expires(way: Way) -> None:
    """One that has 20 seconds left is not used for another call."""
    info = way.stored()
    way.tokens.first_seconds = 20
    with way.open() as store:
        store.stat(info.hash)
        store.get(info.hash, way.folder / "out")
    assert way.tokens.asked == ["read", "read"]
    assert not [seen for seen in way.between.seen if seen.status == 401]


def test_no_token_travels_to_another_machine_over_plain_http(way: Way) -> None:
    """Nor is a xorb fetched from one, wherever a server says that it is."""
    elsewhere = "http://192.0.2.1"
    with pytest.raises(UsageError, match="plain http"):
        xetstore.open(elsewhere, token="some-token")
    info = way.stored()
    way.between.alter = lambda path, body: (
        body.replace(way.between.endpoint.encode(), elsewhere.encode()) if "/reconstructions/" in path else body
    )
    with way.open() as store, pytest.raises(UsageError, match="plain http"):
        store.get(info.hash, way.folder / "out")


def test_neither_an_error_nor_a_repr_tells_a_token(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    way.between.instead["/"] = (403, b"")
    with way.open() as store:
        with pytest.raises(XetError) as raised:
            store.put(way.file())
        shown = [str(raised.value), repr(raised.value), str(raised.value.hint), repr(store), caplog.text]
    assert way.tokens.given
    assert not any(token in text for token in way.tokens.given for text in shown)
