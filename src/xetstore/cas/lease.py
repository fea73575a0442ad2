"""Lease: the right to do a chore of a store, which one runner at a time has, of all that share the store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self, TypeVar

from xetstore.errors import LeaseLostError, XetError

if TYPE_CHECKING:
    from xetstore.cas.index import Index, Writer
    from xetstore.cas.index.queries.chores import ChoreRow

T = TypeVar("T")

COLLECT: Final = "collect"
SCRUB: Final = "scrub"
"""The chore of a collection. What must not have things deleted beside it, such as a repair, takes it, too."""
LEASE_SECONDS: Final = 60.0
"""The time after which a runner that says nothing is taken for dead."""
_POLL_SECONDS: Final = 0.05


class Lease:
    """A chore that this runner has. A context manager, which gives it back. Not thread-safe.

    In its block all changes of the index by this thread are care: on a full disk they have the reserve.

    Time is that of the index. Its token fences: a transaction that deletes calls :meth:`require` first, so a runner
    that slept beyond its time, while another took over, changes nothing.
    """

    def __init__(self, index: Index, name: str, token: int, position: str | None, seconds: float) -> None:
        self._index = index
        self.name = name
        self._token = token
        self.position = position
        """The place that the last runner had reached, which did not get to the end; None for the beginning."""
        self._seconds = seconds
        self._care = ExitStack()

    @classmethod
    def take(
        cls, index: Index, name: str, *, seconds: float = LEASE_SECONDS, patience_seconds: float = 0.0
    ) -> Self | None:
        """Take a chore; None if another runner has it, and does not give it back in time."""
        holder = f"{socket.gethostname()}:{os.getpid()}"[:255]

        def take(writer: Writer) -> ChoreRow | None:
            now = index.clock()
            return writer.take_chore(name, holder, now=now, until=now + seconds)

        end = time.monotonic() + patience_seconds
        with index.for_care():
            while (row := index.change(take)) is None and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        return None if row is None else cls(index, name, row.token, row.position, seconds)

    def require(self, writer: Writer) -> None:
        """Keep the chore, to the end of this transaction and :data:`LEASE_SECONDS` from now. Raises LeaseLostError."""
        if not writer.renew_chore(self.name, self._token, until=self._index.clock() + self._seconds):
            raise LeaseLostError(f"another runner has taken over the {self.name}")

    def change(self, work: Callable[[Writer], T]) -> T:
        """Write, as :meth:`Index.change <xetstore.cas.index.index.Index.change>` does, as the one that has the chore.

        Raises LeaseLostError, and then nothing is changed.
        """

        def fenced(writer: Writer) -> T:
            self.require(writer)
            return work(writer)

        return self._index.change(fenced)

    def renew(self) -> None:
        """Keep the chore, between transactions. Raises LeaseLostError."""
        with self._index.for_care():
            self._index.change(self.require)

    def note(self, position: str | None) -> None:
        """Note how far it has come, for the next runner. Raises LeaseLostError."""
        self.change(lambda writer: writer.note_position(self.name, self._token, position))
        self.position = position

    def finish(self, report: str) -> None:
        """Note that it came to the end; ``report`` is JSON, for those who look. Raises LeaseLostError."""
        self._index.change(lambda writer: self.end(writer, report))
        self.position = None

    def end(self, writer: Writer, report: str) -> None:
        """The same in a transaction of the caller."""
        self.require(writer)
        writer.finish_chore(self.name, self._token, now=self._index.clock(), report=report)

    def release(self) -> None:
        """Let others have it. One that cannot be given back now ends by itself."""
        with suppress(XetError):
            self._index.change(lambda writer: writer.give_chore_back(self.name, self._token))

    def __enter__(self) -> Self:
        self._care.enter_context(self._index.for_care())
        return self

    def __exit__(self, *exc: object) -> None:
        with self._care:
            self.release()
