"""Few xorbs that hold many chunks: which of the xorbs that hold them an answer takes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.protocol.hashes import Hash


def cover(holders: Mapping[Hash, Iterable[XorbRow]]) -> list[tuple[XorbRow, list[Hash]]]:
    """Few of the ``holders`` of these chunks, each with the chunks that it is taken for, which together are all.

    The one that holds most of what is left is taken next, of equals the newest. They are in the order of the chunks.
    """
    rows: dict[int, XorbRow] = {}
    held: dict[int, list[Hash]] = {}
    for chunk, holding in holders.items():
        for row in holding:
            rows[row.id] = row
            held.setdefault(row.id, []).append(chunk)
    taken: list[tuple[XorbRow, list[Hash]]] = []
    left = set(holders)
    # A count only falls while chunks are taken: one that is still right when it comes first is the highest.
    queue = [(-len(chunks), -xorb_id) for xorb_id, chunks in held.items()]
    heapq.heapify(queue)
    while left and queue:
        count, xorb_id = heapq.heappop(queue)
        chunks = held[-xorb_id] = [chunk for chunk in held[-xorb_id] if chunk in left]
        if len(chunks) == -count:
            taken.append((rows[-xorb_id], chunks))
            left.difference_update(chunks)
        elif chunks:
            heapq.heappush(queue, (-len(chunks), xorb_id))
    place = {chunk: number for number, chunk in enumerate(holders)}
    return sorted(taken, key=lambda one: place[one[1][0]])
