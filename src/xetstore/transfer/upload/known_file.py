"""KnownFile: the SQLite file behind KnownXorbs, and the statements that touch every chunk.

A row of ``chunk`` is 16 bytes and a few more: the first eight bytes of a hash, as the xorb has it (plain or keyed), and
which xorb that is. Two hashes may share them; a lookup compares whole hashes anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Final

from xetstore.transfer.upload.memory_file import MemoryFile

# Values in one statement, and rows that one lookup looks at: a chunk of zeros may be in every xorb there is.
_BATCH: Final = 256
_MAX_HOLDERS: Final = 4096

_PARAMETERS: Final = MappingProxyType({count: ",".join("?" * count) for count in range(1, _BATCH + 1)})


class KnownFile(MemoryFile):
    """One connection, as a :class:`MemoryFile`."""

    VERSION = 1
    SCHEMA = (
        "CREATE TABLE dedup_key (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, expires_at INTEGER NOT NULL)",
        # key_id 0 stands for plain hashes; lengths are packed u32.
        "CREATE TABLE xorb (id INTEGER PRIMARY KEY, name BLOB NOT NULL, key_id INTEGER NOT NULL,"
        " expires_at INTEGER NOT NULL, is_registered INTEGER NOT NULL, hashes BLOB NOT NULL, lengths BLOB NOT NULL,"
        " UNIQUE (name, key_id))",
        "CREATE INDEX xorb_by_expiry ON xorb (expires_at)",
        "CREATE TABLE chunk (prefix INTEGER NOT NULL, xorb_id INTEGER NOT NULL, PRIMARY KEY (prefix, xorb_id))"
        " WITHOUT ROWID",
    )
    TABLES = ("chunk", "xorb", "dedup_key")

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
        self.change_many("INSERT OR IGNORE INTO chunk VALUES (?, ?)", rows)

    def drop_xorb(self, xorb_id: int, prefixes: Iterable[int]) -> None:
        """Forget a xorb and its chunks."""
        rows = [(prefix, xorb_id) for prefix in sorted(prefixes)]
        self.change_many("DELETE FROM chunk WHERE prefix = ? AND xorb_id = ?", rows)
        self.change("DELETE FROM xorb WHERE id = ?", (xorb_id,))
