"""Byte ranges as HTTP has them (RFC 9110, section 14): the Range header, Content-Range, multipart/byteranges. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from xetstore.errors import RangeError

MAX_RANGES: Final = 8192
"""Most ranges a header may list. A xorb has no more chunks."""
MAX_HEADER_CHARS: Final = 65_536

_MEDIA_TYPE: Final = "application/octet-stream"
# A position no object has. Longer numbers are not parsed, which would take time quadratic in their length (14.1.1).
_FAR: Final = 10**19
_MAX_DIGITS: Final = 19
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """One range of a header, as written: ``first-last``, ``first-`` (last is None), ``-last`` (first is None).

    ``last`` is inclusive; without ``first`` it is how many bytes of the end are wanted.
    """

    first: int | None
    last: int | None

    def resolve(self, size: int) -> tuple[int, int] | None:
        """``[start, end)`` in an object of ``size`` bytes, cut off at its end; None if no byte of it is meant."""
        if self.first is None:
            start, end = max(size - (self.last or 0), 0), size
        else:
            start, end = self.first, size if self.last is None else min(self.last + 1, size)
        return (start, end) if start < end else None


class UnsatisfiableRangeError(RangeError):
    """No range asked for holds a byte of the object of ``size`` bytes (15.5.17)."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size

    @property
    def content_range(self) -> str:
        """The Content-Range of the 416."""
        return f"bytes */{self.size}"


def parse_range(header: str) -> tuple[RangeSpec, ...] | None:
    """The ranges of a Range header in the order listed, or None if it is malformed or too long (14.1.1, 14.2).

    >>> parse_range("bytes=0-9, 90-, -5")
    (RangeSpec(first=0, last=9), RangeSpec(first=90, last=None), RangeSpec(first=None, last=5))
    >>> parse_range("bytes=9-0")
    """
    unit, equals, listed = header.partition("=")
    if len(header) > MAX_HEADER_CHARS or not equals or unit.lower() != "bytes":
        return None
    specs: list[RangeSpec] = []
    for element in listed.split(","):
        text = element.strip(" \t")
        if not text:
            continue  # 5.6.1.2: a recipient ignores empty elements.
        match = _SPEC.fullmatch(text)
        if match is None or len(specs) == MAX_RANGES:
            return None
        first, last = (_position(digits) for digits in match.groups())
        # 14.1.1: "an int-range is invalid if the last-pos value is present and less than first-pos".
        if (first is None and last is None) or (first is not None and last is not None and last < first):
            return None
        specs.append(RangeSpec(first, last))
    return tuple(specs) or None


def _position(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else _FAR


def resolve(specs: Iterable[RangeSpec], size: int) -> tuple[tuple[int, int], ...]:
    """The ranges as ``[start, end)`` in the order listed, without those that hold no byte of the object.

    Raises UnsatisfiableRangeError if none is left, or if together they are longer than the object: then they
    overlap, which no client needs, and which would let a short request demand any amount of bytes (14.2).

    >>> resolve(parse_range("bytes=90-, 0-9, 200-300") or (), 100)
    ((90, 100), (0, 10))
    """
    ranges = tuple(found for found in (spec.resolve(size) for spec in specs) if found is not None)
    if not ranges:
        raise UnsatisfiableRangeError(f"there are {size} bytes, none of them in the range asked for", size)
    if sum(end - start for start, end in ranges) > size:
        raise UnsatisfiableRangeError("the ranges asked for overlap", size)
    return ranges


def content_range(start: int, end: int, size: int) -> str:
    """The Content-Range of bytes ``[start, end)``; on the wire the end is inclusive (14.4).

    >>> content_range(0, 10, 100)
    'bytes 0-9/100'
    """
    return f"bytes {start}-{end - 1}/{size}"


@dataclass(frozen=True)
class Framing:
    """The form of ranges of an object of ``size`` bytes: one as it is, several as multipart/byteranges (14.6).

    ``boundary`` is 1 to 70 letters and digits that cannot be guessed, so that no data can pretend to be a part.

    >>> framing = Framing(((0, 2), (5, 8)), 10, "x")
    >>> [part for part in framing.parts() if isinstance(part, tuple)], framing.length
    ([(0, 2), (5, 8)], 168)
    """

    ranges: Sequence[tuple[int, int]]
    size: int
    boundary: str

    def headers(self) -> dict[str, str]:
        """Content-Type, Content-Length and, of a single range, Content-Range."""
        headers = {"Content-Type": _MEDIA_TYPE, "Content-Length": str(self.length)}
        if self._is_multipart:
            headers["Content-Type"] = f"multipart/byteranges; boundary={self.boundary}"
        else:
            headers["Content-Range"] = content_range(*self.ranges[0], self.size)
        return headers

    def parts(self) -> Iterator[bytes | tuple[int, int]]:
        """The body: bytes to send as they are, and ranges ``(start, end)`` of the object."""
        if not self._is_multipart:
            yield self.ranges[0]
            return
        for number, part in enumerate(self.ranges):
            yield self._head(number, part)
            yield part
        yield self._tail

    @cached_property
    def length(self) -> int:
        """Bytes of the whole body."""
        data = sum(end - start for start, end in self.ranges)
        if not self._is_multipart:
            return data
        return data + sum(len(self._head(number, part)) for number, part in enumerate(self.ranges)) + len(self._tail)

    @property
    def _is_multipart(self) -> bool:
        # 14.6: "MUST NOT generate a multipart response to a request for a single range".
        return len(self.ranges) > 1

    def _head(self, number: int, part: tuple[int, int]) -> bytes:
        # The line break before a boundary belongs to it, so that a part is exactly its bytes (RFC 2046, 5.1.1).
        lines = (
            f"--{self.boundary}",
            f"Content-Type: {_MEDIA_TYPE}",
            f"Content-Range: {content_range(*part, self.size)}",
            "\r\n",
        )
        return (b"\r\n" if number else b"") + "\r\n".join(lines).encode("ascii")

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("ascii")
