"""Bit rot, planted at every kind of place of a store in a directory, by name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Final

from xetstore.cas.checksums import END_BYTES, told_section_bytes
from xetstore.cas.layout import STORES

Rot = Callable[[Path], None]
"""Damages a file."""


def flip(path: Path, place: int) -> None:
    """Flip one bit; a negative place counts from the end."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _in_checksums(path: Path) -> None:
    data = path.read_bytes()
    flip(path, len(data) - told_section_bytes(data[-END_BYTES:]))


def _in_footer(path: Path) -> None:
    data = path.read_bytes()
    flip(path, len(data) - told_section_bytes(data[-END_BYTES:]) - 40)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _replace_by_a_neighbour(path: Path) -> None:
    """The bytes of another object of the same kind."""
    kind = path
    while kind.name not in ("xorbs", "shards"):
        kind = kind.parent
    other = next(each for each in sorted(kind.rglob("*")) if each.is_file() and each != path)
    path.write_bytes(other.read_bytes())


_ANY: Final[Mapping[str, Rot]] = {
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "cut in half": _half,
    "longer": _lengthen,
    "replaced by another": _replace_by_a_neighbour,
}

OF_A_XORB: Final[Mapping[str, Rot]] = MappingProxyType(
    {
        **_ANY,
        "version of a chunk": lambda path: flip(path, 0),
        "length of a chunk": lambda path: flip(path, 2),
        "payload of a chunk": lambda path: flip(path, 500),
        "hash in the footer": _in_footer,
        "checksum of a chunk": _in_checksums,
        "checksum of the footer": lambda path: flip(path, -END_BYTES - 1),
        "last byte": lambda path: flip(path, -1),
    }
)
"""Of the object of a xorb, whose first chunk is longer than 500 bytes as it is stored."""

OF_A_SHARD: Final[Mapping[str, Rot]] = MappingProxyType(
    {
        **_ANY,
        "header": lambda path: flip(path, 0),
        "record": lambda path: flip(path, 60),
        "footer": lambda path: flip(path, -10),
    }
)
"""Of the object of a shard."""

OF_ROWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hash of a xorb": "UPDATE xorb SET hash = randomblob(32) WHERE id = 2",
        "region of a xorb": "UPDATE xorb SET region_bytes = region_bytes + 1 WHERE id = 2",
        "bytes of a xorb": "UPDATE xorb SET raw_bytes = 7 WHERE id = 2",
        "chunks of a xorb": "UPDATE xorb SET chunk_count = chunk_count + 1 WHERE id = 2",
        "generation of a xorb": "UPDATE xorb SET generation = '0123456789abcdef' WHERE id = 2",
        "mark of a xorb": "UPDATE xorb SET damaged_at = 7 WHERE id = 2",
        "hash of a file": "UPDATE file SET hash = randomblob(32) WHERE id = 2",
        "size of a file": "UPDATE file SET size = size + 1 WHERE id = 2",
        "terms of a file": "UPDATE file SET term_count = 7 WHERE id = 2",
        "xorbs of a file": "UPDATE file SET xorb_count = 7 WHERE id = 2",
        "a term past its xorb": (
            "UPDATE file_segment SET terms = CAST(substr(terms, 1, 12) || X'09000000' || substr(terms, 17) AS BLOB)"
            " WHERE file_id = 2"
        ),
        "a term of another length": (
            "UPDATE file_segment SET terms = CAST(substr(terms, 1, 16) || X'09000000' AS BLOB) WHERE file_id = 2"
        ),
        "a term of an unknown xorb": (
            "UPDATE file_segment SET terms = CAST(X'63' || substr(terms, 2) AS BLOB) WHERE file_id = 2"
        ),
        "a term of another xorb": (
            "UPDATE file_segment SET terms = CAST(X'01' || substr(terms, 2) AS BLOB) WHERE file_id = 2"
        ),
        "terms cut off": "UPDATE file_segment SET terms = X'00' WHERE file_id = 2",
        "no terms": "DELETE FROM file_segment WHERE file_id = 2",
        "an edge missing": "DELETE FROM edge WHERE file_id = 2",
        "an edge elsewhere": "UPDATE edge SET first_byte = 1 WHERE file_id = 2",
        "an edge to another xorb": "UPDATE edge SET xorb_id = 1 WHERE file_id = 2",
        "a chunk of dedup": "UPDATE dedup SET chunk_key = 7 WHERE xorb_id = 2",
        "hash of a shard": "UPDATE shard SET hash = randomblob(32) WHERE id = 2",
        "size of a shard": "UPDATE shard SET size = size + 1 WHERE id = 2",
        "generation of a shard": "UPDATE shard SET generation = '0123456789abcdef' WHERE id = 2",
    }
)
"""Of the row of the second xorb, file or shard of a store, each of which has one chunk that dedup is told of."""


def change_rows(root: Path, statement: str) -> None:
    """Change rows of the index of a store in a directory, which may be open."""
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def _other_id(root: Path) -> None:
    [path] = (root / STORES).iterdir()
    path.rename(path.with_name("0" * 32))


OF_MARKS: Final[Mapping[str, Rot]] = MappingProxyType(
    {
        "no format": lambda root: (root / "format").unlink(),
        "another format": lambda root: flip(root / "format", 3),
        "an empty format": lambda root: os.truncate(root / "format", 0),
        "no id": lambda root: next((root / STORES).iterdir()).unlink(),
        "another id": _other_id,
    }
)
"""Of the marks by which a closed store is known, given its directory."""


def end_leases(root: Path) -> None:
    """Let the leases of processes that were killed end now; of a store that was killed early there may be no index yet,
    or one without tables.
    """
    index = root / "index.sqlite3"
    if index.exists():
        with closing(sqlite3.connect(index)) as connection, connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chore'").fetchone():
                connection.execute("UPDATE chore SET expires_at = 0")
