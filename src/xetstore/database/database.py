"""Database: the seam between the tables of a room and an engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xetstore.database.connection import Connection, Values
    from xetstore.errors import XetError


class Database(Protocol):
    """A database of one engine. Thread-safe, and safe between processes. Errors of the engine leave as XetErrors."""

    @property
    def read_only_because(self) -> XetError | None:
        """The reason for which ``transaction()`` cannot succeed, which it raises; None if it can."""

    def transaction(self, *, patience_seconds: float | None = None) -> AbstractContextManager[Connection]:
        """Write: everything done in the block is durable when it ends, or, after an error, nothing is.

        UnavailableError if other writers do not get done in time, which is ``patience_seconds`` if given; and if the
        database is not in its place any more, for then nothing would be durable. ConflictError if another writer was
        first: the same again may succeed. UnknownOutcomeError if the connection breaks during the commit. A
        StorageFullError never means that something was committed.
        """

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Read: all queries in the block see one state of the database. Keep it short."""

    def finds_nothing(self, statement: str, values: Values) -> bool:
        """True if a query finds no row now; False where it finds one, and where that cannot be seen at once.

        For an event loop: it takes some microseconds, and waits for no lock.
        """

    def require_in_place(self) -> None:
        """Raises UnavailableError if the database is not the one any more that was opened."""

    def damage(self) -> tuple[str, ...]:
        """The faults that the engine itself finds in its files; empty if there are none. Reads all of them."""

    def require_reserve(self) -> None:
        """Raises StorageFullError if the room that is kept for deletions and repairs was given up, and cannot be had
        again.
        """

    def give_up_reserve(self) -> bool:
        """Let a deletion or a repair that has no room have the room that is kept for it; True if there was some."""

    def give_back_space(self) -> int:
        """Give the file system back what most of a database file has no use for, after much was deleted; bytes.

        Writers wait for it as for a long transaction. Raises as :meth:`transaction`: then nothing was given back.
        """

    def clock(self) -> float:
        """Unix seconds by the clock of the database: the same for all who share it. Asks nothing, and may be called
        by an event loop.
        """

    def close(self) -> None:
        """Close all connections. May be called again; every other call then raises UsageError."""
