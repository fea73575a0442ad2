"""The plan of a window: the parts to fetch, by position in the file, and what is left of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from xetstore.errors import IntegrityError
from xetstore.protocol.reconstruction import FetchRange, Reconstruction, coalesce, plan_fetches
from xetstore.protocol.suite import HASH_BYTES

if TYPE_CHECKING:
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash

Span = tuple[int, int]
"""Bytes ``[start, end)`` of a file."""


@dataclass(frozen=True, slots=True)
class Use:
    """One place of a file where chunks ``[chunk_start, chunk_end)`` of a xorb go.

    Of their ``raw_bytes`` bytes ``skip`` are left out and ``length`` written at ``position`` of the file. ``hashes``
    are the chunk hashes that the Cas told, or None.
    """

    chunk_start: int
    chunk_end: int
    raw_bytes: int
    skip: int
    length: int
    position: int
    hashes: bytes | None

    @property
    def end(self) -> int:
        """The end of its bytes in the file."""
        return self.position + self.length

    def cut(self, start: int, end: int) -> Use:
        """The same for bytes ``[start, end)`` of the file only; they lie in it."""
        return replace(self, skip=self.skip + start - self.position, length=end - start, position=start)


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a xorb to fetch once, and all that it is good for, in file order.

    ``body`` are its bytes, not verified, where they came along with the reconstruction.
    """

    fetch: FetchRange
    uses: tuple[Use, ...]
    body: memoryview | None = field(default=None, repr=False)

    @property
    def distinct_bytes(self) -> int:
        """Raw bytes of its chunks that are used, each counted once, however many places it goes to."""
        total = 0
        reached = 0
        for start, end, raw_bytes in sorted({(use.chunk_start, use.chunk_end, use.raw_bytes) for use in self.uses}):
            new = end - max(start, reached)
            if new > 0:
                total += raw_bytes * new // (end - start)
                reached = end
        return total

    @property
    def span(self) -> Span:
        """From its first byte in the file to its last one."""
        return self.uses[0].position, max(use.end for use in self.uses)


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes ``[position, position + length)`` of a file and how to rebuild them; ``is_last`` if the file ends there."""

    position: int
    length: int
    reconstruction: Reconstruction
    parts: tuple[Part, ...]
    is_last: bool

    @property
    def end(self) -> int:
        """The start of the next window."""
        return self.position + self.length


class Run(NamedTuple):
    """Chunks that are in the file from ``position`` on, where the first of them starts.

    They are chunks from ``chunk_start`` on of ``xorb``, or were there already (None). ``verified`` if each was compared
    with a hash that the Cas told, or if all of the xorb was fetched and has its name.
    """

    position: int
    chunks: ChunkList
    xorb: Hash | None
    chunk_start: int
    verified: bool

    @property
    def end(self) -> int:
        """The end of its last chunk."""
        return self.position + self.chunks.total_bytes

    def name(self, index: int) -> str:
        """Chunk ``index`` of the run, for people."""
        if self.xorb is None:
            at = self.position + self.chunks.slice(0, index).total_bytes
            return f"the chunk at byte {at} of the file"
        return f"chunk {self.chunk_start + index} of xorb {self.xorb}"


def parts_of(found: Reconstruction, position: int, length: int) -> tuple[Part, ...]:
    """The fetches that make ``length`` bytes from ``position`` of the file on; FormatError as ``plan_fetches``."""
    hashes: Sequence[bytes | None] = found.term_hashes or [None] * len(found.terms)
    terms = {}
    start, skip = 0, found.offset_into_first_term
    for term, packed in zip(found.terms, hashes, strict=True):
        terms[start] = (term.unpacked_bytes, packed)
        start, skip = start + term.unpacked_bytes - skip, 0
    bodies = found.bodies or {}
    return tuple(
        Part(
            planned.fetch,
            tuple(
                Use(
                    place.chunk_start,
                    place.chunk_end,
                    terms[place.output_offset][0],
                    place.skip,
                    place.length,
                    position + place.output_offset,
                    terms[place.output_offset][1],
                )
                for place in planned.placements
            ),
            bodies.get(planned.fetch),
        )
        for planned in plan_fetches(found, length)
    )


def leave_out(parts: Iterable[Part], known: Iterable[Span]) -> tuple[list[Part], list[Span]]:
    """Leave out of the parts what is there already, the ``known`` bytes.

    Returns the parts that are needed as they are, and the bytes that parts of which only a part is needed would have
    brought: these are better asked for again, which takes no more than the chunks that hold them.
    """
    there = _Spans(known)
    kept: list[Part] = []
    missing: list[Span] = []
    for part in parts:
        wanted = [(use, list(there.gaps(use.position, use.end))) for use in part.uses]
        left = tuple(use for use, gaps in wanted if gaps)
        whole = all(gaps == [(use.position, use.end)] for use, gaps in wanted if gaps)
        chunks = coalesce((use.chunk_start, use.chunk_end) for use in left)
        if left and whole and chunks == ((part.fetch.chunk_start, part.fetch.chunk_end),):
            kept.append(Part(part.fetch, left, part.body))
        else:
            missing += [gap for _, gaps in wanted for gap in gaps]
    return kept, list(coalesce(missing))


def restrict(parts: Iterable[Part], spans: Iterable[Span]) -> list[Part]:
    """Restrict ``parts`` to what brings bytes of ``spans``, and these bytes only."""
    wanted = _Spans(spans)
    cuts = ((part, tuple(use.cut(*span) for use in part.uses for span in wanted.inside(use))) for part in parts)
    return [Part(part.fetch, uses, part.body) for part, uses in cuts if uses]


def in_file_order(runs: Iterable[Run], start: int, end: int) -> list[Run]:
    """Runs that cover bytes ``[start, end)`` of a file without gap or overlap, in order; else IntegrityError."""
    ordered = sorted(runs, key=lambda run: run.position)
    reached = ordered[0].position if ordered else start
    fits = reached <= start
    for run in ordered:
        fits = fits and run.position == reached
        reached = run.end
    if not fits or reached < end:
        raise IntegrityError(f"the chunks that came do not make bytes {start} to {end} of the file")
    return ordered


def check_hashes(window: Window, runs: Sequence[Run]) -> None:
    """Compare the chunks of a window, wherever they came from, with what the Cas told: their end, and hashes if any."""
    reconstruction = window.reconstruction
    told_end = window.position - reconstruction.offset_into_first_term + reconstruction.unpacked_bytes
    if runs and window.end == told_end != runs[-1].end:
        # It was not cut there: the file would be written without the rest of its last chunk, which has the right hash.
        raise IntegrityError(f"the chunks that came end at byte {runs[-1].end} of the file, and not at {told_end}")
    told = reconstruction.term_hashes
    if told is None:
        return
    expected = b"".join(told)
    actual = b"".join(run.chunks.hashes for run in runs)
    # A Cas need not cut the first and the last term at the chunks that were asked for.
    at = expected.find(actual)
    if at % HASH_BYTES or (at and not window.reconstruction.offset_into_first_term):
        raise IntegrityError(f"the chunks of bytes {window.position} to {window.end} are not the file's")


class _Spans:
    """Disjoint spans, to be asked what of a range lies in them and what does not."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = coalesce(spans)
        self._starts = [start for start, _ in self._spans]

    def inside(self, use: Use) -> Iterator[Span]:
        """Yield the bytes of a use that lie in them."""
        for index in range(max(0, bisect_right(self._starts, use.position) - 1), len(self._spans)):
            start, end = self._spans[index]
            if start >= use.end:
                return
            low, high = max(start, use.position), min(end, use.end)
            if low < high:
                yield low, high

    def gaps(self, start: int, end: int) -> Iterator[Span]:
        """Yield the bytes of ``[start, end)`` that do not."""
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._spans)):
            low, high = self._spans[index]
            if low >= end:
                break
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end
