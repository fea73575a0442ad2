"""A network that is slow and honest is waited for: 50 KiB a second each way, and 200 ms until anything comes."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.limits import Limits
from xetstore.opening import Opened
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.store import Store

RATE = 50 << 10
DELAY_SECONDS = 0.2
PIECE_BYTES = 1 << 10

# What is so slow has to be waited for by a client that is far less patient than it is by default.
PATIENCE = Patience(connect=5, answer=5, idle=3, shard=5, floor=1024, floor_seconds=2, attempts=1)


class SlowNetwork:
    """Passes bytes on to a server, late and slowly: one rate each way for all connections. A context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._locks = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> SlowNetwork:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for sock in (self._listening, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(30)
            assert not thread.is_alive()
        for sock in (self._listening, *self._open):
            sock.close()

    def _start(self, target: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
            except OSError:
                return
            self._open += [client, server]
            for source, sink, lock in ((client, server, self._locks[0]), (server, client, self._locks[1])):
                source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
                arrived: deque[tuple[float, bytes]] = deque()
                self._start(self._take, source, arrived)
                self._start(self._give, sink, arrived, lock)

    def _take(self, source: socket.socket, arrived: deque[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while part := source.recv(PIECE_BYTES):
                arrived.append((time.monotonic() + DELAY_SECONDS, part))
                while len(arrived) > 64 and not self._over.is_set():
                    self._over.wait(0.01)
        arrived.append((time.monotonic() + DELAY_SECONDS, b""))

    def _give(self, sink: socket.socket, arrived: deque[tuple[float, bytes]], lock: threading.Lock) -> None:
        with suppress(OSError):
            while not self._over.is_set():
                if not arrived or arrived[0][0] > time.monotonic():
                    self._over.wait(0.005)
                    continue
                _, part = arrived.popleft()
                if not part:
                    sink.shutdown(socket.SHUT_WR)
                    return
                with lock:
                    self._over.wait(len(part) / RATE)
                sink.sendall(part)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[tuple[SlowNetwork, str]]:
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, log_level="error") as server,
        SlowNetwork(server.url) as slow,
    ):
        yield slow, server.token("write")


def test_a_slow_and_honest_network_is_waited_for(network: tuple[SlowNetwork, str], tmp_path: Path) -> None:
    slow, token = network
    sources = [tmp_path / f"source{number}" for number in range(3)]
    for number, source in enumerate(sources):
        source.write_bytes(splitmix64(number, 120_000))
    with Transport(patience=PATIENCE) as transport:
        cas = HttpCas(slow.url, tokens=FixedToken(token), transport=transport)
        store = Store(Opened(cas, slow.url), limits=Limits())
        files = [report.info.hash for report in store.put_many(sources)]
        wanted = [(file, tmp_path / f"out{number}") for number, file in enumerate(files)]
        list(store.get_many(wanted))
        store.get(files[0], tmp_path / "again")
    assert [out.read_bytes() for _, out in wanted] == [source.read_bytes() for source in sources]
    assert (tmp_path / "again").read_bytes() == sources[0].read_bytes()
