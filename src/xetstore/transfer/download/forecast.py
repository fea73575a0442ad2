"""Forecast of a download: the bytes that it would fetch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.reconstructions import Reconstructions

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.protocol.hashes import Hash


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
    xorbs: set[Hash] = set()
    asking = Reconstructions(cas, FileRange(file, start, end))
    size = fetched_bytes = fetches = 0
    for window in asking.walk():
        for part in window.parts:
            fetched_bytes += part.fetch.byte_end - part.fetch.byte_start
            fetches += 1
            xorbs.add(part.fetch.xorb)
        size += window.length
    return GetForecast(file, size, fetched_bytes, fetches, len(xorbs))
