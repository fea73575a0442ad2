"""Cutting the decoded chunks of one fetch into the places of the file where they go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from xetstore.errors import IntegrityError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import xorb_hash
from xetstore.protocol.suite import HASH_BYTES
from xetstore.transfer.download.plan import Part, Run, Use
from xetstore.transfer.progress import NoProgress, Progress

Put = Callable[[int, memoryview], None]
"""Takes bytes and their position in the file; called from several threads."""


class Recorder(Protocol):
    """Takes down which chunks are in the file; called from several threads."""

    def record(self, position: int, chunks: ChunkList, /) -> None:
        """These were written whole from ``position`` on."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a file's bytes: where they are put, and what is told of them.

    ``recorder`` takes down which chunks are there. ``make_room`` is told, before each window, how many different bytes
    of the file there will be, and raises what ends the download.
    """

    put: Put
    progress: Progress = field(default_factory=NoProgress)
    recorder: Recorder | None = None
    make_room: Callable[[int], None] | None = None


class SinkError(Exception):
    """The destination failed, with ``error``: there is no use in fetching again. The downloader raises that instead."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Advance:
    """Tells a Progress of the bytes of one fetch once, however often it has to be made."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told = 0
        self._now = 0

    def begin(self) -> None:
        """The fetch begins, or begins again."""
        self._now = 0

    def add(self, nbytes: int) -> None:
        """Bytes were delivered."""
        self._now += nbytes
        if self._now > self._told:
            self._progress.advance(logical=self._now - self._told)
            self._told = self._now


class _ExpectedHashes:
    """The hashes that the chunks of a part must have, as far as the Cas told.

    ``recorded`` are those of all of its chunks, if they come from the chunk cache.
    """

    def __init__(self, part: Part, recorded: bytes | None = None) -> None:
        self._fetch = part.fetch
        self._recorded = recorded
        count = part.fetch.chunk_end - part.fetch.chunk_start
        self._packed = bytearray()
        self._told = bytearray(count)
        for use in part.uses:
            if use.hashes is None:
                continue
            self._packed = self._packed or bytearray(count * HASH_BYTES)
            first, end = (index - part.fetch.chunk_start for index in (use.chunk_start, use.chunk_end))
            self._packed[first * HASH_BYTES : end * HASH_BYTES] = use.hashes
            self._told[first:end] = b"\1" * (end - first)
        self.are_complete = recorded is not None or 0 not in self._told

    def check(self, first: int, hashes: bytes) -> None:
        """Compare those of the chunks from index ``first`` of the xorb on. IntegrityError names what differs."""
        at, count = first - self._fetch.chunk_start, len(hashes) // HASH_BYTES
        if at + count > len(self._told):
            raise IntegrityError(
                f"xorb {self._fetch.xorb} gave more than the {len(self._told)} chunks that belong there"
            )
        place = slice(at * HASH_BYTES, (at + count) * HASH_BYTES)
        if self._packed and self._packed[place] != hashes:
            self._name_first(first, at, hashes)
        if self._recorded is not None and self._recorded[place] != hashes:
            raise IntegrityError("the chunk cache holds other chunks than were put there")

    def _name_first(self, first: int, at: int, hashes: bytes) -> None:
        """Raise for the first chunk whose hash was told and is another one, if there is any."""
        for index in range(len(hashes) // HASH_BYTES):
            place = (at + index) * HASH_BYTES
            actual = hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
            if self._told[at + index] and self._packed[place : place + HASH_BYTES] != actual:
                raise IntegrityError(f"chunk {first + index} of xorb {self._fetch.xorb} does not match its hash")


class Delivery:
    """Checks the chunks of a part, as they come in order, and hands them over.

    ``recorded`` are their packed hashes, if they come from the chunk cache.
    """

    def __init__(self, part: Part, destination: Destination, advance: Advance, recorded: bytes | None = None) -> None:
        self._part = part
        self._expected = _ExpectedHashes(part, recorded)
        self._put = destination.put
        self._recorder = destination.recorder
        self._advance = advance
        self._waiting = deque(sorted(part.uses, key=lambda use: use.chunk_start))
        # Uses under way, each with the raw position in the fetch where its first chunk starts.
        self._active: list[tuple[Use, int]] = []
        self._next_chunk = part.fetch.chunk_start
        self._raw_position = 0

    def deliver(self, chunks: ChunkList, raw: memoryview) -> None:
        """Compare and hand over the next chunks of the fetch; ``raw`` starts with their bytes.

        Raises IntegrityError before anything is handed over, and SinkError.
        """
        self._expected.check(self._next_chunk, chunks.hashes)
        base = self._raw_position
        starts = list(accumulate(chunks.sizes, initial=base))
        first, end = self._next_chunk, self._next_chunk + len(chunks)
        while self._waiting and self._waiting[0].chunk_start < end:
            use = self._waiting.popleft()
            self._active.append((use, starts[use.chunk_start - first]))
        try:
            for use, origin in self._active:
                # Raw positions wanted of this use, and those of them that are here.
                wanted = origin + use.skip
                low = max(wanted, base)
                high = min(wanted + use.length, starts[-1])
                if low < high:
                    self._put(use.position + low - wanted, raw[low - base : high - base])
                    self._advance.add(high - low)
            if self._recorder is not None:
                for position, written in _merged(self._whole_chunks(chunks, starts)):
                    self._recorder.record(position, written)
        except Exception as error:
            raise SinkError(error) from error
        self._active = [active for active in self._active if active[0].chunk_end > end]
        self._next_chunk, self._raw_position = end, starts[-1]

    def finish(self, chunks: ChunkList) -> list[Run]:
        """The runs of chunks that are in the file now. Raises IntegrityError where they are not as they were told."""
        fetch = self._part.fetch
        # Known by their own hashes; or as all of a xorb by its name.
        verified = self._expected.are_complete or (
            fetch.chunk_start == 0 and xorb_hash(chunks.hashes, chunks.lengths) == fetch.xorb
        )
        if self._next_chunk != fetch.chunk_end:
            expected = fetch.chunk_end - fetch.chunk_start
            raise IntegrityError(f"xorb {fetch.xorb} gave {len(chunks)} chunks where {expected} belong")
        starts = list(accumulate(chunks.sizes, initial=0))
        runs = []
        for use in self._part.uses:
            first, end = use.chunk_start - fetch.chunk_start, use.chunk_end - fetch.chunk_start
            origin = starts[first]
            if starts[end] - origin != use.raw_bytes:
                raise IntegrityError(
                    f"chunks {use.chunk_start} to {use.chunk_end} of xorb {fetch.xorb} have {starts[end] - origin} "
                    f"bytes, the reconstruction says {use.raw_bytes}"
                )
            # Chunks of which no byte is wanted, as a Cas may give more than was asked for.
            while starts[first + 1] <= origin + use.skip:
                first += 1
            while starts[end - 1] >= origin + use.skip + use.length:
                end -= 1
            position = use.position - use.skip + starts[first] - origin
            runs.append(Run(position, chunks.slice(first, end), fetch.xorb, fetch.chunk_start + first, verified))
        return runs

    def _whole_chunks(self, chunks: ChunkList, starts: list[int]) -> Iterable[tuple[int, ChunkList]]:
        """Runs of these chunks that are now in the file with all their bytes, and their positions."""
        for use, origin in self._active:
            low = max(use.chunk_start - self._next_chunk, 0)
            high = min(use.chunk_end - self._next_chunk, len(chunks))
            while low < high and starts[low] < origin + use.skip:
                low += 1
            while low < high and starts[high] > origin + use.skip + use.length:
                high -= 1
            if low < high:
                yield use.position - use.skip + starts[low] - origin, chunks.slice(low, high)


def _merged(runs: Iterable[tuple[int, ChunkList]]) -> Iterable[tuple[int, ChunkList]]:
    """Runs that touch become one: a chunk that fills a sparse file is not recorded each time."""
    ordered = sorted(runs, key=lambda run: run[0])
    if len(ordered) <= 1:
        return ordered
    groups: list[tuple[int, list[ChunkList]]] = []
    reached = -1
    for position, chunks in ordered:
        if position != reached:
            groups.append((position, []))
        groups[-1][1].append(chunks)
        reached = position + chunks.total_bytes
    return [(position, ChunkList.concat(lists)) for position, lists in groups]
