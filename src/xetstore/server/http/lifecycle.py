"""DrainingServer: uvicorn as we run it, from the first connection it accepts to the last one it drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from xetstore.errors import UnavailableError
from xetstore.platform.threads import start_thread
from xetstore.server.http.connection import Connection, connection_class
from xetstore.server.http.sockets import ACCEPTED_AT_ONCE, BACKLOG
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.peers import Peers
from xetstore.server.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CUT_SECONDS: Final = 1
"""Seconds for connections that are still open when all requests are answered, or the drain is over."""
FORCED_SECONDS: Final = 3
"""Seconds for everything when the server is told to stop for the second time."""
INTERRUPTED: Final = 130

_log = logging.getLogger("xetstore.server")


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which tells when it accepts connections, and drains before it stops.

    When it is told to stop, ``draining`` is set, so that it is no longer ready; it still answers. Idle
    connections are closed. Once no request is in flight, or after ``drain_seconds``, it stops listening and cuts off
    what is left. Told so again, it does that at once: ``force_exit``. A process then ends within three seconds.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float = 0,
        draining: threading.Event | None = None,
        on_started: Callable[[], None] = lambda: None,
        on_draining: Callable[[], None] = lambda: None,
        handshake_seconds: float = 10,
    ) -> None:
        super().__init__(config)
        self._handshake_seconds = handshake_seconds
        self.draining = draining or threading.Event()
        self._drain_seconds = drain_seconds
        self._on_started = on_started
        self._on_draining = on_draining
        self._drain_until: float | None = None
        self._is_abandoned = False

    async def serve_until_stopped(self, listening: socket.socket) -> None:
        """Serve on a listening socket, which is closed at the end. No connection is left open either."""
        try:
            await self.serve(sockets=[listening])
        finally:
            listening.close()
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # in which the transports are let go of

    def drain(self) -> None:
        """Stop, as described above. May be called from a signal handler or another thread, and again."""
        if self.draining.is_set():
            self.should_exit = self.force_exit = True
        self.draining.set()
        self._on_draining()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        with _patience_for_handshakes(self._handshake_seconds if self.config.is_ssl else None):
            await super().startup(sockets=sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)  # to asyncio both are one number
        self._on_started()

    def abandon(self) -> None:
        """Drain, and let go of the port at once: what would take its place is another server."""
        self._is_abandoned = True
        self.drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """SIGTERM or SIGINT came."""
        self.stop()

    def stop(self) -> None:
        """Drain; told so again, be gone within three seconds. May be called from another thread."""
        self.drain()
        if self.force_exit:
            # A thread that hangs in a disk cannot be cut off. What it would leave behind, the store expects of a crash.
            try:
                start_thread(_end_process_later, name="last word")
            except UnavailableError:
                os._exit(INTERRUPTED)

    async def on_tick(self, counter: int) -> bool:
        """True if it is time to stop listening."""
        stop = await super().on_tick(counter)
        if self._is_abandoned:
            for listening in self.servers:
                listening.close()
        return stop or (self.draining.is_set() and self._is_drained())

    def _is_drained(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._drain_until is None:
            self._drain_until = now + self._drain_seconds
            _log.info("stopping", extra={"requests_in_flight": len(self.server_state.tasks)})
        # A new connection may be about to ask whether we are ready.
        connections = cast("set[Connection]", self.server_state.connections)
        used = [connection for connection in connections if not connection.is_new]
        for connection in used:
            connection.shutdown()
        return now >= self._drain_until or not (used or self.server_state.tasks)


def make_server(
    app: ASGIApp,
    settings: ServerSettings,
    *,
    context: ssl.SSLContext | None = None,
    draining: threading.Event | None = None,
    on_started: Callable[[], None] = lambda: None,
    on_draining: Callable[[], None] = lambda: None,
    connection_limit: ConnectionLimit | None = None,
) -> DrainingServer:
    """uvicorn in front of an application, with the limit on connections of the settings or another one.

    With ``context`` it speaks TLS.
    """
    if connection_limit is None:
        connection_limit = ConnectionLimit(
            settings.max_connections, settings.max_connections_per_address, peers=Peers(settings.trusted_proxies)
        )
    config = uvicorn.Config(
        app,
        http=connection_class(settings, connection_limit),
        loop="asyncio",
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=ACCEPTED_AT_ONCE,
        workers=1,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=CUT_SECONDS,
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    return DrainingServer(
        config,
        drain_seconds=settings.drain_seconds,
        draining=draining,
        on_started=on_started,
        on_draining=on_draining,
        handshake_seconds=settings.header_timeout_seconds,
    )


@contextlib.contextmanager
def _patience_for_handshakes(seconds: float | None) -> Iterator[None]:
    """Make TLS servers, while this is open, that wait no longer for a client's part in the beginning and the end.

    uvicorn has no setting for it. asyncio waits for a minute at the beginning, when the connection has no place yet,
    and for half of one at the end, when it has none any more.
    """
    if seconds is None:
        yield
        return
    loop = asyncio.get_running_loop()
    patience = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds}
    loop.create_server = partial(loop.create_server, **patience)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del loop.create_server


def _end_process_later() -> None:
    time.sleep(FORCED_SECONDS)
    os._exit(INTERRUPTED)
