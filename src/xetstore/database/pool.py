"""Pool: connections to a server that are kept for the next call, at most a number of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from xetstore.errors import UnavailableError, UsageError
from xetstore.platform import forks

C = TypeVar("C")

LIFETIME_SECONDS: Final = 1800.0
"""A connection of this age is replaced: the server's side of it has grown, and a name may lead elsewhere by now."""


@dataclass(slots=True)
class Kept(Generic[C]):
    """A connection, and since when it is open. ``is_new`` if no call has used it before."""

    connection: C
    since: float = field(default_factory=time.monotonic)
    is_new: bool = True


class Pool(Generic[C]):
    """At most ``most`` connections, which ``connect`` opens in the thread of the caller, and ``close`` closes.

    ``is_alive`` tells of one that was kept, without asking the server, if it can still be used. Thread-safe. It has no
    thread: where the server is away, a caller learns why at once.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        close: Callable[[C], None],
        is_alive: Callable[[C], bool],
        *,
        most: int,
        wait_seconds: float,
    ) -> None:
        self._connect, self._close, self._is_alive = connect, close, is_alive
        self._most, self._wait_seconds = most, wait_seconds
        self._changed = forks.free(threading.Condition(threading.Lock()))
        self._idle: list[Kept[C]] = []
        self._in_use: dict[int, Kept[C]] = {}
        self._open = 0
        self._is_closed = False

    def take(self, wait_seconds: float | None = None) -> Kept[C]:
        """A connection, which :meth:`give_back` takes back.

        Raises UnavailableError where all stay in use for ``wait_seconds``, and what ``connect`` raises.
        """
        kept = self._next(self._wait_seconds if wait_seconds is None else min(wait_seconds, self._wait_seconds))
        if kept is None:
            try:
                kept = Kept(self._connect())
            except BaseException:
                self._count_down()
                raise
        with self._changed:
            self._in_use[id(kept)] = kept
        return kept

    def replace(self, kept: Kept[C]) -> None:
        """Open another connection in place of one that turned out to be broken, and let go of all that are idle.

        They were opened to the same server, which has been away.
        """
        self._close(kept.connection)
        self.rest()
        kept.connection, kept.since, kept.is_new = self._connect(), time.monotonic(), True

    def give_back(self, kept: Kept[C], *, usable: bool) -> None:
        """Keep a connection for the next call, unless it is not ``usable``, or old."""
        kept.is_new = False
        with self._changed:
            self._in_use.pop(id(kept), None)
            is_kept = usable and not self._is_closed and time.monotonic() - kept.since < LIFETIME_SECONDS
            if is_kept:
                self._idle.append(kept)
                self._changed.notify()
        if not is_kept:
            self._close(kept.connection)
            self._count_down()

    def rest(self) -> None:
        """Close all that are idle. The next call opens others."""
        with self._changed:
            idle, self._idle = self._idle, []
        for kept in idle:
            self._close(kept.connection)
            self._count_down()

    def abandon(self) -> None:
        """Forget all connections, in a child that has a copy of them: they are the parent's."""
        forks.keep((self._idle, self._in_use))
        self._idle, self._in_use, self._open = [], {}, 0

    def close(self) -> None:
        """Close all that are idle, and the others when they are given back. ``take`` then raises UsageError."""
        self._is_closed = True
        self.rest()

    def _next(self, wait_seconds: float) -> Kept[C] | None:
        """A connection that was kept, or None, and there is room for a new one."""
        deadline = time.monotonic() + wait_seconds
        while True:
            with self._changed:
                if self._is_closed:
                    raise UsageError("the store is closed")
                if not self._changed.wait_for(self._has_some, max(0.0, deadline - time.monotonic())):
                    raise UnavailableError(
                        f"all {self._most} connections to the index are in use", hint="try again, or allow for more"
                    )
                if not self._idle:
                    self._open += 1
                    return None
                kept = self._idle.pop()
            if self._is_alive(kept.connection):
                return kept
            self._close(kept.connection)
            self._count_down()

    def _has_some(self) -> bool:
        return bool(self._idle) or self._open < self._most

    def _count_down(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()
