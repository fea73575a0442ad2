"""Requests over real sockets: pools, early answers, silence, interruption, proxies, certificates, refusals."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import urllib3

from tests.support.certificates import Certificate, make_certificate
from tests.support.scripted import Connection, Scripted, Seen, head, in_turn, raw, reply, scripted
from xetstore.cancellation import Cancellation
from xetstore.errors import (
    AccessDeniedError,
    IntegrityError,
    InterruptedCallError,
    TimedOutError,
    UnavailableError,
    UnreachableError,
    UsageError,
    XetError,
)
from xetstore.remote.network import CA_VARIABLES, Route
from xetstore.remote.transport import Answer, Patience, Transport

CALM = Patience(connect=10, answer=20, idle=20)
HASTY = Patience(connect=5, answer=0.2, idle=0.2)
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def _no_network_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def transport() -> Iterator[Transport]:
    with Transport(patience=CALM) as made:
        yield made


@pytest.fixture
def hasty() -> Iterator[Transport]:
    """One that is soon tired of silence."""
    with Transport(patience=HASTY) as made:
        yield made


def get(transport: Transport, url: str, **more: object) -> bytes:
    with transport.request("GET", url, cancellation=Cancellation(), **more) as answer:  # type: ignore[arg-type]
        return answer.read(LIMIT)


# Answers


def test_an_answer_has_status_headers_and_body(transport: Transport) -> None:
    with scripted(reply(418, b"body", {"X-Some-Thing": "1"})) as server:
        with transport.request(
            "GET", f"{server.url}/a?b=c#d", headers={"x-mine": "2"}, cancellation=Cancellation()
        ) as answer:
            assert (answer.status, answer.headers.get("x-some-thing"), answer.read(LIMIT)) == (418, "1", b"body")
        [seen] = server.requests
        assert (seen.method, seen.target, seen.headers["x-mine"]) == ("GET", "/a?b=c", "2")
        assert seen.headers["user-agent"].startswith("xetstore/")


def test_a_connection_serves_one_request_after_the_other(transport: Transport) -> None:
    with scripted(reply(200, b"x" * 100_000)) as server:
        for _ in range(5):
            get(transport, server.url)
        transport.request("HEAD", server.url, cancellation=Cancellation()).close()
        get(transport, server.url)
        assert server.connections == 1


def test_a_connection_whose_answer_was_not_read_is_not_used_again(transport: Transport) -> None:
    with scripted(reply(200, b"x" * 1_000_000)) as server:
        transport.request("GET", server.url, cancellation=Cancellation()).close()
        assert len(get(transport, server.url)) == 1_000_000
        assert server.connections == 2


def test_more_calls_than_pooled_connections_are_no_problem(transport: Transport) -> None:
    with scripted(reply(200, b"x")) as server:
        answers = [transport.request("GET", server.url, cancellation=Cancellation()) for _ in range(40)]
        for answer in answers:
            assert answer.read(LIMIT) == b"x"
            answer.close()
        assert server.connections == 40


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(transport: Transport) -> None:
    """Also where that shows only after the request was sent: no request was answered twice."""

    def close_before_answering(connection: Connection, seen: Seen) -> bool:
        return False

    with scripted(reply(200, b"1"), close_before_answering, reply(200, b"2")) as server:
        assert get(transport, server.url) == b"1"
        with transport.request("POST", server.url, body=b"again", cancellation=Cancellation()) as answer:
            assert answer.read(LIMIT) == b"2"
        assert [seen.body for seen in server.requests] == [b"", b"again", b"again"]


def test_a_new_connection_that_is_closed_is_an_error(transport: Transport) -> None:
    with scripted(raw()) as server, pytest.raises(UnavailableError, match="closed without an answer"):
        get(transport, server.url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raw(head(200, {"Content-Length": "10"}), b"short"), "ended before the body did"),
        (raw(head(200, {"Content-Length": "10"}), b"short", then="reset"), "broke"),
        (raw(head(200, {"Transfer-Encoding": "chunked"}), b"5\r\nshort\r\n"), "ended before the body did"),
        (raw(head(200, {"Transfer-Encoding": "chunked"}), b"zzz\r\n"), "what came is not HTTP"),
        (raw(b"SSH-2.0-something\r\n"), "what came is not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), "what came is not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\n", then="reset"), "broke"),
    ],
)
def test_a_broken_answer_is_an_error(transport: Transport, answer: Callable[..., bool], error: str) -> None:
    with scripted(answer) as server, pytest.raises(UnavailableError, match=error) as caught:
        get(transport, server.url)
    assert caught.value.hint


def test_bodies_in_chunks_and_to_the_end_of_the_connection_are_read(transport: Transport) -> None:
    chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    with scripted(
        raw(head(200, {"Transfer-Encoding": "chunked"}), chunks, then="keep"), raw(head(200, {}), b"hello world")
    ) as server:
        assert get(transport, server.url) == b"hello world"
        assert get(transport, server.url) == b"hello world"
        assert server.connections == 1


def test_gzip_is_undone_within_a_bound(transport: Transport) -> None:
    body = b"compressible " * 10_000
    bomb = gzip.compress(bytes(50 << 20))
    told = {"Content-Encoding": "gzip"}
    with scripted(
        reply(200, gzip.compress(body), told),
        reply(200, bomb, told),
        reply(200, b"no gzip at all", told),
        reply(200, gzip.compress(body)[:-20], told),
    ) as server:
        assert get(transport, server.url) == body
        with pytest.raises(IntegrityError, match="longer than"):
            get(transport, server.url)
        with pytest.raises(IntegrityError, match="is said to be gzip"):
            get(transport, server.url)
        with pytest.raises(UnavailableError, match="ended too early"):
            get(transport, server.url)


def test_no_more_than_the_limit_is_read(transport: Transport) -> None:
    with scripted(reply(200, b"x" * (LIMIT + 1))) as server, pytest.raises(IntegrityError, match="longer than"):
        get(transport, server.url)


# Bodies sent


def test_a_body_is_sent_with_its_length(transport: Transport) -> None:
    body = os.urandom(3_000_000)
    with scripted(reply(200)) as server:
        transport.request("POST", server.url, body=memoryview(body), cancellation=Cancellation()).close()
        transport.request("POST", server.url, cancellation=Cancellation()).close()
        assert [seen.body for seen in server.requests] == [body, b""]
        assert [seen.headers["content-length"] for seen in server.requests] == ["3000000", "0"]
        assert not any("expect" in seen.headers or "transfer-encoding" in seen.headers for seen in server.requests)


def _early(status: int, *, then: str) -> Callable[[Connection, Seen], bool]:
    return raw(head(status, {"Content-Length": "5", "Connection": "close"}), b"early", then=then)


@pytest.mark.parametrize("then", ["close", "stall"])
@pytest.mark.parametrize("status", [413, 401, 503])
def test_an_answer_that_comes_before_the_body_was_sent_is_heard(transport: Transport, status: int, then: str) -> None:
    with Scripted(in_turn(_early(status, then=then)), reads_bodies=False) as server:
        with transport.request("POST", server.url, body=bytes(50 << 20), cancellation=Cancellation()) as answer:
            assert (answer.status, answer.read(LIMIT)) == (status, b"early")
        # That connection is full of what nobody reads.
        with transport.request("POST", server.url, body=b"next", cancellation=Cancellation()) as answer:
            assert answer.status == status
        assert server.connections == 2


def test_a_server_that_stops_reading_is_not_waited_for(hasty: Transport) -> None:
    with (
        Scripted(in_turn(lambda connection, _: not connection.over.wait(20)), reads_bodies=False) as server,
        pytest.raises(TimedOutError, match=r"took no byte for 0\.2 s") as caught,
    ):
        hasty.request("POST", server.url, body=bytes(50 << 20), cancellation=Cancellation())
    assert caught.value.hint


# Silence


def test_silence_is_told_with_its_length(hasty: Transport) -> None:
    with scripted(raw(then="stall")) as server:
        with pytest.raises(TimedOutError, match=r"127.0.0.1:[0-9]+ gave no answer for 0.2 s") as caught:
            get(hasty, server.url)
        assert caught.value.hint
        with pytest.raises(TimedOutError, match=r"gave no answer for 0.05 s"):
            get(hasty, server.url, timeout=0.05)


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-", then="stall"),
        raw(head(200, {"Content-Length": "100"}), b"some", then="stall"),
        raw(head(200, {"Transfer-Encoding": "chunked"}), b"4\r\nsome\r\n", then="stall"),
    ],
)
def test_silence_in_the_middle_of_an_answer_is_told(hasty: Transport, answer: Callable[..., bool]) -> None:
    with scripted(answer) as server, pytest.raises(TimedOutError, match="in the middle"):
        get(hasty, server.url)


def test_what_cannot_be_reached_is_told(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port} cannot be reached: Connection refused") as caught:
        get(transport, f"http://127.0.0.1:{port}")
    assert "running" in (caught.value.hint or "")
    with Transport(allow_http=True) as open_minded, pytest.raises(UnavailableError, match="cannot be found"):
        get(open_minded, "http://no-such-host.invalid")


def test_a_connection_that_is_not_taken_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            with (
                Transport(patience=Patience(connect=0.2)) as transport,
                pytest.raises(TimedOutError, match=r"no connection to .* within 0.2 s"),
            ):
                get(transport, f"http://127.0.0.1:{full.getsockname()[1]}")
        finally:
            for sock in waiting:
                sock.close()


# Interruption


def _interrupted(call: Cancellation, work: Callable[[], object], when: Callable[[], bool]) -> XetError:
    """What ``work`` raises if it is interrupted as soon as ``when``."""
    errors: list[XetError] = []

    def run() -> None:
        try:
            work()
        except XetError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 20
    while not when() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)
    call.cancel()
    thread.join(20)
    assert not thread.is_alive()
    [error] = errors
    return error


PATIENT = Patience(connect=60, answer=60, idle=60)


@pytest.mark.parametrize(
    "answer",
    [
        raw(then="stall"),
        raw(b"HTTP/1.1 200", then="stall"),
        raw(head(200, {"Content-Length": "100"}), b"some", then="stall"),
        raw(head(200, {"Transfer-Encoding": "chunked"}), b"4\r\nsome\r\n", then="stall"),
        raw(head(200, {}), b"some", then="stall"),
    ],
)
def test_an_interruption_ends_a_call_that_waits(answer: Callable[..., bool]) -> None:
    call = Cancellation()

    def read() -> None:
        with transport.request("GET", server.url, cancellation=call) as coming:
            coming.read(LIMIT)

    with scripted(answer) as server, Transport(patience=PATIENT) as transport:
        error = _interrupted(
            call,
            read,
            lambda: bool(server.requests),
        )
        assert type(error) is InterruptedCallError


def test_an_interruption_ends_a_call_that_sends() -> None:
    call = Cancellation()
    held = threading.Event()

    def hold(connection: Connection, seen: Seen) -> bool:
        held.wait(20)
        return False

    with Scripted(in_turn(hold), reads_bodies=False) as server, Transport(patience=PATIENT) as transport:
        error = _interrupted(
            call,
            lambda: transport.request("POST", server.url, body=bytes(50 << 20), cancellation=call),
            lambda: bool(server.requests),
        )
        held.set()
        assert type(error) is InterruptedCallError


def test_an_interruption_ends_a_call_that_connects() -> None:
    call = Cancellation()
    with socket.create_server(("127.0.0.1", 0)) as silent, Transport(patience=PATIENT) as transport:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"  # accepted, but TLS never begins
        accepted = threading.Event()
        threading.Timer(0.1, accepted.set).start()
        error = _interrupted(call, lambda: transport.request("GET", url, cancellation=call), accepted.is_set)
        assert type(error) is InterruptedCallError


def test_calls_of_others_are_not_interrupted_and_later_ones_are_refused(transport: Transport) -> None:
    mine, others = Cancellation(), Cancellation()
    with scripted(reply(200, b"x" * 500_000)) as server:
        before, other = (transport.request("GET", server.url, cancellation=call) for call in (mine, others))
        mine.cancel()
        with before, pytest.raises(InterruptedCallError):
            before.read(LIMIT)
        with other:
            assert len(other.read(LIMIT)) == 500_000
        with pytest.raises(InterruptedCallError):
            transport.request("GET", server.url, cancellation=mine)


def test_a_connection_that_is_back_in_the_pool_is_not_shut_down(transport: Transport) -> None:
    with scripted(reply(200, b"x")) as server:
        for _ in range(3):
            call = Cancellation()
            with transport.request("GET", server.url, cancellation=call) as answer:
                answer.read(LIMIT)
            call.cancel()
        assert server.connections == 1


# What is refused


@pytest.mark.parametrize(
    "url", ["", "/relative", "ftp://host/x", "file:///etc/passwd", "http://", "http://[::1", "http://host:99999/"]
)
def test_what_is_no_url_is_refused(transport: Transport, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        get(transport, url)
    assert caught.value.hint


def test_a_url_with_a_password_is_refused_and_not_shown(transport: Transport) -> None:
    with pytest.raises(UsageError, match="user or a password") as caught:
        get(transport, "https://me:s3cret@host.example/x")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["host.example", "10.0.0.1", "localhost.example", "[2001:db8::1]"])
def test_plain_http_to_another_machine_is_refused(transport: Transport, host: str) -> None:
    with pytest.raises(UsageError, match="plain http") as caught:
        get(transport, f"http://{host}/x")
    assert "XET_ALLOW_HTTP" in (caught.value.hint or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "a.localhost"])
def test_plain_http_to_this_machine_is_not(transport: Transport, host: str) -> None:
    transport.check_scheme(f"http://{host}/x")


def test_a_malformed_header_is_refused(transport: Transport) -> None:
    with scripted(reply(200)) as server, pytest.raises(UsageError, match="malformed"):
        transport.request("GET", server.url, headers={"x-a": "1\r\nx-b: 2"}, cancellation=Cancellation())


def test_a_closed_transport_is_no_use() -> None:
    transport = Transport()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        get(transport, "http://127.0.0.1:1")


def test_no_query_of_a_url_is_logged(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(reply(200, b"x")) as server:
        get(transport, f"{server.url}/path?signature=s3cret")
        assert "/path" in caplog.text
        assert "s3cret" not in caplog.text
        with urllib3.PoolManager() as others:
            others.request("GET", f"{server.url}/other?q=theirs")
        assert "theirs" in caplog.text


# Proxies


class _Proxy:
    """Forwards to one server whatever host is asked for; tunnels too. ``lines`` are the first lines of requests."""

    def __init__(self, target: Scripted, refuse: bytes = b"") -> None:
        self.lines: list[str] = []
        self.headers: list[str] = []
        self._target = target
        self._refuse = refuse
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> _Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        try:
            seen = b""
            while b"\r\n\r\n" not in seen:
                part = client.recv(4096)
                if not part:
                    return
                seen += part
            self.lines.append(seen.split(b"\r\n")[0].decode())
            self.headers.append(seen.decode())
            if self._refuse:
                client.sendall(self._refuse)
                client.shutdown(socket.SHUT_RDWR)
                return
            server = socket.create_connection(("127.0.0.1", self._target.port))
            self._open.append(server)
            if seen.startswith(b"CONNECT"):
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                server.sendall(seen)
            back = threading.Thread(target=_copy, args=(server, client))
            self._threads.append(back)
            back.start()
            _copy(client, server)
        except OSError:
            pass


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_plain_http_goes_through_the_proxy_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(reply(200, b"x")) as server, _Proxy(server) as proxy, Transport(allow_http=True) as transport:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:s3cret@"))
        assert get(transport, "http://cas.example/v1/x") == b"x"
        assert proxy.lines == ["GET http://cas.example/v1/x HTTP/1.1"]
        assert "proxy-authorization: basic bwu6cznjcmv0" in proxy.headers[0].lower()
        assert server.requests[0].headers["host"] == "cas.example"


def test_all_proxy_serves_where_no_other_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(reply(200, b"x")) as server, _Proxy(server) as proxy, Transport(allow_http=True) as transport:
        monkeypatch.setenv("ALL_PROXY", proxy.url.removeprefix("http://"))
        assert get(transport, "http://cas.example/") == b"x"
        assert len(proxy.lines) == 1


def test_no_proxy_is_used_for_this_machine_nor_for_those_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(reply(200, b"x")) as server, _Proxy(server) as proxy, Transport(allow_http=True) as transport:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert get(transport, server.url) == b"x"
        monkeypatch.setenv("no_proxy", "cas.invalid")
        with pytest.raises(UnavailableError, match=r"cas\.invalid cannot be found"):
            get(transport, "http://cas.invalid/")
        assert proxy.lines == []


def test_a_proxy_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{port}")
    with (
        Transport(allow_http=True) as transport,
        pytest.raises(UnavailableError, match=r"the proxy 127\.0\.0\.1 ") as e,
    ):
        get(transport, "http://cas.example/")
    assert "s3cret" not in str(e.value)


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "ftp://127.0.0.1:1")
    with Transport() as transport, pytest.raises(UsageError, match="is not an http, https, socks5 or socks5h URL"):
        get(transport, "https://cas.example/")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls") / "certificate")


@contextmanager
def tls_server(certificate: Certificate, *steps: Callable[..., bool], **more: bool) -> Iterator[Scripted]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    with Scripted(in_turn(*steps), tls=context, **more) as server:
        yield server


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_certificates_that_the_environment_names_are_trusted(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, variable: str, transport: Transport
) -> None:
    monkeypatch.setenv(variable, certificate.cert)
    with tls_server(certificate, reply(200, b"x" * 300_000)) as server:
        for _ in range(2):
            assert len(get(transport, server.url)) == 300_000
        with transport.request("POST", server.url, body=bytes(2_000_000), cancellation=Cancellation()) as answer:
            assert len(answer.read(LIMIT)) == 300_000
        assert len(server.requests[-1].body) == 2_000_000
        assert server.connections == 1


def test_a_certificate_that_is_not_trusted_is_a_lasting_error(certificate: Certificate, transport: Transport) -> None:
    with (
        tls_server(certificate, reply(200)) as server,
        pytest.raises(AccessDeniedError, match=r"certificate of localhost:[0-9]+ is not to be trusted") as caught,
    ):
        get(transport, server.url)
    assert "SSL_CERT_FILE" in (caught.value.hint or "")


def test_a_certificate_of_another_host_is_not_trusted(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
    with tls_server(certificate, reply(200)) as server, pytest.raises(AccessDeniedError, match="not to be trusted"):
        get(transport, server.url.replace("localhost", "127.0.0.1"))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_bundle_that_is_none_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, transport: Transport
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE") as caught:
        get(transport, "https://localhost:1/")
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_server_without_tls_is_told_from_one_with_it() -> None:
    with (
        scripted(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server,
        # It waits for the end of a line, which what TLS sends may have or not.
        Transport(patience=Patience(connect=0.3)) as transport,
        pytest.raises((UsageError, UnavailableError)) as caught,
    ):
        get(transport, server.url.replace("http://", "https://"))
    assert caught.value.hint


def test_silence_is_told_through_tls(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, hasty: Transport
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
    with tls_server(certificate, raw(then="stall")) as server, pytest.raises(TimedOutError, match="gave no answer"):
        get(hasty, server.url)
    partial = raw(head(200, {"Content-Length": "100"}), b"some", then="stall")
    with tls_server(certificate, partial) as server, pytest.raises(TimedOutError, match="in the middle"):
        get(hasty, server.url)


def test_an_early_answer_is_heard_through_tls(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    """What TLS itself has to say, such as its tickets, is not taken for one."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
    early = _early(413, then="close")
    with (
        tls_server(certificate, early, reads_bodies=False) as server,
        transport.request("POST", server.url, body=bytes(50 << 20), cancellation=Cancellation()) as answer,
    ):
        assert (answer.status, answer.read(LIMIT)) == (413, b"early")


