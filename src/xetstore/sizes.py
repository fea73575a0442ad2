"""Sizes in bytes as people read them, on a terminal and on the status page."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")


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
