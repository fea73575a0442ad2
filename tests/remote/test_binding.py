"""An answer is bound to its question: that to another one is refused, however right it is in itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support.live import LiveServer, live_server
from tests.support.scripted import Connection, Scripted, Seen
from xetstore.cancellation import Cancellation
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import IntegrityError
from xetstore.events import Event, Retrying
from xetstore.protocol.binding import BINDING_HEADER
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.store import Store


class Mixing:
    """What a proxy in between does: sends on what the server says, to this or to another question.

    ``changes`` are texts in the target, the Range header or the body of the next requests and what is put in their
    place; ``drops`` names a header that is left out of the answers.
    """

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self.changes: list[tuple[str, str]] = []
        self.drops: str | None = None
        self.asked: list[str] = []

    def __call__(self, connection: Connection, seen: Seen) -> bool:
        body = seen.body
        target, headers = seen.target, {name: value for name, value in seen.headers.items() if name != "connection"}
        self.asked.append(seen.path)
        if self.changes:
            before, after = self.changes.pop(0)
            target = target.replace(before, after)
            if "range" in headers:
                headers["range"] = headers["range"].replace(before, after)
            if len(before) == len(str(Hash.ZERO)):
                body = body.replace(Hash.parse(before).digest, Hash.parse(after).digest)
        answer = self._server.request(seen.method, target, headers=headers, body=body)
        lines = [f"HTTP/1.1 {answer.status} Mixed"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items() if name.lower() != (self.drops or "")]
        connection.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if seen.method == "HEAD" else answer.body))
        return True


class Way:
    """A client that reaches a server through a :class:`Mixing` proxy, and two files there."""

    def __init__(self, server: LiveServer, url: str, proxy: Mixing, folder: Path) -> None:
        self.proxy = proxy
        self.events: list[Event] = []
        self.cas = HttpCas(url, emit=self.events.append)
        store = Store(server.site.cas)
        self.files: list[Hash] = []
        self.contents = [random.Random(number).randbytes(300_000 + number) for number in range(2)]
        for content in self.contents:
            path = folder / "file"
            path.write_bytes(content)
            self.files.append(store.put(path).hash)
        self.retries = 0

    def mix_up(self, times: int) -> None:
        one, other = (str(file) for file in self.files)
        self.proxy.changes = [(one, other)] * times

    def count_retries(self) -> int:
        return sum(isinstance(event, Retrying) for event in self.events)


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    cas = EmbeddedCas.open(tmp_path / "store")
    with live_server(cas, auth="none") as server:
        proxy = Mixing(server)
        with Scripted(lambda _: proxy) as scripted:
            way = Way(server, scripted.url, proxy, tmp_path)
            yield way
            way.cas.close()
    cas.close()


ASKS = {
    "whole": lambda cas, files: cas.reconstruct(files[0]),
    "range": lambda cas, files: cas.reconstruct(files[0], 1000, 200_000),
    "batch": lambda cas, files: cas.reconstruct_many([files[0]]),
    "size": lambda cas, files: cas.stat(files[0]),
    "again": lambda cas, files: cas.put_again([files[0]]),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
class TestAnswers:
    def test_another_file_is_refused(self, way: Way, ask) -> None:  # type: ignore[no-untyped-def]
        way.mix_up(9)
        with pytest.raises(IntegrityError, match="another question"):
            ask(way.cas, way.files)
        assert len(way.proxy.asked) == 2

    def test_once_mixed_up_is_asked_again(self, way: Way, ask) -> None:  # type: ignore[no-untyped-def]
        right = ask(way.cas, way.files)
        way.mix_up(1)
        assert _sizes(ask(way.cas, way.files)) == _sizes(right)
        assert way.count_retries() == 1

    def test_without_binding_from_a_server_that_never_bound_one(self, way: Way, ask) -> None:  # type: ignore[no-untyped-def]
        way.proxy.drops = BINDING_HEADER.lower()
        ask(way.cas, way.files)

    def test_without_binding_from_one_that_did_is_refused(self, way: Way, ask) -> None:  # type: ignore[no-untyped-def]
        way.cas.stat(way.files[1])
        way.proxy.drops = BINDING_HEADER.lower()
        with pytest.raises(IntegrityError, match="does not say what it answers"):
            ask(way.cas, way.files)

    def test_views_of_a_store_learn_together(self, way: Way, ask) -> None:  # type: ignore[no-untyped-def]
        way.cas.under(Cancellation()).stat(way.files[1])
        way.proxy.drops = BINDING_HEADER.lower()
        with pytest.raises(IntegrityError):
            ask(way.cas.under(Cancellation()), way.files)


def test_another_range_is_refused(way: Way) -> None:
    way.proxy.changes = [("1000-", "2000-")] * 9
    with pytest.raises(IntegrityError, match="another question"):
        way.cas.reconstruct(way.files[0], 1000, 200_000)


def test_all_of_a_file_instead_of_a_range_is_refused(way: Way) -> None:
    way.proxy.changes = [("bytes=1000-199999", "bytes=0-")] * 9
    with pytest.raises(IntegrityError, match="another question"):
        way.cas.reconstruct(way.files[0], 1000, 200_000)


def test_a_store_reads_the_right_bytes_though_every_other_answer_is_mixed_up(way: Way, tmp_path: Path) -> None:
    way.proxy.changes = [(str(way.files[0]), str(way.files[1])), ("", "")] * 9
    with xetstore.open(way.cas.url, cache=False) as store:
        assert b"".join(store.iter_range(way.files[0], 5, 250_000)) == way.contents[0][5:250_000]
        assert store.stat(way.files[0]).size == len(way.contents[0])


def _sizes(answer: object) -> object:
    """What is the same in two answers, whose URLs are signed at another time."""
    return getattr(answer, "size", None) or getattr(answer, "unpacked_bytes", None) or type(answer)
