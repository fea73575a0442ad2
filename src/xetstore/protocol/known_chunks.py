"""Chunks that are known, and where they are: of this session, and of dedup answers under their keys (draft 10.2)."""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.suite import HASH_BYTES

if TYPE_CHECKING:
    from xetstore.protocol.shard import Shard

MAX_KNOWN_CHUNKS = 131_072
"""Chunks that a session remembers: some 8 GiB of content, 40 MB of memory. The oldest xorb goes first."""


@dataclass(eq=False, slots=True)
class KnownXorb:
    """A xorb whose chunks may be referenced: stored already, or being filled by this session.

    ``name`` is None until the xorb is complete. ``hashes`` are packed chunk hashes, keyed with ``key`` where
    a dedup answer gave them (10.3.3). ``is_hint`` says that the session has not stored it itself: it may be gone.
    ``ends_answer`` says that it was the last one of several: what follows it in a file may be known to the store.
    """

    name: Hash | None = None
    key: bytes | None = None
    hashes: bytearray = field(default_factory=bytearray)
    raw_bytes: int = 0
    is_hint: bool = False
    ends_answer: bool = False

    @property
    def chunk_count(self) -> int:
        """Chunks so far."""
        return len(self.hashes) // HASH_BYTES

    def holds(self, index: int, digest: bytes) -> bool:
        """True if chunk ``index`` exists and has this (equally keyed) hash."""
        return self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES] == digest


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive chunks of a block that lie consecutively in one xorb.

    ``block_start`` counts chunks in the planned block, ``xorb_start`` in the xorb; ``new`` chunks are not
    stored yet and must be appended to the xorb in this order.
    """

    xorb: KnownXorb
    xorb_start: int
    block_start: int
    count: int
    new: bool


@dataclass(frozen=True, slots=True)
class Revision:
    """New chunks that turned out to be stored already, and are dropped from the xorb that is being filled.

    ``chunks`` are those of the xorb before. ``runs`` tell where these are from now on, in order: those in ``xorb`` were
    kept, the others dropped. Their ``block_start`` counts in ``chunks``. ``again`` are the chunks, by number, that had
    been stored again on purpose.
    """

    xorb: KnownXorb
    chunks: ChunkList
    runs: list[Run]
    again: frozenset[int] = frozenset()

    def again_bytes(self, start: int, end: int) -> int:
        """Raw bytes of those of chunks ``[start, end)`` that had been stored again on purpose."""
        return sum(self.chunks.sizes[i] for i in self.again if start <= i < end)

    @property
    def dropped(self) -> list[tuple[int, int]]:
        """The spans of chunks ``[start, end)`` that are gone, as they were numbered before."""
        return [(run.block_start, run.block_start + run.count) for run in self.runs if run.xorb is not self.xorb]

    def runs_of(self, start: int, end: int) -> Iterator[Run]:
        """Places of chunks ``[start, end)``, as they were numbered before."""
        for run in self.runs[bisect_right(self.runs, start, key=lambda run: run.block_start) - 1 :]:
            if run.block_start >= end:
                break
            cut, stop = max(start, run.block_start), min(end, run.block_start + run.count)
            yield Run(run.xorb, run.xorb_start + cut - run.block_start, cut, stop - cut, run.new)


class ChunkIndex:
    """Places of known chunks by hash: this session's, and those of dedup answers under their keys."""

    def __init__(self, max_chunks: int = MAX_KNOWN_CHUNKS) -> None:
        self._max_chunks = max_chunks
        self._tables: dict[bytes | None, dict[bytes, tuple[KnownXorb, int]]] = {None: {}}
        self._answered: dict[tuple[bytes | None, Hash], KnownXorb] = {}
        self._order: deque[KnownXorb] = deque()
        self._count = 0
        self.open_xorb()

    @property
    def plain(self) -> Container[bytes]:
        """The chunks that are known by their plain hashes."""
        return self._tables[None]

    @property
    def keys(self) -> Iterable[bytes | None]:
        """Every key under which hashes are known; None for plain ones."""
        return self._tables.keys()

    @property
    def filling_chunks(self) -> ChunkList:
        """The chunks of the xorb that is being filled, so far."""
        return ChunkList(bytes(self.filling.hashes), struct.pack(f"={len(self.filling_sizes)}Q", *self.filling_sizes))

    def open_xorb(self) -> KnownXorb:
        """A new xorb of this session, to be filled with :meth:`add`: :attr:`filling` from now on."""
        self.filling = KnownXorb()
        self.filling_sizes: list[int] = []
        self._order.append(self.filling)
        return self.filling

    def add(self, xorb: KnownXorb, digest: bytes, length: int) -> int:
        """Append a chunk to a xorb of this session; its index in it. The first place of a chunk is kept."""
        index = xorb.chunk_count
        xorb.hashes += digest
        xorb.raw_bytes += length
        if xorb is self.filling:
            self.filling_sizes.append(length)
        self._tables[None].setdefault(digest, (xorb, index))
        self._count += 1
        self._evict()
        return index

    def move(self, digest: bytes, xorb: KnownXorb, index: int) -> None:
        """Let a chunk of this session be found in another place of it from now on."""
        self._tables[None][digest] = (xorb, index)

    def learn(self, answer: Shard) -> bool:
        """Take in the xorbs of a dedup answer or of a cached shard (10.2, 10.3.2). True if there was a new one.

        The first ones matter most: a long answer is taken in up to half of what may be remembered.
        """
        table = self._tables.setdefault(answer.key, {})
        room = self._max_chunks // 2
        last: KnownXorb | None = None
        for entry in answer.xorbs:
            if (answer.key, entry.hash) in self._answered:
                continue
            room -= len(entry.chunks)
            if room < 0 and last is not None:
                break
            last = known = KnownXorb(entry.hash, answer.key, bytearray(entry.chunks.hashes), is_hint=True)
            self._answered[answer.key, entry.hash] = known
            digests = split_hashes(entry.chunks.hashes)
            for index, digest in enumerate(digests):
                table.setdefault(digest, (known, index))
            _prefer_stretches(table, known, digests)
            self._order.append(known)
            self._count += known.chunk_count
        if last is not None:
            last.ends_answer = len(answer.xorbs) > 1
        self._evict()
        return last is not None

    def renumber(self, runs: Iterable[Run]) -> None:
        """Drop those chunks of the xorb that is being filled of which a run says that they are elsewhere; the others
        move up. The runs are those of all of its chunks.
        """
        xorb, plain = self.filling, self._tables[None]
        digests, sizes = split_hashes(bytes(xorb.hashes)), self.filling_sizes
        self.filling_sizes = []
        del xorb.hashes[:]
        for run in runs:
            old = slice(run.block_start, run.block_start + run.count)
            if run.xorb is xorb:
                xorb.hashes += b"".join(digests[old])
                self.filling_sizes += sizes[old]
            else:
                xorb.raw_bytes -= sum(sizes[old])
                self._count -= run.count
            if run.xorb is xorb and run.xorb_start == run.block_start:
                continue
            for i, digest in enumerate(digests[old]):
                if plain.get(digest) == (xorb, run.block_start + i):
                    if run.xorb is xorb:
                        plain[digest] = (xorb, run.xorb_start + i)
                    else:
                        del plain[digest]

    def find(self, key: bytes | None, digest: bytes) -> tuple[KnownXorb, int] | None:
        """The first known place of a chunk, its hash given as keyed with ``key``."""
        return self._tables[key].get(digest)

    def _evict(self) -> None:
        while self._count > self._max_chunks and len(self._order) > 1:
            oldest = self._order.popleft()
            if oldest is self.filling:
                # It is still growing: its turn comes when it is complete.
                self._order.append(oldest)
                oldest = self._order.popleft()
            table = self._tables[oldest.key]
            for index in range(oldest.chunk_count):
                digest = bytes(oldest.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES])
                place = table.get(digest)
                if place is not None and place[0] is oldest:
                    del table[digest]
            self._count -= oldest.chunk_count
            oldest.hashes = bytearray()  # the terms of a file keep the xorb itself
            if oldest.name is not None:
                self._answered.pop((oldest.key, oldest.name), None)
            if oldest.key is not None and not table:
                del self._tables[oldest.key]


def _prefer_stretches(table: dict[bytes, tuple[KnownXorb, int]], xorb: KnownXorb, digests: Sequence[bytes]) -> None:
    """Let a chunk that a xorb has several times in a row be found where that is longest: a file of nothing else has
    long terms there.
    """
    start = 0
    for digest, repeated in groupby(digests):
        count = sum(1 for _ in repeated)
        if count > 1:
            held, index = table[digest]
            known = next(n for n in itertools.count(1) if not held.holds(index + n, digest))
            if count > known:
                table[digest] = xorb, start
        start += count
