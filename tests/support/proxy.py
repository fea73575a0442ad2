"""A proxy between client and server that notes every request, can keep one waiting, and refuse what it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass(frozen=True)
class Seen:
    """A request that passed: its path without the query, its Range header, the status of the answer, its token."""

    method: str
    path: str
    range: str
    status: int
    authorization: str = field(default="", repr=False)


@dataclass
class Proxy:
    """Where the proxy listens, and what it saw.

    ``before`` is called with the method and path of each request. A path that starts as one of those in ``instead`` is
    not passed on: the status and the body named there are the answer. ``alter`` gets a path and the body that was
    answered, which is not compressed then, and returns the one to answer, which goes without a digest.
    """

    endpoint: str
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda method, path: None
    instead: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    alter: Callable[[str, bytes], bytes] | None = None

    def requests(self, method: str, path: str) -> list[Seen]:
        """The requests of a method whose path starts with ``path``."""
        return [seen for seen in self.seen if seen.method == method and seen.path.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    target: ClassVar[str]
    prefix: ClassVar[str]

    def _pass_on(self) -> None:
        target = self.requestline.split()[1]  # self.path has lost a slash where there were two
        assert target.startswith(self.prefix)
        target = target.removeprefix(self.prefix)
        path = target.partition("?")[0]
        self.proxy.before(self.command, path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for start, (status, content) in self.proxy.instead.items():
            if path.startswith(start):
                self._note(path, status)
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if self.proxy.alter is None or name.lower() != "accept-encoding":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            self._note(path, answer.status)
            content = answer.read()
            if self.proxy.alter is not None:
                content = self.proxy.alter(path, content)
            self.send_response_only(answer.status)
            dropped = ["transfer-encoding", "content-length", "connection"]
            if self.proxy.alter is not None:
                dropped += ["content-digest", "x-xet-answers"]
            for name, value in answer.getheaders():
                if name.lower() not in dropped:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        finally:
            connection.close()

    def _note(self, path: str, status: int) -> None:
        wanted, authorization = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        self.proxy.seen.append(Seen(self.command, path, wanted, status, authorization))

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxy(endpoint: str, *, prefix: str = "", port: int = 0) -> Iterator[Proxy]:
    """A proxy in front of ``endpoint``; signed URLs lead through it too, since the Host header is kept.

    With a ``prefix``, paths start with that here, and without it there.
    """
    running = Proxy("")
    members = {"target": endpoint.removeprefix("http://"), "proxy": running, "prefix": prefix}
    with ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), members)) as listening:
        listening.daemon_threads = True
        running.endpoint = f"http://127.0.0.1:{listening.server_port}{prefix}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield running
        finally:
            listening.shutdown()
            thread.join()
