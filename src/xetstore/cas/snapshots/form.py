"""The form of a snapshot: deflated lines of JSON, which end with a checksum of all before.

The first line is the head: version, store, time. Then, for each table, a line with its name and columns, and lines
that are lists of rows; bytes in a row are a list of one text, in base64. The last line counts the rows, and has the
SHA-256 of the tables (by which the same content is known again), and that of all lines with the head.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xetstore.database.connection import Row
from xetstore.errors import DamagedError, UsageError

if TYPE_CHECKING:
    from xetstore.interfaces import ByteStream

VERSION: Final = 1

_KIND: Final = "xetstore snapshot"
_LEVEL: Final = 1  # hashes do not shrink, whatever the level
_LINE_ROWS: Final = 200
_LINE_BYTES: Final = 1 << 20
_MOST_LINE_BYTES: Final = 1 << 30
_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SnapshotHead:
    """The store of a snapshot by its id, the time of its index in unix seconds, and the versions of its tables."""

    store_id: str | None
    at: float
    versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class TableRows:
    """Some rows of one table."""

    table: str
    columns: tuple[str, ...]
    rows: list[Row]


class SnapshotWriter:
    """Writes the lines of a snapshot, deflated, by ``write``. Not thread-safe."""

    def __init__(self, head: SnapshotHead, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._deflate = zlib.compressobj(_LEVEL)
        self._tables = hashlib.sha256()
        self.rows = self.stored_bytes = 0
        values = {"kind": _KIND, "version": VERSION, "store": head.store_id, "at": head.at, "versions": head.versions}
        self._head = _line(values)
        self._send(self._deflate.compress(self._head))

    def table(self, name: str, columns: tuple[str, ...], rows: Iterable[Row], rest: Callable[[], None]) -> None:
        """Write a table. ``rest`` is called after each piece of it."""
        self._put(_line({"table": name, "columns": columns}))
        line: list[list[Any]] = []
        size = 0
        for row in rows:
            line.append([[b2a_base64(each, newline=False).decode()] if type(each) is bytes else each for each in row])
            self.rows += 1
            size += sum(len(each) for each in row if type(each) is bytes or type(each) is str)
            if len(line) == _LINE_ROWS or size > _LINE_BYTES:
                self._put(_line(line))
                rest()
                line, size = [], 0
        if line:
            self._put(_line(line))
        rest()

    def content(self) -> str:
        """The SHA-256 of all tables so far, in hex digits: equal for an index in which nothing has changed."""
        return self._tables.hexdigest()

    def finish(self) -> None:
        """Write the end."""
        content = self.content()
        end = {"end": self.rows, "content": content, "sha256": _sealed(self._head, content, self.rows)}
        self._send(self._deflate.compress(_line(end)))
        self._send(self._deflate.flush())

    def _put(self, line: bytes) -> None:
        self._tables.update(line)
        self._send(self._deflate.compress(line))

    def _send(self, piece: bytes) -> None:
        if piece:
            self.stored_bytes += len(piece)
            self._write(piece)


def read_snapshot(stream: ByteStream) -> Iterator[SnapshotHead | TableRows]:
    """The head of a snapshot, then its rows, some at a time.

    Raises DamagedError, at the end at the latest, if it is not as it was written: nothing that was read before counts
    until then. UsageError for one that newer code has written.
    """
    lines = _lines(stream)
    first = next(lines, b"")
    yield _head(first)
    tables = hashlib.sha256()
    name, columns, rows = "", tuple[str, ...](), 0
    for line in lines:
        value = _parsed(line)
        if isinstance(value, dict) and "end" in value:
            content = tables.hexdigest()
            if next(lines, None) is not None or value != {
                "end": rows,
                "content": content,
                "sha256": _sealed(first, content, rows),
            }:
                raise _damaged()
            return
        tables.update(line)
        if isinstance(value, dict):
            name, columns = str(value.get("table")), tuple(map(str, value.get("columns") or ()))
            continue
        try:
            found = [tuple(a2b_base64(each[0]) if type(each) is list else each for each in row) for row in value]
        except (TypeError, ValueError, IndexError) as error:
            raise _damaged() from error
        rows += len(found)
        if any(len(row) != len(columns) for row in found):
            raise _damaged()
        yield TableRows(name, columns, found)
    raise _damaged()


def _head(line: bytes) -> SnapshotHead:
    values = _parsed(line)
    if not isinstance(values, dict) or values.get("kind") != _KIND:
        raise _damaged()
    if values.get("version") != VERSION:
        raise UsageError("the snapshot was written by another version", hint="use the xetstore that wrote it")
    try:
        versions = {str(name): int(version) for name, version in values["versions"].items()}
        return SnapshotHead(values["store"], float(values["at"]), versions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged() from error


def _lines(stream: ByteStream) -> Iterator[bytes]:
    """The lines of a deflated stream, each with its end."""
    inflate = zlib.decompressobj()
    buffer = memoryview(bytearray(_PIECE_BYTES))
    parts: list[bytes] = []
    held = 0
    try:
        while count := stream.readinto(buffer):
            piece = bytes(buffer[:count])
            while piece:
                text = inflate.decompress(piece, _PIECE_BYTES)
                piece = inflate.unconsumed_tail
                *whole, rest = text.split(b"\n")
                for end in whole:
                    yield b"".join((*parts, end, b"\n"))
                    parts, held = [], 0
                parts.append(rest)
                held += len(rest)
                if held > _MOST_LINE_BYTES or inflate.unused_data:
                    raise _damaged()
    except zlib.error as error:
        raise _damaged() from error
    if not inflate.eof or held:
        raise _damaged()


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error


def _sealed(head: bytes, content: str, rows: int) -> str:
    return hashlib.sha256(b"".join((head, content.encode(), str(rows).encode()))).hexdigest()


def _damaged() -> DamagedError:
    return DamagedError("the snapshot is not as it was written")
