"""XorbWriter: packs new chunks into xorbs and stores them, in order, while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from xetstore.interfaces import Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import KnownXorb
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import AlgorithmSuite
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder

T = TypeVar("T")

XORBS_IN_FLIGHT = 1
"""Xorbs being stored while the next one is filled: each costs up to 64 MiB of memory."""

SHARD_CHUNKS = 100_000
"""A shard of xorbs alone is sent when so many new chunks have gathered: what is held must not grow with a file."""


class XorbWriter:
    """Encodes in one thread and stores in others. To be closed.

    Not thread-safe: one caller. After an error every further call raises it.
    """

    def __init__(self, cas: Cas, *, policy: CompressionPolicy, threads: int, suite: AlgorithmSuite) -> None:
        self._cas = cas
        self._policy = policy.kernel
        self._threads = threads
        self._builders: SimpleQueue[XorbBuilder] = SimpleQueue()
        for _ in range(1 + XORBS_IN_FLIGHT):
            self._builders.put(XorbBuilder(suite))
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._storer = ThreadPoolExecutor(XORBS_IN_FLIGHT, "put_xorb")
        # From here on, what only the encoding thread touches.
        self._open: tuple[KnownXorb, XorbBuilder] | None = None
        self._storing: deque[Future[None]] = deque()
        self._entries: list[XorbEntry] = []
        self._failure: BaseException | None = None

    def close(self) -> None:
        """Let go of the threads; what was not finished is abandoned."""
        self._encoder.shutdown(wait=True, cancel_futures=True)
        self._storer.shutdown(wait=True, cancel_futures=True)

    def append(self, xorb: KnownXorb, pieces: Sequence[memoryview], chunks: ChunkList) -> Future[int]:
        """Append chunks to a xorb; one not named before starts, and ends the one before it.

        The future is done when ``pieces`` are not needed any more; it gives the bytes that the chunks take.
        """
        return self._encoder.submit(self._guarded, lambda: self._append(xorb, pieces, chunks))

    def finish(self) -> list[XorbEntry]:
        """End the open xorb and wait until all are stored; what was stored and is in no shard yet."""
        return self._encoder.submit(self._guarded, self._finish).result()

    def _guarded(self, work: Callable[[], T]) -> T:
        if self._failure is not None:
            raise self._failure
        try:
            return work()
        except BaseException as failure:
            self._failure = failure
            raise

    def _append(self, xorb: KnownXorb, pieces: Sequence[memoryview], chunks: ChunkList) -> int:
        if self._open is not None and self._open[0] is not xorb:
            self._close()
        if self._open is None:
            while self._storing and (self._storing[0].done() or len(self._storing) > XORBS_IN_FLIGHT):
                self._storing.popleft().result()
            self._open = (xorb, self._builders.get())
        builder = self._open[1]
        before = builder.body_bytes
        builder.append(pieces, chunks, policy=self._policy, threads=self._threads)
        return builder.body_bytes - before

    def _close(self) -> None:
        assert self._open is not None
        (known, builder), self._open = self._open, None
        info, body = builder.finish()
        known.name = info.hash

        def store() -> None:
            try:
                self._cas.put_xorb(info.hash, body)
            finally:
                body.release()
                builder.reset()
                self._builders.put(builder)

        self._storing.append(self._storer.submit(store))
        self._entries.append(XorbEntry(info.hash, info.chunks))
        if sum(len(entry.chunks) for entry in self._entries) >= SHARD_CHUNKS:
            self._cas.put_shard(Shard(xorbs=tuple(self._take_stored())))

    def _finish(self) -> list[XorbEntry]:
        if self._open is not None:
            self._close()
        return self._take_stored()

    def _take_stored(self) -> list[XorbEntry]:
        while self._storing:
            self._storing.popleft().result()
        stored, self._entries = self._entries, []
        return stored
