"""Glance: one look into a SQLite database that takes some microseconds, for callers that must not wait."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from xetstore.database.sqlite_file import DatabaseError
from xetstore.errors import UnavailableError
from xetstore.platform import forks

if TYPE_CHECKING:
    from xetstore.database.connection import Values

SLOW_SECONDS: Final = 0.02
PAUSE_SECONDS: Final = 0.2
"""The pause after a look that took longer than SLOW_SECONDS, because its pages came from a disk."""
MOST_STEPS: Final = 2000
"""Steps of SQLite's machine in one look, to twice as many: some 0.1 ms. One that finds nothing takes 30."""


class Glance:
    """Looks by one connection of its own, which ``connect`` opens and which waits for no lock. Thread-safe.

    It sees what was committed before, by any process: nothing is kept from one look to the next.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        slow_seconds: float = SLOW_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        most_steps: int = MOST_STEPS,
    ) -> None:
        self._connect = connect
        self._slow_seconds, self._pause_seconds = slow_seconds, pause_seconds
        self._most_steps = most_steps
        self._interruptions = 0
        self._connection: sqlite3.Connection | None = None
        self._turn = forks.lock()
        self._paused_until = 0.0

    def finds_nothing(self, statement: str, values: Values) -> bool:
        """True if a query, as the driver takes it, finds no row. False where it does, or cannot be seen at once."""
        if time.monotonic() < self._paused_until or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.set_progress_handler(self._is_too_long, self._most_steps)
            self._interruptions = 0
            start = time.monotonic()
            found = self._connection.execute(statement, values).fetchone()
        except (*DatabaseError, UnavailableError) as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                self._drop()  # a query in the ordinary way tells what is wrong
            return False
        finally:
            self._turn.release()
        now = time.monotonic()
        if now - start > self._slow_seconds:
            self._paused_until = now + self._pause_seconds
        return found is None

    def close(self) -> None:
        """Close the connection. The next look opens another one."""
        with self._turn:
            self._drop()

    def _is_too_long(self) -> bool:
        # SQLite counts the steps of a statement from one look to the next: the first time tells nothing of this one.
        self._interruptions += 1
        return self._interruptions > 1

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DatabaseError):
                connection.close()
