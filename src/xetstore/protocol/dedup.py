"""Deduplication planning: which chunks of a file are known already, and where the new ones go (draft 10).

Pure: the planner says which chunks are worth a global query and learns from the answers; asking is
the caller's work. One planner serves one upload session, in which files share xorbs.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.known_chunks import MAX_KNOWN_CHUNKS, ChunkIndex, KnownXorb, Revision, Run
from xetstore.protocol.suite import (
    DEDUP_QUERY_SPACING_CHUNKS,
    FRAGMENTATION_LOW_FACTOR,
    FRAGMENTATION_TARGET_CHUNKS,
    FRAGMENTATION_WINDOW_RUNS,
    XET_GEARHASH_BLAKE3,
)

if TYPE_CHECKING:
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.shard import Shard

REPEATS_BEFORE_STRETCH = 128
STRETCH_CHUNKS = 64
"""A chunk that follows itself 128 times (a sparse file) is stored once more, 64 times in a row: from then on a term
holds that many of them, and not one. Only one that takes hardly any room when it is compressed.
"""


MAX_AGAIN_SHARE: Final = 1 / 64
"""The share of a file's new bytes that may be there for the guard alone: stored already, and stored again."""


@dataclass(frozen=True, slots=True)
class QueryRule:
    """Which chunks of a file are worth a global query, beside its first one (10.3.1).

    Those whose hash % ``modulus`` == 0, at least ``spacing_chunks`` after the file's last query, and with at least
    ``spacing_bytes`` of the session's content between two queries, so that many small files do not mean as many. One
    query may name ``most_at_once`` chunks.
    """

    modulus: int
    spacing_chunks: int
    spacing_bytes: int = 0
    most_at_once: int = 1

    def selected(self, chunks: ChunkList) -> list[int]:
        """Indices of the chunks that are chosen by their hash alone, whatever their distance."""
        words = struct.unpack(f"<{len(chunks) * 4}Q", chunks.hashes)
        return [i for i, last in enumerate(words[3::4]) if last % self.modulus == 0]


WIRE_QUERIES = QueryRule(XET_GEARHASH_BLAKE3.dedup_modulus, DEDUP_QUERY_SPACING_CHUNKS, spacing_bytes=4_000_000)
"""The chunks that servers keep track of, as far apart as the reference client asks for them."""


class FragmentationGuard:
    """Refuses short deduplicated runs once a file's runs have become short on average (10.4).

    The reference client's rule: over the last 128 runs, if the mean length falls below the target, an offered
    run shorter than the mean is refused and the target rises, until the mean has recovered.
    """

    def __init__(self) -> None:
        self._runs: deque[int] = deque(maxlen=FRAGMENTATION_WINDOW_RUNS)
        self._target = FRAGMENTATION_TARGET_CHUNKS * FRAGMENTATION_LOW_FACTOR

    def accepts(self, offered_chunks: int) -> bool:
        """True if a run of this many known chunks, one that starts a new term, may be referenced."""
        if len(self._runs) < FRAGMENTATION_WINDOW_RUNS:
            return True
        mean = sum(self._runs) / len(self._runs)
        if mean >= self._target:
            self._target = FRAGMENTATION_TARGET_CHUNKS * FRAGMENTATION_LOW_FACTOR
            return True
        if offered_chunks >= mean:
            return True
        self._target = FRAGMENTATION_TARGET_CHUNKS
        return False

    def record(self, chunks: int, *, continues: bool) -> None:
        """A run was used; ``continues`` where it extends the term before it."""
        if continues and self._runs:
            self._runs[-1] += chunks
        else:
            self._runs.append(chunks)


