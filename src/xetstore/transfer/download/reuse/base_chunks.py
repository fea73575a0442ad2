"""Chunks of a file that a base file has: they are copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from xetstore.errors import XetError
from xetstore.protocol.hashes import split_hashes
from xetstore.transfer.download.plan import Part, Run, Use
from xetstore.transfer.download.reuse.hashed import Place, runs_of, verified

if TYPE_CHECKING:
    from xetstore.transfer.download.reconstructions import Reconstructions
    from xetstore.transfer.download.reuse.base_file import BaseFile

WORTHWHILE_BYTES: Final = 512 << 10
"""A run of known chunks between unknown ones takes calls to find its place: a shorter one is fetched instead."""

MOST_LOOKUPS: Final = 64
"""The number of such calls for a window."""


def of_base_file(
    base: BaseFile,
    parts: Iterable[Part],
    asking: Reconstructions,
    put: Callable[[int, memoryview], None],
    threads: int,
) -> Iterator[Run]:
    """Chunks of ``parts`` that the base file has; they are handed to ``put``.

    Where known chunks lie is told by the ones before or behind them; between unknown chunks the Cas is asked.
    """

    def read(offset: int, view: memoryview) -> bool:
        try:
            base.read(offset, view)
        except XetError:  # it changes, or cannot be read any more: then it is fetched
            return False
        return True

    lookup = _Lookup(asking)
    uses = sorted(((part, use) for part in parts for use in part.uses), key=lambda pair: pair[1].position)
    places = (place for part, use in uses for place in _places(base, part, use, lookup))
    for position, chunks, data in verified(places, read, threads):
        put(position, data)
        yield Run(position, chunks, None, 0, verified=True)


class _Lookup:
    """Asks where in the file a chunk of a term starts."""

    def __init__(self, asking: Reconstructions) -> None:
        self._asking = asking
        self._left = MOST_LOOKUPS

    def start_of(self, wanted: int, part: Part, known: tuple[int, int], bound: tuple[int, int]) -> int | None:
        """The position of chunk ``wanted`` of a xorb, between two (chunk, position) of the same term; None: unknown."""
        low, high = known, bound
        while wanted > low[0] and self._left:
            self._left -= 1
            mean = (high[1] - low[1]) // max(1, high[0] - low[0])
            # The answer ends with the chunk that holds the last byte asked for: it should be the one before.
            guess = low[1] + (wanted - low[0]) * mean - mean // 2
            asked = min(max(guess, low[1] + 1), high[1])
            window = self._asking.ask(known[1], asked, limit=asked)
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


def _places(base: BaseFile, part: Part, use: Use, lookup: _Lookup) -> Iterator[Place]:
    """The chunks of a use that the base file has, where they can be placed, ascending."""
    if use.hashes is None:
        return
    digests = split_hashes(use.hashes)
    found = [base.locate(digest) for digest in digests]
    count = len(found)
    position = use.position - use.skip
    last = position + use.raw_bytes
    placed = 0  # the chunks before this one are placed, and it starts at ``position``
    for first, end in runs_of(found):
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
