"""XorbReceiver: a xorb that arrives in pieces, verified as it comes, and stored under its name or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from xetstore.cas.checksums import with_checksums
from xetstore.cas.footers import FooterCache, Tail
from xetstore.cas.layout import new_generation, xorb_key
from xetstore.cas.quotas import require_room
from xetstore.cas.registering import register
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import HashMismatchError, UnavailableError
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.cas.index import Index, Writer, XorbRow
    from xetstore.interfaces import BlobStore, NewObject
    from xetstore.protocol.hashes import Hash


class XorbReceiver:
    """Takes the body of one xorb, by :meth:`write` in pieces of some MiB, and stores it by :meth:`commit`.

    A context manager: what is not committed leaves nothing. Not thread-safe. ``is_known`` says that this namespace
    has the xorb already: the body is not looked at then, for nothing of it would be kept. Of a xorb that
    others have uploaded the body is verified all the same: who has not got it does not learn that it is there.

    Any other becomes an object of its own, under a key that none has had, and the row names it: unless another upload
    of the same xorb was quicker, whose object is whole. So it is with a xorb whose object is marked as damaged, missing
    or of another size: what came counts in place of it. One that the namespace has not uploaded before is refused
    (QuotaExceededError) where that can take no file any more, unless it ``is_care``.
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
        is_care: bool = False,
    ) -> None:
        self._xorb, self._namespace = xorb, namespace
        self._blobs, self._index, self._footers, self._now = blobs, index, footers, now
        self._verifier = XorbVerifier()
        self._generation = new_generation()
        self._object: NewObject | None = None
        with index.snapshot() as reader:
            self._row, is_full = reader.received(xorb, namespace)
            row = self._row
            is_held = row is not None and reader.is_held(row.id, namespace)
        self._is_stored = row is not None and looks_whole(row, blobs)
        self.is_known = self._is_stored and is_held
        if is_full and not (is_held or is_care):
            require_room(index, namespace)

    def write(self, *parts: Buffer) -> None:
        """Verify the next bytes and write them down. Raises FormatError, StorageFullError or UnavailableError."""
        if self.is_known:
            return
        for region in self._verifier.update(*parts):
            if self._is_stored:
                continue
            if self._object is None:
                self._index.require_reserve()
                self._object = self._blobs.create(xorb_key(self._xorb, self._generation))
            self._object.write(region)

    def commit(self) -> bool:
        """Store the xorb: durable on return. True if it is new to this namespace.

        Raises FormatError, or HashMismatchError where the body is another xorb than its name says; a footer that came
        with it is checked, and replaced by ours.
        """
        if self._row is not None and self.is_known:
            with self._index.snapshot() as reader:
                is_guarded = reader.guarded([self._row], now=self._now()).get(self._row.id, False)
            return False if is_guarded else self._hold()
        info = self._verifier.finish()
        if info.hash != self._xorb:
            raise HashMismatchError("the xorb", expected=str(self._xorb), actual=str(info.hash))
        return self._hold() if self._object is None else self._store(self._object, info)

    def close(self) -> None:
        """Drop what was not committed."""
        if self._object is not None:
            self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _hold(self) -> bool:
        """Keep a xorb that is stored already for as long as one that was stored now."""
        now = self._now()

        def hold(writer: Writer) -> bool:
            row = writer.xorb(self._xorb)
            if row is None or row.is_damaged or not writer.guard([row.id], now=now):
                raise UnavailableError(
                    f"xorb {self._xorb} was deleted, or found damaged, just now", hint="put it again"
                )
            return writer.add_holder(self._xorb, self._namespace)

        return self._index.change(hold)

    def _store(self, new: NewObject, info: XorbInfo) -> bool:
        """Make what was received an object, and register it."""
        new.write(with_checksums(info.serialize_footer(), self._verifier.checksums))
        now, generation = self._now(), self._generation

        def add(writer: Writer, damaged: XorbRow | None) -> tuple[bool, XorbRow]:
            is_healed = damaged is not None and writer.replace_object(damaged, info, generation, now=now)
            is_new = writer.add_xorb(info, namespace=self._namespace, now=now, generation=generation)
            return is_new or is_healed, writer.xorbs([self._xorb])[self._xorb]

        is_new, counts = register(
            xorb_key(self._xorb, generation),
            new.commit,
            add,
            damaged=self._row,
            blobs=self._blobs,
            index=self._index,
        )
        if counts:
            self._footers.remember(Tail(info, self._verifier.checksums), generation)
        return is_new
