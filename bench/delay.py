"""A proxy that makes the way long: `python -m bench.delay HOST:PORT MILLISECONDS` prints the port at which it listens.

What goes through is late by half of the delay in each direction, and a new connection by all of it, as the handshake of
one would be. The bandwidth is not limited. Each direction of a connection has two threads, which wait in the system: an
event loop would copy all bytes once more, and its clock knows whole milliseconds only.
"""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_READ_BYTES: Final = 1 << 20
_HELD_PIECES: Final = 256
"""On the way in one direction of a connection, at most; each is no longer than one read."""


@contextmanager
def delayed(url: str, milliseconds: int) -> Iterator[str]:
    """The URL of a proxy in a process of its own, in front of the server at ``url``."""
    command = [sys.executable, "-m", "bench.delay", url.removeprefix("http://"), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _take(source: socket.socket, line: queue.Queue[tuple[float, bytes]], seconds: float) -> None:
    """Read to the end, which is empty bytes; each piece with the time at which it is written."""
    data = b"-"
    while data:
        try:
            data = source.recv(_READ_BYTES)
        except OSError:
            data = b""
        line.put((time.monotonic() + seconds, data))


def _give(line: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
    """Write what was read, in its time. The end of one direction is that of the connection."""
    while True:
        due, data = line.get()
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            return


def _pass_on(client: socket.socket, server: tuple[str, int], seconds: float) -> None:
    """Carry one connection."""
    time.sleep(seconds)
    other = socket.create_connection(server)
    for source, target in ((client, other), (other, client)):
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line: queue.Queue[tuple[float, bytes]] = queue.Queue(_HELD_PIECES)
        threading.Thread(target=_take, args=(source, line, seconds / 2), daemon=True).start()
        threading.Thread(target=_give, args=(line, target), daemon=True).start()


def main() -> None:
    server, milliseconds = sys.argv[1:]
    host, _, port = server.rpartition(":")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            client, _ = listening.accept()
            args = client, (host, int(port)), int(milliseconds) / 1000
            threading.Thread(target=_pass_on, args=args, daemon=True).start()


if __name__ == "__main__":
    main()
