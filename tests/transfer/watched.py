"""WatchedCas: a store that behaves like a server, counts what it is sent, and fails where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.around import AroundCas
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import InterruptedCallError
from xetstore.protocol.dedup import WIRE_QUERIES, QueryRule
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard

if TYPE_CHECKING:
    from typing_extensions import Buffer

PATIENCE_SECONDS = 60


class WatchedCas(AroundCas):
    """``before`` is called with the name of a verb before it is done, in the thread that calls it; it may raise."""

    def __init__(self, cas: EmbeddedCas, queries: QueryRule | None = None) -> None:
        super().__init__(cas)
        # The index of an embedded store knows more chunks than a server tells of.
        self.queries = queries or replace(WIRE_QUERIES, modulus=64, spacing_chunks=0)
        self.is_remote = True
        self.sent: list[tuple[Hash, int]] = []
        self.shards: list[Shard] = []
        self.asked: list[Hash] = []
        self.questions = 0
        self.before: Callable[[str], None] = lambda _: None
        self.calls: list[Cancellation] = []
        self._interrupted = threading.Event()

    @property
    def sent_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.sent)

    @property
    def registered(self) -> list[Hash]:
        return [file.hash for shard in self.shards for file in shard.files]

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        self.asked += chunks
        self.questions += 1
        self.before("find_chunks")
        return self.cas.find_chunks(*chunks)

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        self.before("put_xorb")
        is_new = self.cas.put_xorb(xorb, body)
        self.sent.append((xorb, memoryview(body).nbytes))
        return is_new

    def put_shard(self, shard: Shard) -> bool:
        self.before("put_shard")
        is_new = self.cas.put_shard(shard)
        self.shards.append(shard)
        return is_new

    def under(self, cancellation: Cancellation) -> WatchedCas:
        """The same: the calls of all are interrupted with those of one."""
        self.calls.append(cancellation)
        cancellation.on_cancel(self._interrupted.set)
        return self

    @contextmanager
    def settled(self) -> Iterator[None]:
        """At the end, wait for the queries that nobody else waits for: the store is closed next."""
        try:
            yield
        finally:
            for thread in threading.enumerate():
                if thread.name == "find_chunks":
                    thread.join(PATIENCE_SECONDS)

    def hang(self) -> None:
        """What a call does that gets no answer: it waits until it is interrupted."""
        assert self._interrupted.wait(PATIENCE_SECONDS), "nobody interrupted the call"
        raise InterruptedCallError("the call was interrupted")
