"""MemoryBlobStore: objects in a dictionary, for tests and for stores that need not outlive the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

from xetstore.cas.blobs import check_key, check_range
from xetstore.errors import NotFoundError, RangeError
from xetstore.interfaces import BlobInfo
from xetstore.platform import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer


class MemoryBlobStore:
    """A BlobStore in memory. Thread-safe.

    >>> blobs = MemoryBlobStore()
    >>> blobs.put_new("notes/a", [b"one ", b"two"]), blobs.put_new("notes/a", [b"three"])
    (True, False)
    >>> blobs.get("notes/a")
    b'one two'
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = forks.lock()

    def put_new(self, key: str, parts: Sequence[Buffer]) -> bool:
        """Create an object; False, untouched, if the key exists."""
        with self.create(key) as new:
            for part in parts:
                new.write(part)
            return new.commit()

    def create(self, key: str) -> NewMemoryObject:
        """An object to be written piece by piece."""
        return NewMemoryObject(check_key(key), self._put)

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise NotFoundError(f"there is no object {key}") from None

    def get_range(self, key: str, start: int, end: int) -> MemoryStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""
        check_range(start, end)
        value = self.get(key)
        if end > len(value):
            raise RangeError(f"object {key} has {len(value)} bytes, bytes {start} to {end} are not in it")
        return MemoryStream(memoryview(value)[start:end])

    def stat(self, key: str) -> BlobInfo | None:
        """Key and size, or None."""
        value = self._objects.get(check_key(key))
        return None if value is None else BlobInfo(key, len(value))

    def delete(self, key: str) -> bool:
        """Remove an object. True if it was there."""
        with self._lock:
            return self._objects.pop(check_key(key), None) is not None

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """Objects whose key starts with ``prefix``, in key order; those there when the listing starts."""
        with self._lock:
            found = sorted((key, len(value)) for key, value in self._objects.items() if key.startswith(prefix))
        return (BlobInfo(key, size) for key, size in found)

    def sign(self, key: str, *, method: str, start: int, end: int, expires_at: float) -> str | None:  # noqa: ARG002
        """None: nothing outside this process can reach the store."""
        return None

    def _put(self, key: str, value: bytes) -> bool:
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = value
            return True


class NewMemoryObject:
    """A NewObject that gathers its parts."""

    def __init__(self, key: str, put: Callable[[str, bytes], bool]) -> None:
        self._key = key
        self._put = put
        self._parts: list[bytes] = []

    def write(self, part: Buffer, /) -> None:
        """Append bytes."""
        self._parts.append(bytes(part))

    def commit(self) -> bool:
        """Put the object into the store. False if the key exists."""
        return self._put(self._key, b"".join(self._parts))

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
