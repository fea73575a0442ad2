"""CachedBlobStore: a blob store that is far away, with a bounded cache of parts of its objects on this machine.

Objects never change and no key is written twice, so what is cached is never stale. But a disk rots, and a process dies
while it writes: a part is used only if its checksum is right, and is removed if not. Nothing is ever flushed to the
disk, and any number of threads, processes and servers may share a folder: the worst that comes of it is a second fetch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xetstore.blobs.keys import check_key
from xetstore.blobs.ranges import check_range
from xetstore.errors import DamagedError, NotFoundError, RangeError, UnavailableError
from xetstore.platform import forks
from xetstore.platform.cache_folder import CacheFolder, mark_used, remove_if_same
from xetstore.platform.descriptors import NO_FOLLOW, READ, read_at
from xetstore.platform.threads import Threads
from xetstore.protocol import kernel

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Buffer

    from xetstore.interfaces import BlobInfo, BlobStore, ByteStream, NewObject, RangeAnswer, RangeRequest

BLOCK_BYTES: Final = 1 << 20
"""The size of a block, and so of the largest part: a xorb is at most 65 of them, and a footer lies in one or two."""

TAIL_BYTES: Final = 512 << 10
"""The end of an object that is kept when it is uploaded: its footer is asked for next. The longest has 400 KB."""

QUEUED_BYTES: Final = 16 << 20
"""The most that waits to be written. What comes beyond is not kept: a reader does not wait for the cache's disk."""

PAUSE_SECONDS: Final = 60.0
"""After an error of the cache's disk nothing is written for that long."""

_USED_AGAIN_SECONDS: Final = 60
# Magic, version, SHA-256 of place and key, first byte, end, CRC-64/NVME of the bytes, which follow. Numbers are native.
_HEAD: Final = struct.Struct("=8sI32sQQQ")
_MAGIC: Final = b"XETPARTS"
_VERSION: Final = 1
_NAME: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")
_FLAGS: Final = READ | NO_FOLLOW

_log = logging.getLogger("xetstore.blobs")

Part = tuple[int, int]
"""Bytes ``[start, end)`` of an object, all of them in one block."""

Parts = list[Part]


