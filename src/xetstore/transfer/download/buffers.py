"""Memory for a piece of a xorb, used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from xetstore.platform.memory import untouched_memory
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3

_SPARE: Final[deque[tuple[memoryview, memoryview]]] = deque(maxlen=4)


@contextmanager
def piece_buffers(piece_bytes: int) -> Iterator[tuple[memoryview, memoryview]]:
    """Memory for a piece as it comes and as it is decoded: new memory costs as much as to decode a small fetch."""
    body_bytes = piece_bytes + XET_GEARHASH_BLAKE3.max_chunk_bytes + CHUNK_HEADER_BYTES
    raw_bytes = 2 * piece_bytes
    try:
        body, raw = _SPARE.pop()
    except IndexError:
        body = raw = memoryview(b"")
    if (len(body), len(raw)) != (body_bytes, raw_bytes):
        body, raw = _memory(body_bytes), _memory(raw_bytes)
    try:
        yield body, raw
    finally:
        _SPARE.append((body, raw))


def _memory(nbytes: int) -> memoryview:
    """Memory that exists only as far as it is written to: many fetches are small."""
    return memoryview(untouched_memory(nbytes))
