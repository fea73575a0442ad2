"""Proxies: which hosts go without, and SOCKS5, by a real server of it on a real socket."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.scripted import Scripted, reply, scripted
from xetstore.cancellation import Cancellation
from xetstore.errors import AccessDeniedError, TimedOutError, UnavailableError, UsageError
from xetstore.extras import install_hint
from xetstore.remote.network import CA_VARIABLES, Origin, is_excepted
from xetstore.remote.transport import Patience, Transport


@pytest.fixture(autouse=True)
def _no_network_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, "SSL_CERT_DIR", *(name for name in os.environ if name.lower().endswith("_proxy"))):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "no_proxy", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.1.2.3", "192.168.0.0/16 10.1.2.0/30", True),
        ("10.1.2.3", "10.1.2.3/8", True),
        ("fe80::1", "fe80::/10", True),
        ("fe80::1", "[fe80::1]", True),
        ("fe80::1", "fe80:0:0::1", True),
        ("fe80::1", "[fe80::1]:443", True),
        ("fe80::1", "[fe80::1]:80", False),
        ("2001:db8::1", "fe80::/10", False),
        ("2001:db8::1", "10.0.0.0/8", False),
        ("10.1.2.3", "fe80::/10", False),
        ("cas.example.org", "example.org", True),
        ("cas.example.org", ".example.org", True),
        ("cas.example.org", "*.example.org", True),
        ("cas.example.org", "EXAMPLE.org.", True),
        ("CAS.Example.ORG", "cas.example.org", True),
        ("cas.example.org.", "example.org", True),
        ("example.org", "example.org", True),
        ("example.org", ".example.org", True),
        ("example.org", "*.example.org", False),
        ("badexample.org", "example.org", False),
        ("badexample.org", "*.example.org", False),
        ("example.org", "cas.example.org", False),
        ("cas.example.org", "example.org:443", True),
        ("cas.example.org", "example.org:444", False),
        ("10.1.2.3", "10.0.0.0/8:443", True),
        ("cas.example.org", "*", True),
        ("fe80::1", "a, *", True),
        ("cas.example.org", "", False),
        ("cas.example.org", " ,, ", False),
        ("cas.example.org", "10.0.0.0/8,[oops,:80,/,*.,..,a:b:c", False),
        ("cas.example.org", "a.org,b.org\tcas.example.org", True),
    ],
)
def test_what_no_proxy_names_goes_without(host: str, no_proxy: str, expected: bool) -> None:
    assert is_excepted(Origin("https", host, 443), no_proxy) is expected


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_counts_in_either_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks(0) as proxy, Transport(allow_http=True, patience=Patience(connect=0.5)) as transport:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(name, "192.0.2.0/24")
        with pytest.raises(UnavailableError):  # it is no host's address
            transport.request("GET", "http://192.0.2.7/", cancellation=Cancellation())
        assert proxy.connections == 0


# SOCKS


class Socks:
    """A SOCKS5 server that leads to one port of this machine, whatever is asked for. A context manager.

    ``login`` is user and password; with ``code`` it answers that instead of connecting; with ``stops`` it says so many
    bytes at most, a byte now and then.
    """

    def __init__(
        self, target: int, *, login: tuple[str, str] | None = None, code: int = 0, stops: int | None = None
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self.connections = 0
        self._target, self._login, self._code, self._stops = target, login, code, stops
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Socks:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for sock in (self._listening, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for sock in (self._listening, *self._open):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            self._start(self._serve, client)

    def _start(self, target: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, struct.error, IndexError, ValueError), client.makefile("rb") as reader:
            _, count = reader.read(2)
            methods = reader.read(count)
            wanted = 2 if self._login else 0
            if wanted not in methods:
                self._say(client, b"\x05\xff")
                return
            self._say(client, bytes([5, wanted]))
            if self._login:
                reader.read(1)
                given = [reader.read(reader.read(1)[0]).decode() for _ in range(2)]
                is_right = tuple(given) == self._login
                self._say(client, b"\x01\x00" if is_right else b"\x01\x01")
                if not is_right:
                    return
            kind = reader.read(4)[3]
            if kind == 3:
                host = reader.read(reader.read(1)[0]).decode()
            else:
                family = socket.AF_INET if kind == 1 else socket.AF_INET6
                host = socket.inet_ntop(family, reader.read(4 if kind == 1 else 16))
            (port,) = struct.unpack(">H", reader.read(2))
            self.asked.append((host, port))
            self._say(client, bytes([5, self._code, 0, 1, 0, 0, 0, 0, 0, 0]))
            if self._code:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open.append(server)
            self._start(_copy, server, client)
            _copy(client, server)

    def _say(self, client: socket.socket, text: bytes) -> None:
        if self._stops is None:
            client.sendall(text)
            return
        for byte in text[: self._stops]:
            self._over.wait(0.1)
            client.sendall(bytes([byte]))
        self._stops -= min(self._stops, len(text))
        if not self._stops:
            self._over.wait(30)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(reply(200, b"x" * 100_000)) as made:
        yield made


def get(url: str, patience: Patience = Patience()) -> bytes:  # noqa: B008  # it is immutable
    with (
        Transport(allow_http=True, patience=patience) as transport,
        transport.request("GET", url, cancellation=Cancellation()) as answer,
    ):
        return answer.read(1 << 20)


@pytest.mark.parametrize(
    ("scheme", "host"),
    [("socks5h", "cas.example"), ("socks5h", "192.0.2.1"), ("socks5", "192.0.2.1"), ("SOCKS5", "192.0.2.1")],
)
def test_a_socks_proxy_leads_to_the_server(
    server: Scripted, scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Socks(server.port) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:{proxy.port}")
        assert get(f"http://{host}:8000/") == b"x" * 100_000
        assert proxy.asked == [(host, 8000)]


def test_a_connection_through_socks_is_used_again(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks(server.port) as proxy, Transport(allow_http=True) as transport:
        monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{proxy.port}")
        for _ in range(3):
            with transport.request("GET", "http://cas.example/", cancellation=Cancellation()) as answer:
                assert len(answer.read(1 << 20)) == 100_000
        assert proxy.connections == 1


def test_socks_takes_a_login(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks(server.port, login=("me", "s3:cret")) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:s3%3Acret@127.0.0.1:{proxy.port}")
        assert len(get("http://cas.example/")) == 100_000
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:wr0ng@127.0.0.1:{proxy.port}")
        with pytest.raises(AccessDeniedError, match="refuses the login") as caught:
            get("http://cas.example/")
        assert "wr0ng" not in str(caught.value)
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        with pytest.raises(AccessDeniedError, match="refuses the login"):
            get("http://cas.example/")


def test_tls_goes_through_socks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    with Scripted(lambda _: reply(200), tls=context) as server, Socks(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        # The certificate is for localhost, which no proxy is used for: it is not trusted, but the way there is.
        with pytest.raises(AccessDeniedError, match=r"certificate of cas\.example"):
            get("https://cas.example/")
        assert proxy.asked == [("cas.example", 443)]


def test_what_socks_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks(1, code=5) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        with pytest.raises(UnavailableError, match=r"does not connect to cas\.example: Connection refused"):
            get("http://cas.example/")
    with pytest.raises(UnavailableError, match=r"the proxy 127\.0\.0\.1:\d+ cannot be reached: Connection refused"):
        get("http://cas.example/")
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:1")
    with pytest.raises(UsageError, match="is not an http, https, socks5 or socks5h URL"):
        get("http://cas.example/")


@pytest.mark.parametrize("stops", [0, 1, 2, 11])
def test_a_socks_proxy_that_stops_or_drips_is_given_up(stops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks(1, stops=stops) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        with pytest.raises(TimedOutError, match="did not answer in time"):
            get("http://cas.example/", Patience(connect=0.5))


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(UsageError, match="takes the extra socks") as caught:
        get("http://192.0.2.1/")
    assert install_hint("socks") in (caught.value.hint or "")
