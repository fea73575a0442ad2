"""A wire between client and server that stalls, cuts and counts: a TCP proxy, which knows nothing of HTTP."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_BLOCK_BYTES = 1 << 16


@dataclass
class Wire:
    """The port of the proxy, and what passed.

    ``cuts`` has, for each connection from the next one on, after how many bytes of answers it is reset; a connection
    for which it has none left is not. While ``flows`` is not set nothing passes in either direction, and connections
    are accepted all the same; so it is once ``stall_after`` bytes went up. Each block, of at most 64 KiB, waits for
    ``pause_seconds`` before it is passed on. The next request that matches ``lose`` is
    passed on, and its connection is reset when the answer comes.
    """

    target: tuple[str, int]
    port: int = 0
    cuts: list[int] = field(default_factory=list)
    flows: threading.Event = field(default_factory=threading.Event)
    stall_after: int | None = None
    pause_seconds: float = 0
    lose: re.Pattern[bytes] | None = None
    connections: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Let everything pass from now on."""
        self.stall_after = self.lose = None
        self.pause_seconds = 0
        self.cuts.clear()
        self.flows.set()

    def break_all(self) -> None:
        """Reset every connection that is open."""
        for one in list(self._open):
            _reset(one)

    def carry(self, client: socket.socket) -> None:
        """Carry one connection until one side ends it."""
        self.connections += 1
        most = self.cuts.pop(0) if self.cuts else None
        try:
            server = socket.create_connection(self.target, timeout=60)
        except OSError:
            _reset(client)
            return
        self._open |= {client, server}
        is_lost = threading.Event()
        back = threading.Thread(target=self._pump, args=(server, client, most, is_lost), daemon=True)
        back.start()
        self._pump(client, server, None, is_lost, up=True)
        back.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        most: int | None,
        is_lost: threading.Event,
        *,
        up: bool = False,
    ) -> None:
        passed = 0
        with suppress(OSError):
            while True:
                self.flows.wait()
                block = source.recv(_BLOCK_BYTES)
                if self.pause_seconds:
                    time.sleep(self.pause_seconds)
                self.flows.wait()
                if up and self.lose is not None and self.lose.search(block):
                    self.lose = None
                    is_lost.set()
                elif not up and is_lost.is_set():
                    most = passed
                if most is not None and passed + len(block) > most:
                    sink.sendall(block[: most - passed])
                    _reset(sink)
                    _reset(source)
                    return
                if not block:
                    break
                passed += len(block)
                if up:
                    self.up_bytes += len(block)
                    if self.stall_after is not None and self.up_bytes > self.stall_after:
                        self.flows.clear()
                else:
                    self.down_bytes += len(block)
                sink.sendall(block)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _reset(one: socket.socket) -> None:
    """End a connection as a crash does: the other side gets a reset."""
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A wire to a port of this machine."""
    running = Wire(("127.0.0.1", port))
    running.flows.set()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running.port = listening.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=running.carry, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.heal()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()
            running.break_all()
