"""A proxy between client and server that notes every request, can keep one waiting, and refuse what it is told to."""

from __future__ import annotations

import enum
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support import scripted


@dataclass(frozen=True)
class Seen:
    """A request that passed: its path without the query, its Range header, the status of the answer, its token."""

    method: str
    path: str
    range: str
    status: int
    authorization: str = field(default="", repr=False)


class Fate(enum.Enum):
    """The end of a request: passed on and answered, refused by the proxy, or passed on and its answer lost."""

    PASSED = enum.auto()
    REFUSED = enum.auto()
    LOST = enum.auto()


@dataclass
class Proxy:
    """Where the proxy listens, and what it saw.

    ``before`` is called with the method and path of each request. A path that starts as one of those in ``instead`` is
    not passed on: the status and the body named there are the answer. ``alter`` gets a path and the body that was
    answered, which is not compressed then, and returns the one to answer, which goes without a digest. With a
    ``fate`` other than PASSED a request is refused by status 500, or its answer is lost.
    """

    endpoint: str
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda method, path: None
    instead: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    alter: Callable[[str, bytes], bytes] | None = None
    fate: Callable[[str], Fate] = lambda request: Fate.PASSED

    def requests(self, method: str, path: str) -> list[Seen]:
        """The requests of a method whose path starts with ``path``."""
        return [seen for seen in self.seen if seen.method == method and seen.path.startswith(path)]

    def _answer(self, seen: scripted.Seen, server: str, prefix: str) -> scripted.Step:
        """The answer of the server at ``server``, HOST:PORT, or the one in its place."""

        def step(connection: scripted.Connection, _: scripted.Seen) -> bool:
            assert seen.target.startswith(prefix)
            target = seen.target.removeprefix(prefix)
            path = target.partition("?")[0]
            self.before(seen.method, path)
            fate = self.fate(f"{seen.method} {target}")
            if fate is Fate.REFUSED:
                self._note(seen, path, 500)
                return scripted.reply(500)(connection, seen)
            for start, (status, content) in self.instead.items():
                if path.startswith(start):
                    self._note(seen, path, status)
                    return scripted.reply(status, content)(connection, seen)
            status, headers, content = self._ask(seen, server, target)
            self._note(seen, path, status)
            if fate is Fate.LOST:
                connection.reset()
                return False
            if self.alter is not None:
                content = self.alter(path, content)
            dropped = ["transfer-encoding", "content-length", "connection"]
            if self.alter is not None:
                dropped += ["content-digest", "x-xet-answers"]
            kept = {name: value for name, value in headers if name.lower() not in dropped}
            if seen.method == "HEAD":
                kept["Content-Length"] = next(
                    (value for name, value in headers if name.lower() == "content-length"), "0"
                )
            return scripted.reply(status, content, kept)(connection, seen)

        return step

    def _ask(self, seen: scripted.Seen, server: str, target: str) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(server, timeout=60)
        try:
            connection.putrequest(seen.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in seen.headers.items():
                if self.alter is None or name != "accept-encoding":
                    connection.putheader(name, value)
            connection.endheaders(seen.body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _note(self, seen: scripted.Seen, path: str, status: int) -> None:
        byte_range, authorization = seen.headers.get("range", ""), seen.headers.get("authorization", "")
        self.seen.append(Seen(seen.method, path, byte_range, status, authorization))


@contextmanager
def proxy(endpoint: str, *, prefix: str = "", port: int = 0) -> Iterator[Proxy]:
    """A proxy in front of ``endpoint``; signed URLs lead through it too, since the Host header is kept.

    With a ``prefix``, paths start with that here, and without it there.
    """
    running = Proxy("")
    server = endpoint.removeprefix("http://")
    with scripted.Scripted(lambda seen: running._answer(seen, server, prefix), port=port) as listening:
        running.endpoint = f"{listening.url}{prefix}"
        yield running
