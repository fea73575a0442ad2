"""A server that drips, repeats itself, keeps still or has no end keeps no call for ever, whatever the call."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.scripted import Connection, Scripted, Seen, Step, head, raw, reply
from xetstore.cancellation import Cancellation
from xetstore.errors import FormatError, IntegrityError, TimedOutError, UnavailableError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange
from xetstore.remote.http import HttpCas
from xetstore.remote.hub.client import Hub
from xetstore.remote.hub.locators import HubLocator
from xetstore.remote.transport import Patience, Transport
from xetstore.testing.samples import make_sample, random_bytes

FILE = Hash(bytes(range(32)))
SAMPLE = make_sample(random_bytes(1000, 1))
FETCH_BYTES = 200_000

HASTY = Patience(
    connect=5,
    answer=0.3,
    idle=0.3,
    hedge=0.1,
    query=0.3,
    shard=0.3,
    commit=0.3,
    floor=1000,
    floor_seconds=0.3,
    attempts=1,
)
OK = b"HTTP/1.1 200 OK\r\n"


# What a stranger does


def _again(connection: Connection, piece: bytes, pause: float) -> None:
    with suppress(OSError):
        while not connection.over.wait(pause):
            connection.write(piece)


def again(piece: bytes, *, pause: float = 0.02, first: bytes = b"") -> Step:
    """The same bytes for ever."""

    def step(connection: Connection, seen: Seen) -> bool:
        connection.write(first)
        _again(connection, piece, pause)
        return False

    return step


def drip(text: bytes, *, first: bytes = b"") -> Step:
    """A byte now and then."""

    def step(connection: Connection, seen: Seen) -> bool:
        connection.write(first)
        for at in range(len(text)):
            if connection.over.wait(0.03):
                break
            connection.write(text[at : at + 1])
        connection.stall()
        return False

    return step


CHUNKED = head(200, {"Transfer-Encoding": "chunked"})
LONG = head(200, {"Content-Length": str(FETCH_BYTES)})
RANGE = head(206, {"Content-Length": str(FETCH_BYTES), "Content-Range": f"bytes 0-{FETCH_BYTES - 1}/{FETCH_BYTES}"})
RANGE_CHUNKED = head(206, {"Transfer-Encoding": "chunked", "Content-Range": f"bytes 0-{FETCH_BYTES - 1}/{FETCH_BYTES}"})

HEADS = {
    "keeps still": raw(then="stall"),
    "drips the status": drip(OK * 100),
    "drips a header": drip(b"X-Long: " + b"y" * 10_000, first=OK),
    "goes on with 100": again(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "floods with 100": again(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, pause=0),
    "goes on with 103": again(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "goes on with headers": again(b"X-More: yes\r\n", first=OK),
    "floods with headers": again(b"X-More: yes\r\n" * 1000, first=OK, pause=0),
}
BODIES = {
    "keeps still in the body": raw(LONG, b"{", then="stall"),
    "drips the body": drip(b"{" * 10_000, first=LONG),
    "drips a body without end": drip(b"{" * 10_000, first=OK + b"Connection: close\r\n\r\n"),
    "drips chunks": again(b"1\r\n{\r\n", first=CHUNKED),
    "drips the length of a chunk": drip(b"0" * 10_000, first=CHUNKED),
    "drips an extension": drip(b"1;x=" + b"y" * 10_000, first=CHUNKED),
    "drips a trailer": drip(b"X: y\r\n" * 10_000, first=CHUNKED + b"0\r\n"),
    "floods with trailers": again(b"X: y\r\n" * 1000, first=CHUNKED + b"0\r\n", pause=0),
}
RANGES = {
    "keeps still": raw(RANGE, then="stall"),
    "drips the first range": drip(b"y" * 10_000, first=RANGE),
    "drips chunks of it": again(b"1\r\n{\r\n", first=RANGE_CHUNKED),
    "drips the length of a chunk": drip(b"0" * 10_000, first=RANGE_CHUNKED),
}


def frames(line: bytes, pause: float = 0.02) -> Step:
    return again(b"%x\r\n%b\r\n" % (len(line), line), first=CHUNKED, pause=pause)


FRAMES = {
    "repeats a frame": frames(b'{"type":"validating","verified":1,"total":2}\n'),
    "floods with a frame": frames(b'{"type":"committing","stage":"syncing"}\n' * 100, pause=0),
    "sends frames of no known kind": frames(b'{"type":"thinking"}\n'),
    "sends blank lines": frames(b"\n"),
    "drips a frame": frames(b" "),
}


# Who asks


def _reconstruct(cas: HttpCas) -> object:
    return cas.reconstruct(FILE)


def _stat(cas: HttpCas) -> object:
    return cas.stat(FILE)


def _batch(cas: HttpCas) -> object:
    return cas.reconstruct_many([FILE, Hash(bytes(32))])


def _put_xorb(cas: HttpCas) -> object:
    return cas.put_xorb(SAMPLE.xorb.hash, SAMPLE.body)


def _put_shard(cas: HttpCas) -> object:
    return cas.put_shard(SAMPLE.shard)


def _fetch(cas: HttpCas) -> object:
    with cas.fetch_xorb(FetchRange(FILE, f"{cas.url}/xorb", 0, 9, 0, FETCH_BYTES)) as stream:
        view = memoryview(bytearray(FETCH_BYTES))
        while stream.readinto(view):
            pass
    return None


CALLS = [_reconstruct, _stat, _batch, _put_xorb, _put_shard, _fetch]


def asked(step: Step, call: Callable[[HttpCas], object], patience: Patience = HASTY) -> object:
    with Scripted(lambda _: step) as server, Transport(patience=patience) as transport:
        return call(HttpCas(server.url, transport=transport))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", HEADS)
def test_no_head_is_waited_for_for_ever(name: str, call: Callable[[HttpCas], object]) -> None:
    with pytest.raises(UnavailableError) as caught:
        asked(HEADS[name], call)
    assert caught.value.hint


@pytest.mark.parametrize("call", [_reconstruct, _batch, _put_xorb])
@pytest.mark.parametrize("name", BODIES)
def test_no_body_is_waited_for_for_ever(name: str, call: Callable[[HttpCas], object]) -> None:
    with pytest.raises(UnavailableError) as caught:
        asked(BODIES[name], call)
    assert caught.value.hint


@pytest.mark.parametrize("name", RANGES)
def test_no_range_is_waited_for_for_ever_and_not_the_first_either(name: str) -> None:
    with pytest.raises(TimedOutError) as caught:
        asked(RANGES[name], _fetch)
    assert caught.value.hint


@pytest.mark.parametrize("name", [*HEADS, *BODIES])
def test_no_dedup_answer_is_waited_for_for_ever(name: str) -> None:
    assert asked({**HEADS, **BODIES}[name], lambda cas: cas.find_chunks(FILE)) is None


@pytest.mark.parametrize("name", FRAMES)
def test_a_commit_has_to_get_further(name: str) -> None:
    with pytest.raises(TimedOutError, match=r"has not got further with the shard for 0\.3 s"):
        asked(FRAMES[name], _put_shard)


def test_a_commit_that_only_counts_ends_too() -> None:
    def count(connection: Connection, seen: Seen) -> bool:
        connection.write(CHUNKED)
        with suppress(OSError):
            number = 0
            while not connection.over.wait(0.02):
                number += 1
                line = b'{"type":"validating","verified":%d,"total":%d}\n' % (number, number + 1)
                connection.write(b"%x\r\n%b\r\n" % (len(line), line))
        return False

    with pytest.raises(TimedOutError, match=r"has not registered the shard within 1 s"):
        asked(count, _put_shard, Patience(answer=5, shard=5, commit=0.1, attempts=1))


def test_a_commit_that_gets_further_is_waited_for() -> None:
    """For longer than it may take for a step, with the last frame repeated in between, as the real server does."""

    def work(connection: Connection, seen: Seen) -> bool:
        connection.write(CHUNKED)
        lines = [b'{"type":"validating","verified":%d,"total":4}' % number for number in range(1, 5)]
        lines += [b'{"type":"committing","stage":"uploading"}', b'{"type":"committing","stage":"syncing"}']
        for line in lines:
            for _ in range(4):
                connection.over.wait(0.05)
                connection.write(b"%x\r\n%b\n\r\n" % (len(line) + 1, line))
        line = b'{"type":"result","result":1}\n'
        connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line))
        return True

    patience = Patience(answer=5, shard=5, commit=0.6, attempts=1)
    assert asked(work, _put_shard, patience) is True


@pytest.mark.parametrize("status", [102, 103, 199])
def test_interim_answers_are_passed_over(status: int) -> None:
    """They are no answers: the one that follows is, and the connection goes on with the next."""
    interim = b"HTTP/1.1 %d Wait\r\nX: y\r\n\r\n" % status
    steps = [raw(interim * 3, head(200, {"Content-Length": "2"}), number, then="keep") for number in (b"01", b"02")]
    with Scripted(lambda seen: steps[int(seen.path[1:])]) as server, Transport(patience=HASTY) as transport:
        for number in (0, 1):
            with transport.request("GET", f"{server.url}/{number}", cancellation=Cancellation()) as answer:
                assert (answer.status, answer.read(10)) == (200, b"0%d" % (number + 1))
        assert server.connections == 1


def test_a_slow_and_honest_server_is_waited_for() -> None:
    """A server that brings more than the floor asks for may take longer than any wait."""
    body = os.urandom(20_000)

    def slowly(connection: Connection, seen: Seen) -> bool:
        told = {"Content-Length": str(len(body)), "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}
        connection.write(head(206, told))
        for at in range(0, len(body), 500):
            connection.over.wait(0.05)
            connection.write(body[at : at + 500])
        return True

    patience = Patience(answer=5, idle=5, hedge=5, floor=1000, floor_seconds=0.3, attempts=1)
    with Scripted(lambda _: slowly) as server, Transport(patience=patience) as transport:
        cas = HttpCas(server.url, transport=transport)
        with cas.fetch_xorb(FetchRange(FILE, f"{server.url}/x", 0, 9, 0, len(body))) as stream:
            got, view = bytearray(), memoryview(bytearray(len(body)))
            while count := stream.readinto(view):
                got += view[:count]
    assert got == body


def test_a_body_that_is_hardly_taken_is_given_up() -> None:
    def sip(connection: Connection, seen: Seen) -> bool:
        with suppress(OSError):
            while not connection.over.wait(0.1):
                connection.sock.recv(1 << 17)
        return False

    patience = Patience(answer=60, idle=60, floor=100e6, floor_seconds=1, attempts=1)
    with (
        Scripted(lambda _: sip, reads_bodies=False) as server,
        Transport(patience=patience) as transport,
        pytest.raises(TimedOutError, match="took less than"),
    ):
        transport.request("POST", server.url, body=bytes(64 << 20), cancellation=Cancellation())


# Answers of no end, and those that become large


BOMB = gzip.compress(bytes(4 << 20), 1) * 100
"""400 MiB of zeros, in a hundred members."""


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (reply(200, BOMB, {"Content-Encoding": "gzip"}), "is longer than"),
        (raw(head(200, {"Content-Length": str(1 << 40)}), then="stall"), "is longer than"),
        (reply(200, b"{}", {"Content-Encoding": "br"}), "is encoded as 'br', which was not asked for"),
        (reply(200, zlib.compress(b"{}"), {"Content-Encoding": "deflate"}), "is encoded as 'deflate'"),
        (again(b"10000\r\n" + bytes(1 << 16) + b"\r\n", first=CHUNKED, pause=0), "is longer than"),
    ],
)
def test_an_answer_that_is_held_whole_has_a_size(step: Step, error: str) -> None:
    with (
        Scripted(lambda _: step) as server,
        Transport(patience=Patience(base_delay=0.001, attempts=1), most_bytes=1 << 20) as transport,
        pytest.raises(IntegrityError, match=error) as caught,
    ):
        HttpCas(server.url, transport=transport).reconstruct(FILE)
    assert caught.value.hint


def test_gzip_that_stands_for_nothing_ends() -> None:
    """Stored blocks of no bytes: what comes has no end, and what it stands for is empty."""
    start = gzip.compress(b"")[:10]
    block = b"\0\0\0\xff\xff" * 10_000
    first = head(200, {"Content-Encoding": "gzip", "Connection": "close"}) + start
    with (
        Scripted(lambda _: again(block, first=first, pause=0)) as server,
        Transport(patience=Patience(attempts=1), most_bytes=1 << 20) as transport,
        pytest.raises(IntegrityError, match="is longer than"),
    ):
        HttpCas(server.url, transport=transport).reconstruct(FILE)


# The Hub


@pytest.fixture
def hub() -> Iterator[Callable[[Callable[[Seen], Step]], Hub]]:
    """Makes a client of a Hub that answers so."""
    opened: list[tuple[Scripted, Transport]] = []

    def make(answers: Callable[[Seen], Step]) -> Hub:
        server, transport = Scripted(answers), Transport(patience=HASTY)
        opened.append((server, transport))
        return Hub(endpoint=server.url, token="hf_x", transport=transport)

    yield make
    for server, transport in opened:
        transport.close()
        with server:
            pass


REPOSITORY = HubLocator.parse("hf://datasets/ns/name")


@pytest.mark.parametrize("name", [*HEADS, *BODIES])
def test_no_answer_of_a_hub_is_waited_for_for_ever(name: str, hub: Callable[[Callable[[Seen], Step]], Hub]) -> None:
    made = hub(lambda _: {**HEADS, **BODIES}[name])
    with pytest.raises(XetError):
        made.cas_url(REPOSITORY)
    with pytest.raises(XetError):
        list(made.tree(REPOSITORY))


@pytest.mark.parametrize("entries", [[], [{"type": "file", "path": "a", "size": 1}]])
def test_a_listing_ends(entries: list[object], hub: Callable[[Callable[[Seen], Step]], Hub]) -> None:
    """Of pages that always name another one; with entries in them, where the link to it is too long."""
    number = 0

    def page(seen: Seen) -> Step:
        nonlocal number
        number += 1
        link = f"{seen.path}?cursor={'x' * 1000 * number}"
        return reply(200, json.dumps(entries).encode(), {"Link": f'<{link}>; rel="next"'})

    with pytest.raises(FormatError, match="on and on"):
        list(hub(page).tree(REPOSITORY))
    assert number <= 10
