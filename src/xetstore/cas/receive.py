"""XorbReceiver: a xorb that arrives in pieces, verified as it comes, and stored under its name or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from xetstore.cas.checksums import with_checksums
from xetstore.cas.footers import FooterCache, damaged
from xetstore.cas.index import Index, XorbRow
from xetstore.cas.layout import new_generation, xorb_key
from xetstore.cas.stored_xorb import looks_whole, verify_object
from xetstore.errors import HashMismatchError, IntegrityError, NotFoundError, UnavailableError, XetError
from xetstore.interfaces import BlobStore, NewObject
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from typing_extensions import Buffer


class XorbReceiver:
    """Takes the body of one xorb, by :meth:`write` in pieces of some MiB, and stores it by :meth:`commit`.

    A context manager: what is not committed leaves nothing. Not thread-safe. ``is_known`` says that this namespace
    has the xorb already: the body is not looked at then, for nothing of it would be kept. Of a xorb that
    others have uploaded the body is verified all the same: who has not got it does not learn that it is there.

    A xorb whose object is marked as damaged, missing or of another size is received as if it were not there: what came
    becomes an object of its own, under a key that none has had, and the row names that one from then on. So it is
    with the remains of an upload that was cut short, if they turn out damaged.
    """

    def __init__(
        self,
        xorb: Hash,
        namespace: str,
        *,
        blobs: BlobStore,
        index: Index,
        footers: FooterCache,
        now: Callable[[], float],
    ) -> None:
        self._xorb, self._namespace = xorb, namespace
        self._blobs, self._index, self._footers, self._now = blobs, index, footers, now
        self._verifier = XorbVerifier()
        self._object: NewObject | None = None
        with index.snapshot() as reader:
            self._row = row = reader.xorb(xorb)
            is_held = row is not None and reader.is_held(row.id, namespace)
        self._is_stored = row is not None and looks_whole(row, blobs)
        self.is_known = self._is_stored and is_held
        self._generation = ""
        if not self._is_stored and (row is not None or blobs.stat(xorb_key(xorb)) is not None):
            self._generation = new_generation()

    def write(self, *parts: Buffer) -> None:
        """Verify the next bytes and write them down. Raises FormatError, StorageFullError or UnavailableError."""
        if self.is_known:
            return
        for region in self._verifier.update(*parts):
            if self._is_stored:
                continue
            if self._object is None:
                self._object = self._blobs.create(xorb_key(self._xorb, self._generation))
            self._object.write(region)

    def commit(self) -> bool:
        """Store the xorb: durable on return. True if it is new to this namespace.

        Raises FormatError, or HashMismatchError where the body is another xorb than its name says; a footer that came
        with it is checked, and replaced by ours.
        """
        if self._row is not None and self.is_known:
            self._guard(self._row)
            return False
        info = self._verifier.finish()
        if info.hash != self._xorb:
            raise HashMismatchError("the xorb", expected=str(self._xorb), actual=str(info.hash))
        if self._object is not None:
            info = self._become_durable(self._object, info)
        now, generation = self._now(), self._generation
        is_healed = False
        with self._index.transaction() as writer:
            old = writer.xorb(self._xorb)
            if self._object is not None and generation:
                if old is not None and not looks_whole(old, self._blobs):
                    is_healed = writer.replace_object(old, info, generation)
                if old is None or is_healed:
                    writer.supersede(xorb_key(self._xorb, old.generation if old else ""), now=now)
            is_new = writer.add_xorb(info, namespace=self._namespace, now=now, generation=generation)
            row = writer.xorb(self._xorb)
        if self._object is None:
            return is_new
        if row is not None and row.generation == generation:
            self._footers.remember(info, generation)
        else:
            # Another upload of the same xorb was quicker: its object counts, and no row names ours.
            with contextlib.suppress(XetError):
                self._blobs.delete_many([xorb_key(self._xorb, generation)])
        return is_new or is_healed

    def close(self) -> None:
        """Drop what was not committed."""
        if self._object is not None:
            self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _guard(self, row: XorbRow) -> None:
        """Keep a xorb that is stored already for as long as one that was stored now."""
        now = self._now()
        with self._index.snapshot() as reader:
            if not reader.unguarded([row.id], now=now):
                return
        with self._index.transaction() as writer:
            if not writer.guard([row.id], now=now):
                raise UnavailableError(f"xorb {row.hash} was deleted just now", hint="put it again")

    def _become_durable(self, new: NewObject, sent: XorbInfo) -> XorbInfo:
        """Commit what was received: what the object holds that counts from now on.

        If an object exists under the name of the xorb that had no row when we looked, another upload of the same xorb
        is under way, or was cut off before it was registered. Its chunks are the same, its compression may not be: so
        it is that object which counts if it is whole, verified as a body is.
        """
        new.write(with_checksums(sent.serialize_footer(), self._verifier.checksums))
        if self._row is None and self._generation:
            with contextlib.suppress(IntegrityError, NotFoundError):
                info = self._verified()
                self._generation = ""
                return info
        if new.commit():
            return sent
        with self._index.snapshot() as reader:
            row = reader.xorb(self._xorb)
        if row is not None:
            return self._footers.get(row)
        try:
            return self._verified()
        except (IntegrityError, NotFoundError) as error:
            raise damaged(self._xorb, str(error)) from error

    def _verified(self) -> XorbInfo:
        """Verify an object without a row: all of it is read."""
        return verify_object(self._blobs, xorb_key(self._xorb), self._xorb)
