"""TLS: a server with a certificate of its own, and certificates that are none."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from tests.support.certificates import Certificate, make_certificate
from tests.support.live import PATIENCE_SECONDS, LiveServer, ServerFailedError, ServerProcess, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError, UsageError
from xetstore.server.http.sockets import tls_context
from xetstore.server.settings import ServerSettings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls") / "one")


@pytest.fixture
def secure(cas: EmbeddedCas, certificate: Certificate) -> Iterator[LiveServer]:
    with live_server(cas, tls_cert=certificate.cert, tls_key=certificate.key, header_timeout_seconds=0.3) as running:
        yield running


@contextmanager
def tls(url: str, certificate: Certificate, **versions: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
    """A connection that trusts the certificate and nothing else."""
    context = ssl.create_default_context(cafile=certificate.cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, version in versions.items():
        setattr(context, name, version)
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        yield wrapped


def test_a_server_with_a_certificate_speaks_https(secure: LiveServer, certificate: Certificate) -> None:
    assert secure.url.startswith("https://")
    with tls(secure.url, certificate) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b'{"status":"live"}')
        answer.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that such versions are old is what this is about
def test_nothing_older_than_tls_1_2_is_spoken(secure: LiveServer, certificate: Certificate) -> None:
    with tls(secure.url, certificate, maximum_version=ssl.TLSVersion.TLSv1_2) as connection:
        assert connection.version() == "TLSv1.2"
    old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    with pytest.raises(ssl.SSLError), tls(secure.url, certificate, **old):
        pass


def test_plain_http_gets_no_answer_where_tls_is_spoken(secure: LiveServer) -> None:
    with secure.connect() as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(1 << 16)


def test_a_late_head_is_cut_off_behind_tls_too(secure: LiveServer, certificate: Certificate) -> None:
    with tls(secure.url, certificate) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(12) == b"HTTP/1.1 408"


def test_a_handshake_that_does_not_come_on_ends_as_soon_as_a_head_would(secure: LiveServer) -> None:
    with secure.connect() as plain:
        plain.settimeout(PATIENCE_SECONDS / 2)  # asyncio would wait for a minute
        plain.sendall(b"\x16\x03\x01\x02\x00")
        assert plain.recv(1 << 16) == b""


def test_an_idle_connection_that_makes_room_is_gone_at_once(cas: EmbeddedCas, certificate: Certificate) -> None:
    """Its client does not agree to the end of TLS, for which closing would wait."""
    limits: dict[str, Any] = {"max_connections": 2, "header_timeout_seconds": PATIENCE_SECONDS}
    with (
        live_server(cas, tls_cert=certificate.cert, tls_key=certificate.key, **limits) as server,
        ExitStack() as stack,
    ):
        for _ in range(6):
            connection = stack.enter_context(tls(server.url, certificate))
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            assert server.connections <= 2 + 1  # the one that is going


def test_a_process_with_a_certificate_says_https(tmp_path: Path, certificate: Certificate) -> None:
    options = ("--tls-cert", certificate.cert, "--tls-key", certificate.key, "--host", "0.0.0.0")
    with ServerProcess(tmp_path / "store", *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with tls(server.url, certificate) as connection:
            connection.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(ServerSettings()) is None


def test_a_missing_file_is_named(certificate: Certificate) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.pem"):
        tls_context(Certificate("gone.pem", certificate.key).settings)
    with pytest.raises(NotFoundError, match=r"gone\.pem"):
        tls_context(Certificate(certificate.cert, "gone.pem").settings)


def test_what_is_no_certificate_or_not_its_key_is_refused(tmp_path: Path, certificate: Certificate) -> None:
    other = make_certificate(tmp_path / "other")
    (tmp_path / "noise.pem").write_bytes(b"\x00\x01")
    for cert, key in (
        (str(tmp_path / "noise.pem"), certificate.key),
        (certificate.cert, str(tmp_path / "noise.pem")),
        (certificate.cert, other.key),
        (str(tmp_path), certificate.key),
    ):
        with pytest.raises(UsageError, match="are not a certificate and its key"):
            tls_context(Certificate(cert, key).settings)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    locked = make_certificate(tmp_path / "locked", BestAvailableEncryption(b"secret"))
    with pytest.raises(UsageError, match="are not a certificate and its key") as caught:
        tls_context(locked.settings)
    assert caught.value.hint is not None
    assert "no password" in caught.value.hint
    with pytest.raises(ServerFailedError, match=r"exit code 2.*not a certificate"):
        ServerProcess(tmp_path / "store", "--tls-cert", locked.cert, "--tls-key", locked.key)
    assert not (tmp_path / "store").exists(), "it is refused before a store is made"
