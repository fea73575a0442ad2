"""Calls: the requests under way on behalf of one client, so that they can be made to end soon."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

from xetstore.errors import InterruptedCallError
from xetstore.platform import forks

_SHUTDOWN: Final = socket.socket.shutdown
"""That of a TLS socket first forgets its TLS state, which another thread may be using."""


class Calls:
    """The calls of one client. Thread-safe.

    :meth:`interrupt` ends those that have begun: their sockets are shut down and their sleepers woken, and each of
    them raises InterruptedCallError. Calls that begin afterwards are not affected.
    """

    def __init__(self) -> None:
        self._interrupts = 0
        self._begin()
        forks.renew(self, Calls._begin)

    def begin(self) -> Call:
        """A call that begins now."""
        return Call(self, self._interrupts)

    def _begin(self) -> None:
        """Have no call under way. In a child those of its parent have ended, and their sockets are left alone."""
        self._changed = threading.Condition()
        self._interrupts += 1
        self._sockets: set[socket.socket] = set()

    def interrupt(self) -> None:
        """End every call that is under way."""
        with self._changed:
            self._interrupts += 1
            for sock in self._sockets:
                with suppress(OSError):
                    _SHUTDOWN(sock, socket.SHUT_RDWR)
            self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        """Sleep, as a call that does nothing else."""
        self.begin().sleep(seconds)


class Call:
    """One call, from its first request to the last byte of its last answer. Made by :meth:`Calls.begin`."""

    __slots__ = ("_calls", "_interrupts")

    def __init__(self, calls: Calls, interrupts: int) -> None:
        self._calls = calls
        self._interrupts = interrupts

    def begin(self) -> Call:
        """Itself: a request that is part of this call begins none of its own."""
        return self

    @property
    def is_interrupted(self) -> bool:
        """True if it has to end."""
        return self._calls._interrupts != self._interrupts

    def check(self) -> None:
        """Raise InterruptedCallError if it has to end."""
        if self.is_interrupted:
            raise InterruptedCallError("the call was interrupted", hint="nothing is wrong with it: make it again")

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises InterruptedCallError as soon as the call has to end."""
        with self._calls._changed:
            self._calls._changed.wait_for(lambda: self.is_interrupted, max(seconds, 0))
        self.check()

    def watch(self, sock: socket.socket) -> None:
        """Have a socket shut down when the call is interrupted. Raises InterruptedCallError if it has been."""
        with self._calls._changed:
            self.check()
            self._calls._sockets.add(sock)

    def forget(self, sock: socket.socket) -> None:
        """Undo :meth:`watch`: afterwards the socket can be another call's."""
        with self._calls._changed:
            self._calls._sockets.discard(sock)
