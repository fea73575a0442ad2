"""Differences between two versions of a file, local or stored: spans of bytes, found by their chunks.

No data of a stored version is fetched: its chunk hashes are asked for. Of a server that does not tell them two stored
versions are compared by where their chunks are stored, which finds less that is equal, and nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from xetstore.errors import UsageError
from xetstore.interfaces import Cas
from xetstore.protocol.hashes import Hash
from xetstore.transfer.compare.alignment import UNKNOWN, Match, align, number
from xetstore.transfer.compare.edges import ByteEdges
from xetstore.transfer.compare.versions import LocalVersion, StoredVersion, Version

if TYPE_CHECKING:
    from xetstore.transfer.progress import Progress

__all__ = ["Comparison", "Side", "Span", "SpanKind", "compare"]

Side: TypeAlias = Path | tuple[Cas, Hash]
"""A local file, or a stored one."""


class SpanKind(StrEnum):
    """The fate of the bytes of a span."""

    EQUAL = "equal"
    CHANGED = "changed"
    INSERTED = "inserted"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``[old_start, old_end)`` of the old version, and ``[new_start, new_end)`` of the new one in their place."""

    kind: SpanKind
    old_start: int
    old_end: int
    new_start: int
    new_end: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side. The spans cover both from start to end, in order.

    ``shared_chunks`` and ``shared_bytes`` are of chunks of the new version that the old one has anywhere, moved ones
    included. ``exact`` says that spans end at the very byte, not at the end of a chunk.
    """

    equal: bool
    old_size: int
    new_size: int
    old_chunks: int
    new_chunks: int
    shared_chunks: int
    shared_bytes: int
    spans: tuple[Span, ...]
    exact: bool

    @property
    def equal_bytes(self) -> int:
        """Bytes that are the same, in the same order."""
        return sum(span.new_end - span.new_start for span in self.spans if span.kind is SpanKind.EQUAL)


def compare(
    old: Side,
    new: Side,
    *,
    exact: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two versions, each a local path or a pair of a Cas and the hash of a file in it.

    Takes about 100 bytes of memory a chunk (of about 64 KiB) of both. With ``exact`` the edges of what changed between
    two local files are found to the byte. What a range edit cut at other places than content does, counts as changed.

    Raises NotFoundError, AccessDeniedError and SourceChangedError; UsageError for what is no regular file, and where a
    local file is to be compared with a stored one whose server does not tell chunk hashes.
    """
    versions = [_loaded(side, threads, progress) for side in (old, new)]
    if any(version is None for version in versions):
        versions = [_by_place(side) for side in (old, new)]
    before, after = versions
    assert before is not None
    assert after is not None
    chunks = len(before), len(after)
    if before.hash == after.hash:
        size = after.size
        spans = (Span(SpanKind.EQUAL, 0, size, 0, size),) if size else ()
        return Comparison(True, size, size, *chunks, chunks[1], size, spans, exact=True)
    old_ids, new_ids = number(before.take_keys(), after.take_keys())
    shared_chunks = sum(chunk != UNKNOWN for chunk in new_ids)
    matches = align(old_ids, new_ids)
    _tie(before, after, matches)
    shared_bytes = _shared_bytes(before, after, new_ids)
    drawn = _Spans()
    if exact and isinstance(before, LocalVersion) and isinstance(after, LocalVersion):
        with ByteEdges(before, after) as edges:
            drawn.fill(before, after, matches, edges)
    else:
        exact = False
        drawn.fill(before, after, matches, None)
    return Comparison(
        False, before.size, after.size, *chunks, shared_chunks, shared_bytes, tuple(drawn.spans), exact=exact
    )


def _loaded(side: Side, threads: int | None, progress: Progress | None) -> Version | None:
    """A version by the hashes of its chunks; None where the Cas does not tell them."""
    if isinstance(side, tuple):
        return StoredVersion.load(*side, by_place=False)
    return LocalVersion(side, threads=threads, progress=progress)


def _by_place(side: Side) -> Version | None:
    if not isinstance(side, tuple):
        raise UsageError(
            f"{side} cannot be compared with a stored file whose server does not tell its chunk hashes",
            hint="get the stored file, and compare the two local ones",
        )
    return StoredVersion.load(*side, by_place=True)


def _tie(before: Version, after: Version, matches: list[Match]) -> None:
    """Let a stored version know where its chunks are from those that a local one has in common with it."""
    for old_at, new_at, count in matches:
        if isinstance(after, StoredVersion) and isinstance(before, LocalVersion):
            after.tie(new_at, before, old_at, count)
        elif isinstance(before, StoredVersion) and isinstance(after, LocalVersion):
            before.tie(old_at, after, new_at, count)


def _shared_bytes(before: Version, after: Version, new_ids: memoryview[int]) -> int:
    """Bytes of the chunks of the new version that the old one has."""
    if isinstance(before, LocalVersion):
        return sum(before.offset(at + 1) - before.offset(at) for at in new_ids if at != UNKNOWN)
    return sum(after.offset(end) - after.offset(start) for start, end in _known_runs(new_ids))


def _known_runs(ids: memoryview[int]) -> Iterator[tuple[int, int]]:
    start = None
    for at, number_ in enumerate(ids):
        if number_ == UNKNOWN:
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(ids)


_NO_MATCH: Final = 0


class _Spans:
    """Spans in the making: neighbours of one kind become one."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._old = self._new = 0

    def fill(self, before: Version, after: Version, matches: list[Match], edges: ByteEdges | None) -> None:
        """The spans of aligned chunks, and of what lies between them; ``edges`` looks into that."""
        for old_at, new_at, count in [*matches, (len(before), len(after), _NO_MATCH)]:
            self._between(before.offset(old_at), after.offset(new_at), edges)
            if count:
                self._equal(after.offset(new_at + count) - after.offset(new_at))

    def _between(self, old_end: int, new_end: int, edges: ByteEdges | None) -> None:
        """Take what lies before the next aligned chunk."""
        start = end = 0
        if edges is not None and self._old < old_end and self._new < new_end:
            start, end = edges.equal_at_ends((self._old, old_end), (self._new, new_end))
        self._equal(start)
        old_end, new_end = old_end - end, new_end - end
        if self._old < old_end and self._new < new_end:
            self._add(SpanKind.CHANGED, old_end, new_end)
        elif self._old < old_end:
            self._add(SpanKind.DELETED, old_end, new_end)
        elif self._new < new_end:
            self._add(SpanKind.INSERTED, old_end, new_end)
        self._equal(end)

    def _equal(self, nbytes: int) -> None:
        if nbytes:
            self._add(SpanKind.EQUAL, self._old + nbytes, self._new + nbytes)

    def _add(self, kind: SpanKind, old_end: int, new_end: int) -> None:
        old_start, new_start = self._old, self._new
        if self.spans and self.spans[-1].kind is kind:
            last = self.spans.pop()
            old_start, new_start = last.old_start, last.new_start
        self.spans.append(Span(kind, old_start, old_end, new_start, new_end))
        self._old, self._new = old_end, new_end
