"""SharedListening: one socket that listens for all workers of a server, each of which takes its turn to accept.

All workers wait for the same socket, so a connection that waits there waits for no particular one: it is not lost with
a worker that dies, nor held up by one that is busy. A socket for each worker with SO_REUSEPORT has a queue for each,
and a second server could be started on the same port.

But the system wakes all that wait, and the first takes what there is. Of eight connections that came at once one of two
workers got 8, and of 16 it got 16, in most of twelve attempts; by SO_REUSEPORT 4 to 6, and 8 to 13. A client that keeps
its connections would have one core. So a worker that has more of them than another leaves a new one to that for at most
:data:`PATIENCE_SECONDS`: 4 and 8, in every attempt.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from xetstore.server.ops.shared import Shared

PATIENCE_SECONDS: Final = 0.005
"""The longest wait for a worker with fewer connections. One that does not come has other things to do."""
FREE_SECONDS: Final = 0.02
"""The time after such a wait in which none is left to others."""
_PAUSE_SECONDS: Final = 0.0001


class SharedListening(socket.socket):
    """A listening socket, given by its descriptor, as one worker has it. It counts what it accepts as the load."""

    def __init__(self, descriptor: int, shared: Shared) -> None:
        super().__init__(fileno=descriptor)
        self.setblocking(False)
        self._shared = shared
        self._others = 0
        self._left_since: float | None = None
        self._free_until = 0.0
        shared.load = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises BlockingIOError if there is none, or another worker should have it."""
        if self._leaves_it():
            raise BlockingIOError
        connection, address = super().accept()
        return _Accepted(connection, self._shared), address

    def _leaves_it(self) -> bool:
        shared, now = self._shared, time.monotonic()
        if shared.workers == 1 or now < self._free_until or shared.load <= shared.least_load():
            self._left_since = None
            return False
        others = shared.load_of_others()
        if self._left_since is None or others != self._others:  # another took the last one: this is a new one
            self._left_since, self._others = now, others
        if now - self._left_since >= PATIENCE_SECONDS:
            self._left_since, self._free_until = None, now + FREE_SECONDS
            return False
        # The loop comes back at once. Where there are fewer cores than workers, the other needs this one.
        time.sleep(_PAUSE_SECONDS)
        return True


class _Accepted(socket.socket):
    """A connection, which is counted until it is closed."""

    def __init__(self, accepted: socket.socket, shared: Shared) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._shared: Shared | None = shared
        shared.load += 1

    def close(self) -> None:
        self._leave()
        super().close()

    def detach(self) -> int:
        self._leave()
        return super().detach()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._leave()

    def _leave(self) -> None:
        if self._shared is not None:
            self._shared.load -= 1
            self._shared = None
