"""ObjectCheck: one object after the other, compared with its row and its name, and what is noted of it in the index."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from xetstore.blobs.layers import past_caches
from xetstore.cas.checking.naming import shard_fault
from xetstore.cas.checking.renewing import renew
from xetstore.cas.checking.report import Problem
from xetstore.cas.index import ShardRow, XorbRow
from xetstore.cas.index.queries.rows import chunk_key
from xetstore.cas.stored_xorb import compare_checksums, read_tail, verify_row, whole_size
from xetstore.errors import AccessDeniedError, IntegrityError, NotFoundError, StorageFullError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from xetstore.cas.lease import Lease
    from xetstore.cas.service import EmbeddedCas

BATCH_ROWS: Final = 100
BATCH_SECONDS: Final = 10.0
"""Objects that are well are noted by one statement for as many of them, or after that time."""

_THREADS: Final = os.cpu_count() or 1
_MARKED: Final = "it was found damaged before; reading it (--read-data) tells whether it still is"


class ObjectCheck:
    """Checks objects, and notes what it finds: marks of damage, and the time of each check. Not thread-safe.

    With ``decode`` chunks are decoded and hashed, else their checksums are compared; those of an object that has none
    are decoded, and it is stored anew with checksums. With ``changes`` False nothing is noted or stored. A ``lease``
    is kept by each note.
    """

    def __init__(
        self,
        cas: EmbeddedCas,
        *,
        decode: bool = False,
        changes: bool = True,
        threads: int = _THREADS,
        lease: Lease | None = None,
    ) -> None:
        self._cas = cas
        self._blobs = past_caches(cas.blobs)
        self._decode = decode
        self._changes = changes and cas.index.is_writable
        self._renews = self._changes
        self._threads = threads
        self._lease = lease
        self._xorbs: list[int] = []
        self._shards: list[Hash] = []  # that are well, and not noted yet
        self._noted_at = time.monotonic()
        self.bytes_read = 0
        self.renewed = 0
        self.notes: list[str] = []
        self.broken: set[Hash] = set()
        """The xorbs that are damaged."""

    def xorb(self, row: XorbRow, *, read: bool) -> Problem | None:
        """Check the object of a xorb: that it is there, its footer, with ``read`` all of its bytes."""
        try:
            info = self._read(row, read=read)
            if info.chunk_count != row.chunk_count or info.raw_bytes != row.raw_bytes:
                raise IntegrityError("the index tells another number of chunks or bytes than its footer")
            if self._is_well(row, read=read):
                self._xorbs.append(row.id)
        except (IntegrityError, NotFoundError) as error:
            self._mark(row)
            with self._cas.index.snapshot() as reader:
                now, users = reader.xorb(row.hash), reader.users_of(row.id)
            if now is None or now.generation != row.generation:
                return None  # it was deleted, or stored anew, while we looked
            self.broken.add(row.hash)
            return Problem(f"xorb {row.hash}", str(error), tuple(users))
        with self._cas.index.snapshot() as reader:
            offered = set(reader.dedup_keys_of(row.id))
        held = {chunk_key(info.chunks.digest(i)) for i in range(info.chunk_count)} if offered else set()
        return (
            None if offered <= held else Problem(f"xorb {row.hash}", "dedup is told of a chunk that it does not hold")
        )

    def shard(self, row: ShardRow, *, read: bool) -> Problem | None:
        """Check the object of a shard: that it is there, with ``read`` that its bytes are those of its name."""
        fault: str | None = None
        try:
            size = whole_size(row, self._blobs)
            if read:
                self.bytes_read += size
                data = self._blobs.get(row.key)
                if (actual := chunk_hash(data)) != row.hash:
                    raise IntegrityError(f"the object hashes to {actual}")
                fault = shard_fault(self._cas, row, Shard.parse(data))
            if self._is_well(row, read=read):
                self._shards.append(row.hash)
        except (IntegrityError, NotFoundError) as error:
            self._mark(row)
            with self._cas.index.snapshot() as reader:
                now = reader.shards([row.hash]).get(row.hash)
            if now is None or now.generation != row.generation:
                return None
            return Problem(f"shard {row.hash}", str(error))
        return None if fault is None else Problem(f"shard {row.hash}", fault)

    def note(self) -> None:
        """Note the checks that were not noted yet: by one short transaction."""
        self._noted_at = time.monotonic()
        xorbs, shards, self._xorbs, self._shards = self._xorbs, self._shards, [], []
        if not xorbs and not shards:
            return
        now = self._cas.now()
        change = self._cas.index.change if self._lease is None else self._lease.change
        # On a full disk a check goes on: these are checked again sooner than they need to be.
        with self._cas.index.for_care(), suppress(StorageFullError):
            change(lambda writer: writer.note_checked(xorbs, shards, now=now))

    def _is_well(self, row: XorbRow | ShardRow, *, read: bool) -> bool:
        """True if that is to be noted: all of it was read. Raises IntegrityError for one that only was not read."""
        if not read:
            if row.is_damaged:
                raise IntegrityError(_MARKED)
            return False
        if not self._changes:
            return False
        self._cas.healing.mark(row, whole=True)
        if len(self._xorbs) + len(self._shards) >= BATCH_ROWS or time.monotonic() - self._noted_at > BATCH_SECONDS:
            self.note()
        return True

    def _mark(self, row: XorbRow | ShardRow) -> None:
        if self._changes:
            self._cas.healing.mark(row)

    def _read(self, row: XorbRow, *, read: bool) -> XorbInfo:
        blobs = self._blobs
        size = whole_size(row, blobs)
        if not read:
            return read_tail(row, size, blobs).info
        self.bytes_read += size
        if size == row.stored_bytes:
            return self._read_older(row)
        if self._decode:
            return verify_row(row, blobs, threads=self._threads)
        info, checksums = read_tail(row, size, blobs)
        compare_checksums(row, info, checksums, blobs)
        return info

    def _read_older(self, row: XorbRow) -> XorbInfo:
        """Decode an object without checksums, and store it anew with them."""
        if self._renews:
            try:
                info = renew(self._cas, row, self._threads)
            except (StorageFullError, AccessDeniedError) as error:
                self._renews = False
                self.notes.append(f"objects without checksums stay as they are: {error}")
            else:
                self.renewed += 1
                return info
        else:
            self.renewed += not self._changes
        return verify_row(row, self._blobs, threads=self._threads)
