"""Range edits: the answer of GET /v2/file-chunk-hashes, by which a file is edited without reading the rest of it.

A client names the bytes of a file that it will replace, cut out or put bytes next to: the *dirty ranges*. The answer
has *windows*, byte ranges in which the client chunks the edited data anew; a MerkleSubtree of the chunks in each *gap*
between them, from which and from its own chunks it joins the new file's hash; and the verification hash of each term
that lies in the gaps, so that it can be named again in a shard. No other chunk is read or named.

Draft 05 has nothing of this. Observed in the reference client (1.8.0), and in the part of its service that it has for
its tests: the header, every name and form in the JSON, and how far windows reach. A window begins where the first chunk
with a dirty byte does, since no chunk depends on what follows it. It ends behind the first two clean chunks in a row
that are *stable*: at least twice the minimum long, and shorter than the maximum by more than the minimum. There, the
edited file has a chunk's end for sure. Wherever chunks end in front of these two now, what can differ in them is a cut
within the minimum of their start, which the start had hidden: the next one is then still a minimum away, so it counts,
and less than the maximum, so none is forced before. The first of the two can be missed if a forced cut falls just in
front of it; not so both.

One thing is ours. A client that composes a shard can name old terms as a whole only; so it asks for whole terms, and
the reference client loses what lies between the end of a window and the end of the term it is in. So, if all dirty
ranges begin and end with terms, windows are extended to end with terms too.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from xetstore.errors import FormatError, UsageError
from xetstore.protocol.hashes import Hash, file_hash, verification_hash
from xetstore.protocol.reconstruction import Term, coalesce
from xetstore.protocol.subtree import MerkleSubtree, WireSubtree
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.protocol.chunking import ChunkList

MAX_DIRTY_RANGES: Final = 4096
MAX_HEADER_CHARS: Final = 65_536

_U64_MAX: Final = 2**64 - 1
_UNIT: Final = "bytes="
_RANGE = re.compile(r"[ \t]*([0-9]{1,20})-([0-9]{1,20})[ \t]*")

ByteRange = tuple[int, int]
"""Bytes ``[start, end)``."""


def parse_dirty_ranges(header: str) -> tuple[ByteRange, ...]:
    """The ranges of an X-Range-Dirty header, sorted and merged. On the wire ends are inclusive, in any order.

    Raises UsageError on anything but ``bytes=first-last,…`` with at most 4096 ranges, none of them backwards.

    >>> parse_dirty_ranges("bytes=40-49,0-9,5-19")
    ((0, 20), (40, 50))
    """
    if len(header) > MAX_HEADER_CHARS or not header.lower().startswith(_UNIT):
        raise _bad_header(f"it is to begin with {_UNIT!r} and has at most {MAX_HEADER_CHARS} characters")
    listed = header[len(_UNIT) :].split(",", MAX_DIRTY_RANGES)
    if len(listed) > MAX_DIRTY_RANGES:
        raise _bad_header(f"it lists more than {MAX_DIRTY_RANGES} ranges")
    ranges = []
    for text in listed:
        match = _RANGE.fullmatch(text)
        if match is None:
            raise _bad_header(f"{text[:80]!r} is not of the form first-last")
        first, last = int(match[1]), int(match[2])
        if not first <= last <= _U64_MAX:
            raise _bad_header(f"{text[:80]!r} runs backwards or past 64 bits")
        ranges.append((first, last + 1))
    return tuple(coalesce(ranges))


@dataclass(frozen=True, slots=True)
class EditPlan:
    """All that an editor of a file of ``file_bytes`` in ``total_chunks`` has to know of the parts it does not touch.

    ``windows`` are byte ranges ``[start, end)`` of the file as it is, at least one, sorted; what replaces their bytes
    is chunked window by window. ``gaps`` are what lies around them, one more: a MerkleSubtree each, None for an empty
    one. ``gap_verification`` is the verification hash (6.4) of each term in the gaps that no window touches, in order.
    """

    total_chunks: int
    file_bytes: int
    windows: tuple[ByteRange, ...]
    gaps: tuple[MerkleSubtree | None, ...]
    gap_verification: tuple[Hash, ...]

    def edited_hash(self, window_chunks: Sequence[ChunkList], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
        """The hash of the edited file, from the chunks that now make up each window. Time is linear in these alone.

        ValueError unless there is one list for each window.
        """
        parts: list[MerkleSubtree] = []
        for gap, (_, end), chunks in zip(self.gaps[:-1], self.windows, window_chunks, strict=True):
            if gap is not None:
                parts.append(gap)
            parts.append(MerkleSubtree.of(chunks, at_start=not parts, at_end=end == self.file_bytes, suite=suite))
        if self.gaps[-1] is not None:
            parts.append(self.gaps[-1])
        return file_hash(MerkleSubtree.join_all(parts, suite).root, suite)

    def to_json(self) -> bytes:
        """The body of the answer. Hashes are in the string form of 6.5, ends of byte ranges exclusive."""
        return msgspec.json.encode(
            _Answer(
                total_chunks=self.total_chunks,
                file_size=self.file_bytes,
                windows=[_Window(window) for window in self.windows],
                hash_ranges=[None if gap is None else gap.to_wire() for gap in self.gaps],
                gap_verification=[str(verification) for verification in self.gap_verification],
            )
        )

    @classmethod
    def from_json(cls, data: Buffer) -> EditPlan:
        """Read an answer. Unknown keys are ignored; anything else that breaks a rule raises FormatError (offset 0)."""
        try:
            answer = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _broken("json", f"not the chunk hashes of a file: {error}") from None
        windows = tuple(window.dirty_byte_range for window in answer.windows)
        gaps = tuple(None if wire is None else MerkleSubtree.from_wire(wire) for wire in answer.hash_ranges)
        try:
            verification = tuple(Hash.parse(text) for text in answer.gap_verification)
        except UsageError as error:
            raise _broken("hash", str(error)) from None
        if answer.file_size > _U64_MAX:
            raise _broken("size", f"a file of {answer.file_size} bytes")
        if not windows or len(gaps) != len(windows) + 1:
            raise _broken("windows", f"{len(windows)} windows and {len(gaps)} gaps")
        edges = (0, *chain.from_iterable(windows), answer.file_size)
        if list(edges) != sorted(edges):
            raise _broken("windows", "the windows are not in order, or not in the file")
        for gap, start, end in zip(gaps, edges[::2], edges[1::2], strict=True):
            if (0 if gap is None else gap.total_bytes) != end - start:
                raise _broken("gap", f"a gap is not of bytes {start} to {end}")
            if gap is not None and (gap.at_start, gap.at_end) != (start == 0, end == answer.file_size):
                raise _broken("gap", f"the gap of bytes {start} to {end} is elsewhere")
        return cls(answer.total_chunks, answer.file_size, windows, gaps, verification)


def plan_edit(
    chunks: ChunkList,
    terms: Sequence[Term],
    dirty: Iterable[ByteRange],
    suite: AlgorithmSuite = XET_GEARHASH_BLAKE3,
) -> EditPlan:
    """The answer for a file of these chunks and terms. Takes time linear in their number.

    ``dirty`` is sorted and does not overlap, as parse_dirty_ranges returns it; it is cut off at the file's end. Raises
    UsageError if nothing is left of it then, ValueError if the terms are not of these chunks.
    """
    ends = array("Q", accumulate(chunks.sizes))
    file_bytes = ends[-1] if ends else 0
    term_chunks = list(accumulate((term.chunk_end - term.chunk_start for term in terms), initial=0))
    term_edges = list(accumulate((term.unpacked_bytes for term in terms), initial=0))
    if term_chunks[-1] != len(chunks) or term_edges != [ends[count - 1] if count else 0 for count in term_chunks]:
        raise ValueError("the terms and the chunks are not of the same file")
    inside = [(start, min(end, file_bytes)) for start, end in dirty if start < file_bytes]
    if not inside:
        raise UsageError(f"no dirty range has a byte of the file, which has {file_bytes}")
    edges = set(term_edges)
    spans = [(bisect_right(ends, start), bisect_left(ends, end) + 1) for start, end in inside]
    by_terms = all(edge in edges for edge in chain.from_iterable(inside))
    windows = list(_windows(chunks.sizes, spans, set(term_chunks) if by_terms else None, suite))
    numbers = (0, *chain.from_iterable(windows), len(chunks))
    return EditPlan(
        total_chunks=len(chunks),
        file_bytes=file_bytes,
        windows=tuple((ends[first - 1] if first else 0, ends[end - 1]) for first, end in windows),
        gaps=tuple(_gap(chunks, *gap, suite) for gap in zip(numbers[::2], numbers[1::2], strict=True)),
        gap_verification=tuple(
            verification_hash(chunks.slice(first, end).hashes, suite)
            for first, end in _untouched(pairwise(term_chunks), windows)
        ),
    )


def _gap(chunks: ChunkList, first: int, end: int, suite: AlgorithmSuite) -> MerkleSubtree | None:
    if first == end:
        return None
    at_start, at_end = first == 0, end == len(chunks)
    return MerkleSubtree.of(chunks.slice(first, end), at_start=at_start, at_end=at_end, suite=suite)


def _windows(
    sizes: Sequence[int], spans: Sequence[tuple[int, int]], places: Set[int] | None, suite: AlgorithmSuite
) -> Iterator[tuple[int, int]]:
    """Chunks ``[first, end)`` of each window, from the dirty ones, which may share a chunk.

    If ``places`` is given, a window ends with one of these chunk numbers.
    """
    shortest, too_long = 2 * suite.min_chunk_bytes, suite.max_chunk_bytes - suite.min_chunk_bytes
    waiting = deque(coalesce(spans))
    while waiting:
        first, end = waiting.popleft()
        stable = 0  # in a row behind the last dirty chunk; more than two make no difference
        while end < len(sizes) and not (stable == 2 and (places is None or end in places)):
            if waiting and waiting[0][0] == end:
                end = waiting.popleft()[1]
                stable = 0
                continue
            if stable < 2:
                stable = stable + 1 if shortest <= sizes[end] < too_long else 0
            end += 1
        yield first, end


def _untouched(terms: Iterable[tuple[int, int]], windows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Of the terms, as chunk ranges, those that have no chunk in a window."""
    ends = [end for _, end in windows]
    for first, end in terms:
        window = bisect_right(ends, first)
        if window == len(windows) or windows[window][0] >= end:
            yield first, end


# The JSON form. Its keys are in camel case, but for those within a subtree.

_Number = Annotated[int, msgspec.Meta(ge=0)]


class _Window(msgspec.Struct, rename="camel"):
    dirty_byte_range: tuple[_Number, _Number]


class _Answer(msgspec.Struct, rename="camel"):
    total_chunks: _Number
    file_size: _Number
    windows: list[_Window]
    hash_ranges: list[WireSubtree | None]
    gap_verification: list[str]


_DECODER: Final = msgspec.json.Decoder(_Answer)


def _bad_header(detail: str) -> UsageError:
    return UsageError(f"X-Range-Dirty is malformed: {detail}", hint="as in `bytes=0-99,500-599`, ends inclusive")


def _broken(rule: str, detail: str) -> FormatError:
    return FormatError(f"range_edit.{rule}", 0, detail)
