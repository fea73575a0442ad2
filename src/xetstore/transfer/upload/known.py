"""KnownXorbs: what this machine knows of a server's xorbs, in a file that processes share.

It keeps the xorbs of dedup answers until these expire (draft 10.2), and each xorb that this machine has uploaded, from
its acknowledgement on: by them an upload that was cut short goes on where it was. All of it is hints. The server checks
the shard of an upload that uses them, so that nothing in the file can make a wrong file; and whatever is wrong with the
file itself costs bytes at most.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from xetstore.events import Emit, ignore
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.cover import cover
from xetstore.protocol.hashes import Hash, xorb_hash
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.transfer.upload.known_file import KnownFile
from xetstore.transfer.upload.memory import BUSY_SECONDS, Memory

MAX_BYTES: Final = 2 << 30
"""The largest size of the file; the oldest xorbs are forgotten first. A chunk takes 60 bytes, 64 KiB of content."""

UPLOADED_SECONDS: Final = 21 * 24 * 3600
"""The time for which an own xorb is remembered: that for which servers keep one that nothing refers to yet."""

MAX_KEYS: Final = 4
"""Each live key of dedup answers means one more lookup of every chunk: the newest are looked up."""

MAX_FOUND_XORBS: Final = 16
"""The most xorbs that one lookup brings, those with most of the chunks first."""

# Expired xorbs are dropped a few at a time: to open the file must not take long, however full it is.
_DROPPED_AT_OPEN: Final = 64
_DROPPED_LATER: Final = 4
_EVICTED_AT_ONCE: Final = 64
# What a xorb and a chunk take in the file, roughly.
_XORB_BYTES: Final = 300
_CHUNK_BYTES: Final = 60
_PLAIN: Final = 0


class KnownXorbs(Memory[KnownFile]):
    """Xorbs that a server has, as this machine remembers it. Nothing in here raises. The file is made when there is
    something to remember.
    """

    CONTENT = "what is known of the server's xorbs"

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] = time.time,
        emit: Emit = ignore,
    ) -> None:
        super().__init__(path, max_bytes=max_bytes, busy_seconds=busy_seconds, emit=emit)
        self._clock = clock
        self._keys: tuple[tuple[int, bytes], ...] = ()

    # Lookups

    def find(self, hashes: bytes) -> list[Shard]:
        """Xorbs that hold any of these packed chunk hashes, in the form of dedup answers: plain, or keyed as told.

        As few xorbs as cover what is known, at most :data:`MAX_FOUND_XORBS`.
        """
        return self._attempt(lambda file: self._find(file, hashes), [], create=False)

    def unregistered(self, names: Collection[Hash]) -> list[XorbEntry]:
        """Which of these xorbs this machine has uploaded without ever telling the server their chunks in a shard."""
        return self._attempt(lambda file: self._unregistered(file, names), [], create=False)

    # Additions

    def learn(self, answer: Shard) -> None:
        """Remember the xorbs of a dedup answer until it expires."""
        for entry in answer.xorbs if answer.expires_at > self._clock() else ():
            self._attempt(partial(self._add_answer, entry=entry, answer=answer), None)

    def uploaded(self, entry: XorbEntry) -> None:
        """Remember a xorb that the server has acknowledged."""
        self._attempt(lambda file: self._add_uploaded(file, entry), None)

    def registered(self, names: Iterable[Hash]) -> None:
        """The server has taken a shard that lists these xorbs."""
        digests = [(name.digest, _PLAIN) for name in names]
        if digests:
            self._attempt(lambda file: self._mark(file, digests), None, create=False)

    def forget_all(self) -> None:
        """Forget everything: the server has not what it had."""
        self._attempt(self._clear, None, create=False)

    def _open_file(self) -> KnownFile:
        file = KnownFile(self.path, self._busy_seconds)
        try:
            self._drop_expired(file, _DROPPED_AT_OPEN)
            self._keys = self._live_keys(file)
        except BaseException:
            file.close()
            raise
        return file

    # The work itself; each is called with the lock held

    def _find(self, file: KnownFile, hashes: bytes) -> list[Shard]:
        now = self._clock()
        wanted = [_prefixes(hashes)]
        keys: dict[int, bytes | None] = {_PLAIN: None}
        for key_id, key in self._keys:
            keys[key_id] = key
            wanted.append(_prefixes(kernel.keyed_hashes(key, hashes)))
        holders: dict[int, set[int]] = {}
        for prefix, xorb_id in file.holders([prefix for prefixes in wanted for prefix in prefixes]):
            holders.setdefault(prefix, set()).add(xorb_id)
        found = []
        for xorb_id, _ in cover(holders, MAX_FOUND_XORBS):
            row = file.row("SELECT * FROM xorb WHERE id = ? AND expires_at > ?", (xorb_id, now))
            if row is not None and row["key_id"] in keys:
                found.append(Shard(xorbs=(_entry(row),), key=keys[row["key_id"]], expires_at=row["expires_at"]))
        return found

    def _unregistered(self, file: KnownFile, names: Collection[Hash]) -> list[XorbEntry]:
        asked = "SELECT * FROM xorb WHERE name = ? AND key_id = ? AND is_registered = 0 AND expires_at > ?"
        rows = (file.row(asked, (name.digest, _PLAIN, self._clock())) for name in names)
        return [_entry(row) for row in rows if row is not None]

    def _add_answer(self, file: KnownFile, entry: XorbEntry, answer: Shard) -> None:
        with file.transaction():
            key_id = _PLAIN
            if answer.key is not None:
                key_id = file.key_id(answer.key, answer.expires_at)
            self._add(file, entry, key_id, answer.expires_at, is_registered=True)
        if key_id != _PLAIN and (key_id, answer.key) not in self._keys:
            self._keys = self._live_keys(file)

    def _add_uploaded(self, file: KnownFile, entry: XorbEntry) -> None:
        with file.transaction():
            self._add(file, entry, _PLAIN, int(self._clock()) + UPLOADED_SECONDS, is_registered=False)
        self._drop_expired(file, _DROPPED_LATER)

    def _add(self, file: KnownFile, entry: XorbEntry, key_id: int, expires_at: int, *, is_registered: bool) -> None:
        name = entry.hash.digest
        longer = "UPDATE xorb SET expires_at = max(expires_at, ?) WHERE name = ? AND key_id = ?"
        if file.change(longer, (expires_at, name, key_id)):
            return
        excess = file.used_bytes() + _weight(len(entry.chunks)) - self._max_bytes
        if excess > 0:
            self._evict(file, excess)
        lengths = array("I", entry.chunks.sizes).tobytes()
        xorb_id = file.add_xorb((name, key_id, expires_at, is_registered, entry.chunks.hashes, lengths))
        file.add_chunks(xorb_id, _prefixes(entry.chunks.hashes))

    def _mark(self, file: KnownFile, digests: list[tuple[bytes, int]]) -> None:
        with file.transaction():
            for digest in digests:
                file.change("UPDATE xorb SET is_registered = 1 WHERE name = ? AND key_id = ?", digest)

    def _clear(self, file: KnownFile) -> None:
        file.clear()
        self._keys = ()

    def _drop_expired(self, file: KnownFile, most: int) -> None:
        now = self._clock()
        expired = file.rows("SELECT id, hashes FROM xorb WHERE expires_at <= ? LIMIT ?", (now, most))
        if not expired:
            return
        if file.row("SELECT 1 FROM xorb WHERE expires_at > ? LIMIT 1", (now,)) is None:
            file.clear()  # at once, however many there are
            return
        with file.transaction():
            file.change("DELETE FROM dedup_key WHERE expires_at <= ?", (now,))
            for row in expired:
                file.drop_xorb(row["id"], _prefixes(row["hashes"]))

    def _evict(self, file: KnownFile, excess: int) -> None:
        for row in file.rows("SELECT id, hashes FROM xorb ORDER BY id LIMIT ?", (_EVICTED_AT_ONCE,)):
            file.drop_xorb(row["id"], _prefixes(row["hashes"]))
            excess -= _weight(len(row["hashes"]) // 32)
            if excess <= 0:
                return

    def _live_keys(self, file: KnownFile) -> tuple[tuple[int, bytes], ...]:
        newest = "SELECT id, key FROM dedup_key WHERE expires_at > ? ORDER BY id DESC LIMIT ?"
        return tuple((row["id"], bytes(row["key"])) for row in file.rows(newest, (self._clock(), MAX_KEYS)))


def _prefixes(hashes: bytes) -> list[int]:
    """The first eight bytes of each packed hash, as a number."""
    return array("q", hashes)[::4].tolist()


def _weight(chunk_count: int) -> int:
    return _XORB_BYTES + _CHUNK_BYTES * chunk_count


def _entry(row: Any) -> XorbEntry:
    """The xorb of a row. Raises ValueError where a plain one is not what its name says."""
    sizes = array("I", row["lengths"])
    chunks = ChunkList(bytes(row["hashes"]), array("Q", sizes).tobytes())
    name = Hash(row["name"])
    if row["key_id"] == _PLAIN and xorb_hash(chunks.hashes, chunks.lengths) != name:
        raise ValueError(f"xorb {name} is not what was written")
    return XorbEntry(name, chunks)
