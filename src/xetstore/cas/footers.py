"""FooterCache: the content of stored xorbs, read from the footers of their objects and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from xetstore.cas.index import XorbRow
from xetstore.cas.layout import xorb_key
from xetstore.errors import DamagedError, FormatError, NotFoundError, RangeError
from xetstore.interfaces import BlobStore, ByteStream
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo

CACHE_BYTES: Final = 32 << 20
"""Default size of the cache: some 600 full xorbs, which hold 40 GB of files."""

PUT_AGAIN: Final = "put the file again, and what is damaged is stored anew; `xet check` lists the files that need it"

# A chunk takes a hash, a length and an end; an entry some objects around them.
_CHUNK_BYTES: Final = 48
_ENTRY_BYTES: Final = 700


class FooterCache:
    """Footers of registered xorbs, the least recently used of them forgotten first. Thread-safe.

    ``on_damage`` is called where an object turns out not to have the footer it should.
    """

    def __init__(
        self, blobs: BlobStore, max_bytes: int = CACHE_BYTES, *, on_damage: Callable[[XorbRow], None] = lambda _: None
    ) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._on_damage = on_damage
        # By hash and generation: an object that is stored anew may be compressed in another way.
        self._known: OrderedDict[tuple[Hash, str], XorbInfo] = OrderedDict()
        self._bytes = 0
        self._lock = forks.lock()

    def get(self, row: XorbRow) -> XorbInfo:
        """The footer of a xorb. Raises DamagedError if its object is not what the index says."""
        with self._lock:
            if (info := self._known.get((row.hash, row.generation))) is not None:
                self._known.move_to_end((row.hash, row.generation))
                return info
        info = self.read(row)
        self.remember(info, row.generation)
        return info

    def read(self, row: XorbRow) -> XorbInfo:
        """As :meth:`get`, from the object in any case."""
        try:
            return self._read(row)
        except DamagedError:
            self._on_damage(row)
            raise

    def _read(self, row: XorbRow) -> XorbInfo:
        try:
            with self._blobs.get_range(
                xorb_key(row.hash, row.generation), row.region_bytes, row.stored_bytes
            ) as stream:
                footer = read_all(stream, row.stored_bytes - row.region_bytes)
            info = XorbInfo.parse_footer(footer, offset=row.region_bytes)
        except (NotFoundError, RangeError, FormatError, DamagedError) as error:
            raise damaged(row.hash, str(error)) from error
        if (info.hash, info.region_bytes) != (row.hash, row.region_bytes):
            raise damaged(row.hash, f"its footer is that of xorb {info.hash}")
        return info

    def remember(self, info: XorbInfo, generation: str) -> None:
        """Take in a footer that was verified elsewhere."""
        name = info.hash, generation
        with self._lock:
            if name in self._known:
                return
            self._known[name] = info
            self._bytes += _weight(info)
            while self._bytes > self._max_bytes and len(self._known) > 1:
                self._bytes -= _weight(self._known.popitem(last=False)[1])


def damaged(xorb: Hash, what: str) -> DamagedError:
    """The error for a registered xorb whose object is not as it was stored."""
    return DamagedError(
        f"stored xorb {xorb} is damaged: {what}",
        hint=PUT_AGAIN,
    )


def read_all(stream: ByteStream, size: int) -> bytes:
    """Exactly ``size`` bytes of a stream. Raises DamagedError if it ends before."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = stream.readinto(view)
        if not count:
            raise DamagedError(f"an object ended {len(view)} bytes too early")
        view = view[count:]
    return bytes(buffer)


def _weight(info: XorbInfo) -> int:
    return _ENTRY_BYTES + _CHUNK_BYTES * info.chunk_count
