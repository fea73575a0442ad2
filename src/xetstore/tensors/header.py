"""The header of a file of tensors, as both formats tell it, and the bounds that both keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from xetstore.errors import FormatError
from xetstore.tensors.dtypes import DType

MAX_HEADER_BYTES: Final = 100_000_000
"""The longest header that is read, as in the safetensors library."""

MAX_VALUES: Final = 2_000_000
"""The most values in a header, of all kinds together: so memory is bounded, however they are nested."""

MAX_DIMENSIONS: Final = 64
FIRST_READ_BYTES: Final = 128 << 10
"""Bytes of the first read: most headers are in it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file: its bytes are ``[start, end)`` there. ``shape`` is that of numpy, the last axis dense."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """All that a header says. ``entries`` are in the order of their bytes."""

    format: str
    entries: tuple[Entry, ...]
    metadata: Mapping[str, Any]


class Beginning:
    """The first bytes of a file, read as far as they are asked for, and each once."""

    def __init__(self, size: int, read: Callable[[int, int], bytearray]) -> None:
        self.size = size
        self._read = read
        self.data = bytearray()

    def upto(self, end: int, rule: str) -> bytearray:
        """At least the bytes up to ``end``. FormatError where the file, or any header, is shorter."""
        if end > len(self.data):
            if end > self.size:
                if not self.data:
                    raise FormatError(rule, 0, f"it is no file of safetensors or GGUF, with {self.size} bytes")
                raise FormatError(rule, len(self.data), f"the header goes on to byte {end:,} of {self.size:,}")
            if end > MAX_HEADER_BYTES:
                raise FormatError(rule, len(self.data), f"the header is longer than {MAX_HEADER_BYTES:,} bytes")
            ahead = max(end, FIRST_READ_BYTES, min(4 * len(self.data), MAX_HEADER_BYTES))
            self.data += self._read(len(self.data), min(ahead, self.size))
        return self.data


def sized(dtype: DType, shape: tuple[int, ...], rule: str, at: int, name: str) -> int:
    """Bytes of a tensor. FormatError for a shape that none has."""
    if len(shape) > MAX_DIMENSIONS:
        raise FormatError(rule, at, f"{name} has {len(shape)} dimensions")
    if any(not 0 <= dimension < 1 << 63 for dimension in shape):
        raise FormatError(rule, at, f"{name} has a dimension below 0 or above 2^63")
    elements = prod(shape)
    if elements >= 1 << 60:
        raise FormatError(rule, at, f"{name} has 2^60 elements or more")
    nbytes = dtype.nbytes(elements)
    if nbytes is None:
        raise FormatError(rule, at, f"{name} has {elements} elements, and {dtype.name} comes {dtype.block} at a time")
    return nbytes


def in_order(entries: Iterable[Entry], size: int, rule: str, at: int) -> tuple[Entry, ...]:
    """The entries in the order of their bytes. FormatError where two overlap, or one is not all in the file."""
    ordered = sorted(entries, key=lambda entry: (entry.start, entry.end))
    end = 0
    for entry in ordered:
        if entry.start < end:
            raise FormatError(rule, at, f"the bytes of {shown(entry.name)} overlap those of another tensor")
        end = entry.end
    if end > size:
        raise FormatError(rule, at, f"{shown(ordered[-1].name)} ends at byte {end:,} of {size:,}")
    return tuple(ordered)


def shown(name: str) -> str:
    """A name as a message shows it."""
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
