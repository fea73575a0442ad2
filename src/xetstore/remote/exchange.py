"""Exchange: one request and its answer, as the code between urllib3 and the socket has to know it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from xetstore.cancellation import Cancellation
from xetstore.errors import TimedOutError
from xetstore.platform.sockets import ready, unsent_bytes
from xetstore.remote.floor import Floor
from xetstore.remote.rate import RateLimit

if TYPE_CHECKING:
    from xetstore.remote.network import Route
    from xetstore.remote.retry import Patience

Wait: TypeAlias = Callable[[socket.socket], None]
"""Waits until a socket can be read, or raises."""

_SHUTDOWN: Final = socket.socket.shutdown
"""That of a TLS socket first forgets its TLS state, which another thread may be using."""


def _shut_down(sock: socket.socket) -> None:
    """Let what waits for a socket in another thread end."""
    with suppress(OSError):
        _SHUTDOWN(sock, socket.SHUT_RDWR)


class Exchange:
    """One request and its answer, as the connection that carries it has to know it.

    ``wait`` waits until a socket can be read; it raises what ends the wait otherwise. A body is sent at the rate of
    ``upload``. ``deadline`` is the monotonic time by which the head has to be there: of a proxy's answer while
    ``is_connecting``, else of the answer.
    """

    def __init__(
        self,
        cancellation: Cancellation,
        route: Route,
        patience: Patience,
        *,
        upload: RateLimit | None,
        wait: Wait | None,
    ) -> None:
        self.cancellation = cancellation
        self._unwatch: Callable[[], None] | None = None
        self.route = route
        self.peer = route.origin.address
        self.patience = patience
        self.upload = upload
        self._waits = wait  # None for the wait of its own, which would hold it in a cycle
        self.floor = Floor(patience.floor, patience.floor_seconds)
        self.deadline = float("inf")
        self.is_connecting = False
        self.has_begun = False
        self._unsent = 0
        self.sock: socket.socket | None = None
        self.reply: http.client.HTTPResponse | None = None
        self.is_reused = False
        self.in_body = False
        self.is_cut_short = False
        self.heard = b""

    def watch(self, sock: socket.socket) -> None:
        """Have ``sock`` shut down when the call is cancelled, instead of the one before."""
        self.forget()
        self._unwatch = self.cancellation.on_cancel(partial(_shut_down, sock))
        self.sock = sock

    def forget(self) -> None:
        """The exchange is over."""
        if self._unwatch is not None:
            self._unwatch()
        self._unwatch = self.sock = None

    def begin_head(self, seconds: float, *, is_connecting: bool) -> None:
        """Set the time that the next head has to come."""
        self.deadline = time.monotonic() + seconds
        self.is_connecting = is_connecting
        self.has_begun = False
        self._unsent = unsent_bytes(self.sock)

    @property
    def is_late(self) -> bool:
        """True if the head is not there in time. What is still on its way to the server, and moves, is waited for."""
        if time.monotonic() < self.deadline:
            return False
        left = unsent_bytes(self.sock)
        if self.is_connecting or self._unsent - left <= self.floor.rate * self.patience.answer:
            return True
        # A body that the system has taken may need longer than an answer to get through a slow network.
        self._unsent = left
        self.deadline = time.monotonic() + self.patience.answer
        return False

    def wait_for_head(self, sock: socket.socket) -> None:
        """Wait until more of the head can be read."""
        if self.is_connecting or self._waits is None:
            self._wait(sock)
        else:
            self._waits(sock)

    def timed_out(self) -> TimedOutError:
        """The error of a head that is not there in time."""
        hint = "the server is too busy or the connection is dead: try again later"
        if self.is_connecting:
            return TimedOutError(
                f"no connection to {self.peer}: the proxy did not answer in time",
                hint="check the proxy, or set no_proxy to go without it",
            )
        if self.has_begun:
            return TimedOutError(
                f"{self.peer} is still in the middle of the head of its answer after {self.patience.answer:g} s",
                hint=hint,
            )
        return TimedOutError(f"{self.peer} gave no answer for {self.patience.answer:g} s", hint=hint)

    def _wait(self, sock: socket.socket) -> None:
        while not ready([sock], [], self.deadline - time.monotonic()):
            if self.is_late:
                raise self.timed_out()
        self.cancellation.check()


class _Here(threading.local):
    """The exchange that this thread is making: urllib3 makes connections and answers, and passes nothing on to them."""

    exchange: Exchange | None = None


_here = _Here()


@contextmanager
def carrying(exchange: Exchange) -> Iterator[None]:
    """Have the connection that this thread uses next carry ``exchange``."""
    before, _here.exchange = _here.exchange, exchange
    try:
        yield
    finally:
        _here.exchange = before


def current() -> Exchange:
    """The exchange that this thread is making."""
    assert _here.exchange is not None, "a connection is used outside of a Transport"
    return _here.exchange


def is_ours() -> bool:
    """True if this thread is making one."""
    return _here.exchange is not None