class DedupPlanner:
    """Plans the chunks of one file after another. Not thread-safe.

    For each block: look for what is :meth:`unknown` elsewhere, ask what :meth:`worth_asking` names, :meth:`learn` what
    was found, then :meth:`plan`. ``queries`` is the rule of those who are asked, which may change. ``max_xorb_bytes``
    makes xorbs smaller than the suite allows, ``max_known`` is how many chunks are remembered.
    """

    def __init__(
        self,
        queries: QueryRule = WIRE_QUERIES,
        max_known: int = MAX_KNOWN_CHUNKS,
        max_xorb_bytes: int | None = None,
    ) -> None:
        suite = XET_GEARHASH_BLAKE3
        self._max_xorb_chunks = suite.max_xorb_chunks
        self._max_xorb_bytes = min(suite.max_xorb_bytes, max_xorb_bytes or suite.max_xorb_bytes)
        self.queries = queries
        self._index = ChunkIndex(max_known)
        self._planned_bytes = 0
        self._last_query_byte: int | None = None
        # Of the xorb that is being filled: what the guard had stored again, copies for a stretch, with which chunks
        # files begin, and this one.
        self._kept: set[int] = set()
        self._copies: set[int] = set()
        self._starts: set[int] = set()
        self._file_first = 0
        self._has_news = False
        self.start_file()

    def start_file(self, size: int | None = None) -> None:
        """Forget what belongs to one file: its guard, its last term, its queries. ``size`` is that of the next one."""
        self._guard = FragmentationGuard()
        self._last: tuple[KnownXorb, int] | None = None
        self._position = 0
        self._last_query: int | None = None
        self._repeats = _Repeats()
        self._file_first = self._index.filling.chunk_count
        self._new_bytes = 0
        self._guarded_bytes = 0
        self.again_bytes = 0
        if size is None or size >= self.queries.spacing_bytes:
            # Such a file is worth a query of its own, however soon it follows another one.
            self._last_query_byte = None

    def close_xorb(self) -> None:
        """Let new chunks go to a fresh xorb: the open one is being cut short."""
        if self._index.filling.chunk_count:
            self._open_xorb()

    def learn(self, answer: Shard) -> bool:
        """Take in a dedup answer, or a cached shard. True if it told of a xorb that was not known."""
        is_news = self._index.learn(answer)
        self._has_news |= is_news
        return is_news

    @property
    def filled_bytes(self) -> int:
        """Raw bytes in the xorb that is being filled."""
        return self._index.filling.raw_bytes

    def has_room_for(self, chunks: ChunkList) -> bool:
        """True if the xorb that is being filled can take all of these chunks, should they be new."""
        filling = self._index.filling
        return (
            filling.chunk_count + len(chunks) <= self._max_xorb_chunks
            and filling.raw_bytes + chunks.total_bytes <= self._max_xorb_bytes
        )

    def revise(self, *, whole_xorb: bool) -> Revision | None:
        """Drop chunks from the xorb that is being filled of which something was learned since they were placed.

        Only those of this file, or all of them: before the xorb is complete. None if there are none.
        """
        filling = self._index.filling
        first = 0 if whole_xorb else self._file_first
        if not self._has_news or first == filling.chunk_count:
            return None
        if whole_xorb:
            self._has_news = False
        runs = self._revised(first)
        if all(run.xorb is filling for run in runs):
            return None
        return self._revision(runs)

    def withdraw_file(self) -> Revision | None:
        """Drop what this file, read to its end, has brought to the xorb that is being filled: it is stored as it is.

        None if there is nothing. The dropped run names no xorb.
        """
        filling, first = self._index.filling, self._file_first
        if first == filling.chunk_count:
            return None
        runs = [Run(KnownXorb(), 0, first, filling.chunk_count - first, new=False)]
        if first:
            runs.insert(0, Run(filling, 0, 0, first, new=True))
        return self._revision(runs)

    def drop_guarded(self) -> Revision | None:
        """Drop what this file, read to its end, has in the xorb that is being filled only because of the guard (10.4),
        where nothing else of it is new: a file that is stored as it is is not to be stored again. None if there is
        nothing.
        """
        filling, first = self._index.filling, self._file_first
        if not self._guarded_bytes or self._new_bytes > self._guarded_bytes or first == filling.chunk_count:
            return None
        guarded, self._kept = self._kept, {i for i in self._kept if i < first}
        runs = self._revised(first)
        self._kept = guarded
        return None if all(run.xorb is filling for run in runs) else self._revision(runs)

    def _revision(self, runs: list[Run]) -> Revision:
        revision = Revision(self._index.filling, self._index.filling_chunks, runs, frozenset(self._kept | self._copies))
        self._index.renumber(runs)
        self._follow(revision)
        return revision

    def _revised(self, first: int) -> list[Run]:
        """Places of the chunks of the xorb that is being filled: kept, or, from ``first`` on, known elsewhere."""
        filling = self._index.filling
        packed = bytes(filling.hashes)
        keyed: dict[bytes | None, list[bytes]] = {
            key: split_hashes(kernel.keyed_hashes(key, packed)) for key in self._index.keys if key is not None
        }
        runs: list[Run] = []
        start = kept = 0  # where a run of what is kept begins, and what is its index from now on
        i = first
        while i < filling.chunk_count:
            best = None if i in self._kept else self._longest(keyed, i)
            # A stretch of copies is dropped as a whole, or not at all.
            least = self._alike(i, filling.chunk_count) if i in self._copies else 1
            if best is None or best.count < least:
                i += least
                continue
            count = self._alike(i, i + best.count)
            if start < i:
                runs.append(Run(filling, kept, start, i - start, new=True))
                kept += i - start
            runs.append(Run(best.xorb, best.xorb_start, i, count, new=False))
            start = i = i + count
        if start < i:
            runs.append(Run(filling, kept, start, i - start, new=True))
        return runs

    def _alike(self, first: int, end: int) -> int:
        """The number of chunks ``[first, end)`` of the xorb that is being filled that are as the first: copies for a
        stretch, or neither copies nor kept.
        """
        is_copy = first in self._copies
        others = (i for i in range(first + 1, end) if (i in self._copies) != is_copy or i in self._kept)
        return next(others, end) - first

    def _follow(self, revision: Revision) -> None:
        """Let what is remembered of the xorb be true after a revision."""
        self._kept, self._copies, self._starts = (
            {run.xorb_start for i in marked for run in revision.runs_of(i, i + 1) if run.xorb is revision.xorb}
            for marked in (self._kept, self._copies, self._starts)
        )
        if self._last is not None and self._last[0] is revision.xorb:
            [run] = revision.runs_of(self._last[1] - 1, self._last[1])
            self._last = (run.xorb, run.xorb_start + 1)
        if self._repeats.place is not None and self._repeats.place[0] is revision.xorb:
            self._repeats = _Repeats()
        for start, end in revision.dropped:
            self.again_bytes -= revision.again_bytes(max(start, self._file_first), end)
            self._new_bytes -= sum(revision.chunks.sizes[max(start, self._file_first) : end])
        self._file_first -= sum(max(0, min(end, self._file_first) - start) for start, end in revision.dropped)

    def unknown(self, chunks: ChunkList) -> bytes:
        """The packed hashes of those chunks of a block that nothing is known of, each once."""
        plain = self._index.plain
        left = dict.fromkeys(digest for digest in split_hashes(chunks.hashes) if digest not in plain)
        for key in self._index.keys:
            if key is not None and left:
                keyed = split_hashes(kernel.keyed_hashes(key, b"".join(left)))
                known = [digest for digest, hidden in zip(left, keyed, strict=True) if self._index.find(key, hidden)]
                for digest in known:
                    del left[digest]
        return b"".join(left)

    def worth_asking(self, chunks: ChunkList) -> Iterator[Hash]:
        """Chunks of the next block to query (10.3.1): the first of a file and those the rule selects, where unknown.

        And one in the last xorb of each answer, before the file goes on where the answer ended. What is learned before
        the next one is taken counts: one answer often makes the others needless.
        """
        selected = self.queries.selected(chunks)
        if self._position == 0 and len(chunks) and 0 not in selected:
            selected.insert(0, 0)
        for i in selected:
            position = self._position + i
            if self._last_query is not None and position - self._last_query < self.queries.spacing_chunks:
                continue
            if not self._is_far(chunks, i):
                continue
            digest = chunks.digest(i)
            if not self.may_tell_more(digest):
                continue
            self._last_query = position
            self._last_query_byte = self._planned_bytes + sum(chunks.sizes[:i])
            yield Hash(digest)

    def questions(self, chunks: ChunkList) -> Iterator[list[Hash]]:
        """Queries for all that :meth:`worth_asking` names, each of as many chunks as it may name."""
        most = self.queries.most_at_once
        asked = self.worth_asking(chunks)
        while question := list(islice(asked, most)):
            yield question

    def worth_asking_again(self) -> Iterator[Hash]:
        """Chunks of the xorb that is being filled to query: the rule has changed since they were placed."""
        chunks = self._index.filling_chunks
        yield from (Hash(chunks.digest(i)) for i in sorted({*self._starts, *self.queries.selected(chunks)}))

    def plan(self, chunks: ChunkList, may_copy: Callable[[int], bool] = lambda _: True) -> list[Run]:
        """Place every chunk of the next block: known runs referenced, new ones assigned to open xorbs in order.

        ``may_copy`` says whether copies of a chunk, given by its index, take hardly any room (:data:`STRETCH_CHUNKS`).
        """
        block = _PlannedBlock(chunks, self._index.keys)
        runs: list[Run] = []
        i = 0
        while i < len(chunks):
            digest = block.plain[i]
            stretched = self._repeats.wants_copy(digest) and may_copy(i)
            run = None if stretched else self._known_run(block, i)
            if run is None:
                run = self._new_run(block, i, alone=stretched)
            if stretched:
                self.again_bytes += block.sizes[i]
                if self._repeats.first_copy():
                    self._index.move(digest, run.xorb, run.xorb_start)
            else:
                self._repeats.placed(run, digest)
            continues = self._last == (run.xorb, run.xorb_start)
            self._guard.record(run.count, continues=continues)
            self._last = (run.xorb, run.xorb_start + run.count)
            if runs and continues and runs[-1].new == run.new:
                head = runs.pop()
                run = Run(head.xorb, head.xorb_start, head.block_start, head.count + run.count, run.new)
            runs.append(run)
            i = run.block_start + run.count
        self._position += len(chunks)
        self._planned_bytes += chunks.total_bytes
        return runs

    def _known_run(self, block: _PlannedBlock, start: int) -> Run | None:
        if self._last is not None and self._last[0].key in block.digests:
            xorb, index = self._last
            count = _matching(xorb, index, block.digests[xorb.key], start)
            if count:
                # What continues the last term costs no term: always taken.
                return Run(xorb, index, start, count, new=False)
        best = self._longest(block.digests, start)
        if best is None or self._guard.accepts(best.count) or not self._may_store_again(block.sizes[start]):
            return best
        self.again_bytes += block.sizes[start]
        self._guarded_bytes += block.sizes[start]
        return None

    def _longest(self, digests: Mapping[bytes | None, list[bytes]], start: int) -> Run | None:
        """The longest run of known chunks, given as hashed under each key, that begins with chunk ``start``."""
        best: Run | None = None
        for key, listed in digests.items():
            place = self._index.find(key, listed[start])
            if place is not None:
                count = _matching(*place, listed, start)
                if best is None or count > best.count:
                    best = Run(*place, start, count, new=False)
        return best

    def _may_store_again(self, length: int) -> bool:
        """True if the guard may have a chunk stored again: for what is new of the file is worth it, and the term
        before is one of new chunks, which goes on.
        """
        filling = self._index.filling
        return (
            self._last == (filling, filling.chunk_count)
            and self._guarded_bytes + length <= MAX_AGAIN_SHARE * self._new_bytes
        )

    def _new_run(self, block: _PlannedBlock, start: int, *, alone: bool) -> Run:
        """Store the chunk at ``start`` and, unless ``alone``, what follows it as long as it is unknown and fits."""
        end = start + 1 if alone else len(block.plain)
        xorb = self._index.filling
        if not self._fits(xorb, block.sizes[start]):
            xorb = self._open_xorb()
        if alone:
            self._copies.add(xorb.chunk_count)
        elif self._is_known(block, start):
            self._kept.add(xorb.chunk_count)
        if self._position == start == 0:
            self._starts.add(xorb.chunk_count)
        first = self._index.add(xorb, block.plain[start], block.sizes[start])
        i = start + 1
        while i < end and self._fits(xorb, block.sizes[i]) and not self._is_known(block, i):
            self._index.add(xorb, block.plain[i], block.sizes[i])
            i += 1
        self._new_bytes += sum(block.sizes[start:i])
        return Run(xorb, first, start, i - start, new=True)

    def _open_xorb(self) -> KnownXorb:
        self._kept, self._copies, self._starts = set(), set(), set()
        self._file_first = 0
        self._has_news = False
        return self._index.open_xorb()

    def _fits(self, xorb: KnownXorb, length: int) -> bool:
        return xorb.chunk_count < self._max_xorb_chunks and xorb.raw_bytes + length <= self._max_xorb_bytes

    def _is_far(self, chunks: ChunkList, i: int) -> bool:
        """True if chunk ``i`` of the next block is far enough behind the session's last query."""
        if self._last_query_byte is None or not self.queries.spacing_bytes:
            return True
        at = self._planned_bytes + sum(chunks.sizes[:i])
        return at - self._last_query_byte >= self.queries.spacing_bytes

    def _is_known(self, block: _PlannedBlock, i: int) -> bool:
        return any(self._index.find(key, digests[i]) is not None for key, digests in block.digests.items())

    def may_tell_more(self, digest: bytes) -> bool:
        """True if an answer about a chunk may tell what is not known."""
        is_known = False
        for key in self._index.keys:
            place = self._index.find(key, _as_keyed(key, digest))
            if place is not None:
                is_known = True
                if place[0].ends_answer:
                    place[0].ends_answer = False
                    return True
        return not is_known


