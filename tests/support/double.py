"""Double: stands in front of a real server, passes everything on, counts what passes, and goes wrong where it is told.

It speaks HTTP/1.1 with keep-alive and leaves the Host header alone, so that the signed URLs of the server behind it
lead through it too. What can go wrong is in ``double_faults``.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import select
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

PIECE_BYTES: Final = 16 << 10
"""How much is passed on at a time where bytes are watched."""
HANG_SECONDS: Final = 60
"""How long a stalled answer keeps still, unless the client leaves before."""


class Kind(Enum):
    """What a request is, whatever its version of the path."""

    FILE = "file HEAD"
    RECONSTRUCTION_V2 = "reconstruction v2"
    RECONSTRUCTION_V1 = "reconstruction v1"
    RANGES = "reconstruction of several ranges"
    BATCH = "reconstruction of several files"
    CHUNK = "chunk query"
    XORB_GET = "xorb GET"
    XORB_POST = "xorb POST"
    GRANT = "grant POST"
    GRANT_PUT = "grant PUT"
    COMMIT = "commit POST"
    SHARD_V2 = "shard v2"
    SHARD_V1 = "shard v1"
    TOKEN = "token route"
    OTHER = "another"


_KINDS: Final = (
    (re.compile(r"HEAD /v1/files/"), Kind.FILE),
    (re.compile(r"GET /v2/reconstructions/"), Kind.RECONSTRUCTION_V2),
    (re.compile(r"GET /v1/reconstructions/"), Kind.RECONSTRUCTION_V1),
    (re.compile(r"POST /v2/reconstructions$"), Kind.RANGES),
    (re.compile(r"GET /v1/reconstructions\?"), Kind.BATCH),
    (re.compile(r"GET /v1/chunks/"), Kind.CHUNK),
    (re.compile(r"GET /v1/xorbs/"), Kind.XORB_GET),
    (re.compile(r"POST /v1/xorbs/"), Kind.XORB_POST),
    (re.compile(r"POST /v1/xorb-grants/"), Kind.GRANT),
    (re.compile(r"PUT /granted/"), Kind.GRANT_PUT),
    (re.compile(r"POST /v1/xorb-commits/"), Kind.COMMIT),
    (re.compile(r"POST /v2/shards"), Kind.SHARD_V2),
    (re.compile(r"POST /v1/shards"), Kind.SHARD_V1),
    (re.compile(r"GET /api/.*/xet-(?:read|write)-token"), Kind.TOKEN),
)

Headers = list[tuple[str, str]]


@dataclass
class Call:
    """A request: ``number`` counts those of its kind from 0. Its body is there once it was read."""

    kind: Kind
    number: int
    method: str
    target: str
    headers: Headers
    body: bytes = b""
    double: Double = field(repr=False, kw_only=True)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def byte_range(self) -> tuple[int, int]:
        """``[start, end)`` of what a xorb GET asks for: of its first range."""
        found = re.match(r"bytes=(\d+)-(\d+)", self.header("Range") or "")
        assert found is not None
        return int(found[1]), int(found[2]) + 1

    @property
    def name(self) -> str:
        """The hash at the end of the path."""
        return self.target.partition("?")[0].rpartition("/")[2]


@dataclass
class Answer:
    """What goes back. ``declared`` is the Content-Length if not that of the body; after ``stop_at`` bytes of the
    body nothing comes: for a while (``stall``), or any more (``reset`` or not). ``raw`` replaces all of it.
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    declared: int | None = None
    stop_at: int | None = None
    stall: bool = False
    reset: bool = False
    raw: bytes | None = None

    def set_header(self, name: str, value: str) -> None:
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()] + [(name, value)]


class GoneError(Exception):
    """This connection has nothing more to say."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: ``early`` when ``read`` bytes of the body of the request were read, ``instead`` of
    passing it on, or with what comes back (``change``).
    """

    name: str
    read: int = 0
    early: Callable[[Call], Answer] | None = None
    instead: Callable[[Call], Answer] | None = None
    change: Callable[[Call, Answer], bool] | None = None


