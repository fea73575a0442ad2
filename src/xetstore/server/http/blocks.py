"""Blocks of memory for bodies, used again and again: fresh memory costs as much as the work with it."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

KEPT_BLOCKS: Final = 8
"""Of each size. More are made where they are needed, and not kept."""


class Blocks:
    """For one thread, the event loop's."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[memoryview]] = defaultdict(list)

    def take(self, nbytes: int) -> memoryview:
        """A block of this size, with anything in it."""
        free = self._free[nbytes]
        return free.pop() if free else memoryview(bytearray(nbytes))

    def give_back(self, block: memoryview) -> None:
        """Give it back: neither it nor a part of it is used any more."""
        free = self._free[len(block)]
        if len(free) < KEPT_BLOCKS:
            free.append(block)


blocks: Final = Blocks()
