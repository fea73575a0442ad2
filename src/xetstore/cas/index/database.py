"""Index: the database file, its connections, and transaction(), the one place that commits."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Pool, create_engine, event, exc
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from xetstore.access.tenant import Tenant
from xetstore.cas.index import sqlite
from xetstore.cas.index.glance import SLOW_SECONDS, Glance
from xetstore.cas.index.migrations import MIGRATIONS, found_version, migrate, refuse_newer
from xetstore.cas.index.queries import Reader, Writer
from xetstore.errors import AccessDeniedError, StorageFullError, UnavailableError, UsageError, XetError
from xetstore.platform import forks
from xetstore.platform.place import Place

BUSY_TIMEOUT_SECONDS: Final = 30.0


class Index:
    """The index in a SQLite file. Thread-safe, and safe between processes; opening takes constant time.

    The schema is made or migrated on opening. A file that cannot be written to (or a full disk) can still
    be read: ``transaction()`` then raises the reason. Every error of the database leaves as an XetError.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        slow_look_seconds: float = SLOW_SECONDS,
    ) -> None:
        self._path: Path | None = path
        self._read_only_because: XetError | None = None
        self._is_cut = False
        self._check_whole()
        if sqlite.is_writable(path):
            try:
                connect = sqlite.writable_connection(path, busy_timeout_seconds)
                glance = Glance(
                    lambda: self._in_place(partial(sqlite.glancing_connection, path)), slow_seconds=slow_look_seconds
                )
                self._start(connect, QueuePool, glance, pool_size=8, max_overflow=-1)
                return
            except (AccessDeniedError, StorageFullError) as reason:
                self._read_only_because = reason
        else:
            self._read_only_because = AccessDeniedError(
                f"the index {path} cannot be written to", hint="the store's directory is read-only for you"
            )
        # A connection that ignores the log must not outlive the call: a writer may come meanwhile.
        self._start(sqlite.read_only_connection(path, busy_timeout_seconds), NullPool)

    @classmethod
    def in_memory(cls) -> Index:
        """An index that lives as long as this object."""
        index = cls.__new__(cls)
        index._path = None
        index._read_only_because = None
        index._start(sqlite.memory_connection, StaticPool)
        # All threads share the one connection, so they take turns.
        index._turn = forks.rlock()
        return index

    @property
    def is_writable(self) -> bool:
        """True if ``transaction()`` can succeed."""
        return self._read_only_because is None

    def require_in_place(self) -> None:
        """Raises UnavailableError if the file, or its folder, is not the one any more that was opened."""
        for place in self._places:
            place.require()

    @contextlib.contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Writer]:
        """Write: everything done in the block is durable when it ends, or, after an error, nothing is.

        One writer at a time, between processes too. UnavailableError if the others do not get done in time, which is
        ``patience_seconds`` if given; and if the file was moved or replaced since it was opened, for then nothing would
        be durable.
        """
        if self._read_only_because is not None:
            reason = self._read_only_because
            raise type(reason)(str(reason), hint=reason.hint)
        self.require_in_place()
        with self._connected() as connection, sqlite.patience(connection, patience_seconds):
            connection.execution_options(xet_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield Writer(connection)
                self.require_in_place()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Read: all queries in the block see one state of the index. Keep it short."""
        with self._connected() as connection:
            connection.begin()  # and rolled back at the end: there is nothing to commit
            yield Reader(connection)

    def lacks_chunk(self, key: int, tenant: Tenant) -> bool:
        """True if :meth:`Reader.holders` would find nothing now; False also where that cannot be seen at once.

        For an event loop: it takes some microseconds, and waits for no lock.
        """
        if self._glance is None or self._closed or self._is_cut:
            return False
        with self._section.entered():
            return self._glance.lacks_chunk(key, tenant)

    def damage(self) -> tuple[str, ...]:
        """The faults that the database itself finds in its file; empty if there are none. Reads the whole index."""
        with self._connected() as connection:
            return tuple(row[0] for row in connection.exec_driver_sql("PRAGMA quick_check") if row[0] != "ok")

    def close(self) -> None:
        """Close all connections; the last one to close a database folds its log into it."""
        self._closed = True
        with self._section.entered():
            if not self._is_cut:
                self._close_connections()

    def _start(
        self,
        connect: Callable[[], sqlite3.Connection],
        pool: type[Pool],
        glance: Glance | None = None,
        **pool_options: Any,
    ) -> None:
        self._turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._closed = False
        self._is_cut = False
        self._section = forks.Section(self, rest=Index._let_go, cut=Index._cut)
        self._places: tuple[Place, ...] = ()

        self._glance = glance
        self._engine = create_engine(
            "sqlite://", creator=lambda: self._in_place(connect), poolclass=pool, **pool_options
        )
        event.listen(self._engine, "begin", _begin)
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

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

        That of an index in memory does: the child has a copy of its own.
        """
        if self._path is not None:
            self._close_connections()

    def _close_connections(self) -> None:
        if self._glance is not None:
            self._glance.close()
        self._engine.dispose()

    def _cut(self) -> None:
        """In a child that was forked in the middle of a transaction or snapshot."""
        self._is_cut = True
        forks.keep((self._engine, self._glance))
        if self._path is not None:
            forks.mark_cut(self._path)

    def _check_whole(self) -> None:
        if self._is_cut or (self._path is not None and forks.is_cut(self._path)):
            raise UsageError(
                "this process was forked while another thread was using the index of the store",
                hint="fork while no call is under way, or start workers by spawn or forkserver",
            )

    def _prepare(self) -> None:
        with self.snapshot() as reader:
            version = found_version(reader.connection)
            if self._path is not None:
                # With a connection open: only now is the file there, and its own (overlayfs copies what is written).
                self._places = Place(self._path.parent), Place(self._path)
        refuse_newer(version)
        if version == len(MIGRATIONS):
            return
        if isinstance(self._read_only_because, StorageFullError):
            raise self._read_only_because
        if self._read_only_because is not None:
            raise AccessDeniedError(
                f"the index has schema version {version} and must first become version {len(MIGRATIONS)}",
                hint="open the store once with permission to write to it",
            )
        with self.transaction() as writer:
            migrate(writer.connection)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        if self._closed:
            raise UsageError("the store is closed")
        self._check_whole()
        with self._section.entered(), self._turn:
            try:
                with self._engine.connect() as connection:
                    yield connection
            except exc.DBAPIError as error:
                raise _translated(error) from error
            except UnicodeDecodeError as error:
                raise sqlite.meaning(error) from error
            except exc.TimeoutError as error:
                raise UnavailableError(f"no connection to the index became free: {error}") from error


def _begin(connection: Connection) -> None:
    # The driver's own transaction handling is off: it would begin too late, and not for every statement.
    connection.exec_driver_sql(connection.get_execution_options().get("xet_begin", "BEGIN"))


def _translated(error: exc.DBAPIError) -> Exception:
    return sqlite.meaning(error.orig) if isinstance(error.orig, sqlite3.Error) else error
