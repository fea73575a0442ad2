"""Chunks of a window that are there already: of an earlier attempt, and of a base file."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from xetstore import _kernel
from xetstore.errors import XetError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import chunk_hash
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3
from xetstore.transfer.download.parts import Part, Run, Use, Window

if TYPE_CHECKING:
    from xetstore.transfer.download.basis import OldVersion
    from xetstore.transfer.download.journal import DownloadJournal

BATCH_BYTES: Final = 4 << 20
"""Bytes that are read and hashed at a time."""

WORTHWHILE_BYTES: Final = 512 << 10
"""A run of known chunks between unknown ones takes calls to find its place: a shorter one is fetched instead."""

MOST_LOOKUPS: Final = 64
"""The number of such calls for a window."""

Read = Callable[[int, memoryview], bool]
"""Fills a buffer from an offset; False where that cannot be."""

Place = tuple[int, int, bytes, int]
"""Position in the new file, length, digest, and offset in the old one of a chunk."""


def of_journal(journal: DownloadJournal, start: int, end: int, threads: int) -> Iterator[Run]:
    """Chunks of bytes ``[start, end)`` that an earlier attempt wrote, and that are still what they were."""
    zeros = _Zeros()
    holes: list[Run] = []

    def places() -> Iterator[Place]:
        for position, chunks in journal.runs(start, end):
            if zeros.are_all(chunks) and journal.is_hole(position, chunks.total_bytes):
                holes.append(Run(position, chunks, None, 0, verified=False))
                continue
            for at, length, digest in _chunks(position, chunks):
                yield at, length, digest, at

    for position, chunks, _ in _verified(places(), journal.read, threads):
        yield Run(position, chunks, None, 0, verified=False)
    yield from holes


def of_old_version(
    old: OldVersion,
    parts: Iterable[Part],
    ask: Callable[[int, int], Window],
    put: Callable[[int, memoryview], None],
    threads: int,
) -> Iterator[Run]:
    """Chunks of ``parts`` that the old version of the file has; they are handed to ``put``.

    Where known chunks lie is told by the ones before or behind them; between unknown chunks ``ask`` tells.
    """

    def read(offset: int, view: memoryview) -> bool:
        try:
            old.read(offset, view)
        except XetError:  # it changes, or cannot be read any more: then it is fetched
            return False
        return True

    lookup = _Lookup(ask)
    uses = sorted(((part, use) for part in parts for use in part.uses), key=lambda pair: pair[1].position)
    places = (place for part, use in uses for place in _places(old, part, use, lookup))
    for position, chunks, data in _verified(places, read, threads):
        put(position, data)
        yield Run(position, chunks, None, 0, verified=True)


class _Zeros:
    """Knows the hashes of chunks of zeros: a hole of a sparse file need not be read to be right."""

    def __init__(self) -> None:
        self._hashes: dict[int, bytes] = {}

    def are_all(self, chunks: ChunkList) -> bool:
        return all(chunks.digest(index) == self._hash(size) for index, size in enumerate(chunks.sizes))

    def _hash(self, size: int) -> bytes:
        found = self._hashes.get(size)
        if found is None:
            if len(self._hashes) > 16:  # zeros are cut into chunks of the largest size, but for the last one
                self._hashes.clear()
            found = self._hashes[size] = chunk_hash(bytes(size)).digest
        return found


class _Lookup:
    """Asks where in the file a chunk of a term starts."""

    def __init__(self, ask: Callable[[int, int], Window]) -> None:
        self._ask = ask
        self._left = MOST_LOOKUPS

    def start_of(self, wanted: int, part: Part, known: tuple[int, int], bound: tuple[int, int]) -> int | None:
        """The position of chunk ``wanted`` of a xorb, between two (chunk, position) of the same term; None: unknown."""
        low, high = known, bound
        while wanted > low[0] and self._left:
            self._left -= 1
            mean = (high[1] - low[1]) // max(1, high[0] - low[0])
            # The answer ends with the chunk that holds the last byte asked for: it should be the one before.
            guess = low[1] + (wanted - low[0]) * mean - mean // 2
            window = self._ask(known[1], min(max(guess, low[1] + 1), high[1]))
            term = window.reconstruction.terms[0]
            if (term.xorb, term.chunk_start) != (part.fetch.xorb, known[0]):
                return None
            end = (term.chunk_end, known[1] + term.unpacked_bytes)
            if not low[0] < end[0] <= high[0]:
                return None
            if end[0] == wanted:
                return end[1]
            if end[0] < wanted:
                low = end
            else:
                high = (end[0], min(guess, high[1]) - 1)
                if high[1] <= low[1]:
                    return None
        return None


def _places(old: OldVersion, part: Part, use: Use, lookup: _Lookup) -> Iterator[Place]:
    """The chunks of a use that the old version has, where they can be placed, ascending."""
    if use.hashes is None:
        return
    digests = [use.hashes[at : at + HASH_BYTES] for at in range(0, len(use.hashes), HASH_BYTES)]
    found = [old.locate(digest) for digest in digests]
    count = len(found)
    position = use.position - use.skip
    last = position + use.raw_bytes
    placed = 0  # the chunks before this one are placed, and it starts at ``position``
    for first, end in _known_runs(found):
        nbytes = sum(place[1] for place in found[first:end] if place is not None)
        start: int | None
        if first == placed:
            start = position
        elif end == count:
            start = last - nbytes
        elif nbytes >= WORTHWHILE_BYTES:
            known, bound = (use.chunk_start + placed, position), (use.chunk_end, last)
            start = lookup.start_of(use.chunk_start + first, part, known, bound)
        else:
            start = None
        if start is None:
            continue
        for index in range(first, end):
            place = found[index]
            if place is not None:
                offset, length = place
                # Of a chunk that the edge of the request cuts not all bytes are wanted: it is fetched.
                if use.position <= start and start + length <= use.end:
                    yield start, length, digests[index], offset
                start += length
        placed, position = end, start


def _known_runs(found: Sequence[object | None]) -> Iterator[tuple[int, int]]:
    """Index ranges ``[first, end)`` of what is not None."""
    first: int | None = None
    for index, place in enumerate((*found, None)):
        if place is None:
            if first is not None:
                yield first, index
            first = None
        elif first is None:
            first = index


def _chunks(position: int, chunks: ChunkList) -> Iterator[tuple[int, int, bytes]]:
    for index, length in enumerate(chunks.sizes):
        yield position, length, chunks.digest(index)
        position += length


def _verified(places: Iterable[Place], read: Read, threads: int) -> Iterator[tuple[int, ChunkList, memoryview]]:
    """Read chunks and hash them: positions, chunks and bytes of those that are what they should be.

    The bytes are good until the next ones are asked for.
    """
    buffer = memoryview(bytearray(BATCH_BYTES))
    batch: list[Place] = []
    filled = reached = 0
    for place in places:
        position, length = place[:2]
        if batch and (position != reached or filled + length > len(buffer)):
            yield from _checked(batch, buffer[:filled], read, threads)
            batch, filled = [], 0
        batch.append(place)
        filled += length
        reached = position + length
    if batch:
        yield from _checked(batch, buffer[:filled], read, threads)


def _checked(
    batch: list[Place], data: memoryview, read: Read, threads: int
) -> Iterator[tuple[int, ChunkList, memoryview]]:
    """:func:`_verified` of consecutive chunks."""
    ends = list(accumulate(length for _, length, _, _ in batch))
    good = [True] * len(batch)
    for first, end in _neighbours(batch):
        start = ends[first] - batch[first][1]
        if not read(batch[first][3], data[start : ends[end - 1]]):
            good[first:end] = [False] * (end - first)
    lengths = array("Q", (length for _, length, _, _ in batch)).tobytes()
    hashes = _kernel.hash_chunks(XET_GEARHASH_BLAKE3.kernel, data, lengths, threads=threads)
    chunks = ChunkList(hashes, lengths)
    good = [known and chunks.digest(index) == batch[index][2] for index, known in enumerate(good)]
    for first, end in _known_runs([True if known else None for known in good]):
        start = ends[first] - batch[first][1]
        yield batch[first][0], chunks.slice(first, end), data[start : ends[end - 1]]


def _neighbours(batch: list[Place]) -> Iterator[tuple[int, int]]:
    """Index ranges of chunks that lie one behind the other where they are read."""
    first = 0
    for index in range(1, len(batch) + 1):
        if index == len(batch) or batch[index][3] != batch[index - 1][3] + batch[index - 1][1]:
            yield first, index
            first = index
