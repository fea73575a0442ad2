"""Alignment of two lists of chunks: which runs are in both, in the same order. Pure.

In each gap, first the one that is everything: what is equal at its ends belongs together. Of the chunks that occur once
on both sides, the heaviest set of runs in the same order is kept and lengthened, and what lies between them is a gap
again. A gap with no such chunk is matched greedily. Expected time is linear, but for sorting the runs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final, TypeAlias

from xetstore.protocol.suite import HASH_BYTES

UNKNOWN: Final = 0xFFFF_FFFF
"""The number of a chunk that the old list does not hold."""

Match: TypeAlias = tuple[int, int, int]
"""Chunks that are equal: where they start in the old list, where in the new one, and how many."""

_MOST_LEVELS: Final = 32


def number(old: bytes, new: bytes) -> tuple[memoryview[int], memoryview[int]]:
    """Numbers (u32) for packed chunk hashes: equal for equal chunks. Each is a place in the old list.

    Chunks whose hashes differ only behind their first 8 bytes may go for unknown, never for equal.
    """
    first: dict[int, int] = {}
    old_ids = array("I", bytes(4 * (len(old) // HASH_BYTES)))
    new_ids = array("I", bytes(4 * (len(new) // HASH_BYTES)))
    for i, word in enumerate(_words(old)):
        at = first.setdefault(word, i)
        old_ids[i] = at if at == i or _digest(old, at) == _digest(old, i) else i
    for j, word in enumerate(_words(new)):
        known = first.get(word)
        new_ids[j] = known if known is not None and _digest(old, known) == _digest(new, j) else UNKNOWN
    return memoryview(old_ids), memoryview(new_ids)


def align(old: memoryview[int], new: memoryview[int]) -> list[Match]:
    """The matches between two numbered lists, in order, without overlap in either."""
    aligner = _Aligner(old, new)
    gaps = [(0, len(old), 0, len(new), _MOST_LEVELS)]
    while gaps:
        gaps += aligner.work(*gaps.pop())
    return sorted(aligner.matches)


_Gap: TypeAlias = tuple[int, int, int, int, int]


class _Aligner:
    def __init__(self, old: memoryview[int], new: memoryview[int]) -> None:
        self._old = old
        self._new = new
        # How often a chunk occurs on each side of the gap at work (2 for more), and where on the old one.
        # The counts are 0 between two gaps.
        self._old_counts = bytearray(len(old))
        self._new_counts = bytearray(len(old))
        self._places = array("I", bytes(4 * len(old)))
        self.matches: list[Match] = []

    def work(self, old_at: int, old_end: int, new_at: int, new_end: int, levels: int) -> list[_Gap]:
        """Match what can be matched in a gap; the gaps that are left."""
        count = self._forward(old_at, old_end, new_at, new_end)
        self._keep(old_at, new_at, count)
        old_at, new_at = old_at + count, new_at + count
        count = self._backward(old_at, old_end, new_at, new_end)
        old_end, new_end = old_end - count, new_end - count
        self._keep(old_end, new_end, count)
        if old_at == old_end or new_at == new_end:
            return []
        runs = self._unique_runs(old_at, old_end, new_at, new_end) if levels else None
        if not runs:
            self._greedy(old_at, old_end, new_at, new_end)
            return []
        gaps: list[_Gap] = []
        chain = _heaviest(runs)
        for at, (i, j, _) in enumerate(chain):
            next_old, next_new, _ = chain[at + 1] if at + 1 < len(chain) else (old_end, new_end, 0)
            back = self._backward(old_at, i, new_at, j)
            ahead = self._forward(i, next_old, j, next_new)
            self._keep(i - back, j - back, back + ahead)
            gaps.append((old_at, i - back, new_at, j - back, levels - 1))
            old_at, new_at = i + ahead, j + ahead
        gaps.append((old_at, old_end, new_at, new_end, levels - 1))
        return [gap for gap in gaps if gap[0] < gap[1] and gap[2] < gap[3]]

    def _keep(self, old_at: int, new_at: int, count: int) -> None:
        if count:
            self.matches.append((old_at, new_at, count))

    def _forward(self, old_at: int, old_end: int, new_at: int, new_end: int) -> int:
        old, new = self._old, self._new
        i, j = old_at, new_at
        while i < old_end and j < new_end and old[i] == new[j]:
            i, j = i + 1, j + 1
        return i - old_at

    def _backward(self, old_at: int, old_end: int, new_at: int, new_end: int) -> int:
        old, new = self._old, self._new
        i, j = old_end, new_end
        while i > old_at and j > new_at and old[i - 1] == new[j - 1]:
            i, j = i - 1, j - 1
        return old_end - i

    def _unique_runs(self, old_at: int, old_end: int, new_at: int, new_end: int) -> list[Match]:
        """Runs of chunks that occur once on each side of a gap, in the order of the new side.

        A chunk that is repeated without a break, as in a hole of a sparse file, occurs once.
        """
        old_counts, new_counts, places = self._old_counts, self._new_counts, self._places
        old, new = self._old[old_at:old_end], self._new[new_at:new_end]
        before = UNKNOWN
        for i, chunk in enumerate(old, old_at):
            if chunk != before:
                old_counts[chunk] = 2 if old_counts[chunk] else 1
                places[chunk] = i
            before = chunk
        before = UNKNOWN
        for chunk in new:
            if chunk not in (before, UNKNOWN):
                new_counts[chunk] = 2 if new_counts[chunk] else 1
            before = chunk
        runs: list[Match] = []
        before = UNKNOWN
        next_old = next_new = -1  # where the last run would go on
        for j, chunk in enumerate(new, new_at):
            if chunk != UNKNOWN and old_counts[chunk] == 1 and new_counts[chunk] == 1:
                if j == next_new and next_old < old_end and self._old[next_old] == chunk:
                    run_old, run_new, count = runs[-1]
                    runs[-1] = (run_old, run_new, count + 1)
                    next_old, next_new = next_old + 1, next_new + 1
                elif chunk != before:
                    runs.append((places[chunk], j, 1))
                    next_old, next_new = places[chunk] + 1, j + 1
            before = chunk
        for chunk in old:
            old_counts[chunk] = 0
        for chunk in new:
            if chunk != UNKNOWN:
                new_counts[chunk] = 0
        return runs

    def _greedy(self, old_at: int, old_end: int, new_at: int, new_end: int) -> None:
        """Match each chunk of the new side with the next equal one of the old side, and what follows it."""
        places: dict[int, array[int]] = {}
        for i in range(old_at, old_end):
            places.setdefault(self._old[i], array("I")).append(i)
        j = new_at
        while j < new_end:
            found = places.get(self._new[j])
            at = bisect_left(found, old_at) if found is not None else 0
            if found is None or at == len(found):
                j += 1
                continue
            i = found[at]
            count = self._forward(i, old_end, j, new_end)
            self._keep(i, j, count)
            old_at, j = i + count, j + count


def _heaviest(runs: list[Match]) -> list[Match]:
    """Of runs in the order of the new side, those in the order of both that have most chunks together."""
    order = sorted(range(len(runs)), key=runs.__getitem__)
    ranks = array("I", bytes(4 * len(runs)))
    for rank, index in enumerate(order, 1):
        ranks[index] = rank
    weights = [0] * len(runs)  # of the best chain that ends with each run
    previous = array("i", [-1]) * len(runs)
    best = array("i", [-1]) * (len(runs) + 1)  # a Fenwick tree: the run whose chain is heaviest among lower ranks
    for index, run in enumerate(runs):
        before, rank = -1, ranks[index] - 1
        while rank:
            if best[rank] >= 0 and (before < 0 or weights[best[rank]] > weights[before]):
                before = best[rank]
            rank &= rank - 1
        previous[index] = before
        weights[index] = run[2] + (weights[before] if before >= 0 else 0)
        rank = ranks[index]
        while rank < len(best):
            if best[rank] < 0 or weights[index] > weights[best[rank]]:
                best[rank] = index
            rank += rank & -rank
    chain = []
    at = max(range(len(runs)), key=weights.__getitem__)
    while at >= 0:
        chain.append(runs[at])
        at = previous[at]
    return chain[::-1]


def _words(hashes: bytes) -> memoryview[int]:
    return memoryview(hashes).cast("Q")[:: HASH_BYTES // 8]


def _digest(hashes: bytes, index: int) -> bytes:
    return hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
