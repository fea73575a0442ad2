"""FooterCache: the content of stored xorbs, read from the footers of their objects and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from xetstore.batches import batches
from xetstore.blobs.layers import forget
from xetstore.cas.checksums import parse_checksums
from xetstore.errors import DamagedError, FormatError, RangeError
from xetstore.platform import forks

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.interfaces import BlobStore, RangeAnswer
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.xorb import XorbInfo

CACHE_BYTES: Final = 32 << 20
"""Default size of the cache: some 600 full xorbs, which hold 40 GB of files."""

READ_AT_ONCE: Final = 64
"""Footers that are read by one call: 3 MB as a rule, at most 21 MB."""

PUT_AGAIN: Final = "put the file again, and what is damaged is stored anew; `xet check` lists the files that need it"

# A chunk takes a hash, a length, an end and a checksum; an entry some objects around them.
_CHUNK_BYTES: Final = 56
_ENTRY_BYTES: Final = 800


_T = TypeVar("_T")


class Tail(NamedTuple):
    """The end of a xorb's object: its footer, and the checksums of its stored chunks, a native u64 each.

    ``checksums`` is empty where the object has none (format 1).
    """

    info: XorbInfo
    checksums: bytes


class FooterCache:
    """Footers of registered xorbs, the least recently used of them forgotten first. Thread-safe.

    ``on_damage`` is called where an object turns out not to have the footer it should, also when it is read again.
    """

    def __init__(
        self,
        blobs: BlobStore,
        max_bytes: int = CACHE_BYTES,
        *,
        on_damage: Callable[[XorbRow, DamagedError], None] = lambda *_: None,
    ) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._on_damage = on_damage
        # By hash and generation: an object that is stored anew may be compressed in another way.
        self._known: OrderedDict[tuple[Hash, str], Tail] = OrderedDict()
        self._bytes = 0
        self._lock = forks.lock()

    def get(self, row: XorbRow) -> XorbInfo:
        """The footer of a xorb. Raises DamagedError if its object is not what the index says."""
        return self.tail(row).info

    def tail(self, row: XorbRow) -> Tail:
        """The footer of a xorb and its checksums. Raises as :meth:`get`."""
        return sound(next(self._tails([row])))

    def get_many(self, rows: Iterable[XorbRow]) -> Iterator[XorbInfo | DamagedError]:
        """The footers of xorbs, in order, which may repeat; or what is wrong with an object.

        Those that are not remembered are read up to 64 at a time, by one call, when the first of them is asked for.
        """
        for tail in self._tails(rows):
            yield tail if isinstance(tail, DamagedError) else tail.info

    def remember(self, tail: Tail, generation: str) -> None:
        """Take in a footer that was verified elsewhere."""
        name = tail.info.hash, generation
        with self._lock:
            if name in self._known:
                return
            self._known[name] = tail
            self._bytes += _weight(tail.info)
            while self._bytes > self._max_bytes and len(self._known) > 1:
                self._bytes -= _weight(self._known.popitem(last=False)[1].info)

    def _tails(self, rows: Iterable[XorbRow]) -> Iterator[Tail | DamagedError]:
        for batch in batches(rows, READ_AT_ONCE):
            answers = self._remembered(batch)
            missing = {
                (row.hash, row.generation): row for row, tail in zip(batch, answers, strict=True) if tail is None
            }
            read = dict(zip(missing, self._read(list(missing.values())), strict=True))
            for row, tail in zip(batch, answers, strict=True):
                yield tail or read[row.hash, row.generation]

    def _remembered(self, rows: Sequence[XorbRow]) -> list[Tail | None]:
        with self._lock:
            answers = [self._known.get((row.hash, row.generation)) for row in rows]
            for row, tail in zip(rows, answers, strict=True):
                if tail is not None:
                    self._known.move_to_end((row.hash, row.generation))
        return answers

    def _read(self, rows: Sequence[XorbRow]) -> Iterator[Tail | DamagedError]:
        for row, answer in zip(rows, read_ends(rows, self._blobs), strict=True):
            tail = _parsed(row, answer)
            if isinstance(tail, DamagedError):  # read once more, because memory and networks have faults, too
                forget(self._blobs, row.key)
                tail = _parsed(row, next(read_ends([row], self._blobs)))
            if isinstance(tail, DamagedError):
                self._on_damage(row, tail)
            else:
                self.remember(tail, row.generation)
            yield tail


def read_ends(rows: Sequence[XorbRow], blobs: BlobStore) -> Iterator[RangeAnswer]:
    """The bytes behind the chunks of objects, by one call; by a second one for those that have no checksums."""
    if not rows:
        return
    answers = blobs.get_ranges([(row.key, row.region_bytes, row.sizes[1]) for row in rows])
    older = [row for row, answer in zip(rows, answers, strict=True) if isinstance(answer, RangeError)]
    shorter = iter(blobs.get_ranges([(row.key, row.region_bytes, row.stored_bytes) for row in older]) if older else ())
    for answer in answers:
        yield next(shorter) if isinstance(answer, RangeError) else answer


def damaged(xorb: Hash, what: str) -> DamagedError:
    """The error for a registered xorb whose object is not as it was stored."""
    return DamagedError(
        f"stored xorb {xorb} is damaged: {what}",
        hint=PUT_AGAIN,
    )


def sound(footer: _T | DamagedError) -> _T:
    """A footer, unless it is what is wrong with its object: that is raised."""
    if isinstance(footer, DamagedError):
        raise footer
    return footer


def parse_tail(end: bytes, row: XorbRow) -> Tail:
    """The end of a stored xorb, from behind its chunks on. Raises DamagedError if it is not that of ``row``."""
    footer_bytes = row.stored_bytes - row.region_bytes
    info = parse_footer(end[:footer_bytes], row)
    if len(end) == footer_bytes:
        return Tail(info, b"")
    try:
        return Tail(info, parse_checksums(end, footer_bytes, row.region_bytes))
    except FormatError as error:
        raise damaged(row.hash, str(error)) from error


def _parsed(row: XorbRow, answer: RangeAnswer) -> Tail | DamagedError:
    if not isinstance(answer, bytes):
        return damaged(row.hash, str(answer))
    try:
        return parse_tail(answer, row)
    except DamagedError as error:
        return error


def parse_footer(footer: bytes, row: XorbRow) -> XorbInfo:
    """The footer of a stored xorb. Raises DamagedError if it is not that of ``row``."""
    from xetstore.protocol.xorb import XorbInfo

    try:
        info = XorbInfo.parse_footer(footer, offset=row.region_bytes)
    except FormatError as error:
        raise damaged(row.hash, str(error)) from error
    if (info.hash, info.region_bytes) != (row.hash, row.region_bytes):
        raise damaged(row.hash, f"its footer is that of xorb {info.hash}")
    return info


def _weight(info: XorbInfo) -> int:
    return _ENTRY_BYTES + _CHUNK_BYTES * info.chunk_count