@dataclass
class Planned:
    """A fault for calls of a kind: those from number ``at`` on, ``times`` of them, or all."""

    kind: Kind
    fault: Fault
    at: int
    times: int | None
    hits: int = 0


@dataclass
class Traffic:
    """Calls of a kind, and bytes of their bodies: from the client, and to it. ``acknowledged`` were answered well."""

    calls: int = 0
    up: int = 0
    down: int = 0
    acknowledged: int = 0


@dataclass(frozen=True)
class Seen:
    """A request that came, with what it carried."""

    kind: Kind
    target: str
    range: str | None
    authorization: str | None
    status: int


class Double:
    """A double of the server at ``server_url``. A context manager.

    With ``grants`` it offers grants for xorbs as the server does not. Bytes come along with reconstructions only where
    ``inline`` lets them, for else no xorb would be asked for. ``hashes=False`` hides from the server that
    chunk hashes are asked for, as one that does not know of them; answers are only ``compressed`` if it is asked for,
    for a fault would find nothing in them. The digests of answers pass with ``digests`` only, for other servers send
    none. ``issue`` gives the tokens of its token routes by
    scope; ``peek`` reads bytes ``[start, end)`` of a stored xorb.
    """

    def __init__(
        self,
        server_url: str,
        *,
        grants: bool = False,
        hashes: bool = True,
        issue: Callable[[str], str] = lambda scope: scope,
        peek: Callable[[str, int, int], bytes] = lambda xorb, start, end: b"",
    ) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "", parts.port or 80)
        self.grants, self.hashes, self.issue, self.peek = grants, hashes, issue, peek
        self.compressed = self.digests = self.inline = False
        self.xorb_host: str | None = None
        self._lock = threading.Lock()
        self._plans: list[Planned] = []
        self._numbers: dict[Kind, int] = defaultdict(int)
        self.granted: dict[str, bytes] = {}
        self._open: set[socket.socket] = set()
        self._idle: list[http.client.HTTPConnection] = []
        self._threads: list[threading.Thread] = []
        self._watch: tuple[int, Callable[[], None]] | None = None
        self.traffic: dict[Kind, Traffic] = defaultdict(Traffic)
        self.seen: list[Seen] = []
        self.failures: list[BaseException] = []
        self._closing = False
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def plan(self, kind: Kind, fault: Fault, *, at: int = 0, times: int | None = 1) -> Planned:
        """Let a fault happen; counting starts with the next call."""
        planned = Planned(kind, fault, self._numbers[kind] + at, times)
        self._plans.append(planned)
        return planned

    def clear(self) -> None:
        """Plan nothing, and count from 0."""
        with self._lock:
            self._plans.clear()
            self._numbers.clear()
            self.traffic.clear()
            self.seen.clear()
            self._watch = None

    def at_byte(self, count: int, action: Callable[[], None]) -> None:
        """Do something when so many bytes of xorbs have passed, up and down, from now on."""
        self._watch = (count, action)

    @property
    def xorb_bytes_up(self) -> int:
        return sum(self.traffic[kind].up for kind in (Kind.XORB_POST, Kind.GRANT_PUT))

    @property
    def xorb_bytes_down(self) -> int:
        return self.traffic[Kind.XORB_GET].down

    def __enter__(self) -> Double:
        self._accepting = threading.Thread(target=self._accept, name="double")
        self._accepting.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        self.hang_up()
        for upstream in self._idle:
            upstream.close()
        assert not self.failures, self.failures

    def hang_up(self) -> None:
        """End all connections; what was under way on them is over."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join(HANG_SECONDS)
            assert not thread.is_alive()

    # --- Connections ------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="double's connection")
            with self._lock:
                self._open.add(connection)
                self._threads = [thread for thread in self._threads if thread.is_alive()] + [thread]
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What was passed on is soon what arrived: little lies about in between.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PIECE_BYTES)
        try:
            with connection.makefile("rb") as incoming:
                while line := incoming.readline(1 << 16):
                    self._exchange(connection, incoming, line)
        except (OSError, GoneError):
            pass  # either side may leave at any time
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _exchange(self, connection: socket.socket, incoming: io.BufferedReader, line: bytes) -> None:
        method, target, _ = line.decode("latin-1").split()
        headers: Headers = []
        while (line := incoming.readline(1 << 16)) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        kind = next((kind for pattern, kind in _KINDS if pattern.match(f"{method} {target}")), Kind.OTHER)
        with self._lock:
            call = Call(kind, self._numbers[kind], method, target, headers, double=self)
            self._numbers[kind] += 1
            self.traffic[kind].calls += 1
            faults = [planned for planned in self._plans if planned.kind is kind and planned.at <= call.number]
            faults = [planned for planned in faults if planned.times is None or planned.hits < planned.times]
            for planned in faults:
                if not planned.fault.change:
                    planned.hits += 1
        for planned in faults:
            if planned.fault.early:
                incoming.read(min(planned.fault.read, int(call.header("Content-Length") or 0)))
                self._answer(connection, call, planned.fault.early(call))
                self._drain(connection)
                raise GoneError
        call.body = self._read_body(call, incoming)
        answer = None
        for planned in faults:
            if planned.fault.instead:
                answer = planned.fault.instead(call)
        if answer is None:
            answer = self._own_answer(call) or self._pass_on(call)
            for planned in faults:
                with self._lock:  # of calls at the same time only one is to be changed, and one that can be
                    if planned.fault.change and (planned.times is None or planned.hits < planned.times):
                        planned.hits += planned.fault.change(call, answer)
        self._answer(connection, call, answer)

    def _read_body(self, call: Call, incoming: io.BufferedReader) -> bytes:
        left = int(call.header("Content-Length") or 0)
        parts = []
        while left:
            part = incoming.read(min(left, PIECE_BYTES))
            if not part:
                raise GoneError
            parts.append(part)
            left -= len(part)
            self._count(call.kind, up=len(part))
        return b"".join(parts)

    def _drain(self, connection: socket.socket) -> None:
        """Let the client read what it was answered while it is still sending."""
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            while connection.recv(1 << 16):
                pass

    def _own_answer(self, call: Call) -> Answer | None:
        if call.kind is Kind.TOKEN:
            scope = "write" if "xet-write-token" in call.target else "read"
            token, expires = self.issue(scope), str(int(time.time()) + 900)
            told = {"casUrl": self.url, "exp": int(expires), "accessToken": token}
            headers = [
                ("X-Xet-Cas-Url", self.url),
                ("X-Xet-Access-Token", token),
                ("X-Xet-Token-Expiration", expires),
            ]
            return json_answer(200, told, headers)
        if call.kind is Kind.RANGES and not self.inline:
            return json_answer(404, {})
        if not self.grants:
            return None
        if call.kind is Kind.GRANT:
            url = f"{self.xorb_host or self.url}/granted/{call.name}?signature=of-a-grant"
            told = {"id": f"id-{call.name}", "method": "PUT", "url": url, "headers": {"X-Granted": "yes"}}
            return json_answer(201, told)
        if call.kind is Kind.GRANT_PUT:
            self.granted[call.name] = call.body
            return Answer(200)
        if call.kind is Kind.COMMIT:
            xorb = call.target.split("/")[4]
            call.method, call.target, call.body = "POST", f"/v1/xorbs/default/{xorb}", self.granted[xorb]
        return None

    def _pass_on(self, call: Call) -> Answer:
        got, body = self._ask(call)
        dropped = ["transfer-encoding", "connection", "content-length"]
        dropped += [] if self.digests else ["content-digest", "x-xet-answers"]
        headers = [(name, value) for name, value in got.getheaders() if name.lower() not in dropped]
        declared = int(got.getheader("Content-Length") or 0) if call.method == "HEAD" else None
        if self.xorb_host and call.kind in (Kind.RECONSTRUCTION_V2, Kind.RECONSTRUCTION_V1):
            body = body.replace(self.url.encode(), self.xorb_host.encode())
        return Answer(got.status, headers, body, declared)

    def _ask(self, call: Call) -> tuple[http.client.HTTPResponse, bytes]:
        """What the server says, on a connection that is kept for other calls, whoever makes them."""
        hidden = {"content-length"}
        hidden |= set() if self.hashes else {"x-xet-chunk-hashes"}
        hidden |= set() if self.inline else {"x-xet-inline"}
        hidden |= set() if self.compressed else {"accept-encoding"}
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            upstream = kept or http.client.HTTPConnection(*self._server, timeout=HANG_SECONDS)
            try:
                upstream.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
                for name, value in call.headers:
                    if name.lower() not in hidden:
                        upstream.putheader(name, value)
                if call.body or call.method in ("POST", "PUT"):
                    upstream.putheader("Content-Length", str(len(call.body)))
                upstream.endheaders(call.body or None)
                got = upstream.getresponse()
                body = got.read()
            except (OSError, http.client.HTTPException):
                upstream.close()
                if kept is None:
                    raise GoneError from None
                continue
            if got.will_close:
                upstream.close()
            else:
                with self._lock:
                    self._idle.append(upstream)
            return got, body

    def _answer(self, connection: socket.socket, call: Call, answer: Answer) -> None:
        with self._lock:
            seen = Seen(call.kind, call.target, call.header("Range"), call.header("Authorization"), answer.status)
            self.seen.append(seen)
            if answer.status < 300 and call.body:
                self.traffic[call.kind].acknowledged += len(call.body)
        if answer.stop_at is not None and answer.stop_at < 0:
            self._stop(connection, answer)
        if answer.raw is not None:
            connection.sendall(answer.raw)
            raise GoneError
        length = answer.declared if answer.declared is not None else len(answer.body)
        head = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Odd')}"]
        head += [f"{name}: {value}" for name, value in answer.headers]
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            head.append(f"Content-Length: {length}")
        connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
        body = memoryview(answer.body if call.method != "HEAD" else b"")
        if answer.stop_at is not None:
            body = body[: answer.stop_at]
        for at in range(0, len(body), PIECE_BYTES):
            part = body[at : at + PIECE_BYTES]
            connection.sendall(part)
            self._count(call.kind, down=len(part))
        if answer.stop_at is not None:
            self._stop(connection, answer)
        if call.method != "HEAD" and length != len(answer.body):
            raise GoneError

    def _stop(self, connection: socket.socket, answer: Answer) -> None:
        if answer.stall:
            self.hang(connection)
        if answer.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise GoneError

    def hang(self, connection: socket.socket) -> None:
        """Keep still until the client leaves, whatever it sends."""
        watching = select.poll()
        watching.register(connection, getattr(select, "POLLRDHUP", 0))
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline and not self._closing and not watching.poll(100):
            pass

    def _count(self, kind: Kind, up: int = 0, down: int = 0) -> None:
        action = None
        with self._lock:
            self.traffic[kind].up += up
            self.traffic[kind].down += down
            if self._watch is not None and kind in (Kind.XORB_GET, Kind.XORB_POST, Kind.GRANT_PUT):
                left = self._watch[0] - up - down
                self._watch = (left, self._watch[1])
                if left <= 0:
                    action, self._watch = self._watch[1], None
        if action is not None:
            action()


def json_answer(status: int, told: object, headers: Headers | None = None) -> Answer:
    return Answer(status, [("Content-Type", "application/json"), *(headers or [])], json.dumps(told).encode())
