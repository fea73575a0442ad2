"""A Cas with faults, over a real store: what it tells and what it sends can be changed, held up and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from tests.support.around import AroundCas
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import ForbiddenError
from xetstore.interfaces import ByteStream
from xetstore.protocol.dedup import WIRE_QUERIES
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction


@dataclass(frozen=True)
class Stored:
    """A file in a store, and its bytes."""

    cas: EmbeddedCas
    file: Hash
    data: bytes


Tell = Callable[[int, Reconstruction], Reconstruction]
"""Changes the n-th reconstruction."""

TellMany = Callable[[int, BatchReconstruction], BatchReconstruction | None]
"""Changes the n-th reconstruction of several files."""

Send = Callable[[int, FetchRange, bytes], bytes]
"""Changes the n-th body."""


class Body:
    """Bytes as a ByteStream, some at a time."""

    def __init__(self, cas: FaultyCas, data: bytes, call: Cancellation) -> None:
        self._cas = cas
        self._call = call
        self._data = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        self._cas.wait(self._call)
        count = min(len(buffer), len(self._data), 65_536)
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        with self._cas.lock:
            self._cas.sent += count
        return count

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class FaultyCas(AroundCas):
    """Counts bodies and bytes. The URLs of the first ``expired`` reconstructions are refused; ``hold()`` lets readers
    wait until their call is cancelled.
    """

    def __init__(
        self,
        cas: EmbeddedCas,
        *,
        hashes: bool = True,
        remote: bool = False,
        tell: Tell = lambda _, told: told,
        tell_many: TellMany = lambda _, told: told,
        send: Send = lambda _, _fetch, data: data,
        expired: int = 0,
    ) -> None:
        super().__init__(cas)
        self.is_remote = remote
        if remote:
            self.queries = WIRE_QUERIES
        self.hashes, self.expired = hashes, expired
        self.tell, self.tell_many, self.send = tell, tell_many, send
        self.lock = threading.Lock()
        self.told = self.bodies = self.sent = 0
        self.fetches: list[FetchRange] = []
        self.waiting = threading.Event()
        self._held = threading.Event()
        self._held.set()

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        with self.lock:
            number, self.told = self.told, self.told + 1
        told = self.tell(number, self.cas.reconstruct(file, start, end, hashes=hashes))
        told = told.with_urls(lambda xorb, _: f"{xorb}#{number}", 100)
        return told if self.hashes else replace(told, term_hashes=None)

    def reconstruct_many(self, files: Sequence[Hash], *, inline: int = 0) -> BatchReconstruction | None:
        with self.lock:
            number, self.told = self.told, self.told + 1
        told = self.tell_many(number, self.cas.reconstruct_many(files))
        return None if told is None else told.with_urls(lambda xorb, _: f"{xorb}#{number}", 100)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        return self.fetch(fetch, Cancellation())

    def fetch(self, fetch: FetchRange, call: Cancellation) -> ByteStream:
        with self.lock:
            number, self.bodies = self.bodies, self.bodies + 1
            self.fetches.append(fetch)
        if int(fetch.url.rpartition("#")[2]) < self.expired:
            raise ForbiddenError("the URL has expired")
        with self.cas.fetch_xorb(fetch) as source:
            data = bytearray(fetch.byte_end - fetch.byte_start)
            view = memoryview(data)
            while view and (count := source.readinto(view)):
                view = view[count:]
        return Body(self, self.send(number, fetch, bytes(data)), call)

    def hold(self) -> None:
        """Send nothing from now on."""
        self._held.clear()

    def release(self) -> None:
        """Send again."""
        self._held.set()

    def wait(self, call: Cancellation) -> None:
        if not self._held.is_set():
            self.waiting.set()
            while not self._held.wait(0.005):
                call.check()

    def under(self, cancellation: Cancellation) -> Any:
        return _Under(self, cancellation)


class _Under:
    """A FaultyCas whose bodies are those of one call."""

    def __init__(self, cas: FaultyCas, call: Cancellation) -> None:
        self._cas, self._call = cas, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cas, name)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        return self._cas.fetch(fetch, self._call)


def flip(data: bytes, at: int) -> bytes:
    """``data`` with one bit the other way round."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
