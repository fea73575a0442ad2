"""KnownFile: the SQLite file behind KnownXorbs, one connection to it, and the statements that touch every chunk.

A row of ``chunk`` is 16 bytes and a few more: the first eight bytes of a hash, as the xorb has it (plain or keyed), and
which xorb that is. Two hashes may share them; a lookup compares whole hashes anyway.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from xetstore.database.sqlite_file import enter_wal_mode

_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE dedup_key (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, expires_at INTEGER NOT NULL)",
    # key_id 0 stands for plain hashes; lengths are packed u32.
    "CREATE TABLE xorb (id INTEGER PRIMARY KEY, name BLOB NOT NULL, key_id INTEGER NOT NULL,"
    " expires_at INTEGER NOT NULL, is_registered INTEGER NOT NULL, hashes BLOB NOT NULL, lengths BLOB NOT NULL,"
    " UNIQUE (name, key_id))",
    "CREATE INDEX xorb_by_expiry ON xorb (expires_at)",
    "CREATE TABLE chunk (prefix INTEGER NOT NULL, xorb_id INTEGER NOT NULL, PRIMARY KEY (prefix, xorb_id))"
    " WITHOUT ROWID",
    f"PRAGMA user_version = {_VERSION}",
)

_CACHE_KIB: Final = 4096
# Every xorb changes many pages, most of them again and again: they are written back for many xorbs at once.
_CHECKPOINT_PAGES: Final = 4000
_LOG_BYTES: Final = 16 << 20
# Values in one statement, and rows that one lookup looks at: a chunk of zeros may be in every xorb there is.
_BATCH: Final = 256
_MAX_HOLDERS: Final = 4096

_PARAMETERS: Final = MappingProxyType({count: ",".join("?" * count) for count in range(1, _BATCH + 1)})


class KnownFile:
    """One connection. Not thread-safe, but may move between threads. Raises sqlite3.Error and OSError, also where
    another process keeps the file locked for more than ``busy_seconds``.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._connection = sqlite3.connect(
            path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._connection.row_factory = sqlite3.Row
            self._execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            # After a power cut the last rows may be missing, which costs the bytes of some xorbs.
            self._execute("PRAGMA synchronous = NORMAL")
            enter_wal_mode(self._connection, busy_seconds)
            self._page_bytes: int = self._execute("PRAGMA page_size").fetchone()[0]
            if self._version() != _VERSION:
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

    def holders(self, prefixes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Which xorbs hold chunks with these prefixes: (prefix, xorb id), some of them where they are very many."""
        for at in range(0, len(prefixes), _BATCH):
            batch = prefixes[at : at + _BATCH]
            found = (
                f"SELECT prefix, xorb_id FROM chunk WHERE prefix IN ({_PARAMETERS[len(batch)]}) LIMIT {_MAX_HOLDERS}"
            )
            yield from ((row[0], row[1]) for row in self._execute(found, batch))

    def key_id(self, key: bytes, expires_at: int) -> int:
        """The number of a key of dedup answers, which is good until then."""
        self.change(
            "INSERT INTO dedup_key (key, expires_at) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
            (key, expires_at),
        )
        found: int = self.row("SELECT id FROM dedup_key WHERE key = ?", (key,))[0]
        return found

    def add_xorb(self, values: Sequence[object]) -> int:
        """Insert a row of xorb, but for its id, which is returned."""
        inserted = self._execute(
            "INSERT INTO xorb (name, key_id, expires_at, is_registered, hashes, lengths) VALUES (?, ?, ?, ?, ?, ?)",
            values,
        ).lastrowid
        assert inserted is not None
        return inserted

    def add_chunks(self, xorb_id: int, prefixes: Iterable[int]) -> None:
        """Let chunks be found."""
        # In their own order, so that each page is looked for once.
        rows = [(prefix, xorb_id) for prefix in sorted(prefixes)]
        self._connection.executemany("INSERT OR IGNORE INTO chunk VALUES (?, ?)", rows)

    def drop_xorb(self, xorb_id: int, prefixes: Iterable[int]) -> None:
        """Forget a xorb and its chunks."""
        rows = [(prefix, xorb_id) for prefix in sorted(prefixes)]
        self._connection.executemany("DELETE FROM chunk WHERE prefix = ? AND xorb_id = ?", rows)
        self.change("DELETE FROM xorb WHERE id = ?", (xorb_id,))

    def clear(self) -> None:
        """Forget everything; quick, however much it is."""
        with self.transaction():
            for table in ("chunk", "xorb", "dedup_key"):
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
            if version == _VERSION:
                return  # another process was first
            if version:
                raise sqlite3.NotSupportedError(f"it has format {version}, and this xetstore knows format {_VERSION}")
            for statement in _SCHEMA:
                self._execute(statement)


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


def is_damage(error: Exception) -> bool:
    """True if an error means that the file makes no sense: another one in its place would do."""
    if isinstance(error, sqlite3.DatabaseError):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _DAMAGE
    return isinstance(error, ValueError | TypeError)
