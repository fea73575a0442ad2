"""A proxy that makes the way long: `python -m bench.delay HOST:PORT MILLISECONDS` prints the port at which it listens.

What goes through is late by half of the delay in each direction, and a new connection by all of it, as the handshake of
one would be. The bandwidth is not limited.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_READ_BYTES: Final = 1 << 20
_HELD_BYTES: Final = 256 << 20
"""On the way in one direction of a connection, at most."""


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


class _Way:
    """One direction of a connection: bytes that were read, each with the time at which it is written."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._changed = asyncio.Condition()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taking = asyncio.create_task(self._take(reader))
        try:
            await self._give(writer)
        except ConnectionError:
            pass
        finally:
            taking.cancel()
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_READ_BYTES)
            except ConnectionError:
                data = b""
            async with self._changed:
                self._pieces.append((asyncio.get_running_loop().time() + self._seconds, data))
                self._held += len(data)
                self._changed.notify_all()
                await self._changed.wait_for(lambda: self._held < _HELD_BYTES)

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._pieces)
                due, data = self._pieces.popleft()
                self._held -= len(data)
                self._changed.notify_all()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not data:
                return
            writer.write(data)
            await writer.drain()


async def _serve(host: str, port: int, seconds: float) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        server_reader, server_writer = await asyncio.open_connection(host, port, limit=_READ_BYTES)
        await asyncio.gather(_Way(seconds / 2).run(reader, server_writer), _Way(seconds / 2).run(server_reader, writer))

    listening = await asyncio.start_server(pass_on, "127.0.0.1", 0, limit=_READ_BYTES, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


def main() -> None:
    server, milliseconds = sys.argv[1:]
    host, _, port = server.rpartition(":")
    asyncio.run(_serve(host, int(port), int(milliseconds) / 1000))


if __name__ == "__main__":
    main()
