"""Memory that exists only as far as it was written to, and memory that is used again."""

from __future__ import annotations

import mmap
import sys
from collections import deque
from typing import Final

SPARE_BYTES: Final = 2 << 20
"""The size of memory that is used again."""

_MOST_BLOCKS: Final = 4
_SPARE: Final[deque[bytearray]] = deque(maxlen=_MOST_BLOCKS)


def untouched_memory(nbytes: int) -> mmap.mmap:
    """Zeros, of which a page is taken from the system when it is first written to."""
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def spare_memory(nbytes: int) -> memoryview:
    """Memory with any bytes in it, of a block that is used again once there is no view of it any more; of its own where
    all blocks are in use.

    New memory costs as much as to read a MiB into it. Thread-safe.
    """
    if nbytes > SPARE_BYTES:
        return memoryview(bytearray(nbytes))
    for _ in range(len(_SPARE)):
        try:
            block = _SPARE.popleft()  # so that another thread does not find it
        except IndexError:
            break
        try:
            block.append(block.pop())  # BufferError if there is a view
        except BufferError:
            _SPARE.append(block)
            continue
        return _lent(block, nbytes)
    if len(_SPARE) >= _MOST_BLOCKS:
        return memoryview(bytearray(nbytes))
    return _lent(bytearray(SPARE_BYTES), nbytes)


def _lent(block: bytearray, nbytes: int) -> memoryview:
    view = memoryview(block)[:nbytes]
    _SPARE.append(block)
    return view
