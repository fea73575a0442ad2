"""Framing: no byte of a body is ever answered as a request, on raw sockets, behind a real nginx, and by real curl."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send

from tests.server import nginx
from tests.server.nginx import needs_nginx
from tests.support.live import PATIENCE_SECONDS, live_server, served
from tests.support.ports import free_port
from xetstore.cas.service import EmbeddedCas
from xetstore.server.http.framing import RefusedHeadError, body_bytes
from xetstore.server.settings import ServerSettings
from xetstore.testing.samples import make_sample, random_bytes

CURL = shutil.which("curl")

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
"""What an attacker sends as a body."""
NEXT = b"GET /next HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


@dataclass
class Echo:
    """An application that says which path was asked for, and remembers each request: method, path, body."""

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        self.seen.append((scope["method"], scope["path"], body))
        self.hosts.append(headers[b"host"].decode())
        self.headers.append(headers)
        answer = scope["path"].encode()
        length = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer})


@dataclass(frozen=True)
class Target:
    """A port where an Echo answers, directly or not."""

    port: int
    echo: Echo

    def exchange(self, *segments: bytes) -> bytes:
        """Send these segments, each on its way before the next, and read until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for segment in segments:
                    connection.sendall(segment)
                    time.sleep(0.0001 if len(segment) == 1 else 0.02 if len(segments) > 1 else 0)
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1 << 16):
                    received += part
            return received


@pytest.fixture(scope="module")
def server() -> Iterator[Target]:
    echo = Echo()
    settings = ServerSettings(port=0, header_timeout_seconds=PATIENCE_SECONDS)
    with served(echo, settings) as (url, _):
        port = urlsplit(url).port
        assert port is not None
        yield Target(port, echo)


@pytest.fixture
def direct(server: Target) -> Target:
    server.echo.__init__()  # type: ignore[misc]
    return server


def paths(target: Target) -> list[str]:
    return [path for _, path, _ in target.echo.seen]


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


# Bodies behind an offer to upgrade

