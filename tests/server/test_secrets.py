"""Nothing that lets its reader in is ever written down: not in a log, at whatever level, and not in an answer."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.live import Response, ServerProcess, request
from tests.support.strategies import splitmix64
from xetstore.access.keys import KeyRing
from xetstore.access.signed_urls import UrlSigner
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.testing.samples import make_sample

PASSWORD = "correct-horse-battery-staple"
BASIC = b64encode(f"somebody:{PASSWORD}".encode()).decode()
NO_FILE = "/v1/reconstructions/" + "ab" * 32


class Visitor:
    """Asks a server, and keeps what it was told and what nobody else may come to know."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.secrets = {PASSWORD, BASIC}
        self.answers: list[Response] = []
        self.sent = 0

    def token(self, scope: str, *, issued: float = 0, **more: Any) -> str:
        """A token, issued so many seconds ago."""
        keys = KeyRing.open(Path(self.server.started["store"], "access"), create=False)
        authority = TokenAuthority(keys, clock=lambda: time.time() - issued)
        return self.knows(authority.issue(scope=Scope(scope), namespace="default", **more))

    def knows(self, token: str) -> str:
        """Notes a token and its parts; its header is no secret."""
        header, *parts = token.split(".")
        self.secrets |= {token, *parts} - {"", header}
        return token

    def ask(
        self,
        method: str,
        path: str,
        expected: int,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        answer = request(self.server.url, method, path, token=token, headers=headers, body=body)
        assert answer.status == expected, answer.body
        self.sent += 1
        self.answers.append(answer)
        return answer

    def signed(self, path: str, token: str, *, body: bytes = b"") -> list[str]:
        """The URLs of a reconstruction, the one answer that holds secrets, which it is for."""
        answer = request(self.server.url, "POST" if body else "GET", path, token=token, body=body)
        assert answer.status == 200, answer.body
        self.sent += 1
        urls: list[str] = re.findall(r'"url":"([^"]+)"', answer.body.decode())
        assert urls
        for url in urls:
            self.secrets |= set(parse_qs(urlsplit(url).query)["X-Xet-Signature"])
        return urls

    def raw(self, data: bytes) -> None:
        """Something that no client would send, and what comes of it."""
        with self.server.connect() as connection:
            connection.sendall(data)
            told = b""
            while part := connection.recv(1 << 16):
                told += part
        assert not told or told.startswith(b"HTTP/1.1 ")
        self.answers.append(Response(0, self.answers[-1].headers, told))

    def expect_untold(self, text: str) -> None:
        assert {secret for secret in self.secrets if secret in text} == set()


def spoiled(text: str) -> str:
    """The same with another last character."""
    return text[:-1] + ("A" if text[-1] != "A" else "Q")


def visit(visitor: Visitor) -> None:
    """Everything that callers do, and what they should not."""
    server = visitor.server
    sample, other = make_sample(splitmix64(1, 300_000)), make_sample(splitmix64(2, 100_000))
    xorb, file = f"/v1/xorbs/default/{sample.xorb.hash}", str(sample.file.hash)
    admin = visitor.knows(server.admin_token)
    writer, reader = visitor.token("write"), visitor.token("read")
    store = Path(server.started["store"])

    # As it should be
    visitor.ask("POST", xorb, 200, token=writer, body=sample.body)
    visitor.ask("POST", "/v1/shards", 200, token=writer, body=sample.shard.serialize())
    visitor.ask("POST", "/v2/shards", 200, token=writer, body=sample.shard.serialize())
    keys = json.dumps([{"hash": file}]).encode()
    urls = visitor.signed(f"/v1/reconstructions/{file}", reader) + visitor.signed(f"/v2/reconstructions/{file}", reader)
    urls += visitor.signed("/v1/reconstructions", reader, body=keys)
    span = f"bytes=0-{len(sample.body) - 1}"
    for url in urls:
        visitor.ask("GET", url, 206, headers={"Range": span})
        visitor.ask("HEAD", url, 206, headers={"Range": span})
    for path in ("/", "/metrics", "/openapi.json", "/health/ready"):
        visitor.ask("GET", path, 200, token=admin)

    # Tokens that are not good
    stranger = KeyRing.open(store.with_name("strangers access"))
    for token in (
        spoiled(writer),
        visitor.token("read", issued=5000, ttl_seconds=900),
        TokenAuthority(stranger).issue(scope=Scope.ADMIN, namespace="default"),
        writer.rpartition(".")[0] + ".",
        writer + "." + writer,
        writer.partition(".")[2],
    ):
        visitor.ask("GET", NO_FILE, 401, token=visitor.knows(token))
    for header in (f"Basic {BASIC}", f"Bearer {reader} {writer}", f"bearer\t{reader}", f"Token {reader}", reader):
        visitor.ask("GET", NO_FILE, 401, headers={"Authorization": header})
    visitor.ask("POST", xorb, 403, token=reader, body=sample.body)
    visitor.ask("GET", NO_FILE, 404, token=reader)
    revoked = visitor.token("write")
    TokenAuthority(KeyRing.open(store / "access")).revoke(revoked)
    visitor.ask("POST", xorb, 401, token=revoked, body=sample.body)

    # URLs that are not good
    path = urlsplit(urls[0]).path
    expired = UrlSigner(KeyRing.open(store / "access")).sign(path, [(0, 100)], expires_at=1000)
    visitor.secrets |= set(parse_qs(expired)["X-Xet-Signature"])
    query = urlsplit(urls[0]).query
    for bad in (expired, spoiled(query), query + "&more=1", query.replace("X-Xet-Expires=", "X-Xet-Expires=1")):
        visitor.ask("GET", f"{path}?{bad}", 403, headers={"Range": "bytes=0-9"})
    visitor.ask("GET", f"{path}?{query}", 403)
    visitor.ask("GET", f"{path}?{query}", 416, headers={"Range": "bytes=90000000-"})
    visitor.ask("POST", f"{path}?{query}", 401, body=sample.body)
    original = {"X-Original-Method": "GET", "X-Original-URI": f"{path}?{query}", "Range": "bytes=0-9"}
    visitor.ask("GET", "/v1/auth/xorb", 204, headers=original)
    visitor.ask("GET", "/v1/auth/xorb", 403, headers=original | {"X-Original-URI": f"{path}?{spoiled(query)}"})

    # Secrets where they do not belong
    for token in (reader, spoiled(reader)):
        visitor.ask("GET", f"{NO_FILE}?token={token}", 401)
        visitor.ask("GET", f"/v1/xorbs/{token}/{sample.xorb.hash}", 403)
        visitor.ask("GET", f"/v1/reconstructions/{token}", 400, token=reader)
        visitor.ask("GET", f"//{token}", 404, headers={"User-Agent": f"client {token}", "Referer": urls[0]})
        visitor.ask("GET", NO_FILE, 404, token=reader, headers={"Cookie": f"token={token}", "User-Agent": urls[0]})
        visitor.ask("POST", "/v1/reconstructions", 400, token=reader, body=json.dumps([{"hash": token}]).encode())
        visitor.ask("POST", "/v1/telemetry", 204, token=reader, body=json.dumps({"event": token}).encode())
    visitor.ask("GET", f"{path}%3F{query}", 404)

    # Garbage
    head = f"Host: localhost\r\nAuthorization: Bearer {reader}\r\n"
    for line in (
        "GET / HTTP/9.9",
        "GET  /",
        f"GET /?{query}",
        f"\x00{query}",
        "BREW / HTTP/1.1",
        f"GET {urls[0]} HTTP/1.1",
    ):
        visitor.raw(f"{line}\r\n{head}Connection: close\r\n\r\n".encode())
    visitor.raw(f"GET / HTTP/1.1\r\n{head}X-Long: {'x' * 100_000}\r\n\r\n".encode())
    visitor.raw(f"POST {xorb} HTTP/1.1\r\n{head}Content-Length: many\r\n\r\n".encode())
    visitor.raw(f"POST {xorb} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\nnone\r\n".encode())
    visitor.ask("POST", f"/v1/xorbs/default/{other.xorb.hash}", 400, token=writer, body=writer.encode())
    visitor.ask("POST", "/v1/shards", 400, token=writer, body=writer.encode())
    visitor.ask("POST", "/v1/shards", 400, token=writer, body=other.shard.serialize())

    # The server's own failures
    [stored] = (store / "xorbs").glob(f"*/{sample.xorb.hash}-*")
    stored.write_bytes(b"damaged")
    visitor.ask("GET", urls[0], 500, headers={"Range": span})
    key_file = store / "access" / "keys.json"
    content = key_file.read_text()
    for damage in (content[:-20], content.replace('"secret": "', '"secret": "!'), content.replace('"HS256"', '"none"')):
        key_file.write_text(damage)
        visitor.ask("GET", NO_FILE, 500, token=reader)
        visitor.ask("GET", urls[0], 500, headers={"Range": span})
    key_file.write_text(content)
    key_file.chmod(0o644)
    visitor.ask("GET", NO_FILE, 503, token=reader)
    key_file.chmod(0o600)
    visitor.ask("GET", NO_FILE, 404, token=reader)


def key_secrets(store: Path) -> set[str]:
    """The secret of each key as it is kept, and as it might be shown."""
    found = [key["secret"] for key in json.loads((store / "access" / "keys.json").read_text())["keys"]]
    raw = [b64decode(secret) for secret in found]
    return {*found, *map(bytes.hex, raw), *map(repr, raw), *(urlsafe_b64encode(each).decode() for each in raw)}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_token_signature_or_key_is_in_a_log_or_an_answer(tmp_path: Path, log_format: str) -> None:
    store = tmp_path / "store"
    with ServerProcess(store, "--log-format", log_format, "--log-level", "debug") as server:
        visitor = Visitor(server)
        visit(visitor)
        visitor.secrets |= key_secrets(store)
        server.terminate()
        assert server.wait() == 0
        assert server._process.stdout is not None
        log, output = server.log, json.dumps(server.started) + server._process.stdout.read().decode()
    assert min(map(len, visitor.secrets)) >= 20
    assert log.count("xetstore.access") >= visitor.sent, "all of it was logged"
    assert "[redacted]" in log
    assert "Traceback" in log
    visitor.expect_untold(log)
    visitor.expect_untold(output)
    for answer in visitor.answers:
        visitor.expect_untold(answer.body.decode("latin-1") + str(answer.headers))
