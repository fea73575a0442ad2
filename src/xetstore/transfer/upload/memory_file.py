"""MemoryFile: a SQLite file of what this machine remembers, shared by processes; one connection to it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from xetstore.database.sqlite_file import enter_wal_mode

_CACHE_KIB: Final = 4096
# Every change touches many pages, most of them again and again: they are written back for many changes at once.
_CHECKPOINT_PAGES: Final = 4000
_LOG_BYTES: Final = 16 << 20


class MemoryFile:
    """One connection. Not thread-safe, but may move between threads. Raises sqlite3.Error and OSError, also where
    another process keeps the file locked for more than ``busy_seconds``.
    """

    VERSION: ClassVar[int]
    """That of the tables, as ``user_version``."""
    SCHEMA: ClassVar[Sequence[str]]
    TABLES: ClassVar[Sequence[str]]

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._connection = sqlite3.connect(
            path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._connection.row_factory = sqlite3.Row
            self._execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            # After a power cut the last rows may be missing, which costs the work that they would have saved.
            self._execute("PRAGMA synchronous = NORMAL")
            enter_wal_mode(self._connection, busy_seconds)
            self._page_bytes: int = self._execute("PRAGMA page_size").fetchone()[0]
            if self._version() != self.VERSION:
                self._make_tables()
        except BaseException:
            self._connection.close()
            raise

    @staticmethod
    def move_away(path: Path) -> None:
        """Put a damaged file aside, in place of one that was put there before. Raises OSError."""
        path.replace(path.with_name(path.name + ".damaged"))
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block, or none."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a query, by column name."""
        return self._execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first row of a query, or None."""
        return self._execute(statement, values).fetchone()

    def change(self, statement: str, values: Sequence[object] = ()) -> int:
        """Change rows; how many they were."""
        return self._execute(statement, values).rowcount

    def change_many(self, statement: str, each: Sequence[Sequence[object]]) -> None:
        """Run a statement once for each of these values."""
        self._connection.executemany(statement, each)

    def clear(self) -> None:
        """Forget everything; quick, however much it is."""
        with self.transaction():
            for table in self.TABLES:
                self._execute(f"DELETE FROM {table}")

    def used_bytes(self) -> int:
        """Bytes of the file that are in use."""
        pages = self._execute("PRAGMA page_count").fetchone()[0]
        free = self._execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * self._page_bytes

    def close(self) -> None:
        """Close the connection; the last one to do so folds the log into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _version(self) -> int:
        found: int = self._execute("PRAGMA user_version").fetchone()[0]
        return found

    def _make_tables(self) -> None:
        with self.transaction():
            version = self._version()
            if version == self.VERSION:
                return  # another process was first
            if version:
                raise sqlite3.NotSupportedError(
                    f"it has format {version}, and this xetstore knows format {self.VERSION}"
                )
            for statement in (*self.SCHEMA, f"PRAGMA user_version = {self.VERSION}"):
                self._execute(statement)


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


def is_damage(error: Exception) -> bool:
    """True if an error means that the file makes no sense: another one in its place would do."""
    if isinstance(error, sqlite3.DatabaseError):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _DAMAGE
    return isinstance(error, ValueError | TypeError)
