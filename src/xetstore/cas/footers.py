"""FooterCache: the content of stored xorbs, read from the footers of their objects and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from xetstore.cas.index import XorbRow
from xetstore.errors import DamagedError, FormatError
from xetstore.interfaces import BlobStore
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo

CACHE_BYTES: Final = 32 << 20
"""Default size of the cache: some 600 full xorbs, which hold 40 GB of files."""

READ_AT_ONCE: Final = 64
"""Footers that are read by one call: 3 MB as a rule, at most 21 MB."""

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
        return sound(next(self.get_many([row])))

    def get_many(self, rows: Iterable[XorbRow]) -> Iterator[XorbInfo | DamagedError]:
        """The footers of xorbs, in order, which may repeat; or what is wrong with an object.

        Those that are not remembered are read up to 64 at a time, by one call, when the first of them is asked for.
        """
        rest = iter(rows)
        while batch := list(islice(rest, READ_AT_ONCE)):
            answers = self._remembered(batch)
            missing = {
                (row.hash, row.generation): row for row, info in zip(batch, answers, strict=True) if info is None
            }
            read = dict(zip(missing, self._read(list(missing.values())), strict=True))
            for row, info in zip(batch, answers, strict=True):
                yield info or read[row.hash, row.generation]

    def _remembered(self, rows: Sequence[XorbRow]) -> list[XorbInfo | None]:
        with self._lock:
            answers = [self._known.get((row.hash, row.generation)) for row in rows]
            for row, info in zip(rows, answers, strict=True):
                if info is not None:
                    self._known.move_to_end((row.hash, row.generation))
        return answers

    def _read(self, rows: Sequence[XorbRow]) -> Iterator[XorbInfo | DamagedError]:
        requests = [(row.key, row.region_bytes, row.stored_bytes) for row in rows]
        for row, answer in zip(rows, self._blobs.get_ranges(requests) if requests else (), strict=True):
            try:
                if not isinstance(answer, bytes):
                    raise damaged(row.hash, str(answer)) from answer
                info = parse_footer(answer, row)
            except DamagedError as error:
                self._on_damage(row)
                yield error
            else:
                self.remember(info, row.generation)
                yield info

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


def sound(footer: XorbInfo | DamagedError) -> XorbInfo:
    """A footer, unless it is what is wrong with its object: that is raised."""
    if isinstance(footer, DamagedError):
        raise footer
    return footer


def parse_footer(footer: bytes, row: XorbRow) -> XorbInfo:
    """The footer of a stored xorb. Raises DamagedError if it is not that of ``row``."""
    try:
        info = XorbInfo.parse_footer(footer, offset=row.region_bytes)
    except FormatError as error:
        raise damaged(row.hash, str(error)) from error
    if (info.hash, info.region_bytes) != (row.hash, row.region_bytes):
        raise damaged(row.hash, f"its footer is that of xorb {info.hash}")
    return info


def _weight(info: XorbInfo) -> int:
    return _ENTRY_BYTES + _CHUNK_BYTES * info.chunk_count
