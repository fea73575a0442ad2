"""Glance: one look into the index that takes some microseconds, for callers that must not wait."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final

from sqlalchemy.dialects import sqlite as dialects

from xetstore.access.tenant import Tenant
from xetstore.cas.index.queries import any_holder
from xetstore.cas.index.sqlite import DatabaseError
from xetstore.errors import UnavailableError
from xetstore.platform import forks

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
        # Most looks are for whom the last one was for, and a tenant takes longer to hash than to tell from another.
        self._asked_for: Tenant | None = None
        self._question: tuple[str, dict[str, object]] = "", {}
        self._paused_until = 0.0

    def lacks_chunk(self, key: int, tenant: Tenant) -> bool:
        """True if no sound xorb that ``tenant`` may use holds an eligible chunk with this key.

        False where one does, and where that cannot be seen at once: then ask :meth:`Reader.holders`.
        """
        if time.monotonic() < self._paused_until or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.set_progress_handler(self._is_too_long, self._most_steps)
            if tenant is not self._asked_for:
                self._question, self._asked_for = _statement(tenant), tenant
            statement, values = self._question
            self._interruptions = 0
            start = time.monotonic()
            found = self._connection.execute(statement, {**values, "chunk_key": key}).fetchone()
        except (*DatabaseError, UnavailableError) as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                self._drop()  # who asks in the ordinary way hears what is wrong
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


@lru_cache(maxsize=256)
def _statement(tenant: Tenant) -> tuple[str, dict[str, object]]:
    compiled = any_holder(tenant).params(chunk_key=0).compile(dialect=dialects.dialect(paramstyle="named"))
    expanded = compiled.construct_expanded_state()
    return expanded.statement, {name: value for name, value in expanded.parameters.items() if name != "chunk_key"}
