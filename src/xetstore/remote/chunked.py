"""ChunkedBody: a body in chunks (RFC 9112, 7.1), decoded from the bytes there are, without waiting in the middle."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Final

MAX_LINE_BYTES: Final = 4096
"""A line that gives the length of a chunk, its extensions included."""
MAX_TRAILER_BYTES: Final = 64 << 10

Read = Callable[[memoryview], "int | None"]
"""Reads some bytes: how many, 0 at the end of the connection, None if none have come yet."""


class ChunkedBody:
    """The bytes of a body whose chunks ``read`` brings. Not thread-safe."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0
        self._line = bytearray()
        self._byte = memoryview(bytearray(1))
        # What the next line is: the length of a chunk, the end of one, or a part of the trailer.
        self._next = "length"
        self._trailer_left = MAX_TRAILER_BYTES
        self.is_at_end = False

    def take(self, view: memoryview) -> int | None:
        """Bytes of the body, as many as are there: 0 at its end, None if none have come yet.

        Raises HTTPException for what is no such body, and for one that ends too early.
        """
        while not self._left and not self.is_at_end:
            line = self._take_line()
            if line is None:
                return None
            self._follow(line)
        if self.is_at_end or not view:
            return 0
        count = self._read(view[: self._left])
        if count is None:
            return None
        if count == 0:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= count
        if not self._left:
            self._next = "end"
        return count

    def _follow(self, line: bytes) -> None:
        if self._next == "length":
            digits = line.partition(b";")[0].strip()
            # Not int() alone: it takes signs, underscores and blanks (RFC 9112, 7.1: 1*HEXDIG).
            if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
                raise http.client.HTTPException("the length of a chunk is none")
            self._left = int(digits, 16)
            self._next = "end" if self._left else "trailer"
        elif self._next == "end":
            if line:
                raise http.client.HTTPException("a chunk is longer than its length")
            self._next = "length"
        elif not line:
            self.is_at_end = True

    def _take_line(self) -> bytes | None:
        """The next line without its end; None if it has not all come."""
        while True:
            count = self._read(self._byte)
            if count is None:
                return None
            if count == 0:
                raise http.client.IncompleteRead(bytes(self._line))
            if self._next == "trailer":
                self._trailer_left -= 1
            if self._byte[0] == 0x0A:
                line, self._line = bytes(self._line).removesuffix(b"\r"), bytearray()
                return line
            self._line += self._byte
            if len(self._line) > MAX_LINE_BYTES or self._trailer_left < 0:
                raise http.client.HTTPException("a line between chunks is too long")