def test_https_goes_through_a_tunnel(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert)
    with tls_server(certificate, reply(200, b"x" * 100_000)) as server, _Proxy(server) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        # The certificate is for localhost, which no proxy is used for: it is not trusted, but the tunnel is there.
        with Transport() as transport, pytest.raises(AccessDeniedError, match=r"certificate of cas\.example"):
            get(transport, "https://cas.example/")
        assert proxy.lines == ["CONNECT cas.example:443 HTTP/1.0"]


def test_a_tunnel_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n"
    with scripted(reply(200)) as server, _Proxy(server, refuse=refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with Transport() as transport, pytest.raises(AccessDeniedError, match=r"the proxy .* refuses .* \(HTTP 407\)"):
            get(transport, "https://cas.example/")


def test_an_answer_can_be_read_piece_by_piece(transport: Transport) -> None:
    def read(answer: Answer) -> bytes:
        got, view = b"", memoryview(bytearray(1000))
        while count := answer.readinto(view):
            got += view[:count]
        return got

    body = os.urandom(100_000)
    with (
        scripted(reply(200, body)) as server,
        transport.request("GET", server.url, cancellation=Cancellation()) as answer,
    ):
        assert read(answer) == body
        assert answer.readinto(memoryview(bytearray(1))) == 0


def test_threads_that_reach_very_many_hosts_at_once_are_not_in_each_others_way() -> None:
    errors: list[BaseException] = []
    interval = sys.getswitchinterval()
    with Transport() as transport:
        routes = [Route.to(f"http://127.0.0.{number}:80/") for number in range(1, 100)]
        manager = transport._manager(routes[0])

        def reach(step: int) -> None:
            try:
                for number in range(4000):
                    transport._pool(manager, routes[number * step % len(routes)].origin)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=reach, args=(step,)) for step in (1, 2, 5, 7, 13, 17)]
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert not errors
