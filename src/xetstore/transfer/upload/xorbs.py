"""XorbWriter: packs new chunks into xorbs and stores them, in order, while the caller goes on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from xetstore.platform.threads import Threads
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.xorb import XorbBuilder, XorbInfo
from xetstore.transfer.upload.slots import XorbSlots
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.protocol.known_chunks import KnownXorb
    from xetstore.transfer.upload.context import Context
    from xetstore.transfer.upload.registry import Registry

T = TypeVar("T")
OwnerT = TypeVar("OwnerT")

BATCH_BYTES: Final = 1 << 20
BATCH_PIECES: Final = 256
"""Chunks of small files are handed to the encoding thread together, in batches of such a size."""


class Owner(Protocol):
    """The file that new chunks belong to. ``stored_bytes`` grows by what they take in a xorb."""

    stored_bytes: int


@dataclass(slots=True)
class Owners(Generic[OwnerT]):
    """To whom the chunks of a xorb belong, in order."""

    shares: list[tuple[OwnerT, int]] = field(default_factory=list)

    def drop(self, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[OwnerT, int, int]]:
        """Take out chunks ``[start, end)``, spans in ascending order; which of them were whose, as they were numbered
        before. To be taken to its end.
        """
        shares, self.shares = self.shares, []
        left = deque(spans)
        at = 0
        for owner, count in shares:
            stop, kept = at + count, count
            while left and left[0][0] < stop:
                start, end = left.popleft()
                if end > stop:
                    left.appendleft((stop, end))
                yield owner, start, min(end, stop)
                kept -= min(end, stop) - start
            if kept:
                self.shares.append((owner, kept))
            at = stop


@dataclass(slots=True)
class _Batch:
    """Chunks that go into one xorb, one after the other."""

    xorb: KnownXorb
    pieces: list[memoryview] = field(default_factory=list)
    chunks: list[ChunkList] = field(default_factory=list)
    owners: list[tuple[Owner, int]] = field(default_factory=list)
    raw_bytes: int = 0

    def add(self, owner: Owner, pieces: Sequence[memoryview], chunks: ChunkList) -> None:
        self.pieces += pieces
        self.chunks.append(chunks)
        self.owners.append((owner, len(chunks)))
        self.raw_bytes += chunks.total_bytes

    @property
    def is_full(self) -> bool:
        return self.raw_bytes >= BATCH_BYTES or len(self.pieces) >= BATCH_PIECES


@dataclass(slots=True)
class _OpenXorb:
    """The xorb that is being filled, and whose chunks are in it, in order."""

    known: KnownXorb
    builder: XorbBuilder
    owners: Owners[Owner] = field(default_factory=Owners)


class XorbWriter:
    """Encodes in one thread and stores in others, as many xorbs at a time as the sizes allow. To be closed.

    Each xorb takes up to as much memory as the caller puts in: those in flight and the one that is filled. Not
    thread-safe: one caller. After an error every further call raises it.
    """

    def __init__(self, context: Context, registry: Registry) -> None:
        self._cancellation = context.cancellation.child()
        self._cas = context.cas.under(self._cancellation)
        self._policy = context.options.policy
        self._threads = context.threads
        self._registry = registry
        sizes = context.sizes
        self._slots = XorbSlots(XorbBuilder, sizes.in_flight, emit=context.emit)
        self._encoder = Threads(1, "encode")
        self._storer = Threads(sizes.in_flight, "put_xorb")
        self._max_held_bytes = sizes.held_bytes
        self._batch: _Batch | None = None
        self._held: deque[tuple[Future[None], int]] = deque()
        self._held_bytes = 0
        self._failure: BaseException | None = None
        self._seconds_per_byte = 0.0
        # From here on, what only the encoding thread touches.
        self._open: _OpenXorb | None = None
        self._storing: list[Future[None]] = []

    def close(self) -> None:
        """Let go of the threads; what was not finished is given up, and calls under way end with it."""
        # What is queued still comes to its turn, and then fails at once: no caller waits for a future that never ends.
        self._cancellation.cancel()
        for pool in (self._encoder, self._storer):
            pool.shutdown(wait=True)

    def append(self, owner: Owner, xorb: KnownXorb, pieces: Sequence[memoryview], chunks: ChunkList) -> Future[None]:
        """Append chunks to a xorb; one not named before starts, and ends the one before it.

        The future is done when ``pieces`` are not needed any more. What the chunks take in the xorb is credited to
        their owner when the xorb is complete.
        """
        self._check()
        self._hand_over()
        batch = _Batch(xorb)
        batch.add(owner, pieces, chunks)
        return self._encode(batch)

    def append_held(self, owner: Owner, xorb: KnownXorb, pieces: Sequence[memoryview], chunks: ChunkList) -> None:
        """As :meth:`append`, for pieces that are not going to be overwritten: they may be gathered, and wait."""
        self._check()
        if self._batch is None or self._batch.xorb is not xorb:
            self._hand_over()
            self._batch = _Batch(xorb)
        self._batch.add(owner, pieces, chunks)
        if self._batch.is_full:
            self._hand_over()

    def drop(self, xorb: KnownXorb, spans: Sequence[tuple[int, int]]) -> None:
        """Take chunks ``[start, end)`` out of the open xorb again, spans in ascending order; those behind move up."""
        self._check()
        self._hand_over()
        self._encoder.submit(self._guarded, lambda: self._drop(xorb, spans))

    def sending_seconds(self, nbytes: int) -> float:
        """The time that sending raw bytes takes, by the last xorb that was stored; 0 before the first one."""
        return nbytes * self._seconds_per_byte

    def finish(self) -> None:
        """End the open xorb and wait until all are stored."""
        self._hand_over()
        result_of(self._encoder.submit(self._guarded, self._finish))

    def _hand_over(self) -> None:
        if self._batch is None:
            return
        batch, self._batch = self._batch, None
        self._held.append((self._encode(batch), batch.raw_bytes))
        self._held_bytes += batch.raw_bytes
        while self._held and (self._held_bytes > self._max_held_bytes or self._held[0][0].done()):
            encoding, nbytes = self._held.popleft()
            self._held_bytes -= nbytes
            result_of(encoding)

    def _encode(self, batch: _Batch) -> Future[None]:
        return self._encoder.submit(self._guarded, lambda: self._append(batch))

    def _guarded(self, work: Callable[[], T]) -> T:
        self._check()
        try:
            return work()
        except BaseException as failure:
            self._failure = self._failure or failure
            raise

    def _check(self) -> None:
        """Raise what has gone wrong in one of the threads."""
        if self._failure is not None:
            raise self._failure
        self._cancellation.check()

    def _append(self, batch: _Batch) -> None:
        if self._open is not None and self._open.known is not batch.xorb:
            self._close()
        if self._open is None:
            builder = self._slots.take()
            self._check_stored()
            self._open = _OpenXorb(batch.xorb, builder)
        chunks = batch.chunks[0] if len(batch.chunks) == 1 else ChunkList.concat(batch.chunks)
        self._open.builder.append(batch.pieces, chunks, policy=self._policy, threads=self._threads)
        self._open.owners.shares += batch.owners

    def _drop(self, xorb: KnownXorb, spans: Sequence[tuple[int, int]]) -> None:
        assert self._open is not None
        assert self._open.known is xorb
        self._open.builder.drop(spans)
        for _ in self._open.owners.drop(spans):
            pass

    def _close(self) -> None:
        assert self._open is not None
        opened, self._open = self._open, None
        if not opened.builder.chunk_count:  # all of it was dropped
            self._slots.give_back(opened.builder)
            return
        info, body = opened.builder.finish()
        opened.known.name = info.hash
        _credit(opened.owners.shares, info)
        self._storing.append(self._storer.submit(self._store, info, body, opened.builder))
        self._registry.relieve()

    def _store(self, info: XorbInfo, body: memoryview, builder: XorbBuilder) -> None:
        body_bytes, sent_bytes, begun = len(body), 0, time.monotonic()
        try:
            is_new = self._guarded(lambda: self._cas.put_xorb(info.hash, body))
            sent_bytes = body_bytes
            self._seconds_per_byte = (time.monotonic() - begun) / max(info.chunks.total_bytes, 1)
        finally:
            body.release()
            self._slots.give_back(builder, sent_bytes, time.monotonic() - begun)
        self._registry.stored(info, body_bytes, is_new=is_new)

    def _finish(self) -> None:
        if self._open is not None:
            self._close()
        wait(self._storing, return_when=FIRST_EXCEPTION)
        self._check_stored()

    def _check_stored(self) -> None:
        """Forget those that are stored; raise the error of one that could not be."""
        for storing in [storing for storing in self._storing if storing.done()]:
            storing.result()
            self._storing.remove(storing)


def _credit(owners: Sequence[tuple[Owner, int]], info: XorbInfo) -> None:
    ends = (0, *memoryview(info.ends).cast("Q"))
    at = 0
    for owner, count in owners:
        owner.stored_bytes += ends[at + count] - ends[at]
        at += count
