"""Healing: xorbs that are known, or seen, to be damaged; nothing new leans on them, and the next put replaces them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.blobs.layers import past_caches
from xetstore.cas.audit import audit
from xetstore.cas.footers import damaged
from xetstore.cas.grace import DAY_SECONDS
from xetstore.errors import DamagedError, IntegrityError, MissingXorbError, NotFoundError, XetError

if TYPE_CHECKING:
    from xetstore.access.tenant import Tenant
    from xetstore.cas.index import Index, ShardRow, Writer, XorbRow
    from xetstore.interfaces import BlobStore
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.shard import Shard

SUPERSEDED_SECONDS: Final = DAY_SECONDS
"""The time for which an object is kept in whose place another one counts: a reader that has begun gets done."""
MARKING_SECONDS: Final = 1.0
"""The longest wait of a read that failed for its turn to note it."""

_log = logging.getLogger("xetstore.cas")


class Healing:
    """The marks of one store. Thread-safe."""

    def __init__(self, blobs: BlobStore, index: Index, now: Callable[[], float]) -> None:
        self._blobs = blobs
        self._index = index
        self._now = now
        self.told: Callable[[], None] = lambda: None
        """Hears of each read that came to damage, for those who count."""

    def mark(self, row: XorbRow | ShardRow, *, whole: bool = False) -> None:
        """Note that an object was found damaged, or ``whole`` after all; as far as that can be noted now.

        Raises UnavailableError where the store is not in its place any more: then nothing is wrong with the object.
        """
        from xetstore.cas.index.queries.rows import ShardRow

        self._index.require_in_place()
        if not self._index.is_writable or row.is_damaged != whole:
            return
        damaged_at = None if whole else self._now()

        def note(writer: Writer) -> None:
            if isinstance(row, ShardRow):
                writer.mark_shard(row, damaged_at=damaged_at)
            else:
                writer.mark(row, damaged_at=damaged_at)

        # Noted late, or by another reader, it is as good: nothing depends on it but what is put from now on.
        with contextlib.suppress(XetError):
            self._index.change(note, patience_seconds=MARKING_SECONDS)

    def report(self, row: XorbRow | ShardRow, error: Exception) -> None:
        """Mark an object that a reader found damaged, log it once, and count it.

        Nothing is said of one that is marked already, or in whose place another one counts by now. Raises as
        :meth:`mark`.
        """
        from xetstore.cas.index.queries.rows import ShardRow

        self._index.require_in_place()
        with contextlib.suppress(XetError):
            with self._index.snapshot() as reader:
                now = (reader.shards if isinstance(row, ShardRow) else reader.xorbs)([row.hash]).get(row.hash)
            if now is None or now.key != row.key:
                return
            self.told()
            if now.is_damaged:
                return
        self.mark(row)
        _log.error("%s", error)

    def look(self, row: XorbRow) -> None:
        """Read all of a xorb's object, and mark it if it is damaged."""
        from xetstore.cas.stored_xorb import verify_row

        if row.is_damaged:
            return
        try:
            verify_row(row, past_caches(self._blobs))
        except (IntegrityError, NotFoundError) as error:
            self.report(row, damaged(row.hash, str(error)))

    def sound_xorbs(self, names: Sequence[Hash], tenant: Tenant) -> dict[Hash, XorbRow]:
        """The rows of all these xorbs. MissingXorbError for the first that a file of ``tenant`` must not be made of."""
        from xetstore.cas.stored_xorb import looks_whole

        with self._index.snapshot() as reader:
            rows = reader.require_xorbs(names, tenant)
        for name, row in rows.items():
            if not looks_whole(row, self._blobs):
                self.mark(row)
                with self._index.snapshot() as reader:
                    now = reader.xorb(name)
                if now is not None and now.generation != row.generation:
                    return self.sound_xorbs(names, tenant)  # it was stored anew just now
                raise MissingXorbError(str(name))
        return rows

    def broken_files(self, shard: Shard, sound: Mapping[Hash, XorbRow], tenant: Tenant) -> set[Hash]:
        """The known files of a shard that cannot be read as they are registered: they get its terms.

        ``sound`` are xorbs that were looked at just now. DamagedError for a file that another namespace has too, if
        xorbs are not shared: it would learn of those of ``tenant``. The error does not tell that there is another one.
        """
        from xetstore.cas.stored_xorb import looks_whole

        with self._index.snapshot() as reader:
            registered = reader.xorbs_of_files({entry.hash for entry in shard.files})
        others = {row.hash: row for rows in registered.values() for row in rows if row.hash not in sound}
        broken = {name for name, row in others.items() if not looks_whole(row, self._blobs)}
        if not broken:
            return set()
        files = {file for file, rows in registered.items() if not broken.isdisjoint(row.hash for row in rows)}
        if not tenant.shares:
            with self._index.snapshot() as reader:
                shared = reader.granted_to_others(files, tenant.namespace)
            if shared:
                raise DamagedError(
                    f"file {min(shared, key=str)} is damaged here, and this upload cannot heal it",
                    hint="ask the server's operator to check the store and to put the file again",
                )
        return files

    def sweep(self) -> None:
        """Remove objects in whose place others have counted for long. What cannot be done now is done later."""
        if not self._index.is_writable:
            return
        with contextlib.suppress(XetError):
            with self._index.snapshot() as reader:
                keys = reader.superseded_before(self._now() - SUPERSEDED_SECONDS)
            if not keys:
                return
            found = [blob for key in keys if (blob := self._blobs.stat(key)) is not None]
            self._blobs.delete_many(keys)
            for blob in found:
                audit("object", blob.key, blob.size)
            self._index.change(lambda writer: writer.forget_superseded(keys))
