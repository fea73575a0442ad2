"""Few xorbs that hold many chunks: a choice among all that hold them."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

_Chunk = TypeVar("_Chunk", bound=Hashable)


def cover(holders: Mapping[_Chunk, Iterable[int]], most: int) -> list[tuple[int, list[_Chunk]]]:
    """Few of the ``holders`` of these chunks, by their ids, each with the chunks it is taken for; together all of them,
    unless that takes more than ``most``.

    The one that holds most of what is left is taken next, of equals the newest, which has the higher id. They are in
    the order of the chunks.
    """
    held: dict[int, list[_Chunk]] = {}
    for chunk, ids in holders.items():
        for xorb_id in ids:
            held.setdefault(xorb_id, []).append(chunk)
    taken: list[tuple[int, list[_Chunk]]] = []
    left = set(holders)
    # A count only falls while chunks are taken: one that is still right when it comes first is the highest.
    queue = [(-len(chunks), -xorb_id) for xorb_id, chunks in held.items()]
    heapq.heapify(queue)
    while left and queue and len(taken) < most:
        count, xorb_id = (-number for number in heapq.heappop(queue))
        chunks = held[xorb_id] = [chunk for chunk in held[xorb_id] if chunk in left]
        if len(chunks) == count:
            taken.append((xorb_id, chunks))
            left.difference_update(chunks)
        elif chunks:
            heapq.heappush(queue, (-len(chunks), -xorb_id))
    place = {chunk: number for number, chunk in enumerate(holders)}
    return sorted(taken, key=lambda one: place[one[1][0]])
