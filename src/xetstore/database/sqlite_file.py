"""Files of SQLite: opening connections, their log and their patience, and the errors of ours for its codes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    StorageFullError,
    UnavailableError,
    UsageError,
)

LOWEST_VERSION: Final = (3, 24, 0)
"""The first version of SQLite that has ``ON CONFLICT``."""

# Extended codes that tell more than their primary code: no room for the shared memory file.
_NO_ROOM: Final = {sqlite3.SQLITE_IOERR_SHMSIZE}
_BUSY_RETRY_SECONDS: Final = 0.02
_CACHED_STATEMENTS: Final = 256

DatabaseError: Final = (sqlite3.Error, UnicodeDecodeError)
"""The error of the driver. It cannot decode the messages of SQLite about some damaged schemas."""

# A file system refuses a lock in another way than by saying that another process has it.
_LOCK_FAILED: Final = {sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK, sqlite3.SQLITE_IOERR_SHMLOCK}
_NO_LOCKS: Final = "its file system may have no locks: keep the store on one of this machine"

_DAMAGED: Final = (
    "the index is damaged; the objects in xorbs/ and shards/ are not: keep them; "
    "xet repair --rebuild-index --yes makes it anew from them, or put a backup in its place"
)


def is_writable(path: Path) -> bool:
    """True if a database at ``path`` can be written: the file, if it is there, and the directory for its log."""
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))


def require_version(found: tuple[int, int, int] = sqlite3.sqlite_version_info) -> None:
    """Raises UsageError if the SQLite of this Python is too old."""
    if found < LOWEST_VERSION:
        has, needs = (".".join(map(str, version)) for version in (found, LOWEST_VERSION))
        raise UsageError(
            f"this Python has SQLite {has}; a store needs {needs} or newer",
            hint="use a Python that was built with a newer SQLite",
        )


def writable_connection(path: Path, busy_timeout_seconds: float) -> Callable[[], sqlite3.Connection]:
    """A function that opens ``path``, creating it if need be. Raises XetError."""

    def connect() -> sqlite3.Connection:
        connection = _connect(f"{path.absolute().as_uri()}?mode=rwc", busy_timeout_seconds)
        try:
            enter_wal_mode(connection, busy_timeout_seconds)
            # An acknowledged upload survives a power loss, so every commit reaches the disk.
            connection.execute("PRAGMA synchronous=FULL")
            # On macOS, where fsync alone leaves bytes in the memory of the disk; elsewhere these change nothing.
            connection.execute("PRAGMA fullfsync=ON")
            connection.execute("PRAGMA checkpoint_fullfsync=ON")
            # Touch the log and its shared memory now: what cannot work should fail here.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except DatabaseError as error:
            connection.close()
            raise meaning(error) from error
        return connection

    return connect


def read_only_connection(path: Path, busy_timeout_seconds: float) -> Callable[[], sqlite3.Connection]:
    """A function that opens ``path`` for reading, also where no file can be created beside it. Raises XetError."""

    def connect() -> sqlite3.Connection:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        try:
            return _probed(_connect(uri, busy_timeout_seconds))
        except DatabaseError as error:
            log = path.with_name(f"{path.name}-wal")
            if not path.exists() or (log.exists() and log.stat().st_size):
                # Without its log the database would be an old or a broken one.
                raise meaning(error) from error
        # Nothing is in the log, so no process is writing: the file alone is the whole database.
        try:
            return _probed(_connect(f"{uri}&immutable=1", busy_timeout_seconds))
        except DatabaseError as error:
            raise meaning(error) from error

    return connect


def glancing_connection(path: Path) -> sqlite3.Connection:
    """A connection to ``path``, which others have open for writing: for reading, and it waits for none of them."""
    connection = _connect(f"{path.absolute().as_uri()}?mode=rw", 0)
    connection.execute("PRAGMA query_only=ON")
    return connection


def memory_connection() -> sqlite3.Connection:
    """A new database in memory."""
    return _connect(":memory:", 0)


def enter_wal_mode(connection: sqlite3.Connection, patience_seconds: float) -> None:
    """Readers and one writer side by side. The mode stays with the file, so this changes it only once."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # Two processes that both want to change the mode do not wait for each other by themselves.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_RETRY_SECONDS)


@contextlib.contextmanager
def patience(connection: sqlite3.Connection, seconds: float | None) -> Iterator[None]:
    """While this is open, a connection waits ``seconds`` for others that write; None: as long as ever."""
    if seconds is None:
        yield
        return
    [before] = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout={before}")


def commit(connection: sqlite3.Connection) -> None:
    """Commit. A StorageFullError of it means that nothing was committed.

    No room for the shared memory means less: it is needed when all is in the log, where a process that opens the file
    after a crash would find it.
    """
    try:
        connection.commit()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) in _NO_ROOM:
            raise UnavailableError(f"the index of the store: {error}") from error
        raise


def meaning(error: sqlite3.Error | UnicodeDecodeError) -> Exception:
    """The XetError that says what an error of SQLite means; the error itself if it is a fault of ours."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError("the index of the store: malformed database schema", hint=_DAMAGED)
    message = f"the index of the store: {error}"
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Raised by the driver itself: a value has not the type of its column, or the call is wrong.
        return DamagedError(message, hint=_DAMAGED) if isinstance(error, sqlite3.OperationalError) else error
    if code in _NO_ROOM or code & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFullError(message, hint="make room on the file system of the store, then try again")
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return UnavailableError(message, hint="another process is writing to the store: try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH | sqlite3.SQLITE_CANTOPEN:
            return AccessDeniedError(message, hint="the store's directory and its files must be writable for you")
        # SQLITE_ERROR: a table or a column is missing, for the statements themselves are all tested.
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT | sqlite3.SQLITE_ERROR:
            return DamagedError(message, hint=_DAMAGED)
        case sqlite3.SQLITE_PROTOCOL:
            return UnavailableError(message, hint=_NO_LOCKS)
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return UnavailableError(message, hint=_NO_LOCKS if code in _LOCK_FAILED else None)
        case _:
            return error


def _connect(target: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        target,
        timeout=busy_timeout_seconds,
        # Transactions are begun by SqliteDatabase, one thread at a time uses a connection.
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        uri=True,
    )
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what a deleted row held is overwritten in the file
    except DatabaseError:
        connection.close()
        raise
    return connection


def _probed(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except DatabaseError:
        connection.close()
        raise
    return connection
