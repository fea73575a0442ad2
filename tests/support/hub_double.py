"""A small Hub for tests: names, token routes and listings in front of a real server of ours, and a record of calls."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

from xetstore.protocol.hashes import Hash


class Issuer(Protocol):
    """A server of ours that gives out tokens: ``LiveServer`` and ``ServerProcess`` are."""

    @property
    def url(self) -> str: ...

    def token(self, scope: str = "read", namespace: str = "default", **more: Any) -> str: ...


@dataclass(frozen=True)
class Asked:
    """A request as it came: ``path`` still quoted, with its query."""

    method: str
    path: str
    headers: Message


@dataclass(frozen=True)
class Stored:
    """A file of a repository; ``hash`` None for one that Xet does not store."""

    size: int
    hash: Hash | None


@dataclass
class HubDouble:
    """What the Hub has and how it answers; all of it may be changed while it runs."""

    url: str
    server: Issuer
    token: str | None = None
    """The Hub token that every call needs; None: everything is public."""
    may_write: bool = True
    redirects_to: str | None = None
    """Resolve answers with a redirect to there, as the public Hub does to a host of its own, instead of 200."""
    commits: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many commits were made on a revision since the first, by root name and revision."""
    failures: list[int] = field(default_factory=list)
    """Statuses that the next calls are answered with."""
    page_size: int = 1000
    ttl_seconds: int = 900
    body_tells: bool = True
    headers_tell: bool = True
    renamed: dict[str, str] = field(default_factory=dict)
    """Old root names to new ones, such as ``models/ns/old``."""
    link_origin: str | None = ""
    """Where the token route is that resolve names in a Link: "" for here, None for no Link."""
    next_origin: str | None = None
    """Where the listing's next pages are said to be, if not here."""
    asked: list[Asked] = field(default_factory=list)
    issued: list[tuple[str, str]] = field(default_factory=list)
    """Scope and revision of every token."""
    files: dict[tuple[str, str], dict[str, Stored]] = field(default_factory=dict)

    def add(self, kind: str, repo: str, revision: str | None, path: str, hash: Hash | None, size: int) -> str:  # noqa: A002
        """Name a file of the server's, and return its locator. A bucket's revision is None."""
        self.files.setdefault((f"{kind}/{repo}", revision or ""), {})[path] = Stored(size, hash)
        at = f"@{quote(revision, safe='')}" if revision else ""
        return f"hf://{kind}/{repo}{at}/{path}"

    def calls(self, part: str) -> list[Asked]:
        """The requests with this in their path."""
        return [asked for asked in self.asked if part in asked.path]

    def forget_calls(self) -> None:
        self.asked.clear()
        self.issued.clear()

    def commit_of(self, root: str, revision: str) -> str:
        """The commit that a revision of a repository stands for, made up."""
        return hashlib.sha1(f"{root}@{revision} {self.commits.get((root, revision), 0)}".encode()).hexdigest()

    def revision_of(self, root: str, text: str) -> str | None:
        """The revision that is asked for, by its name or by its commit."""
        for known, revision in self.files:
            if known == root and text in (revision, self.commit_of(root, revision)):
                return revision
        return None


