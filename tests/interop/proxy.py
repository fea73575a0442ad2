"""A proxy between client and server that notes every request, and can keep one waiting."""

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
    """A request that passed: its path without the query, its Range header, and the status of the answer."""

    method: str
    path: str
    range: str
    status: int


@dataclass
class Proxy:
    """Where the proxy listens, and what it saw. ``before`` is called with the method and path of each request."""

    endpoint: str
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda method, path: None

    def requests(self, method: str, path: str) -> list[Seen]:
        """The requests of a method whose path starts with ``path``."""
        return [seen for seen in self.seen if seen.method == method and seen.path.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    target: ClassVar[str]

    def _pass_on(self) -> None:
        target = self.requestline.split()[1]  # self.path has lost a slash where there were two
        path = target.partition("?")[0]
        self.proxy.before(self.command, path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            self.proxy.seen.append(Seen(self.command, path, self.headers.get("Range", ""), answer.status))
            content = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        finally:
            connection.close()

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxy(endpoint: str) -> Iterator[Proxy]:
    """A proxy in front of ``endpoint``; signed URLs lead through it too, since the Host header is kept."""
    running = Proxy("")
    members = {"target": endpoint.removeprefix("http://"), "proxy": running}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), members)) as listening:
        listening.daemon_threads = True
        running.endpoint = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield running
        finally:
            listening.shutdown()
            thread.join()
