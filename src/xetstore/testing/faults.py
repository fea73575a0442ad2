"""Fault plans: make the n-th thing that a store asks of the system fail, or the process die there."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

from xetstore.blobs import local
from xetstore.blobs.ranges import one_by_one
from xetstore.database import sqlite_file
from xetstore.database.connection import Connection
from xetstore.database.database import Database
from xetstore.errors import XetError
from xetstore.interfaces import BlobInfo, BlobStore, ByteStream, NewObject, RangeAnswer, RangeRequest
from xetstore.platform import files

if TYPE_CHECKING:
    from typing_extensions import Buffer

CRASH_EXIT_CODE = 99
"""The exit code of a process that a plan made crash."""


class FaultPlan:
    """Counts operations and lets number ``fail_at`` (from 0; None: none) fail with ``error``, an errno.

    With ``crash`` the process ends there and then, without any clean-up. ``operations`` is what was asked
    so far, in order. Thread-safe.

    >>> plan = FaultPlan(fail_at=1)
    >>> plan.step("first")
    >>> plan.step("second")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device
    >>> plan.operations, plan.has_failed
    (['first', 'second'], True)
    """

    def __init__(self, fail_at: int | None = None, *, error: int = errno.ENOSPC, crash: bool = False) -> None:
        self.operations: list[str] = []
        self.has_failed = False
        self._fail_at = fail_at
        self._error = error
        self._crash = crash
        self._lock = threading.Lock()

    def fail_next(self, after: int = 0) -> None:
        """Let one of the coming operations fail: the next one, or one that comes ``after`` others."""
        with self._lock:
            self.has_failed = False
            self._fail_at = len(self.operations) + after

    def disarm(self) -> None:
        """Let everything go well from now on."""
        self._fail_at = None

    def is_due(self, operation: str) -> bool:
        """Count an operation; whether it is the one to fail."""
        with self._lock:
            self.operations.append(operation)
            if len(self.operations) - 1 != self._fail_at:
                return False
            self.has_failed = True
            return True

    def step(self, operation: str) -> None:
        """Count an operation, and fail if it is the one."""
        if self.is_due(operation):
            self.fail()

    def fail(self) -> None:
        """Do as planned."""
        if self._crash:
            os._exit(CRASH_EXIT_CODE)
        raise OSError(self._error, os.strerror(self._error))

    @contextlib.contextmanager
    def installed(self) -> Iterator[FaultPlan]:
        """Apply the plan to every local store of this process: its files, and index connections opened inside.

        The operations are "mkdir", "open", "write", "fsync file", "fsync folder", "close", "link", "unlink",
        and the statements that change the index, by their first word.
        """
        with (
            mock.patch.object(local, "os", _WatchedOs(self)),
            mock.patch.object(files, "os", _WatchedOs(self)),
            mock.patch.object(sqlite_file, "sqlite3", _WatchedSqlite(self)),
        ):
            yield self


class _FaultyNewObject:
    def __init__(self, inner: NewObject, ask: Callable[[], None]) -> None:
        self._inner = inner
        self._ask = ask
        self.write = inner.write
        self.close = inner.close

    def commit(self) -> None:
        self._ask()
        self._inner.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FaultyBlobStore:
    """A BlobStore that asks the plan before each verb; a failing one raises what a local store would."""

    def __init__(self, inner: BlobStore, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """As the store inside, if the plan allows."""
        self._ask("put_new", key)
        self._inner.put_new(key, parts)

    def create(self, key: str) -> NewObject:
        """As the store inside, if the plan allows; so is committing the object."""
        self._ask("create", key)
        return _FaultyNewObject(self._inner.create(key), lambda: self._ask("commit", key))

    def get(self, key: str) -> bytes:
        """As the store inside, if the plan allows."""
        self._ask("get", key)
        return self._inner.get(key)

    def get_range(self, key: str, start: int, end: int) -> ByteStream:
        """As the store inside, if the plan allows."""
        self._ask("get_range", key)
        return self._inner.get_range(key, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """As the store inside, if the plan allows, which is asked for each range."""
        return one_by_one(self.get_range, requests)

    def stat(self, key: str) -> BlobInfo | None:
        """As the store inside, if the plan allows."""
        self._ask("stat", key)
        return self._inner.stat(key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """As the store inside, if the plan allows, which is asked for each key."""
        return sum(self._delete(key) for key in keys)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """As the store inside, if the plan allows."""
        self._ask("list", prefix)
        return self._inner.list(prefix, after=after)

    def _delete(self, key: str) -> int:
        self._ask("delete", key)
        return self._inner.delete_many([key])

    def _ask(self, verb: str, key: str) -> None:
        try:
            self._plan.step(f"{verb} {key}")
        except OSError as error:
            raise files.storage_error(error, f"object {key}: {verb} failed") from error


class FaultyDatabase:
    """A Database that asks the plan before each statement, by its first word, and before each "COMMIT".

    The one that is due fails as where a disk is full; with ``instead``, that is done, and the statement goes its way.
    """

    def __init__(self, inner: Database, plan: FaultPlan, *, instead: Callable[[], object] | None = None) -> None:
        self._inner = inner
        self._plan = plan
        self._instead = instead
        self.finds_nothing = inner.finds_nothing
        self.require_in_place = inner.require_in_place
        self.require_reserve = inner.require_reserve
        self.give_up_reserve = inner.give_up_reserve
        self.give_back_space = inner.give_back_space
        self.damage = inner.damage
        self.clock = inner.clock
        self.close = inner.close

    @property
    def read_only_because(self) -> XetError | None:
        """As the database inside."""
        return self._inner.read_only_because

    @contextlib.contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Connection]:
        """As the database inside, if the plan allows each step."""
        with self._inner.transaction(patience_seconds=patience_seconds) as connection:
            yield self._watched(connection)
            self._ask("COMMIT")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As the database inside, if the plan allows each query."""
        with self._inner.snapshot() as connection:
            yield self._watched(connection)

    def _watched(self, connection: Connection) -> Connection:
        for name in ("rows", "row", "change", "change_many", "add_many"):
            setattr(connection, name, self._asking(getattr(connection, name)))
        return connection

    def _asking(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def asking(statement: str, *values: Any) -> Any:
            self._ask(statement.split(maxsplit=1)[0].upper())
            return verb(statement, *values)

        return asking

    def _ask(self, word: str) -> None:
        if not self._plan.is_due(word):
            return
        if self._instead is not None:
            self._instead()
            return
        try:
            self._plan.fail()
        except OSError as error:
            raise files.storage_error(error, f"the index: {word} failed") from error


class _WatchedOs:
    """The module ``os``, with a plan asked before what changes files."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def mkdir(self, path: Any) -> None:
        self._plan.step("mkdir")
        os.mkdir(path)  # noqa: PTH102  # what is watched is os

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._plan.step("open")
        return os.open(path, flags, mode)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._plan.is_due("write"):
            # A disk fills up, and a process dies, in the middle of a write.
            os.write(descriptor, data[: len(data) // 2])
            self._plan.fail()
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        self._plan.step("fsync folder" if is_folder else "fsync file")
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)  # closes also where it reports an error
        self._plan.step("close")

    def link(self, source: Any, target: Any) -> None:
        self._plan.step("link")
        os.link(source, target)

    def unlink(self, path: Any) -> None:
        self._plan.step("unlink")
        os.unlink(path)  # noqa: PTH108  # what is watched is os


class _WatchedSqlite:
    """The module ``sqlite3``, with a plan asked before statements that change the database."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, target: str, **options: Any) -> sqlite3.Connection:
        ask = self._ask

        class WatchedCursor(sqlite3.Cursor):
            def execute(self, sql: str, *parameters: Any) -> Self:
                ask(sql)
                return super().execute(sql, *parameters)

            def executemany(self, sql: str, parameters: Any) -> Self:
                ask(sql)
                return super().executemany(sql, parameters)

        class WatchedConnection(sqlite3.Connection):
            def cursor(self, factory: Any = WatchedCursor) -> Any:
                return super().cursor(factory)

            def execute(self, sql: str, *parameters: Any) -> Any:
                return self.cursor().execute(sql, *parameters)

            def commit(self) -> None:
                if self.in_transaction:
                    ask("COMMIT")
                super().commit()

        return sqlite3.connect(target, factory=WatchedConnection, **options)

    def _ask(self, sql: str) -> None:
        word = sql.split(maxsplit=1)[0].upper()
        if word in ("SELECT", "PRAGMA"):
            return
        try:
            self._plan.step(word)
        except OSError as error:
            failure = sqlite3.OperationalError(f"{word}: {error.strerror}")
            is_full = error.errno == errno.ENOSPC
            failure.sqlite_errorcode = sqlite3.SQLITE_FULL if is_full else sqlite3.SQLITE_IOERR
            raise failure from error