class _Error(Exception):
    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.headers = {"X-Error-Code": code} if code else {}
        self.headers |= headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def hub(self) -> HubDouble:
        return self.server.hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        self.hub.asked.append(Asked(self.command, self.path, self.headers))
        try:
            if self.hub.failures:
                raise _Error(self.hub.failures.pop(0), "")
            if self.hub.token is not None and self.headers["Authorization"] != f"Bearer {self.hub.token}":
                raise _Error(401, "RepoNotFound" if self.headers["Authorization"] is None else "")
            parts = urlsplit(self.path)
            segments = parts.path.strip("/").split("/")
            if segments[0] == "api":
                self._api(segments[1], segments[2:], parse_qs(parts.query))
            else:
                self._resolve(segments)
        except _Error as error:
            self._send(error.status, error.headers, json.dumps({"error": f"{error.status}"}).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _resolve(self, segments: list[str]) -> None:
        kind = segments.pop(0) if segments[0] in ("datasets", "spaces", "buckets") else "models"
        cut = segments.index("resolve")
        root = "/".join([kind, *segments[:cut]])
        rest = segments[cut + 1 :]
        if root in self.hub.renamed:
            new = self.hub.renamed[root].removeprefix("models/")
            raise _Error(307, "", Location=f"/{new}/resolve/{'/'.join(rest)}")
        revision = self._revision(root, kind, rest)
        path = unquote("/".join(rest))
        file = self.hub.files[root, revision].get(path)
        if file is None:
            raise _Error(404, "EntryNotFound")
        commit = self.hub.commit_of(root, revision)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(path.encode()).hexdigest()}"'}
        if file.hash is not None:
            headers["X-Xet-Hash"] = str(file.hash)
            if self.hub.link_origin is not None:
                tail = "" if kind == "buckets" else f"/{commit}"
                headers["Link"] = (
                    f'<{self.hub.link_origin or self.hub.url}/api/{root}/xet-read-token{tail}>; rel="xet-auth", '
                    f'<{self.hub.server.url}/v1/reconstructions/{file.hash}>; rel="xet-reconstruction-info"'
                )
        if self.hub.redirects_to is not None:
            headers |= {
                "X-Linked-Size": str(file.size),
                "Location": self.hub.redirects_to,
                "Content-Length": "0",
            }
            self._send(302, headers)
        else:
            self._send(200, headers | {"Content-Length": str(file.size)})

    def _api(self, kind: str, segments: list[str], query: dict[str, list[str]]) -> None:
        for number, segment in enumerate(segments):
            root = "/".join([kind, *segments[:number]])
            if root in self.hub.renamed:
                new = "/".join([self.hub.renamed[root], *segments[number:]])
                raise _Error(307, "", Location=f"{self.hub.url}/api/{new}?{urlsplit(self.path).query}")
            if segment in ("xet-read-token", "xet-write-token"):
                rest = segments[number + 1 :]
                return self._token(root, segment.split("-")[1], self._revision(root, kind, rest))
            if segment == "tree":
                rest = segments[number + 1 :]
                revision = self._revision(root, kind, rest)
                return self._tree(root, kind, revision, unquote("/".join(rest)), query)
        raise _Error(404, "")

    def _revision(self, root: str, kind: str, rest: list[str]) -> str:
        """Take the revision off the front of what is left of the path."""
        if not any(known == root for known, _ in self.hub.files):
            raise _Error(404, "RepoNotFound")
        if kind == "buckets":
            return ""
        revision = self.hub.revision_of(root, unquote(rest.pop(0)))
        if revision is None:
            raise _Error(404, "RevisionNotFound")
        return revision

    def _token(self, root: str, scope: str, revision: str) -> None:
        if scope == "write" and not self.hub.may_write:
            raise _Error(403, "")
        self.hub.issued.append((scope, revision))
        token = self.hub.server.token(scope, ttl_seconds=self.hub.ttl_seconds)
        expires = int(time.time()) + self.hub.ttl_seconds
        headers = {
            "X-Xet-Cas-Url": self.hub.server.url,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        }
        body = {"casUrl": self.hub.server.url, "exp": expires, "accessToken": token}
        sent = json.dumps(body if self.hub.body_tells else {}).encode()
        self._send(200, headers if self.hub.headers_tell else {}, sent)

    def _tree(self, root: str, kind: str, revision: str, path: str, query: dict[str, list[str]]) -> None:
        files = self.hub.files[root, revision]
        prefix = path if kind == "buckets" or not path else f"{path}/"
        recursive = query.get("recursive") == ["true"]
        entries: dict[str, dict[str, Any]] = {}
        for name, file in sorted(files.items()):
            if not name.startswith(prefix) and name != path:
                continue
            folders = name[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                folder = prefix + "/".join(folders[:depth])
                entries.setdefault(folder, {"type": "directory", "path": folder, "size": 0})
                if not recursive:
                    break
            if recursive or not folders:
                entries[name] = {"type": "file", "path": name, "size": file.size}
                if file.hash is not None:
                    entries[name]["xetHash"] = str(file.hash)
        if path and not entries and kind != "buckets":
            raise _Error(404, "EntryNotFound")
        start = int(query.get("cursor", ["0"])[0])
        page = list(entries.values())[start : start + self.hub.page_size]
        headers = {"Content-Type": "application/json"}
        if start + self.hub.page_size < len(entries):
            origin = self.hub.next_origin or self.hub.url
            flag = "true" if recursive else "false"
            here = urlsplit(self.path).path
            headers["Link"] = f'<{origin}{here}?recursive={flag}&cursor={start + self.hub.page_size}>; rel="next"'
        self._send(200, headers, json.dumps(page).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    hub: HubDouble

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def drop_connections(self) -> None:
        """End those that are kept alive, so that their threads end."""
        with self._guard:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hub_double(server: Issuer, *, token: str | None = None) -> Iterator[HubDouble]:
    """A Hub on a free port whose files lie in ``server``. With ``token`` every call to it needs that one."""
    listening = _Server()
    hub = listening.hub = HubDouble(f"http://127.0.0.1:{listening.server_port}", server, token)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, name="hub double")
    thread.start()
    try:
        yield hub
    finally:
        listening.shutdown()
        thread.join()
        listening.drop_connections()
        listening.server_close()
