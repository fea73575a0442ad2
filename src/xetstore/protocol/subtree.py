"""Merkle subtrees: a run of chunks, aggregated as far as its neighbours cannot matter, to be joined later (draft 6.2).

The draft gives a file's merkle root as a function of the list of all its chunks. A MerkleSubtree stands for a
part of that list, in memory logarithmic in its length (if hashes look random), so that the root of an edited
file can be computed from what its untouched parts left, without their chunks.

Where a node of the tree ends depends on where its neighbour ended. A *cut* is an entry that ends a node if at
least two entries of the node come before it (6.2.2.2). Of two consecutive cuts that are 3 to 7 entries apart the
second ends a node for sure, wherever the node of the first began: if the first ends one, the next has room for
exactly the second; if it is too early to end one, the node goes on to the second. So a node begins behind it in any
case: a *firm* place. On each level of the tree, what lies between the first and the last firm place is turned into
nodes, which go up a level; what lies in front stays as the left of the level, what lies behind as its right.

The form is that of the reference client (1.8.0), where it travels as JSON: equal to ours in all, as observed.
``nodes`` is all lefts from the lowest level up, then all rights from the highest level down;
``levels`` counts them. A firm place needs a third cut there, as far off on its other side; so it is here. By that the
reference finds again, when it joins, where its nodes went up, if parts are joined from the start of the list on. Ours
are joined in any order: a level below another is known to have such a place. Draft 05 has no word on all this.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Annotated, Final

import msgspec

from xetstore.errors import FormatError, UsageError
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

_MIN_CHILDREN: Final = 2
"""Entries in front of a cut in its node, at least (6.2.2.2)."""
_LENGTH_BYTES: Final = 8
_U64_MAX: Final = 2**64 - 1
MAX_LEVELS: Final = 64
"""A node has at least two children, but for the last of a level, and no list has 2**64 entries."""

_Level = tuple[ChunkList, ChunkList]


@dataclass(frozen=True, slots=True)
class MerkleSubtree:
    """The rest of a run of chunks: on each level of the tree the nodes whose parents are not known yet.

    ``levels`` has, from the chunks up, the entries in front of and behind what went up. ``at_start`` and ``at_end``
    say that the run begins, or ends, where the whole list does. A ChunkList here is one of nodes: hashes, and bytes of
    raw data beneath each.

    >>> from xetstore.protocol.chunking import chunk_bytes
    >>> chunks = chunk_bytes(bytes(range(256)) * 4000)
    >>> head = MerkleSubtree.of(chunks.slice(0, 3), at_start=True)
    >>> whole = head.join(MerkleSubtree.of(chunks.slice(3, len(chunks)), at_end=True))
    >>> whole == MerkleSubtree.of(chunks, at_start=True, at_end=True)
    True
    """

    levels: tuple[_Level, ...]
    at_start: bool
    at_end: bool

    @classmethod
    def of(
        cls,
        chunks: ChunkList,
        *,
        at_start: bool = False,
        at_end: bool = False,
        suite: AlgorithmSuite = XET_GEARHASH_BLAKE3,
    ) -> MerkleSubtree:
        """The subtree of consecutive chunks. Takes time linear in their number."""
        return cls(_aggregate(((chunks, ChunkList.EMPTY),), (), at_start, at_end, suite), at_start, at_end)

    def join(self, following: MerkleSubtree, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> MerkleSubtree:
        """This run and the one that follows it, as one. ValueError if this one ends the list, or that one begins it."""
        if self.at_end or following.at_start:
            raise ValueError("nothing follows the end of a list, and its start follows nothing")
        levels = _aggregate(self.levels, following.levels, self.at_start, following.at_end, suite)
        return MerkleSubtree(levels, self.at_start, following.at_end)

    @classmethod
    def join_all(cls, subtrees: Iterable[MerkleSubtree], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> MerkleSubtree:
        """Consecutive runs, at least one, as one run."""
        return reduce(lambda joined, following: joined.join(following, suite), subtrees)

    @property
    def root(self) -> Hash:
        """The merkle root, of the whole list: Hash.ZERO of an empty one (6.2.2). ValueError for a part of a list."""
        if not (self.at_start and self.at_end):
            raise ValueError("a part of a list has no merkle root")
        top, _ = self.levels[-1]
        if self.node_count != len(top) or len(top) > 1:
            raise ValueError("these levels do not come from a whole list")
        return Hash(top.digest(0)) if len(top) else Hash.ZERO

    @property
    def node_count(self) -> int:
        """Nodes held, on all levels. None of an empty run."""
        return sum(len(left) + len(right) for left, right in self.levels)

    @property
    def total_bytes(self) -> int:
        """Raw bytes of the chunks this stands for."""
        return sum(part.total_bytes for level in self.levels for part in level)

    def to_wire(self) -> WireSubtree:
        """The form that travels, for msgspec to encode."""
        lefts = (left for left, _ in self.levels)
        rights = (right for _, right in reversed(self.levels))
        return WireSubtree(
            nodes=[WireNode(str(digest), size) for part in chain(lefts, rights) for digest, size in part],
            levels=[(len(left), len(right)) for left, right in self.levels],
            at_start=self.at_start,
            at_end=self.at_end,
        )

    @classmethod
    def from_wire(cls, wire: WireSubtree) -> MerkleSubtree:
        """Read the form that travels. FormatError where its parts do not fit together."""
        if not 0 < len(wire.levels) <= MAX_LEVELS:
            raise _broken("levels", f"a tree of {len(wire.levels)} levels")
        if len(wire.levels) > 1 and not any(wire.levels[-1]):
            raise _broken("levels", "the highest level is empty")
        below = wire.levels[:-1]
        if (wire.at_start and any(left for left, _ in below)) or (
            wire.at_end and any(right for _, right in wire.levels)
        ):
            raise _broken("edge", "nodes are held back for neighbours where there are none")
        total = sum(left + right for left, right in wire.levels)
        if total != len(wire.nodes):
            raise _broken("nodes", f"{len(wire.nodes)} nodes where the levels have {total}")
        if sum(node.size for node in wire.nodes) > _U64_MAX:
            raise _broken("size", "the nodes stand for more than 64 bits of bytes")
        try:
            hashes = b"".join(Hash.parse(node.hash).digest for node in wire.nodes)
        except UsageError as error:
            raise _broken("hash", str(error)) from None
        nodes = ChunkList(hashes, array("Q", (node.size for node in wire.nodes)).tobytes())
        levels: list[_Level] = []
        first, end = 0, total
        for left, right in wire.levels:
            levels.append((nodes.slice(first, first + left), nodes.slice(end - right, end)))
            first, end = first + left, end - right
        return cls(tuple(levels), wire.at_start, wire.at_end)


_Count = Annotated[int, msgspec.Meta(ge=0)]


class WireNode(msgspec.Struct):
    """A node as it travels: its hash in the string form of 6.5, and the bytes beneath it."""

    hash: str
    size: _Count


class WireSubtree(msgspec.Struct):
    """A MerkleSubtree as it travels. ``levels`` counts the left and the right nodes of each level, the lowest first."""

    nodes: list[WireNode]
    levels: list[tuple[_Count, _Count]]
    at_start: bool
    at_end: bool


def _aggregate(
    ours: Sequence[_Level], theirs: Sequence[_Level], at_start: bool, at_end: bool, suite: AlgorithmSuite
) -> tuple[_Level, ...]:
    """The levels of one run, from those of its first part and of the rest: level after level up."""
    levels: list[_Level] = []
    promoted = ChunkList.EMPTY
    while len(levels) < max(len(ours), len(theirs)) or len(promoted):
        our_left, our_right, we_promoted = _level(ours, len(levels))
        their_left, their_right, they_promoted = _level(theirs, len(levels))
        parts = [part for part in (our_left, our_right, promoted, their_left, their_right) if len(part)]
        # A long run is one part at first: it need not be copied.
        entries = parts[0] if len(parts) == 1 else ChunkList.concat(parts)
        start = len(our_left) if we_promoted else None
        end = len(entries) - len(their_right) if they_promoted else None
        left, promoted, right = _split(entries, start, end, at_start, at_end, suite)
        levels.append((left, right))
        # A level begins where the list does only if nothing stayed in front of it further down.
        at_start = at_start and not len(left)
        at_end = at_end and not len(right)
    while len(levels) > 1 and not any(map(len, levels[-1])):
        levels.pop()
    return tuple(levels)


def _level(levels: Sequence[_Level], index: int) -> tuple[ChunkList, ChunkList, bool]:
    """Left and right of a level, and whether nodes from between them went up."""
    left, right = levels[index] if index < len(levels) else (ChunkList.EMPTY, ChunkList.EMPTY)
    return left, right, index + 1 < len(levels)


def _split(
    entries: ChunkList, start: int | None, end: int | None, at_start: bool, at_end: bool, suite: AlgorithmSuite
) -> tuple[ChunkList, ChunkList, ChunkList]:
    """Entries of one level: what stays in front, the nodes over those in between, what stays behind.

    ``start`` and ``end`` are given where nodes went up before already, from there: in that place, nothing can stay.
    """
    fixed = start is not None or end is not None
    kept = entries, ChunkList.EMPTY, ChunkList.EMPTY
    if len(entries) <= 1 and not fixed:
        return kept
    cuts = _cuts(entries, suite)
    if start is None:
        start = 0 if at_start else _first_firm_place(cuts, suite)
    if start is None:
        if end is None:
            return kept
        start = end
    if end is None:
        end = len(entries) if at_end else _last_firm_place(cuts, start, suite)
    if end is None:
        if not fixed:
            return kept
        end = start
    start = min(start, end)
    if start == end and not fixed:
        return kept
    nodes = _nodes(entries, _groups(cuts, start, end, suite), suite)
    return entries.slice(0, start), nodes, entries.slice(end, len(entries))


def _cuts(entries: ChunkList, suite: AlgorithmSuite) -> Sequence[int]:
    """The places of entries that may end a node (6.2.2.2)."""
    modulus = suite.mean_branching
    words = struct.iter_unpack("<24xQ", entries.hashes)
    return array("q", (index for index, (word,) in enumerate(words) if not word % modulus))


def _first_firm_place(cuts: Sequence[int], suite: AlgorithmSuite) -> int | None:
    """Behind the first firm cut."""
    return next((cuts[i] + 1 for i in range(1, len(cuts) - 1) if _is_firm(cuts, i, suite)), None)


def _last_firm_place(cuts: Sequence[int], start: int, suite: AlgorithmSuite) -> int | None:
    """Behind the last cut that is firm even if nothing is known of the entries in front of ``start``."""
    first = bisect_left(cuts, start)
    return next((cuts[i] + 1 for i in range(len(cuts) - 2, first, -1) if _is_firm(cuts, i, suite)), None)


def _is_firm(cuts: Sequence[int], index: int, suite: AlgorithmSuite) -> bool:
    """True if both the cuts next to this one are far enough off, and near enough."""
    near_enough = suite.max_children - 1
    before, cut, behind = cuts[index - 1], cuts[index], cuts[index + 1]
    return _MIN_CHILDREN < cut - before < near_enough and _MIN_CHILDREN < behind - cut < near_enough


def _groups(cuts: Sequence[int], start: int, end: int, suite: AlgorithmSuite) -> Iterator[tuple[int, int]]:
    """The children ``[first, end)`` of each node over entries ``[start, end)``."""
    cut = 0
    while start < end:
        limit = min(start + suite.max_children, end)
        while cut < len(cuts) and cuts[cut] < start + _MIN_CHILDREN:
            cut += 1
        stop = cuts[cut] + 1 if cut < len(cuts) and cuts[cut] < limit else limit
        yield start, stop
        start = stop


def _nodes(entries: ChunkList, groups: Iterable[tuple[int, int]], suite: AlgorithmSuite) -> ChunkList:
    hashes: list[bytes] = []
    sizes = array("Q")
    every = entries.sizes
    for first, end in groups:
        size = sum(every[first:end])
        if end - first > 1:
            # The root over the children of one node is that node.
            packed = entries.hashes[first * HASH_BYTES : end * HASH_BYTES]
            lengths = entries.lengths[first * _LENGTH_BYTES : end * _LENGTH_BYTES]
            hashes.append(kernel.merkle_root(suite.kernel, packed, lengths))
        else:
            line = f"{Hash(entries.digest(first))} : {size}\n"  # 6.2.1
            hashes.append(kernel.keyed_hash(suite.node_key, line.encode("ascii")))
        sizes.append(size)
    return ChunkList(b"".join(hashes), sizes.tobytes())


def _broken(rule: str, detail: str) -> FormatError:
    return FormatError(f"subtree.{rule}", 0, detail)
