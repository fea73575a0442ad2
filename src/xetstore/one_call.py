"""OneCall: a Cas for one call of a user's, given up alone, between two requests as well as during one; and UnderWay.

Whatever moves a file interrupts its Cas when it fails, so that nothing of it goes on behind its back: with a Cas of its
own for each call the others do not notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable
from weakref import WeakSet

from xetstore.errors import InterruptedCallError
from xetstore.interfaces import ByteStream, Cas
from xetstore.platform import forks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from xetstore.protocol.dedup import QueryRule
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction
    from xetstore.protocol.shard import Shard
    from xetstore.records import FileRecord


class StoreCas(Cas, Protocol):
    """A Cas that also tells of files, and is closed: a store is made of one."""

    def stat(self, file: Hash, /) -> FileRecord:
        """The record of a file. Raises NotFoundError."""

    def close(self) -> None:
        """Let go of it."""


@runtime_checkable
class _Viewed(Protocol):
    def view(self) -> StoreCas: ...


class UnderWay:
    """The calls that are under way in one store, or in a view of it. Thread-safe."""

    def __init__(self, cas: StoreCas) -> None:
        self.cas = cas
        self._guard = forks.lock()
        self._calls: WeakSet[OneCall] = WeakSet()
        self._views: WeakSet[UnderWay] = WeakSet()
        self._ended = False
        forks.renew(self, UnderWay._begin_anew)

    def _begin_anew(self) -> None:
        """In a child no call is under way."""
        self._calls = WeakSet()
        self._views = WeakSet(self._views)

    def begin(self) -> OneCall:
        """The Cas of a call that begins now. Raises InterruptedCallError after an end for good."""
        call = OneCall(self.cas.view() if isinstance(self.cas, _Viewed) else self.cas)
        with self._guard:
            if self._ended:
                raise _interrupted()
            self._calls.add(call)
        return call

    def view(self) -> UnderWay:
        """Calls of the same store that are interrupted apart from the others."""
        view = UnderWay(self.cas)
        with self._guard:
            self._views.add(view)
        return view

    def interrupt(self, *, for_good: bool = False) -> None:
        """Give up the calls under way, those of views apart; ``for_good`` those too, and all that would follow."""
        with self._guard:
            self._ended = self._ended or for_good
            calls, views = list(self._calls), list(self._views) if for_good else []
        for call in calls:
            call.interrupt()
        for view in views:
            view.interrupt(for_good=True)


class OneCall:
    """Another Cas as one call sees it: once interrupted, everything here fails with InterruptedCallError.

    So it does in a child that was forked after the call began: the call is the parent's.
    ``cas`` is interrupted with it, so all of its calls have to belong to this one.
    """

    def __init__(self, cas: StoreCas) -> None:
        self.cas = cas
        self._given_up = False
        self._generation = forks.generation()

    @property
    def is_remote(self) -> bool:
        """As the Cas is."""
        return self.cas.is_remote

    @property
    def queries(self) -> QueryRule:
        """The rule of the Cas."""
        return self.cas.queries

    def interrupt(self) -> None:
        """Give up: requests under way fail soon, and so do all later ones."""
        self._given_up = True
        self.cas.interrupt()

    def go_on(self) -> None:
        """Raises InterruptedCallError once the call is given up."""
        if self._given_up:
            raise _interrupted()
        if self._generation != forks.generation():
            raise forks.left_behind()

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False
    ) -> Reconstruction:
        """As the Cas does it."""
        self.go_on()
        return self.cas.reconstruct(file, start, end, hashes=hashes)

    def reconstruct_many(self, files: Sequence[Hash]) -> BatchReconstruction | None:
        """As the Cas does it."""
        self.go_on()
        return self.cas.reconstruct_many(files)

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        """As the Cas does it."""
        self.go_on()
        return self.cas.find_chunks(*chunks)

    def find_recent(self, most_chunks: int) -> Shard | None:
        """As the Cas does it."""
        self.go_on()
        return self.cas.find_recent(most_chunks)

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        """As the Cas does it."""
        self.go_on()
        return self.cas.put_xorb(xorb, body)

    def put_shard(self, shard: Shard) -> bool:
        """As the Cas does it."""
        self.go_on()
        return self.cas.put_shard(shard)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        """As the Cas does it."""
        self.go_on()
        return _Stream(self.cas.fetch_xorb(fetch), self)

    def suspect(self, xorb: Hash) -> None:
        """As the Cas does it."""
        self.go_on()
        self.cas.suspect(xorb)

    def stat(self, file: Hash) -> FileRecord:
        """As the Cas does it."""
        self.go_on()
        return self.cas.stat(file)

    def close(self) -> None:
        """Nothing: the Cas belongs to the store that this call is made of."""


def _interrupted() -> InterruptedCallError:
    return InterruptedCallError("the call was given up, or its store closed", hint="nothing is wrong with it")


class _Stream:
    """A ByteStream that ends with its call."""

    def __init__(self, source: ByteStream, call: OneCall) -> None:
        self._source = source
        self._call = call

    def readinto(self, buffer: memoryview, /) -> int:
        self._call.go_on()
        return self._source.readinto(buffer)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
