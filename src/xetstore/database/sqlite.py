"""SqliteDatabase: a SQLite file, its connections, and transaction(), the one place that commits."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from xetstore.database import sqlite_file
from xetstore.database.connection import Connection, Dialect, Values, bound
from xetstore.database.glance import SLOW_SECONDS, Glance
from xetstore.database.reserve import Reserve
from xetstore.errors import AccessDeniedError, DamagedError, StorageFullError, UnavailableError, UsageError, XetError
from xetstore.platform import forks
from xetstore.platform.place import Place

BUSY_TIMEOUT_SECONDS: Final = 30.0

_MOST_IDLE: Final = 8
FREE_BYTES: Final = 4 << 20
"""The least that is given back to the file system: less than that is used again soon."""
LIVE_BYTES: Final = 64 << 20
"""The most that is written anew for it, which takes half a second."""


def _as_json(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


DIALECT: Final = Dialect(
    name="sqlite",
    types=MappingProxyType(
        {
            # SQLite numbers rows by itself only where the key's type is INTEGER, which holds 64 bits there.
            "row_id": "INTEGER",
            "number": "INTEGER",
            "bytes": "BLOB",
            "double": "DOUBLE",
            "clustered": "WITHOUT ROWID",
            "bytewise": "",
        }
    ),
    numbers="json_each({})",
    number_list=_as_json,
    has_table="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name",
    batch=512,  # before SQLite 3.32, 999 parameters fit into a statement
)


class SqliteDatabase:
    """A database in a SQLite file; without ``path`` in memory.

    Opening takes constant time. A file that cannot be written to (or a full disk) can still be read: ``transaction()``
    then raises the reason.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        slow_look_seconds: float = SLOW_SECONDS,
    ) -> None:
        sqlite_file.require_version()
        self._path = path
        self._read_only_because: XetError | None = None
        self._glance: Glance | None = None
        self._reserve = None if path is None else Reserve(path)
        self._closed = self._is_cut = False
        self._places: tuple[Place, ...] = ()
        self._idle: list[sqlite3.Connection] = []
        self._most_idle = _MOST_IDLE
        self._lock = forks.lock()
        # In memory all threads share the one connection, so they take turns.
        self._turn: AbstractContextManager[object] = contextlib.nullcontext() if path is not None else forks.rlock()
        self._section = forks.Section(self, rest=SqliteDatabase._let_go, cut=SqliteDatabase._cut)
        self._check_whole()
        if path is None:
            self._connect: Callable[[], sqlite3.Connection] = sqlite_file.memory_connection
            return
        if sqlite_file.is_writable(path):
            self._connect = sqlite_file.writable_connection(path, busy_timeout_seconds)
            try:
                self._open_file(path)
            except (AccessDeniedError, StorageFullError) as reason:
                self._read_only_because = reason
            else:
                look = partial(sqlite_file.glancing_connection, path)
                self._glance = Glance(lambda: self._in_place(look), slow_seconds=slow_look_seconds)
                return
        else:
            self._read_only_because = AccessDeniedError(
                f"the index {path} cannot be written to", hint="the store's directory is read-only for you"
            )
        # A connection that ignores the log must not outlive the call: a writer may come meanwhile.
        self._most_idle = 0
        self._connect = sqlite_file.read_only_connection(path, busy_timeout_seconds)
        self._look_at_places(path)
        if not path.stat().st_size:
            raise self._read_only_because  # it was made just now, and cannot be filled: there is nothing to read

    @classmethod
    def in_memory(cls) -> SqliteDatabase:
        """A database that lives as long as this object."""
        return cls(None)

    @property
    def read_only_because(self) -> XetError | None:
        """The reason for which ``transaction()`` cannot succeed, which it raises; None if it can."""
        return self._read_only_because

    @contextlib.contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Connection]:
        """Write: everything done in the block is durable when it ends, or, after an error, nothing is.

        One writer at a time, between processes too.
        """
        if self._read_only_because is not None:
            reason = self._read_only_because
            raise type(reason)(str(reason), hint=reason.hint)
        self.require_in_place()
        with self._connected() as driver, sqlite_file.patience(driver, patience_seconds):
            driver.execute("BEGIN IMMEDIATE")
            connection = Connection(driver, DIALECT)
            try:
                yield connection
                connection.end()
                self.require_in_place()
                sqlite_file.commit(driver)
            except BaseException:
                driver.rollback()
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read: all queries in the block see one state of the database. Keep it short."""
        with self._connected() as driver:
            driver.execute("BEGIN")
            connection = Connection(driver, DIALECT)
            try:
                yield connection
            finally:
                connection.end()
                driver.rollback()  # there is nothing to commit

    def finds_nothing(self, statement: str, values: Values) -> bool:
        """True if a query has no row now; False where it has one, and where that cannot be seen at once."""
        glance = self._glance
        if glance is None or self._closed or self._is_cut:
            return False
        with self._section.entered():
            return glance.finds_nothing(*bound(statement, values, DIALECT))

    def require_in_place(self) -> None:
        """Raises UnavailableError if the file, or its folder, is not the one any more that was opened."""
        for place in self._places:
            place.require()

    def require_reserve(self) -> None:
        """Raises StorageFullError if the room beside the file was given up, and cannot be had again."""
        if self._reserve is not None and self._read_only_because is None:
            self._reserve.require()

    def give_up_reserve(self) -> bool:
        """Let a deletion or a repair have the room beside the file, and that of the log, which is folded into the file;
        True if there was some.
        """
        return self._reserve is not None and (self._reserve.give_up() | self._fold_log())

    def give_back_space(self) -> int:
        """Write the file anew without the pages that nothing is in, where these are most of it; bytes that it was
        longer. Not a file of which more than :data:`LIVE_BYTES` would be written: its free pages are used again.
        """
        if self._path is None or self._read_only_because is not None:
            return 0
        self.require_in_place()
        with self._connected() as driver:

            def asked(name: str) -> int:
                return int(driver.execute(f"PRAGMA {name}").fetchone()[0])

            pages, free, size = asked("page_count"), asked("freelist_count"), asked("page_size")
            if free * size < FREE_BYTES or 2 * free < pages or (pages - free) * size > LIVE_BYTES:
                return 0
            driver.execute("VACUUM")
            given = (pages - asked("page_count")) * size
        self._fold_log()
        return given

    def damage(self) -> tuple[str, ...]:
        """The faults that SQLite itself finds in its file; empty if there are none. Reads the whole file."""
        with self._connected() as driver:
            return tuple(row[0] for row in driver.execute("PRAGMA quick_check") if row[0] != "ok")

    def clock(self) -> float:
        """Unix seconds by the clock of this machine."""
        return time.time()

    def close(self) -> None:
        """Close all connections; the last one to close a file folds its log into it."""
        self._closed = True
        with self._section.entered():
            if not self._is_cut:
                self._close_connections()
                self._glance = None  # which holds this object

    def _fold_log(self) -> bool:
        """Fold the log into the file, and cut it to nothing; True if that was done. Else it would grow to some MiB."""
        try:
            with self._connected() as driver:
                busy, pages, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except XetError:
            return False
        return not busy and pages >= 0

    def _open_file(self, path: Path) -> None:
        """Open the file for the first time; on a full disk its reserve is given up for that."""
        try:
            self._look_at_places(path)
        except StorageFullError:
            if self._reserve is None or not self._reserve.give_up():
                raise
            self._look_at_places(path)

    def _look_at_places(self, path: Path) -> None:
        with self._connected():
            # With a connection open: only now is the file there, and its own (overlayfs copies what is written).
            self._places = Place(path.parent), Place(path)

    def _in_place(self, connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
        """A new connection. By path: it may lead to the index of another store by now, which is an UnavailableError."""
        connection = connect()
        try:
            self.require_in_place()
        except UnavailableError:
            connection.close()
            raise
        return connection

    def _let_go(self) -> None:
        """Before a fork, when no thread is at it: SQLite's connections do not survive one. The next call opens others.

        That of a database in memory does: the child has a copy of its own.
        """
        if self._path is not None:
            self._close_connections()

    def _close_connections(self) -> None:
        if self._glance is not None:
            self._glance.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for driver in idle:
            driver.close()

    def _cut(self) -> None:
        """In a child that was forked in the middle of a transaction or snapshot."""
        self._is_cut = True
        forks.keep((self._idle, self._glance))
        if self._path is not None:
            forks.mark_cut(self._path)

    def _check_whole(self) -> None:
        if self._is_cut or (self._path is not None and forks.is_cut(self._path)):
            raise UsageError(
                "this process was forked while another thread was using the index of the store",
                hint="fork while no call is under way, or start workers by spawn or forkserver",
            )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise UsageError("the store is closed")
        self._check_whole()
        with self._section.entered(), self._turn:
            driver: Any = None
            try:
                driver = self._take()
                yield driver
            except sqlite_file.DatabaseError as error:
                meant = sqlite_file.meaning(error)
                if meant is error:
                    raise
                if isinstance(meant, DamagedError):
                    self.require_in_place()  # of a file that was cut to nothing a log may give parts
                raise meant from error
            finally:
                if driver is not None:
                    self._give_back(driver)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._in_place(self._connect)

    def _give_back(self, driver: sqlite3.Connection) -> None:
        if not driver.in_transaction:
            with self._lock:
                if not self._closed and len(self._idle) < self._most_idle:
                    self._idle.append(driver)
                    return
        driver.close()
