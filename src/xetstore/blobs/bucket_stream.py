"""BucketStream: the bytes of a range of an object, whatever happens to the connections they come over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Self

from xetstore.errors import UnreachableError, UsageError

PROGRESS_BYTES: Final = 1 << 20
"""A body that broke off after as many bytes is worth another request, however often."""


class EmptyStream:
    """A ByteStream of no bytes."""

    def readinto(self, buffer: memoryview, /) -> int:  # noqa: ARG002
        """0: the stream is at its end."""
        return 0

    def close(self) -> None:
        """Nothing is to be let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class BucketStream(EmptyStream):
    """A ByteStream over bytes ``[start, end)`` of an object, which is at its end only when all of them came.

    ``body`` has them in pieces, and raises UnreachableError where they break off. Then ``rest`` asks for those from a
    position on, if :data:`PROGRESS_BYTES` came since the last request: objects never change. Not thread-safe.
    """

    def __init__(
        self, body: Iterator[memoryview], rest: Callable[[int], Iterator[memoryview]], start: int, end: int
    ) -> None:
        self._body: Iterator[memoryview] | None = body
        self._rest = rest
        self._position = self._asked_from = start
        self._end = end
        self._piece = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer``, or read up to the end. One copy; a piece of the network's is held, some 100 KB as a rule."""
        count = 0
        while count < len(buffer) and self._position < self._end:
            if not self._piece:
                self._piece = self._next()
            taken = min(len(self._piece), len(buffer) - count)
            buffer[count : count + taken] = self._piece[:taken]
            self._piece = self._piece[taken:]
            self._position += taken
            count += taken
        return count

    def _next(self) -> memoryview:
        if self._body is None:
            raise UsageError("the stream is closed")
        try:
            return next(self._body)
        except UnreachableError:
            if self._position - self._asked_from < PROGRESS_BYTES:
                raise
        self._asked_from = self._position
        self._body = self._rest(self._position)
        return next(self._body)

    def close(self) -> None:
        """Leave the rest unread. May be called again."""
        self._body = None
        self._piece = memoryview(b"")
