"""Salvage: the chunks of one xorb, gathered from wherever one is left, each of them verified."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from xetstore.errors import FormatError
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, split_hashes, xorb_hash
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SUITE: Final = XET_GEARHASH_BLAKE3

Stored = tuple[bytes, int, bytes]
"""A chunk: its hash, its raw length, and its bytes as they are stored, with its header."""


class Salvage:
    """Gathers the chunks of the xorb ``name``. ``chunks`` are those that it has, where that is known for certain.

    Where it is not, there are ``count`` of them, and a chunk is taken where it is said to be: then only all of them
    together can be told to be right. Holds the stored form of one xorb in memory. Not thread-safe.
    """

    def __init__(self, name: Hash, count: int, chunks: ChunkList | None) -> None:
        self.name = name
        self.chunks = chunks
        self.count = count if chunks is None else len(chunks)
        self.in_object: set[int] = set()
        """The chunks that the object of the xorb itself has, where that is certain."""
        self._held: dict[int, Stored] = {}
        self._places: dict[bytes, list[int]] = {}
        if chunks is not None:
            for i, digest in enumerate(split_hashes(chunks.hashes)):
                self._places.setdefault(digest, []).append(i)

    @property
    def held(self) -> set[int]:
        """The chunks that were found, by their numbers. Without a list of all of them none is certain."""
        return set(self._held) if self.chunks is not None else set()

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Runs ``[start, end)`` of chunks that were not found yet."""
        return runs(i for i in range(self.count) if i not in self._held)

    def take(self, stored: Iterable[Stored], first: int | None = None) -> None:
        """Take verified chunks in; ``first`` is the number of the first of them, where that is known."""
        for i, chunk in enumerate(stored):
            if self.chunks is not None:
                for place in self._places.get(chunk[0], ()):
                    self._held.setdefault(place, chunk)
            elif first is not None and first + i < self.count:
                self._held.setdefault(first + i, chunk)

    def take_from(self, other: Salvage) -> None:
        """Take in what another one holds."""
        self.take(other._held.values())

    def region(self, numbers: Iterable[int] | None = None) -> bytes:
        """The stored form of these chunks, or of all, in order."""
        return b"".join(self._held[i][2] for i in (range(self.count) if numbers is None else sorted(numbers)))

    def is_whole(self) -> bool:
        """True if all chunks are there, and make the xorb."""
        if len(self._held) < self.count or not self.count:
            return False
        each = [self._held[i] for i in range(self.count)]
        hashes = b"".join(digest for digest, _, _ in each)
        if xorb_hash(hashes, struct.pack(f"={len(each)}Q", *(length for _, length, _ in each))) == self.name:
            return True
        self._held.clear()  # without a list, some source has told other chunks: none can be trusted
        return False


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges ``[start, end)``."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found


def sound_chunks(region: bytes, ends: Iterable[int] | None = None) -> Iterator[tuple[int, list[Stored]]]:
    """The chunks of a serialized region that decode, each with its number; ``ends`` are where chunks end, if known.

    Chunks behind one whose header is damaged can only be found by ``ends``.
    """
    try:
        yield 0, split(region)
        return
    except FormatError:
        pass
    position = 0
    bounds = iter(ends) if ends is not None else None
    number = 0
    while position < len(region):
        if bounds is not None:
            end = next(bounds, 0)
        else:
            end = position + CHUNK_HEADER_BYTES + int.from_bytes(region[position + 1 : position + 4], "little")
        if end <= position or end > len(region):
            return
        with contextlib.suppress(FormatError):
            stored = split(region[position:end])
            yield number, stored
        position = end
        number += 1


def split(region: Buffer) -> list[Stored]:
    """The chunks of a serialized region, each decoded and hashed. Raises FormatError."""
    view = memoryview(region)
    hashes, lengths, ends, _ = kernel.verify_chunks(_SUITE.kernel, view, final=True)
    bounds = memoryview(ends).cast("Q")
    sizes = memoryview(lengths).cast("Q")
    if (bounds[-1] if ends else 0) != len(view):
        raise FormatError("xorb.chunk", bounds[-1] if ends else 0, "bytes follow the last chunk")
    starts = (0, *bounds)
    return [(digest, sizes[i], bytes(view[starts[i] : bounds[i]])) for i, digest in enumerate(split_hashes(hashes))]
