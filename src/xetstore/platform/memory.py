"""Memory that exists only as far as it was written to."""

from __future__ import annotations

import mmap
import sys


def untouched_memory(nbytes: int) -> mmap.mmap:
    """Zeros, of which a page is taken from the system when it is first written to."""
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
