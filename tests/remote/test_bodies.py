"""The bytes of a range arrive whole and once, whatever the connections do; what is not the range is told."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.scripted import Connection, Scripted, Seen, Step, head, raw, reply
from xetstore.cancellation import Cancellation
from xetstore.errors import (
    ForbiddenError,
    IntegrityError,
    InterruptedCallError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.events import Event, Hedged, Retrying
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange
from xetstore.remote.http import HttpCas
from xetstore.remote.pace import MAX_HEDGES, Pace
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport

BODY = os.urandom(3_000_000)
QUICK = Patience(answer=5, idle=5, hedge=5, base_delay=0.001, max_delay=0.002, attempts=4)
XORB = Hash(bytes(range(32)))


class Client:
    """An HttpCas that fetches ranges of BODY, and what it told meanwhile."""

    def __init__(self, server: Scripted, patience: Patience = QUICK) -> None:
        self.events: list[Event] = []
        self.server = server
        self.transport = Transport(patience=patience)
        self.cas = HttpCas(
            f"{server.url}/base", tokens=FixedToken("s3cret"), transport=self.transport, emit=self.events.append
        )

    def fetch(self, start: int = 1000, end: int = len(BODY), path: str = "/xorb?signature=1", url: str = "") -> bytes:
        got = bytearray()
        view = memoryview(bytearray(1 << 20))
        with self.cas.fetch_xorb(FetchRange(XORB, url or f"{self.server.url}{path}", 0, 9, start, end)) as stream:
            while count := stream.readinto(view):
                got += view[:count]
        return bytes(got)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Retrying)]


Make = Callable[..., Client]


@pytest.fixture
def client() -> Iterator[Make]:
    """Makes clients of servers that take steps in turn."""
    opened: list[Client] = []

    def make(*steps: Step, patience: Patience = QUICK) -> Client:
        left = list(steps)
        server = Scripted(lambda _: left.pop(0) if len(left) > 1 else left[0])
        opened.append(Client(server, patience))
        return opened[-1]

    yield make
    for made in opened:
        made.transport.close()
        with made.server:
            pass


def _range_of(seen: Seen) -> tuple[int, int]:
    first, _, last = seen.headers["range"].removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


def part(
    connection: Connection, seen: Seen, n_bytes: int | None = None, data: bytes = BODY, **headers: str
) -> tuple[int, int]:
    """Answer with the range that was asked for, or the first ``n_bytes`` of it."""
    start, end = _range_of(seen)
    told = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}", "Content-Length": str(end - start)}
    connection.write(head(206, told | headers), data[start:end][:n_bytes])
    return start, end


def serve(connection: Connection, seen: Seen) -> bool:
    """As a server does."""
    part(connection, seen)
    return True


def breaks_after(n_bytes: int, then: str = "close") -> Step:
    def step(connection: Connection, seen: Seen) -> bool:
        part(connection, seen, n_bytes)
        if then == "stall":
            connection.stall()
        if then == "reset":
            connection.reset()
        return False

    return step


def refuses_partial(status: int) -> Step:
    """Like a URL that is signed for the whole range alone."""

    def step(connection: Connection, seen: Seen) -> bool:
        if _range_of(seen)[0] == 1000:
            return serve(connection, seen)
        return reply(status)(connection, seen)

    return step


# Whole


def test_a_range_arrives_as_it_is(client: Make) -> None:
    made = client(serve)
    assert made.fetch() == BODY[1000:]
    assert made.fetch(0, 1) == BODY[:1]
    assert [seen.headers["range"] for seen in made.server.requests] == [f"bytes=1000-{len(BODY) - 1}", "bytes=0-0"]
    assert made.server.connections == 1
    assert made.events == []


def test_a_whole_body_is_taken_where_it_is_the_range(client: Make) -> None:
    assert client(reply(200, BODY)).fetch(0) == BODY


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Connection": "close"}])
def test_a_body_of_unannounced_length_is_taken_if_it_is_the_range(client: Make, headers: dict[str, str]) -> None:
    def step(connection: Connection, seen: Seen) -> bool:
        start, end = _range_of(seen)
        connection.write(head(206, {"Content-Range": f"bytes {start}-{end - 1}/*", **headers}))
        body = BODY[start:end]
        if "Transfer-Encoding" in headers:
            for at in range(0, len(body), 700_000):
                piece = body[at : at + 700_000]
                connection.write(b"%x\r\n" % len(piece), piece, b"\r\n")
            connection.write(b"0\r\n\r\n")
        else:
            connection.write(body)
        return "Transfer-Encoding" in headers

    assert client(step).fetch() == BODY[1000:]


# Broken


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("after", [0, 1, 1_500_000, len(BODY) - 1001])
def test_a_break_goes_on_where_it_was(client: Make, after: int, then: str) -> None:
    made = client(breaks_after(after, then), serve)
    assert made.fetch() == BODY[1000:]
    assert len(made.reasons) == 1
    again = _range_of(made.server.requests[1])
    assert again[1] == len(BODY)
    # A reset may take with it what had been sent.
    assert again[0] == 1000 + after or (then == "reset" and 1000 <= again[0] <= 1000 + after)


def test_breaks_are_survived_as_long_as_something_comes_in_between(client: Make) -> None:
    made = client(*[breaks_after(1 << 20)] * 2, serve, patience=Patience(attempts=2, base_delay=0.001, idle=5))
    assert made.fetch() == BODY[1000:]


def test_breaks_without_progress_end_it(client: Make) -> None:
    made = client(breaks_after(10))
    with pytest.raises(UnavailableError, match=r"broke: it ended before the body did; 4 attempts were made") as caught:
        made.fetch()
    assert caught.value.hint
    assert len(made.server.requests) == 4


@pytest.mark.parametrize("status", [400, 403, 416])
def test_a_url_for_the_whole_range_alone_is_asked_for_the_whole_range(client: Make, status: int) -> None:
    made = client(breaks_after(2_000_000), refuses_partial(status))
    assert made.fetch() == BODY[1000:]
    assert [_range_of(seen)[0] for seen in made.server.requests] == [1000, 2_001_000, 1000]


def test_a_url_that_has_expired_in_between_is_told(client: Make) -> None:
    made = client(breaks_after(2_000_000), reply(403))
    with pytest.raises(ForbiddenError):
        made.fetch()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(client: Make, status: int) -> None:
    made = client(reply(status, b"busy"), serve)
    assert made.fetch() == BODY[1000:]
    assert len(made.reasons) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ForbiddenError), (404, NotFoundError), (416, IntegrityError), (400, IntegrityError)]
)
def test_what_will_not_pass_is_told_at_once(client: Make, status: int, kind: type[XetError]) -> None:
    made = client(reply(status))
    with pytest.raises(kind) as caught:
        made.fetch()
    assert len(made.server.requests) == 1
    assert str(XORB) in str(caught.value)
    assert caught.value.hint
    assert "signature" not in str(caught.value)


# Wrong


def _wrong(status: int, body: bytes, **headers: str) -> Step:
    return reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    "step",
    [
        _wrong(206, BODY[1000:1999]),
        _wrong(206, BODY[1000:2001]),
        _wrong(206, BODY[1000:2000], Content_Range="bytes 1001-2000/*"),
        _wrong(206, BODY[1000:2000], Content_Range="bytes 1000-2000/*"),
        _wrong(206, BODY[1000:2000], Content_Range="bytes 1000-1998/*"),
        _wrong(206, BODY[1000:1999], Content_Range="bytes 1000-1999/*"),
        _wrong(206, BODY[1000:2001], Content_Range="bytes 1000-1999/*"),
        _wrong(206, BODY[1000:1999], Content_Range="items 1000-1999/*"),
        _wrong(206, BODY[1000:2000], Content_Type="multipart/byteranges; boundary=x"),
        _wrong(200, BODY),
        _wrong(200, BODY[1000:1999]),
    ],
)
def test_another_range_or_size_is_told_and_none_of_it_given(client: Make, step: Step) -> None:
    with pytest.raises(IntegrityError, match=rf"xorb {XORB} at 127\.0\.0\.1:[0-9]+: ") as caught:
        client(step).fetch(1000, 2000)
    assert caught.value.hint


def test_a_whole_body_of_another_size_is_told(client: Make) -> None:
    with pytest.raises(IntegrityError, match="2000 bytes came"):
        client(reply(200, BODY[:2000])).fetch(0, 1000)


def test_a_body_that_goes_on_too_long_is_told(client: Make) -> None:
    step = raw(head(206, {"Content-Range": "bytes 1000-1999/*"}), BODY[1000:2001])
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        client(step).fetch(1000, 2000)


@pytest.mark.parametrize("url", ["/xorbs/x", "ftp://host/x", "//host/x", "", "http://me:s3cret@127.0.0.1/x"])
def test_a_url_that_is_none_is_told(client: Make, url: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        client(serve).cas.fetch_xorb(FetchRange(XORB, url, 0, 1, 0, 10))
    assert "s3cret" not in str(caught.value)


def test_plain_http_to_another_machine_is_refused(client: Make) -> None:
    with pytest.raises(UsageError, match="plain http"):
        client(serve).fetch(url="http://cdn.example/x")


# Silent


def test_a_silent_range_is_given_up_with_the_reason(client: Make) -> None:
    patience = Patience(idle=0.15, hedge=9, base_delay=0.001, max_delay=0.002, attempts=2)
    made = client(breaks_after(2 << 20, "stall"), raw(then="stall"), patience=patience)
    with pytest.raises(TimedOutError, match=r"no byte for 0\.15 s after .* of .* from 127\.0\.0\.1:[0-9]+") as caught:
        made.fetch()
    assert caught.value.hint


def test_a_silent_range_goes_on_over_another_connection(client: Make) -> None:
    patience = Patience(idle=0.15, hedge=9, base_delay=0.001, max_delay=0.002)
    made = client(breaks_after(2 << 20, "stall"), serve, patience=patience)
    assert made.fetch() == BODY[1000:]
    assert made.reasons[0].startswith("no byte for 0.15 s")


def test_a_reader_that_takes_its_time_is_not_silence(client: Make) -> None:
    made = client(serve, patience=Patience(idle=0.5, hedge=9))
    with made.cas.fetch_xorb(FetchRange(XORB, f"{made.server.url}/x", 0, 9, 0, len(BODY))) as stream:
        got, view = b"", memoryview(bytearray(1 << 20))
        while count := stream.readinto(view):
            got += view[:count]
            if len(got) == count:
                time.sleep(0.6)
    assert got == BODY
    assert made.reasons == []


# Hedged


HEDGING = Patience(answer=9, idle=9, hedge=0.2, base_delay=0.001, max_delay=0.002)


@pytest.mark.parametrize("after", [None, 0, 1, 1_500_000])
def test_a_silent_range_is_asked_for_a_second_time(client: Make, after: int | None) -> None:
    """Also where not even the head of the answer came. The first request is still open then."""
    first = raw(then="stall") if after is None else breaks_after(after, "stall")
    made = client(first, serve, patience=HEDGING)
    assert made.fetch() == BODY[1000:]
    [hedged] = made.events
    assert isinstance(hedged, Hedged)
    assert hedged.silent_seconds >= 0.2
    assert [_range_of(seen)[0] for seen in made.server.requests] == [1000, 1000 + (after or 0)]


def test_the_first_answer_is_taken_if_it_goes_on_first(client: Make) -> None:
    asked_again = threading.Event()

    def slow(connection: Connection, seen: Seen) -> bool:
        start, end = part(connection, seen, 1_000_000)
        asked_again.wait(20)
        connection.write(BODY[start + 1_000_000 : end])
        return True

    def second(connection: Connection, seen: Seen) -> bool:
        asked_again.set()
        connection.stall()
        return False

    made = client(slow, second, patience=HEDGING)
    assert made.fetch() == BODY[1000:]
    assert len(made.events) == 1
    assert len(made.server.requests) == 2


def test_a_second_request_that_fails_changes_nothing(client: Make) -> None:
    failed = threading.Event()

    def slow(connection: Connection, seen: Seen) -> bool:
        start, end = part(connection, seen, 1_000_000)
        failed.wait(20)
        time.sleep(0.05)
        connection.write(BODY[start + 1_000_000 : end])
        return True

    def fails(connection: Connection, seen: Seen) -> bool:
        reply(500)(connection, seen)
        failed.set()
        return True

    made = client(slow, fails, patience=HEDGING)
    assert made.fetch() == BODY[1000:]
    assert len(made.events) == 1


def test_a_range_is_hedged_once(client: Make) -> None:
    patience = Patience(answer=9, idle=0.4, hedge=0.05, base_delay=0.001, max_delay=0.002)
    made = client(raw(then="stall"), breaks_after(1_500_000, "stall"), serve, patience=patience)
    assert made.fetch() == BODY[1000:]
    assert [type(event) for event in made.events] == [Hedged, Retrying]


def test_where_everything_is_silent_not_everything_is_asked_for_twice(client: Make) -> None:
    """That would make a slow network slower: two ranges of a host are hedged at a time, the others wait."""
    made = client(raw(then="stall"), patience=Patience(answer=9, idle=0.3, hedge=0.05, attempts=1))
    pace = made.cas._server.pace_of(f"127.0.0.1:{made.server.port}")
    assert all(pace.begin_hedge() for _ in range(MAX_HEDGES))
    with pytest.raises(TimedOutError):
        made.fetch()
    assert made.events == []
    pace.end_hedge()
    with pytest.raises(TimedOutError):
        made.fetch()
    assert [type(event) for event in made.events] == [Hedged]


def test_a_hedge_that_is_over_makes_room_for_another() -> None:
    pace = Pace(1)
    assert pace.begin_hedge()
    assert not pace.begin_hedge()
    pace.end_hedge()
    assert pace.begin_hedge()


def test_ranges_over_tls_are_continued_and_hedged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    steps = [serve, raw(then="stall"), breaks_after(1_500_000), breaks_after(500_000, "stall"), serve]
    patience = Patience(answer=9, idle=0.5, hedge=0.2, base_delay=0.001, max_delay=0.002)
    with Scripted(lambda _: steps.pop(0) if len(steps) > 1 else steps[0], tls=context) as server:
        made = Client(server, patience)
        assert made.fetch() == BODY[1000:]
        assert made.fetch() == BODY[1000:]
        made.transport.close()
    assert [type(event) for event in made.events] == [Hedged, Retrying, Retrying]


def test_both_connections_fall_silent_and_it_goes_on(client: Make) -> None:
    patience = Patience(answer=9, idle=0.2, hedge=0.05, base_delay=0.001, max_delay=0.002)
    made = client(breaks_after(1000, "stall"), raw(then="stall"), serve, patience=patience)
    assert made.fetch() == BODY[1000:]
    assert [type(event) for event in made.events] == [Hedged, Retrying]


def test_a_stream_that_is_closed_while_hedged_leaves_nothing(client: Make) -> None:
    made = client(breaks_after(1000, "stall"), raw(then="stall"), patience=HEDGING)
    call = Cancellation()
    stream = made.cas.under(call).fetch_xorb(FetchRange(XORB, f"{made.server.url}/x", 0, 9, 0, len(BODY)))
    view = memoryview(bytearray(1000))
    assert stream.readinto(view) > 0
    timer = threading.Timer(0.3, call.cancel)
    timer.start()
    with pytest.raises(InterruptedCallError):
        while True:
            stream.readinto(view)
    timer.join()
    stream.close()
    stream.close()
    assert [type(event) for event in made.events] == [Hedged]


def test_the_answer_to_a_hedge_can_be_interrupted(client: Make) -> None:
    made = client(raw(then="stall"), breaks_after(1000, "stall"), patience=HEDGING)
    call = Cancellation()
    with made.cas.under(call).fetch_xorb(FetchRange(XORB, f"{made.server.url}/x", 0, 9, 0, len(BODY))) as stream:
        timer = threading.Timer(0.2, call.cancel)
        timer.start()
        view = memoryview(bytearray(1000))
        with pytest.raises(InterruptedCallError):
            while True:
                stream.readinto(view)
        timer.join()


# A trickle


def test_a_trickle_is_what_is_ten_times_slower_than_the_host_was() -> None:
    pace = Pace()
    assert not pace.is_trickle(0, 10)  # nothing is known of the host
    pace.finished(10 << 20, 10)
    assert pace.is_trickle(1000, 10)
    assert not pace.is_trickle(64 << 20, 10)
    pace = Pace()
    pace.finished(1 << 20, 1000)
    assert not pace.is_trickle(2000, 10)  # it was never faster


def test_a_trickle_is_replaced_once(client: Make) -> None:
    def trickle(connection: Connection, seen: Seen) -> bool:
        start, _ = part(connection, seen, 0)
        for at in range(start, start + 1000):
            if connection.over.wait(0.02):
                return False
            connection.write(BODY[at : at + 1])
        return False

    made = client(serve, trickle, serve, patience=replace(QUICK, trickle=0.1))
    assert made.fetch() == BODY[1000:]
    assert made.fetch() == BODY[1000:]
    [reason] = made.reasons
    assert "trickle" in reason


# Redirects and tokens


def test_redirects_are_followed_with_the_range_and_without_the_token(client: Make) -> None:
    elsewhere = client(serve)
    made = client(reply(302, b"", {"Location": f"{elsewhere.server.url}/other?x=1#f"}))
    assert made.fetch(path="/base/v1/xorbs/default/x") == BODY[1000:]
    [seen] = elsewhere.server.requests
    assert (seen.target, seen.headers["range"]) == ("/other?x=1", f"bytes=1000-{len(BODY) - 1}")
    assert "authorization" not in seen.headers
    # The first URL is the server's own, and bare: it cannot be read without one.
    assert made.server.requests[0].headers["authorization"] == "Bearer s3cret"


def test_a_signed_url_gets_no_token(client: Make) -> None:
    made = client(serve)
    made.fetch(path="/base/v1/xorbs/default/x?signature=1")
    assert "authorization" not in made.server.requests[0].headers
    assert "x-xet-session-id" in made.server.requests[0].headers


def test_a_bare_url_of_another_host_gets_no_token(client: Make) -> None:
    made, other = client(serve), client(serve)
    made.fetch(url=f"{other.server.url}/v1/xorbs/default/x")
    assert "authorization" not in other.server.requests[0].headers


def test_a_relative_redirect_stays_where_it_is(client: Make) -> None:
    made = client(reply(307, b"", {"Location": "../y"}), serve)
    assert made.fetch(path="/a/b/x?s=1") == BODY[1000:]
    assert made.server.requests[1].target == "/a/y"


def test_redirects_in_a_circle_end(client: Make) -> None:
    made = client(reply(302, b"", {"Location": "/x"}), patience=Patience(attempts=1))
    with pytest.raises(UnavailableError, match="redirects more than 10 times"):
        made.fetch()
    assert len(made.server.requests) == 11


def test_a_redirect_to_plain_http_elsewhere_is_refused(client: Make) -> None:
    with pytest.raises(UsageError, match="plain http"):
        client(reply(302, b"", {"Location": "http://cdn.example/x"})).fetch()


# Interruption


def test_an_interruption_ends_a_read(client: Make) -> None:
    made = client(breaks_after(1000, "stall"))
    call = Cancellation()
    with made.cas.under(call).fetch_xorb(FetchRange(XORB, f"{made.server.url}/x", 0, 9, 0, len(BODY))) as stream:
        call.cancel()
        with pytest.raises(InterruptedCallError):
            stream.readinto(memoryview(bytearray(10)))


def test_an_interruption_of_one_call_is_none_of_another(client: Make) -> None:
    made = client(serve)
    fetch = FetchRange(XORB, f"{made.server.url}/x", 0, 9, 0, len(BODY))
    one, other = Cancellation(), Cancellation()
    with made.cas.under(one).fetch_xorb(fetch) as stream, made.cas.fetch_xorb(fetch) as third:
        other.cancel()
        with pytest.raises(InterruptedCallError):
            made.cas.under(other).fetch_xorb(fetch)
        assert stream.readinto(memoryview(bytearray(10))) == 10
        one.cancel()
        with pytest.raises(InterruptedCallError):
            stream.readinto(memoryview(bytearray(10)))
        assert third.readinto(memoryview(bytearray(10))) == 10


def test_a_stream_that_is_closed_cannot_be_read(client: Make) -> None:
    stream = client(serve).cas.fetch_xorb(FetchRange(XORB, client(serve).server.url, 0, 9, 0, len(BODY)))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.readinto(memoryview(bytearray(10)))
