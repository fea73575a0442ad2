"""A server that does what a test tells it, request by request: what no real server would do, on real sockets."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

Step = Callable[["Connection", "Seen"], bool]
"""Answers a request; True if the connection goes on."""


@dataclass(frozen=True)
class Seen:
    """A request that came. ``target`` is what stood in its first line, ``connection`` counts connections from 0."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Connection:
    """What a step writes to."""

    def __init__(self, sock: socket.socket, over: threading.Event) -> None:
        self.sock = sock
        self.over = over

    def write(self, *parts: bytes) -> None:
        self.sock.sendall(b"".join(parts))

    def stall(self) -> None:
        """Say nothing until the client has gone, or the test is over."""
        self.sock.settimeout(0.02)
        while not self.over.is_set():
            try:
                if not self.sock.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def reset(self) -> None:
        """Break the connection, as a crash does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def reply(status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, keep: bool = True) -> Step:
    """A whole answer."""

    def step(connection: Connection, seen: Seen) -> bool:
        told = {"Content-Length": str(len(body)), **({} if keep else {"Connection": "close"}), **(headers or {})}
        connection.write(head(status, told), b"" if seen.method == "HEAD" else body)
        return keep

    return step


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def raw(*parts: bytes, then: str = "close") -> Step:
    """Bytes as they stand, then `close`, `reset`, `stall`, or `keep`."""

    def step(connection: Connection, seen: Seen) -> bool:
        connection.write(*parts)
        if then == "stall":
            connection.stall()
        if then == "reset":
            connection.reset()
        return then == "keep"

    return step


def in_turn(*steps: Step) -> Callable[[Seen], Step]:
    """One step after the other, whoever asks; the last one again and again."""
    left = list(steps)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def by_call(steps: dict[str, Callable[[Seen], Step] | Step]) -> Callable[[Seen], Step]:
    """By the start of ``METHOD path``; 404 for what is not there."""

    def choose(seen: Seen) -> Step:
        for name, step in steps.items():
            if f"{seen.method} {seen.path}".startswith(name):
                return step(seen) if step.__name__ == "<lambda>" else step  # type: ignore[call-arg,arg-type,return-value]
        return reply(404)

    return choose


class Scripted:
    """The server. A context manager; ``requests`` are those that came, in order. Bodies are read unless told."""

    def __init__(
        self,
        answers: Callable[[Seen], Step],
        *,
        reads_bodies: bool = True,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self._answers = answers
        self._reads_bodies = reads_bodies
        self._tls = tls
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self.port}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(30)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(sock)
                number, self.connections = self.connections, self.connections + 1
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(30)
        # Nothing waits for an acknowledgement, to be lost when the connection is closed.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.append(sock)
            with sock, sock.makefile("rb") as reader:
                connection = Connection(sock, self._over)
                while (seen := self._read(reader, number)) is not None:
                    with self._lock:
                        self.requests.append(seen)
                        step = self._answers(seen)
                    if not step(connection, seen):
                        return
        except OSError:
            pass
        finally:
            sock.close()

    def _read(self, reader, number: int) -> Seen | None:  # type: ignore[no-untyped-def]
        line = reader.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = {}
        while text := reader.readline().decode("latin-1").strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0))) if self._reads_bodies else b""
        return Seen(line[0], line[1], headers, body, number)


@contextmanager
def scripted(*steps: Step) -> Iterator[Scripted]:
    """A server that takes these steps in turn."""
    with Scripted(in_turn(*steps)) as server:
        yield server
