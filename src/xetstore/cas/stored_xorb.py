"""StoredXorb: the chunk region of one xorb of the store, to be read as often as one likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xetstore.cas.footers import damaged
from xetstore.cas.layout import xorb_key
from xetstore.errors import NotFoundError, RangeError

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.interfaces import BlobStore, ByteStream


class StoredXorb:
    """What the index says of a xorb, and its bytes. Thread-safe; holds nothing open."""

    def __init__(self, row: XorbRow, blobs: BlobStore) -> None:
        self._row = row
        self._blobs = blobs

    @property
    def size(self) -> int:
        """Bytes of its chunk region."""
        return self._row.region_bytes

    def read(self, start: int, end: int) -> ByteStream:
        """Bytes ``[start, end)``. Raises RangeError, and DamagedError where the object does not have them."""
        xorb = self._row.hash
        if not 0 <= start < end <= self.size:
            raise RangeError(f"xorb {xorb} has {self.size} bytes, bytes {start} to {end} are not in it")
        try:
            return self._blobs.get_range(xorb_key(xorb), start, end)
        except (NotFoundError, RangeError) as error:
            raise damaged(xorb, str(error)) from error
