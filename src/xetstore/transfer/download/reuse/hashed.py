"""Chunks read from a local file and hashed: only those that are what they should be."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

BATCH_BYTES: Final = 4 << 20
"""Bytes that are read and hashed at a time."""

Read = Callable[[int, memoryview], bool]
"""Fills a buffer from an offset; False where that cannot be."""

Place = tuple[int, int, bytes, int]
"""Position in the new file, length, digest, and offset where it is read of a chunk."""


def verified(places: Iterable[Place], read: Read, threads: int) -> Iterator[tuple[int, ChunkList, memoryview]]:
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


def runs_of(found: Sequence[object | None]) -> Iterator[tuple[int, int]]:
    """Index ranges ``[first, end)`` of what is not None."""
    first: int | None = None
    for index, place in enumerate((*found, None)):
        if place is None:
            if first is not None:
                yield first, index
            first = None
        elif first is None:
            first = index


def _checked(
    batch: list[Place], data: memoryview, read: Read, threads: int
) -> Iterator[tuple[int, ChunkList, memoryview]]:
    """:func:`verified` of consecutive chunks."""
    ends = list(accumulate(length for _, length, _, _ in batch))
    good = [True] * len(batch)
    for first, end in _neighbours(batch):
        start = ends[first] - batch[first][1]
        if not read(batch[first][3], data[start : ends[end - 1]]):
            good[first:end] = [False] * (end - first)
    lengths = array("Q", (length for _, length, _, _ in batch)).tobytes()
    hashes = kernel.hash_chunks(XET_GEARHASH_BLAKE3.kernel, data, lengths, threads=threads)
    chunks = ChunkList(hashes, lengths)
    good = [known and chunks.digest(index) == batch[index][2] for index, known in enumerate(good)]
    for first, end in runs_of([True if known else None for known in good]):
        start = ends[first] - batch[first][1]
        yield batch[first][0], chunks.slice(first, end), data[start : ends[end - 1]]


def _neighbours(batch: list[Place]) -> Iterator[tuple[int, int]]:
    """Index ranges of chunks that lie one behind the other where they are read."""
    first = 0
    for index in range(1, len(batch) + 1):
        if index == len(batch) or batch[index][3] != batch[index - 1][3] + batch[index - 1][1]:
            yield first, index
            first = index