class CachedBlobStore:
    """The objects of ``inner``, with parts of them in ``folder``, at most ``max_bytes``; the least recently used go.

    A range is read from the parts that are there; what is missing between them is fetched by one range request for each
    gap, handed on as it comes, and kept. Two readers of one part that is missing both fetch it: neither waits for the
    other, who may be slow. Of what is uploaded the end is kept, because the footer is asked for next; :meth:`get`,
    :meth:`stat` and :meth:`list` ask ``inner``. An object that was deleted may be read from the cache for a while.

    Thread-safe, and safe between processes, which keep one cap together. Stores may share a folder: ``place`` tells
    their objects apart, for one of an older release has the same key in every store. An error of the cache's disk is
    one line in the log; reading then goes on without, and writing pauses for a minute.
    """

    def __init__(
        self, inner: BlobStore, folder: Path, max_bytes: int, *, place: str = "", pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self.inner = inner
        self._place = place
        self._pause_seconds = pause_seconds
        self._folder = CacheFolder(folder, max_bytes, lambda name: _part_of(name) is not None)
        self._max_bytes = max_bytes
        self._begin()
        forks.renew(self, CachedBlobStore._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._writer = Threads(1, "blob-cache")
        self._queued_bytes = 0
        self._last: Future[None] | None = None
        self._paused_until = 0.0
        self._has_failed = False

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """As ``inner`` does. Nothing is kept: what is put whole is small, and read rarely."""
        self.inner.put_new(key, parts)

    def create(self, key: str) -> NewObject:
        """An object to be written piece by piece, of which the end is kept."""
        return _NewCachedObject(self.inner.create(key), self, key)

    def get(self, key: str) -> bytes:
        """The whole object, from ``inner``. Raises NotFoundError."""
        return self.inner.get(key)

    def get_range(self, key: str, start: int, end: int) -> ByteStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``.

        Where its beginning is cached, it is DamagedError, while it is read, instead of these two.
        """
        check_key(key)
        if not self._max_bytes or not 0 <= start < end:
            return self.inner.get_range(key, start, end)
        return _CachedStream(self, key, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """The bytes of several small ranges, in order: those that are not cached by one call of ``inner``."""
        for key, start, end in requests:
            check_range(check_key(key), max(end, 0), start, end)
        answers: list[RangeAnswer | None] = [self._cached(*request) for request in requests]
        missing = [number for number, answer in enumerate(answers) if answer is None]
        fetched = self.inner.get_ranges([requests[number] for number in missing]) if missing else []
        for number, answer in zip(missing, fetched, strict=True):
            answers[number] = answer
            if isinstance(answer, bytes):
                key, start, _ = requests[number]
                self.keep(key, start, answer)
        return [answer for answer in answers if answer is not None]

    def stat(self, key: str) -> BlobInfo | None:
        """As ``inner`` says: a look is for what is there, and not for what was."""
        return self.inner.stat(key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove objects; how many of them were there."""
        listed = list(keys)
        try:
            return self.inner.delete_many(listed)
        finally:
            for key in listed:
                self._folder.remove(self._group(key).hex())

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """As ``inner`` lists them."""
        return self.inner.list(prefix, after=after)

    def forget(self, key: str) -> None:
        """Keep nothing of an object: bytes that came wrong once must not come again from here."""
        self.settle()
        self._folder.remove(self._group(key).hex())

    def settle(self) -> None:
        """Return when all is written that is to be kept."""
        last = self._last
        if last is not None:
            last.result()

    # For the streams of this module

    @property
    def keeps(self) -> bool:
        """True unless nothing is written now."""
        return self._max_bytes > 0 and time.monotonic() >= self._paused_until

    def parts(self, key: str) -> Parts:
        """The parts of an object that are there, or were a moment ago."""
        return [part for name in self._folder.names(self._group(key).hex()) if (part := _part_of(name)) is not None]

    def load(self, key: str, part: Part) -> bytes | None:
        """The bytes of a part; None if it is not there, or not whole: then it is removed."""
        group = self._group(key)
        path = f"{self._folder.of(group.hex())}/{_name(part)}"
        with contextlib.suppress(OSError):
            fd = os.open(path, _FLAGS)
            try:
                info = os.fstat(fd)
                size = _HEAD.size + part[1] - part[0]
                file = read_at(fd, size + 1, 0) if stat.S_ISREG(info.st_mode) and info.st_size == size else b""
                if _is_sound(file, group, part, size):
                    mark_used(fd if os.utime in os.supports_fd else path, info.st_mtime, _USED_AGAIN_SECONDS)
                    return file[_HEAD.size :]
                remove_if_same(path, (info.st_dev, info.st_ino))
            finally:
                os.close(fd)
        return None

    def keep(self, key: str, start: int, data: bytes) -> None:
        """Write parts of an object down, from byte ``start`` on, in a thread of its own; or not, if that is behind."""
        if not self.keeps or not data:
            return
        with self._lock:
            if self._queued_bytes + len(data) > QUEUED_BYTES:
                return
            self._queued_bytes += len(data)
            try:
                self._last = self._writer.submit(self._write, key, start, data)
            except (RuntimeError, UnavailableError):  # the program ends, or the system has no thread
                self._queued_bytes -= len(data)

    def _write(self, key: str, start: int, data: bytes) -> None:
        try:
            present = self.parts(key)
            view = memoryview(data)
            for part in _blocks(start, start + len(data)):
                if not any(first <= part[0] and part[1] <= end for first, end in present):
                    self._write_part(key, part, view[part[0] - start : part[1] - start], present)
            self._has_failed = False
        except OSError as error:
            self._paused_until = time.monotonic() + self._pause_seconds
            if not self._has_failed:
                self._has_failed = True
                _log.warning("the cache %s cannot be written to: %s", self._folder.path, error.strerror or error)
        finally:
            with self._lock:
                self._queued_bytes -= len(data)

    def _write_part(self, key: str, part: Part, data: memoryview, present: Sequence[Part]) -> None:
        size = _HEAD.size + len(data)
        if size > self._max_bytes // 8 or not self._folder.make_room(size):
            return
        group = self._group(key)
        head = _HEAD.pack(_MAGIC, _VERSION, group, *part, kernel.crc64_nvme(data))
        self._folder.write(group.hex(), _name(part), [head, data])
        for other in present:
            if part[0] <= other[0] and other[1] <= part[1]:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._folder.of(group.hex())}/{_name(other)}")  # noqa: PTH108

    def _group(self, key: str) -> bytes:
        return hashlib.sha256(f"{self._place}\n{key}".encode()).digest()

    def _cached(self, key: str, start: int, end: int) -> bytes | None:
        """A range, if all of it is there."""
        if start == end:
            return None
        pieces: list[memoryview] = []
        parts = self.parts(key)
        while start < end:
            part = covering(parts, start)
            data = None if part is None else self.load(key, part)
            if part is None or data is None:
                return None
            stop = min(part[1], end)
            pieces.append(memoryview(data)[start - part[0] : stop - part[0]])
            start = stop
        return b"".join(pieces)


def covering(parts: Sequence[Part], position: int) -> Part | None:
    """The part that has a byte, and most of those behind it."""
    return max((part for part in parts if part[0] <= position < part[1]), key=lambda part: part[1], default=None)


class _CachedStream:
    """A ByteStream of parts that are cached, and of ranges of the store behind for what is missing between them."""

    def __init__(self, cache: CachedBlobStore, key: str, start: int, end: int) -> None:
        self._cache, self._key, self._end = cache, key, end
        self._position = start
        self._parts = cache.parts(key)
        self._useless: set[Part] = set()
        self._cached = memoryview(b"")  # the rest of a part
        self._gap: ByteStream | None = None
        self._gap_end = start
        self._unkept = bytearray()  # of the block that the gap is in
        if covering(self._parts, start) is None:
            self._open_gap()

    def readinto(self, buffer: memoryview, /) -> int:
        """Copy the next bytes of a part, or read the next of a gap."""
        if self._position >= self._end or not buffer:
            return 0
        if not self._cached and self._gap is None:
            self._go_on()
        if self._cached:
            count = min(len(buffer), len(self._cached))
            buffer[:count] = self._cached[:count]
            self._cached = self._cached[count:]
        else:
            count = self._read_gap(buffer)
        self._position += count
        if self._gap is not None and self._position == self._gap_end:
            self._close_gap()
        return count

    def close(self) -> None:
        """Let go of what is behind. A block that was not read to its end is not kept."""
        self._end = self._position
        self._unkept.clear()
        self._close_gap()
        self._cached = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_gap"):
            self.close()

    def _go_on(self) -> None:
        while (part := covering(self._parts, self._position)) is not None:
            data = self._cache.load(self._key, part)
            if data is not None:
                self._cached = memoryview(data)[self._position - part[0] : min(part[1], self._end) - part[0]]
                return
            # It was evicted, perhaps with others, or is not whole.
            self._useless.add(part)
            self._parts = [each for each in self._cache.parts(self._key) if each not in self._useless]
        try:
            self._open_gap()
        except (NotFoundError, RangeError) as error:
            raise DamagedError(f"object {self._key} is not there any more as it was: {error}") from error

    def _open_gap(self) -> None:
        nearest = min((start for start, _ in self._parts if start > self._position), default=self._end)
        self._gap_end = min(nearest, self._end)
        self._gap = self._cache.inner.get_range(self._key, self._position, self._gap_end)

    def _read_gap(self, buffer: memoryview) -> int:
        assert self._gap is not None
        count = self._gap.readinto(buffer[: self._gap_end - self._position])
        if not count:
            raise DamagedError(f"object {self._key} ended {self._gap_end - self._position} bytes too early")
        if self._cache.keeps:
            self._keep(buffer[:count])
        else:
            self._unkept.clear()
        return count

    def _keep(self, data: memoryview) -> None:
        """Take in bytes that come at the position, and hand on those of a block that is complete."""
        start = self._position - len(self._unkept)
        self._unkept += data
        for part in _blocks(start, self._position + len(data)):
            if part[1] % BLOCK_BYTES == 0 or part[1] == self._gap_end:
                size = part[1] - part[0]
                self._cache.keep(self._key, part[0], bytes(memoryview(self._unkept)[:size]))
                del self._unkept[:size]

    def _close_gap(self) -> None:
        gap, self._gap = self._gap, None
        if gap is not None:
            gap.close()


class _NewCachedObject:
    """A NewObject whose end is kept once it is committed."""

    def __init__(self, inner: NewObject, cache: CachedBlobStore, key: str) -> None:
        self._inner, self._cache, self._key = inner, cache, key
        self._size = 0
        self._tail = b""

    def write(self, part: Buffer, /) -> None:
        """Append bytes."""
        self._inner.write(part)
        view = memoryview(part)
        if view.nbytes:
            view = view.cast("B")
            self._size += len(view)
            self._tail = (self._tail + bytes(view[-TAIL_BYTES:]))[-TAIL_BYTES:]

    def commit(self) -> None:
        """As ``inner`` does."""
        self._inner.commit()
        self._cache.keep(self._key, self._size - len(self._tail), self._tail)

    def close(self) -> None:
        """Drop it unless it was committed."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _name(part: Part) -> str:
    return f"{part[0]}-{part[1]}"


def _part_of(name: str) -> Part | None:
    """The inverse of :func:`_name`; None for a name that is none of ours."""
    found = _NAME.fullmatch(name)
    part = (int(found[1]), int(found[2])) if found else (0, 0)
    is_ours = part[0] < part[1] and part[0] // BLOCK_BYTES == (part[1] - 1) // BLOCK_BYTES and name == _name(part)
    return part if is_ours else None


def _blocks(start: int, end: int) -> Iterator[Part]:
    """Bytes ``[start, end)``, block by block."""
    while start < end:
        stop = min(end, (start // BLOCK_BYTES + 1) * BLOCK_BYTES)
        yield start, stop
        start = stop


def _is_sound(file: bytes, group: bytes, part: Part, size: int) -> bool:
    if len(file) != size:
        return False
    checksum = kernel.crc64_nvme(memoryview(file)[_HEAD.size :])
    return file.startswith(_HEAD.pack(_MAGIC, _VERSION, group, *part, checksum))
