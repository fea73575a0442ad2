"""GuardedBlobStore: objects far away behind a circuit, so that callers do not wait one by one while they are away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.interfaces import BlobInfo, BlobStore, ByteStream, NewObject, RangeAnswer, RangeRequest
    from xetstore.platform.circuit import Circuit


class GuardedBlobStore:
    """The objects of ``inner``, whose calls fail at once while ``circuit`` is open. Thread-safe as it is."""

    def __init__(self, inner: BlobStore, circuit: Circuit) -> None:
        self.inner = inner
        self.circuit = circuit

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            self.inner.put_new(key, parts)

    def create(self, key: str) -> NewObject:
        """As that of ``inner``, or UnavailableError at once. What is written to it is not guarded."""
        self.circuit.require()
        return self.inner.create(key)

    def get(self, key: str) -> bytes:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            return self.inner.get(key)

    def get_range(self, key: str, start: int, end: int) -> ByteStream:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            return self.inner.get_range(key, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            return self.inner.get_ranges(requests)

    def stat(self, key: str) -> BlobInfo | None:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            return self.inner.stat(key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            return self.inner.delete_many(keys)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """As that of ``inner``, or UnavailableError at once."""
        with self.circuit.entered():
            yield from self.inner.list(prefix, after=after)
