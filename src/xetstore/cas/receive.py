"""XorbReceiver: a xorb that arrives in pieces, verified as it comes, and stored under its name or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from xetstore.cas.footers import FooterCache, damaged
from xetstore.cas.index import Index
from xetstore.cas.layout import xorb_key
from xetstore.errors import HashMismatchError, IntegrityError, NotFoundError
from xetstore.interfaces import BlobStore, NewObject
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK_BYTES: Final = 2 << 20


class XorbReceiver:
    """Takes the body of one xorb, by :meth:`write` in pieces of some MiB, and stores it by :meth:`commit`.

    A context manager: what is not committed leaves nothing. Not thread-safe. ``is_known`` says that this namespace
    has the xorb already: the body is not looked at then, for nothing of it would be kept. Of a xorb that
    others have uploaded the body is verified all the same: who has not got it does not learn that it is there.
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
            row = reader.xorb(xorb)
            self._is_stored = row is not None
            self.is_known = row is not None and reader.is_held(row.id, namespace)

    def write(self, *parts: Buffer) -> None:
        """Verify the next bytes and write them down. Raises FormatError, StorageFullError or UnavailableError."""
        if self.is_known:
            return
        for region in self._verifier.update(*parts):
            if self._is_stored:
                continue
            if self._object is None:
                self._object = self._blobs.create(xorb_key(self._xorb))
            self._object.write(region)

    def commit(self) -> bool:
        """Store the xorb: durable on return. True if it is new to this namespace.

        Raises FormatError, or HashMismatchError where the body is another xorb than its name says; a footer that came
        with it is checked, and replaced by ours.
        """
        if self.is_known:
            return False
        info = self._verifier.finish()
        if info.hash != self._xorb:
            raise HashMismatchError("the xorb", expected=str(self._xorb), actual=str(info.hash))
        if self._object is not None:
            self._object.write(info.serialize_footer())
            if not self._object.commit():
                info = self._adopt(info)
        with self._index.transaction() as writer:
            is_new = writer.add_xorb(info, namespace=self._namespace, now=self._now())
        if self._object is not None:
            self._footers.remember(info)
        return is_new

    def close(self) -> None:
        """Drop what was not committed."""
        if self._object is not None:
            self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _adopt(self, sent: XorbInfo) -> XorbInfo:
        """What the object holds that exists under the name of the xorb, which had no row just now.

        Another upload of the same xorb is under way, or was cut off before it was registered. Its chunks are
        the same, its compression may not be: so it is the object that counts, and is verified as a body is.
        """
        with self._index.snapshot() as reader:
            row = reader.xorb(self._xorb)
        if row is not None:
            return self._footers.get(row)
        key = xorb_key(self._xorb)
        found = self._blobs.stat(key)
        verifier = XorbVerifier(threads=os.cpu_count() or 1)
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        try:
            with self._blobs.get_range(key, 0, found.size if found else 0) as stream:
                while count := stream.readinto(buffer):
                    verifier.update(buffer[:count])
            info = verifier.finish()
        except (IntegrityError, NotFoundError) as error:
            raise damaged(self._xorb, str(error)) from error
        whole = info.region_bytes + XorbInfo.footer_bytes(sent.chunk_count)
        if found is None or (info.hash, whole) != (self._xorb, found.size):
            raise damaged(self._xorb, f"the object under its name holds xorb {info.hash}, or is incomplete")
        return info
