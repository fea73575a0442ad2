"""Forecast of a download: the bytes that it would fetch."""

from __future__ import annotations

from dataclasses import dataclass

from xetstore.errors import RangeError, UsageError
from xetstore.events import ignore
from xetstore.interfaces import Cas
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.windows import Reconstructions

_WINDOW_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class GetForecast:
    """``size`` bytes of the file would be written; for that, ``fetches`` requests would bring ``fetched_bytes`` of
    ``xorbs`` xorbs, compressed.
    """

    hash: Hash
    size: int
    fetched_bytes: int
    fetches: int
    xorbs: int


def forecast(cas: Cas, file: Hash, start: int = 0, end: int | None = None) -> GetForecast:
    """Ask how bytes ``[start, end)`` of a file are rebuilt, and add up; nothing else is fetched.

    Raises NotFoundError, RangeError, UsageError (a negative or reversed range) and IntegrityError.
    """
    if start < 0 or (end is not None and end < start):
        raise UsageError(f"{start}:{end} is not a byte range", hint="give START:END with 0 <= START <= END")
    asking = Reconstructions(cas, file, ignore)
    xorbs: set[Hash] = set()
    size = fetched_bytes = fetches = 0
    position = start
    if start == end:
        asking.exists(start)
    while end is None or position < end:
        asked = position + _WINDOW_BYTES if end is None else min(position + _WINDOW_BYTES, end)
        try:
            window = asking.ask(position, asked, limit=end, aligned=position > start)
        except RangeError:
            if position == start:
                raise
            break
        for part in window.parts:
            fetched_bytes += part.fetch.byte_end - part.fetch.byte_start
            fetches += 1
            xorbs.add(part.fetch.xorb)
        size += window.length
        position = window.end
        if window.is_last or not window.length:
            break
    return GetForecast(file, size, fetched_bytes, fetches, len(xorbs))
