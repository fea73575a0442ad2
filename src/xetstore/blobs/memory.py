"""MemoryBlobStore: objects in a dictionary, for tests and for stores that need not outlive the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

from xetstore.blobs.keys import check_key, taken
from xetstore.blobs.ranges import check_range, one_by_one
from xetstore.errors import NotFoundError
from xetstore.interfaces import BlobInfo, RangeAnswer, RangeRequest
from xetstore.platform import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer


class MemoryBlobStore:
    """A BlobStore in memory. Thread-safe.

    >>> blobs = MemoryBlobStore()
    >>> blobs.put_new("notes/a", [b"one ", b"two"])
    >>> blobs.get("notes/a")
    b'one two'
    """

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = forks.lock()

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """Create an object. UsageError if the key has one."""
        with self.create(key) as new:
            for part in parts:
                new.write(part)
            new.commit()

    def create(self, key: str) -> NewMemoryObject:
        """An object to be written piece by piece."""
        return NewMemoryObject(check_key(key), self._put)

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        try:
            return self._objects[check_key(key)][0]
        except KeyError:
            raise NotFoundError(f"there is no object {key}") from None

    def get_range(self, key: str, start: int, end: int) -> MemoryStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""
        value = self.get(key)
        check_range(key, len(value), start, end)
        return MemoryStream(memoryview(value)[start:end])

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """The bytes of several small ranges, in order, or what is wrong with an object."""
        return one_by_one(self.get_range, requests)

    def stat(self, key: str) -> BlobInfo | None:
        """Key, size and time, or None."""
        found = self._objects.get(check_key(key))
        return None if found is None else BlobInfo(key, len(found[0]), found[1])

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove objects; how many of them were there."""
        checked = [check_key(key) for key in keys]
        with self._lock:
            return sum(self._objects.pop(key, None) is not None for key in checked)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """Objects whose key starts with ``prefix`` and comes after ``after``, in key order, as they are now."""
        with self._lock:
            found = sorted(
                (key, len(value), made_at) for key, (value, made_at) in self._objects.items() if key.startswith(prefix)
            )
        return (BlobInfo(*one) for one in found if one[0] > after)

    def _put(self, key: str, value: bytes) -> None:
        with self._lock:
            if key in self._objects:
                raise taken(key)
            self._objects[key] = value, time.time()


class NewMemoryObject:
    """A NewObject that gathers its parts."""

    def __init__(self, key: str, put: Callable[[str, bytes], None]) -> None:
        self._key = key
        self._put = put
        self._parts: list[bytes] = []

    def write(self, part: Buffer, /) -> None:
        """Append bytes."""
        self._parts.append(bytes(part))

    def commit(self) -> None:
        """Put the object into the store. UsageError if the key has one."""
        self._put(self._key, b"".join(self._parts))

    def close(self) -> None:
        """Let go of the parts."""
        self._parts = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class MemoryStream:
    """A ByteStream over bytes in memory."""

    def __init__(self, view: memoryview) -> None:
        self._rest = view

    def readinto(self, buffer: memoryview, /) -> int:
        """Copy the next bytes into ``buffer``."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Let go of the bytes."""
        self._rest = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
