"""Servers for tests: the real application on a real socket, in a thread of this process or in one of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp

from tests.support import rights
from xetstore.access.keys import KeyRing
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.blobs.direct import RangeUrls
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import create_app
from xetstore.server.http.lifecycle import DrainingServer, make_server
from xetstore.server.http.sockets import listen, tls_context, url_of
from xetstore.server.run import make_site
from xetstore.server.settings import PREFIX, ServerSettings
from xetstore.server.site import Site

PATIENCE_SECONDS = 60
"""How long a test waits for what should come at once, before it fails."""


@dataclass(frozen=True)
class Response:
    """An answer, whole. ``headers`` are looked up whatever their case."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    url: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    token: str | None = None,
) -> Response:
    """One request on a connection of its own. ``path`` is sent as it stands; one that is a URL already will do too."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=PATIENCE_SECONDS)
    try:
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path.removeprefix(url), body or None, sent)
        answer = connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


class Reachable:
    """A server at ``url``, as tests speak to it."""

    url: str

    def next_url(self) -> str:
        """The server that gets the next request or connection."""
        return self.url

    @property
    def address(self) -> tuple[str, int]:
        return _address(self.url)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        token: str | None = None,
    ) -> Response:
        path = path.removeprefix(self.url)
        return request(self.next_url(), method, path, headers=headers, body=body, token=token)

    def connect(self) -> socket.socket:
        """A raw connection, for what no HTTP client would do."""
        return socket.create_connection(_address(self.next_url()), timeout=PATIENCE_SECONDS)


@dataclass(frozen=True)
class LiveServer(Reachable):
    """A server in a thread of this process."""

    url: str
    site: Site
    authority: TokenAuthority
    _server: DrainingServer

    def token(self, scope: str = "read", namespace: str = "default", **more: Any) -> str:
        """A token of this server; ``more`` is what :meth:`TokenAuthority.issue` takes."""
        return self.authority.issue(scope=Scope(scope), namespace=namespace, **more)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)

    @property
    def unsent_bytes(self) -> int:
        """What the event loop holds because the system's buffers are full."""
        return sum(one.transport.get_write_buffer_size() for one in self._server.server_state.connections)

    def drain(self) -> None:
        """What SIGTERM does."""
        self._server.drain()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what has to come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def open_sockets() -> int:
    """How many this process has. Skips the test where nobody can tell."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("cannot tell which sockets are open")
    found = 0
    for path in descriptors.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += str(path.readlink()).startswith("socket:")
    return found


@contextmanager
def served(
    app: ASGIApp, settings: ServerSettings, draining: threading.Event | None = None
) -> Iterator[tuple[str, DrainingServer]]:
    """Any application on a socket of 127.0.0.1, as `xet serve` would run it: its URL, and the server itself."""
    listening = listen(settings.host, settings.port)
    url = url_of(settings, listening)
    failures: list[BaseException] = []
    started = threading.Event()
    server = make_server(app, settings, context=tls_context(settings), draining=draining, on_started=started.set)

    def run() -> None:
        try:
            asyncio.run(server.serve_until_stopped(listening))
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="live server")
    thread.start()
    try:
        assert started.wait(PATIENCE_SECONDS), "the server did not start"
        if not failures:
            yield url, server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
    if failures:
        raise failures[0]


@contextmanager
def live_server(
    cas: EmbeddedCas,
    *,
    keys: KeyRing | None = None,
    authority: TokenAuthority | None = None,
    clock: Callable[[], float] = time.time,
    app: Callable[[Site], ASGIApp] | None = None,
    direct: RangeUrls | None = None,
    **settings: Any,
) -> Iterator[LiveServer]:
    """A server over ``cas`` with these settings, on a free port unless they name one.

    Without ``keys`` it has fresh ones. ``authority`` verifies its tokens, and by default issues them with the same
    keys; ``clock`` gives the unix seconds that tokens and URLs expire by. ``app`` makes another application than ours.
    """
    chosen = ServerSettings(**{"port": 0, "drain_seconds": 5, **settings})
    with tempfile.TemporaryDirectory() as folder:
        keys = keys or KeyRing.open(Path(folder, "access"), clock=clock)
        authority = authority or TokenAuthority(keys, clock)
        site = make_site(cas, chosen, keys=keys, authority=authority, clock=clock, direct=direct)
        with served((app or create_app)(site), chosen, site.draining) as (url, server):
            yield LiveServer(url, site, authority, server)


class ServerProcess(Reachable):
    """`xet serve` as a process of its own, over the store in ``root``, a directory or a store file; without it, over
    the one that options name. A context manager; killed at its end.

    ``options`` are further ones; ``environment`` is added to ours, from which settings are taken out; ``ulimit`` are
    options of the shell's command of that name; permissions bind it if it is ``bound``. What it logs is in :attr:`log`.
    Raises ServerFailedError if it ends instead of starting. Its workers are killed with it.
    """

    def __init__(
        self,
        root: Path | None,
        *options: str,
        environment: Mapping[str, str] | None = None,
        ulimit: str | None = None,
        bound: bool = False,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        command = [sys.executable, "-m", "xetstore", "serve", "--json", "--port", "0", *options]
        if root is not None:
            command.insert(4, str(root))
        if ulimit is not None:
            command = ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh", *command]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**inherited, "PYTHONFAULTHANDLER": "1", **(environment or {})},
            preexec_fn=rights.give_up if bound else None,
        )
        try:
            self.started: dict[str, Any] = json.loads(self._first_line())
        except BaseException:
            self.close()
            raise
        self.url: str = self.started["url"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    @property
    def admin_token(self) -> str:
        return Path(self.started["token_file"]).read_text().strip()

    def token(self, scope: str = "read", namespace: str = "default", **more: Any) -> str:
        """A token, issued beside the running server as the command line does."""
        keys = KeyRing.open(Path(self.started["store"], "access"), create=False)
        return TokenAuthority(keys).issue(scope=Scope(scope), namespace=namespace, **more)

    def end_with_stacks(self) -> str:
        """End it as a crash does; where each of its threads was, behind all that it has logged."""
        self._process.send_signal(signal.SIGABRT)
        self._process.wait(PATIENCE_SECONDS)
        return self.log

    @property
    def workers(self) -> dict[int, int]:
        """The workers that it has now: the pid of each by its number, from 1 on."""
        found = {}
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            with suppress(OSError):  # it has ended meanwhile
                if shown := re.search(rb"worker ([0-9]+) of xet", Path(f"/proc/{child}/cmdline").read_bytes()):
                    found[int(shown[1])] = int(child)
        return found

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to all of it: as if the power had failed, for all the server knows."""
        workers = [] if self._process.poll() is not None else list(self.workers.values())
        self._process.kill()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """End the process, however far it is."""
        self.kill()
        self._process.wait(PATIENCE_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _first_line(self) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        line = b""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            part = os.read(descriptor, 4096) if readable else b""
            if not part:
                code = self.wait() if readable else None
                raise ServerFailedError(f"the server did not start (exit code {code}): {self.log}")
            line += part
        return line


class ServerFailedError(Exception):
    """A server process ended, or said nothing, where it should have started."""
