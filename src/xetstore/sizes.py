"""Sizes in bytes, and spans of time, as people read and write them: on a terminal, on the command line, in settings."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_SPAN: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)?")
_SPAN_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size_text(nbytes: int) -> str:
    """A size for people: ``12.5 MiB``.

    >>> size_text(1023), size_text(1024), size_text(5_000_000_000)
    ('1023 B', '1.0 KiB', '4.7 GiB')
    """
    if nbytes < 1024:
        return f"{nbytes} B"
    size = float(nbytes)
    for unit in _UNITS:
        size /= 1024
        if size < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}"


def parse_size(text: str) -> int:
    """A size as people write it, in bytes: ``k``, ``M``, ``G``, ``T`` and ``KiB`` count by 1024, ``KB`` by 1000.

    Raises ValueError for anything else.

    >>> [parse_size(text) for text in ("500", "500k", "1.5M", "2GiB", "2 GB")]
    [500, 512000, 1572864, 2147483648, 2000000000]
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a size")
    number, letter, rest = match[1], match[2], (match[3] or "").lower()
    step = 1000 if rest == "b" else 1024
    return int(float(number) * step ** (1 + "kmgt".index(letter.lower()) if letter else 0))


def parse_span(text: str) -> float:
    """A span of time as people write it, in seconds. Raises ValueError for anything else.

    >>> [parse_span(text) for text in ("20", "500ms", "15m", "22d")]
    [20.0, 0.5, 900.0, 1900800.0]
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a span of time")
    return float(match[1]) * _SPAN_UNITS[match[2] or "s"]
