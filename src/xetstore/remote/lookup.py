"""Looking up the addresses of a host, so that who gives up need not wait for a name server."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from xetstore.cancellation import Cancellation
from xetstore.platform.threads import start_thread

TICK_SECONDS: Final = 0.05
"""Seconds after which a lookup looks whether it is still wanted."""

Found: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]


def addresses(host: str, port: int, cancellation: Cancellation, deadline: float) -> Found:
    """The addresses of a host for TCP, as socket.getaddrinfo gives them; ``deadline`` is a monotonic time.

    Nothing ends a lookup that is under way: one that takes too long is left to a thread that is not waited for. Raises
    OSError or UnicodeError where there is no such host, TimeoutError at the deadline, and InterruptedCallError.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass  # a name, then
    told: queue.SimpleQueue[Found | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            told.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            told.put(error)

    start_thread(look, name="lookup")
    while True:
        cancellation.check()
        try:
            found = told.get(timeout=TICK_SECONDS)
        except queue.Empty:
            if time.monotonic() >= deadline:
                raise TimeoutError(None, "no name server answered in time") from None
            continue
        if isinstance(found, Exception):
            raise found
        return found
