"""StoredXorb: the chunk region of one xorb of the store, to be read as often as one likes; and whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xetstore.cas.footers import damaged
from xetstore.cas.layout import xorb_key
from xetstore.errors import IntegrityError, NotFoundError, RangeError
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.interfaces import BlobStore, ByteStream

_BLOCK_BYTES: Final = 2 << 20


class StoredXorb:
    """A xorb as the index has it, and its bytes. Thread-safe; holds nothing open.

    ``on_damage`` is called where the object turns out not to have the bytes it should.
    """

    def __init__(self, row: XorbRow, blobs: BlobStore, on_damage: Callable[[XorbRow], None]) -> None:
        self._row = row
        self._blobs = blobs
        self._on_damage = on_damage

    @property
    def size(self) -> int:
        """Bytes of its chunk region."""
        return self._row.region_bytes

    @property
    def generation(self) -> str:
        """Which of the objects stored under the hash it is: byte ranges of another one do not fit."""
        return self._row.generation

    def read(self, start: int, end: int) -> ByteStream:
        """Bytes ``[start, end)``. Raises RangeError, and DamagedError where the object does not have them."""
        xorb = self._row.hash
        if not 0 <= start < end <= self.size:
            raise RangeError(f"xorb {xorb} has {self.size} bytes, bytes {start} to {end} are not in it")
        try:
            return self._blobs.get_range(xorb_key(xorb, self._row.generation), start, end)
        except (NotFoundError, RangeError) as error:
            self._on_damage(self._row)
            raise damaged(xorb, str(error)) from error


def looks_whole(row: XorbRow, blobs: BlobStore) -> bool:
    """True if nothing is known or seen to be wrong with a xorb: it is not marked, and its object is there, as long as
    its row says. One look at the file system, however long the object is.
    """
    if row.is_damaged:
        return False
    found = blobs.stat(xorb_key(row.hash, row.generation))
    return found is not None and found.size == row.stored_bytes


def verify_object(blobs: BlobStore, key: str) -> XorbInfo:
    """Decode and hash all of an object, 2 MiB at a time: the xorb that it holds.

    Raises NotFoundError, and IntegrityError where it holds none, or has not the footer that it was stored with.
    """
    found = blobs.stat(key)
    verifier = XorbVerifier(threads=os.cpu_count() or 1)
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with blobs.get_range(key, 0, found.size if found else 0) as stream:
        while count := stream.readinto(buffer):
            verifier.update(buffer[:count])
    info = verifier.finish()
    if found is None or found.size != info.region_bytes + XorbInfo.footer_bytes(info.chunk_count):
        raise IntegrityError("the object has another footer than it was stored with")
    return info