@dataclass(slots=True)
class _Repeats:
    """Notices that a file repeats one chunk over and over, and asks for a stretch of copies of it."""

    place: tuple[KnownXorb, int] | None = None
    digest: bytes = b""
    count: int = 0
    copies: int = 0

    def placed(self, run: Run, digest: bytes) -> None:
        """A run was referenced, or a new chunk stored, that is no copy."""
        place = (run.xorb, run.xorb_start)
        self.count = self.count + 1 if run.count == 1 and place == self.place else 0
        self.place, self.digest, self.copies = place, digest, 0

    def wants_copy(self, digest: bytes) -> bool:
        """True if this chunk is to be stored again, as a part of the stretch."""
        return self.count >= REPEATS_BEFORE_STRETCH and digest == self.digest and self.copies < STRETCH_CHUNKS

    def first_copy(self) -> bool:
        """Count a copy; whether it is where the stretch starts."""
        self.copies += 1
        if self.copies == STRETCH_CHUNKS:
            self.count = 0
        return self.copies == 1


class _PlannedBlock:
    """The chunks of a block as plain values: their sizes, and their hashes under every key that is in use."""

    def __init__(self, chunks: ChunkList, keys: Iterable[bytes | None]) -> None:
        self.sizes = chunks.sizes.tolist()
        self.digests = {key: split_hashes(_as_keyed(key, chunks.hashes)) for key in keys}
        self.plain = self.digests[None]


def _as_keyed(key: bytes | None, hashes: bytes) -> bytes:
    """Packed hashes as they are known under a key."""
    return hashes if key is None else kernel.keyed_hashes(key, hashes)


def _matching(xorb: KnownXorb, index: int, digests: list[bytes], start: int) -> int:
    """The number of chunks from ``start`` on that are the chunks of the xorb from ``index`` on."""
    i = start
    while i < len(digests) and xorb.holds(index + i - start, digests[i]):
        i += 1
    return i - start
