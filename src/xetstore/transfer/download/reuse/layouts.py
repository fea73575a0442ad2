"""Layouts: which chunks make which bytes of files, so that what the chunk cache has is not asked for again.

Where the bytes of a range lie is only known from its reconstruction, with which they may come along. So what this
process was told of a file is remembered; and of a file that it knows nothing of it finds out by the first read, whether
another one has put it into the cache.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from xetstore.platform import forks

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.transfer.download.plan import Window
    from xetstore.transfer.download.reuse.chunk_cache import ChunkCache

MOST_FILES: Final = 1024
MOST_SPANS: Final = 256
"""Of one file; a span takes some 200 bytes."""
LOOKS: Final = 4
"""Spans that begin before a range and are looked at."""

_Chunks = tuple["Hash", int, int]
"""Chunks ``[start, end)`` of a xorb."""
_Span = tuple[int, int, tuple[_Chunks, ...]]


@dataclass(slots=True)
class _File:
    """The ranges of one file that were read. ``is_cached`` if the last of them was in the cache before."""

    is_cached: bool
    spans: list[_Span] = field(default_factory=list)

    def covering(self, start: int, end: int) -> tuple[_Chunks, ...] | None:
        at = bisect_right(self.spans, start, key=itemgetter(0))
        looked_at = reversed(self.spans[max(0, at - LOOKS) : at])
        return next((chunks for _, reach, chunks in looked_at if end <= reach), None)


class Layouts:
    """The layouts of files that were read lately. Thread-safe."""

    def __init__(self) -> None:
        self._files: OrderedDict[Hash, _File] = OrderedDict()
        self._begin()
        forks.renew(self, Layouts._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()

    def lacks(self, cache: ChunkCache, file: Hash, start: int, end: int) -> bool:
        """True if ``cache`` is not known to have all chunks of bytes ``[start, end)`` of a file."""
        with self._lock:
            known = self._files.get(file)
            if known is None:
                return True
            chunks = known.covering(start, end)
            if chunks is None:
                return not known.is_cached
        return not all(cache.holds(*one) for one in chunks)

    def note(self, cache: ChunkCache, file: Hash, window: Window) -> None:
        """Remember a window whose chunks are about to be read."""
        chunks = tuple((part.fetch.xorb, part.fetch.chunk_start, part.fetch.chunk_end) for part in window.parts)
        came_along = any(part.body is not None for part in window.parts)
        is_cached = False
        if not came_along or file not in self._files:
            is_cached = all(cache.holds(*one) for one in chunks)
        with self._lock:
            known = self._files.setdefault(file, _File(is_cached))
            self._files.move_to_end(file)
            if len(self._files) > MOST_FILES:
                self._files.popitem(last=False)
            known.is_cached = is_cached
            if known.covering(window.position, window.end) is None:
                insort(known.spans, (window.position, window.end, chunks), key=itemgetter(0))
                if len(known.spans) > MOST_SPANS:
                    known.spans.pop(0 if window.position > known.spans[MOST_SPANS // 2][0] else -1)