OFFERS = {
    "no offer": b"",
    "anything": b"Connection: upgrade\r\nUpgrade: anything\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: AAAA\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
}
BODIES = {
    "none": (b"", b""),
    "length": (b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
    "chunked": (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


@pytest.mark.parametrize("segments", ["one", "two", "bytes"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_body_is_never_answered_as_a_request(
    direct: Target, method: str, offer: str, body: str, segments: str
) -> None:
    header, sent = BODIES[body]
    head = b"%b /first HTTP/1.1\r\nHost: test\r\n%b%b\r\n" % (method.encode(), OFFERS[offer], header)
    parts = {
        "one": [head + sent + NEXT],
        "two": [head, sent + NEXT] if sent else [head, NEXT],
        "bytes": [bytes([byte]) for byte in head + sent + NEXT],
    }[segments]
    answers = direct.exchange(*parts)
    wanted = [(method, "/first", b"" if body == "none" else SMUGGLED), ("GET", "/next", b"")]
    if body == "chunked" and offer != "no offer":
        wanted.pop()  # the connection ends with it
    assert direct.echo.seen == wanted
    assert statuses(answers) == [200] * len(wanted)


def test_a_long_body_behind_an_offer_is_received_as_any_other(direct: Target) -> None:
    body = (SMUGGLED * (3 << 20))[: 3 << 20]
    head = b"POST /first HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n"
    answers = direct.exchange(head % len(body), body + NEXT)
    assert direct.echo.seen == [("POST", "/first", body), ("GET", "/next", b"")]
    assert statuses(answers) == [200, 200]


def test_many_offers_on_one_connection_are_answered_one_after_the_other(direct: Target) -> None:
    offer = b"POST /%d HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nGET /"
    answers = direct.exchange(b"".join(offer % number for number in range(1500)) + NEXT)
    assert paths(direct) == [*(f"/{number}" for number in range(1500)), "/next"]
    assert statuses(answers) == [200] * 1501


@pytest.mark.parametrize("target", [b"/first", b"test:443"])
@pytest.mark.parametrize("body", BODIES)
def test_connect_is_refused_and_the_connection_closed(direct: Target, target: bytes, body: str) -> None:
    header, sent = BODIES[body]
    answers = direct.exchange(b"CONNECT %b HTTP/1.1\r\nHost: test\r\n%b\r\n%b" % (target, header, sent) + NEXT)
    assert statuses(answers) == [400]
    assert direct.echo.seen == []


# Heads and bodies that others may read in another way

HELLO = b"hello" + NEXT
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n" + NEXT
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        # Content-Length
        (b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5, 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: +5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: -5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 0x5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: \r\n\r\n" + HELLO, 400),
        (b"Content-Length: five\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 18446744073709551621\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5\x0b\r\n\r\n" + HELLO, 400),
        (b"Content-Length:\r\n 5\r\n\r\n" + HELLO, 400),
        # Transfer-Encoding
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS, 400),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, 400),
        (b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n" + HELLO, 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, 501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, 501),
        (b"Transfer-Encoding: , chunked\r\n\r\n" + CHUNKS, 501),
        (b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: identity\r\n\r\n" + HELLO, 400),
        (b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: chunked;q=1\r\n\r\n" + CHUNKS, 400),
        (b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS, 400),
        (b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: chu\r\n nked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS, 400),
        (b"Transfer-Encoding: \r\n\r\n" + CHUNKS, 400),
        # Lines
        (b"X: a\r\n b\r\n\r\n", 400),
        (b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, 400),
        (b"X: a\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5\r\n\n" + HELLO, 400),
        (b"X: a\rContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5\r\r\n\r\n" + HELLO, 400),
        (b"Content-Length: 5\r\n\rX" + HELLO, 400),
        (b"X: a\0b\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"X\0: a\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length : 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length\t: 5\r\n\r\n" + HELLO, 400),
        (b"Content-Length 5\r\n\r\n" + HELLO, 400),
        (b": 5\r\n\r\n" + HELLO, 400),
        (b"Transfer-Encoding\xa0: chunked\r\n\r\n" + CHUNKS, 400),
        (b"Host: other\r\n\r\n" + NEXT, 400),
        # Chunks
        (CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5;a\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b'5;a="\r\nhello\r\n0\r\n\r\n' + NEXT, 400),
        (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\r\nhello\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\n" + NEXT, 400),
        (CHUNKED + b"FFFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n" + NEXT, 400),
        (CHUNKED + b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" + NEXT, 400),
        # Expectations
        (b"Expect: more\r\nContent-Length: 5\r\n\r\n" + HELLO, 417),
        (b"Expect: 100-continue, more\r\nContent-Length: 5\r\n\r\n" + HELLO, 417),
    ],
)
@pytest.mark.parametrize("offer", [b"", OFFERS["anything"]], ids=["plain", "upgrade"])
def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_closed(
    direct: Target, offer: bytes, rest: bytes, status: int
) -> None:
    for parts in ([rest], [bytes([byte]) for byte in rest]):
        answers = direct.exchange(b"POST /first HTTP/1.1\r\nHost: test\r\n" + offer + parts[0], *parts[1:])
        assert statuses(answers) == [status]
        assert b"connection: close" in answers
        assert direct.echo.seen == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /first HTTP/1.1\nHost: test\nContent-Length: 5\n\n" + HELLO, 400),
        (b"POST /first HTTP/1.1\r\n Host: test\r\n\r\n" + NEXT, 400),
        (b"POST /first HTTP/1.1\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"POST /first HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, 400),
        (b"POST /first HTTP/1.2\r\nHost: test\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"POST /first HTTP/2.0\r\nHost: test\r\nContent-Length: 5\r\n\r\n" + HELLO, 505),
        (b"POST /first\r\nHost: test\r\nContent-Length: 5\r\n\r\n" + HELLO, 505),
        (b"POST /a b HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"post /first HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n" + HELLO, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT, 400),
    ],
)
def test_a_request_line_that_is_none_is_refused(direct: Target, head: bytes, status: int) -> None:
    assert statuses(direct.exchange(head)) == [status]
    assert direct.echo.seen == []


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 5 \t \r\n\r\nhello",
        b"Content-Length: 05\r\n\r\nhello",
        b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: Chunked  \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b'Transfer-Encoding: chunked\r\n\r\n2;name=value\r\nhe\r\n3;n="a;b"\r\nllo\r\n0;end\r\n\r\n',
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n000\r\nX-Trailer: 1\r\nHost: other\r\n\r\n",
        b"Expect: 100-Continue \r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_what_has_one_meaning_is_read_so(direct: Target, rest: bytes) -> None:
    answers = direct.exchange(b"POST /first HTTP/1.1\r\nHost: test\r\n" + rest + NEXT)
    assert direct.echo.seen == [("POST", "/first", b"hello"), ("GET", "/next", b"")]
    assert [status for status in statuses(answers) if status != 100] == [200, 200]
    assert direct.echo.hosts == ["test", "test"], "a trailer is no header"
    assert b"x-trailer" not in direct.echo.headers[0]
    length = direct.echo.headers[0].get(b"content-length", b"5")
    assert length.strip() == length, "blanks behind a value are not part of it"


def test_http_1_0_is_answered_and_closed_and_never_told_to_continue(direct: Target) -> None:
    head = b"POST /first HTTP/1.0\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert statuses(direct.exchange(head + HELLO)) == [200]
    assert direct.echo.seen == [("POST", "/first", b"hello")]


@pytest.mark.parametrize("host", [b"other", b"other:81", b"[::1]:81"])
def test_the_host_of_an_absolute_target_is_the_one_that_counts(direct: Target, host: bytes) -> None:
    answers = direct.exchange(b"GET http://%b/first HTTP/1.1\r\nHost: test\r\n\r\n" % host + NEXT)
    assert statuses(answers) == [200, 200]
    assert paths(direct) == ["/first", "/next"]
    assert direct.echo.hosts == [host.decode(), "test"]


def test_a_refused_head_behind_a_good_request_leaves_that_its_answer(direct: Target) -> None:
    good = b"GET /first HTTP/1.1\r\nHost: test\r\n\r\n"
    answers = direct.exchange(good + b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\n" + NEXT)
    assert statuses(answers) == [200]
    assert paths(direct) == ["/first"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_length_of_a_body_is_what_its_one_header_says(method: str) -> None:
    host = (b"host", b"test")
    assert body_bytes(method, "1.1", [host]) == 0
    assert body_bytes(method, "1.1", [host, (b"content-length", b"7")]) == 7
    assert body_bytes(method, "1.1", [host, (b"transfer-encoding", b"CHUNKED")]) is None
    assert body_bytes(method, "1.0", []) == 0
    for headers in ([(b"content-length", b"7"), (b"content-length", b"7")], [(b"content-length", b"\xc2\xb2")], [host]):
        with pytest.raises(RefusedHeadError):
            body_bytes(method, "1.1", [host, *headers])


# Behind nginx

FORWARDING = 'proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection "upgrade";\n'
PLAIN = 'proxy_set_header Connection "";\n'


@pytest.fixture(params=[FORWARDING, PLAIN], ids=["upgrade is forwarded", "upgrade is not forwarded"])
def proxied(request: pytest.FixtureRequest, tmp_path: Path, direct: Target) -> Iterator[Target]:
    """nginx, whose one worker keeps one connection to the server for all its clients."""
    port = free_port()
    site = f"""
        access_log off;
        upstream echo {{ server 127.0.0.1:{direct.port}; keepalive 1; }}
        server {{
            listen 127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $host;
            {request.param}
            location / {{ proxy_pass http://echo; }}
        }}
    """
    with nginx.running(tmp_path, nginx.main_file(tmp_path, site), port):
        yield Target(port, direct.echo)


@needs_nginx
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
def test_behind_nginx_a_victim_gets_its_own_answer(proxied: Target, offer: str, body: str) -> None:
    """The attacker's body is a request that swallows the head of whatever comes next on the same connection."""
    swallowing = b"GET /smuggled HTTP/1.1\r\nHost: test\r\nX: "
    header, sent = {
        "none": (b"", swallowing),
        "length": (b"Content-Length: %d\r\n" % len(swallowing), swallowing),
        "chunked": (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(swallowing), swallowing)),
    }[body]
    for number in range(3):
        head = b"POST /attacker HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%b%b\r\n" % (OFFERS[offer], header)
        if offer != "no offer":
            head = head.replace(b"Connection: close\r\n", b"")
        with socket.create_connection(("127.0.0.1", proxied.port), timeout=PATIENCE_SECONDS) as attacker:
            attacker.sendall(head)
            if body != "none":
                attacker.sendall(sent)
            assert attacker.recv(1 << 16).startswith(b"HTTP/1.1 200")
        victim = proxied.exchange(
            b"GET /victim-%d HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer secret\r\nConnection: close\r\n\r\n"
            % number
        )
        assert victim.endswith(b"\r\n\r\n/victim-%d" % number)
    assert "/smuggled" not in paths(proxied)
    assert paths(proxied) == [path for number in range(3) for path in ("/attacker", f"/victim-{number}")]
    bodies = {seen for _, path, seen in proxied.echo.seen if path == "/attacker"}
    assert bodies == {b"" if body == "none" else swallowing}


# A real client


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("length", [0, 5, 3 << 20])
def test_curl_that_offers_http_2_is_answered(direct: Target, tmp_path: Path, length: int, chunked: bool) -> None:
    (tmp_path / "body").write_bytes(bytes(length))
    url = f"http://127.0.0.1:{direct.port}/curl"
    assert CURL is not None
    more = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    command = [CURL, "--http2", "-sSf", "--noproxy", "*", *more, "--data-binary", f"@{tmp_path}/body", url, url]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"/curl/curl"
    assert direct.echo.seen == [("POST", "/curl", bytes(length))] * 2


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl_that_offers_http_2_uploads_a_xorb(cas: EmbeddedCas, tmp_path: Path) -> None:
    sample = make_sample(random_bytes(5 << 20, 1))
    (tmp_path / "xorb").write_bytes(sample.body)
    with live_server(cas) as server:
        url = f"{server.url}/v1/xorbs/default/{sample.xorb.hash}"
        assert CURL is not None
        authorization = f"Authorization: Bearer {server.token('write')}"
        command = [CURL, "--http2", "-sSf", "--noproxy", "*", "-H", authorization, "--data-binary"]
        done = subprocess.run(
            [*command, f"@{tmp_path}/xorb", url, url], capture_output=True, check=False, timeout=PATIENCE_SECONDS
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b'{"was_inserted":true}{"was_inserted":false}'
