"""The chunk cache: ranges of xorbs that were verified once, in a folder that many processes share.

Nothing in the folder is trusted: an entry whose header does not stand its checksum is a miss and is removed, and
the reader of the bytes compares their chunk hashes. So no write is ever flushed to the disk, a process may be killed
at any moment, and entries may vanish, be cut short or be overwritten: the worst that comes of it is a miss.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import UnavailableError
from xetstore.events import CacheDisabled, Emit, ignore
from xetstore.platform import forks
from xetstore.platform.cache_folder import CacheFolder
from xetstore.platform.threads import Threads
from xetstore.transfer.download.reuse.cache_entry import EntryFile, entry_name, entry_range, header
from xetstore.transfer.download.reuse.layouts import Layouts
from xetstore.transfer.waiting import wait_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash

DEFAULT_MAX_BYTES: Final = 10 << 30
LARGEST_PART: Final = 8
"""The largest part of the cache for one entry, as a divisor."""

_USED_AGAIN_SECONDS: Final = 60


class CachedRange:
    """The serialized bytes of some chunks of a xorb, in order: a ByteStream, to be closed. Not thread-safe.

    ``byte_count`` is how many bytes there are and ``hashes`` the packed chunk hashes, as verified when they were
    stored. A stream that ends early, or whose chunks do not have their hashes, is of a bad entry: :meth:`discard` it
    and fetch the range.
    """

    def __init__(self, parts: list[tuple[EntryFile, int, int]]) -> None:
        self._files = [file for file, _, _ in parts]
        # Bytes [at, end) of each file that are left to give.
        self._left = [file.byte_range(start, end) for file, start, end in parts]
        self._next = 0
        self.hashes = b"".join(file.hashes(start, end) for file, start, end in parts)
        self.byte_count = sum(end - at for at, end in self._left)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill at most ``len(buffer)`` bytes; 0 at the end, and where the entry ends too early or cannot be read."""
        while self._next < len(self._left) and buffer:
            at, end = self._left[self._next]
            if at < end:
                count = self._files[self._next].readinto(at, buffer[: end - at])
                self._left[self._next] = (at + count, end)
                return count
            self._next += 1
        return 0

    def discard(self) -> None:
        """Close, and remove what it was read from."""
        for file in self._files:
            file.remove()
        self.close()

    def close(self) -> None:
        """Let go of the files. May be called again."""
        for file in self._files:
            file.close()
        self._next = len(self._left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ChunkCache:
    """Verified chunks in a folder of the user's own, at most ``max_bytes`` of them; what was used least recently goes.

    Thread-safe, and safe between processes, which keep one cap together. No error of the file system gets out: reading
    then misses, and writing ends for this object, with one CacheDisabled event. With ``max_bytes=0`` nothing is read or
    written. The folder is made by the first write.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES, *, emit: Emit = ignore) -> None:
        self._folder = CacheFolder(folder, max_bytes, lambda name: entry_range(name) is not None)
        self._max_bytes = max_bytes
        self._emit = emit
        self._writing = max_bytes > 0
        self.layouts = Layouts()
        """The layouts of files whose chunks are kept here."""
        self._begin()
        forks.renew(self, ChunkCache._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._writer: Threads | None = None
        self._unwritten: Future[None] | None = None

    def get(self, xorb: Hash, chunk_start: int, chunk_end: int) -> CachedRange | None:
        """Chunks ``[chunk_start, chunk_end)`` of a xorb, wherever entries hold all of them; None is a miss."""
        if not self._max_bytes or chunk_start >= chunk_end:
            return None
        self.settle()
        folder = self._folder.of(str(xorb))
        ranges = _ranges_in(self._folder.names(str(xorb)))
        parts: list[tuple[EntryFile, int, int]] = []
        position = chunk_start
        while position < chunk_end:
            reach = max((entry for entry in ranges if entry[0] <= position < entry[1]), key=_end_of, default=None)
            if reach is None:
                break
            file = EntryFile.open(os.path.join(folder, entry_name(*reach)), xorb, *reach)  # noqa: PTH118
            if file is None:
                ranges.remove(reach)
                continue
            end = min(reach[1], chunk_end)
            parts.append((file, position, end))
            position = end
        if position < chunk_end:
            for file, _, _ in parts:
                file.close()
            return None
        for file, _, _ in parts:
            file.mark_used(_USED_AGAIN_SECONDS)
        return CachedRange(parts)

    def holds(self, xorb: Hash, chunk_start: int, chunk_end: int) -> bool:
        """True if :meth:`get` would find entries for all of these chunks."""
        if not self._max_bytes:
            return False
        self.settle()
        ranges = _ranges_in(self._folder.names(str(xorb)))
        position = chunk_start
        while position < chunk_end:
            reach = max((end for start, end in ranges if start <= position < end), default=position)
            if reach == position:
                return False
            position = reach
        return True

    def put(
        self, xorb: Hash, chunk_start: int, body: Sequence[Buffer], chunks: ChunkList, ends: Sequence[int] | bytes
    ) -> None:
        """Keep verified chunks of a xorb, from ``chunk_start`` on: ``body`` is their serialized bytes in pieces.

        ``ends`` is the offset behind each chunk in them, as numbers or packed as the kernel gives them (u64). Does
        nothing where entries hold them already, where they are too large, and while the cache is being emptied. Raises
        ValueError where the three do not fit together.
        """
        if not self._writing or not len(chunks):
            return
        offsets = array("I", memoryview(ends).cast("Q") if isinstance(ends, bytes) else ends)
        nbytes = sum(memoryview(piece).nbytes for piece in body)
        if len(offsets) != len(chunks) or offsets[-1] != nbytes:
            raise ValueError(f"{len(offsets)} ends of {nbytes} bytes do not go with {len(chunks)} chunks")
        head = header(xorb, chunk_start, offsets, chunks.hashes)
        if len(head) + nbytes > self._max_bytes // LARGEST_PART:
            return
        chunk_end = chunk_start + len(chunks)
        try:
            ranges = _ranges_in(self._folder.names(str(xorb)))
            if any(start <= chunk_start and chunk_end <= end for start, end in ranges):
                return
            if not self._folder.make_room(len(head) + nbytes):
                return
            self._folder.write(str(xorb), entry_name(chunk_start, chunk_end), [head, *body])
        except OSError as error:
            self._disable(error)
            return
        for start, end in ranges:
            if chunk_start <= start and end <= chunk_end:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._folder.of(str(xorb)), entry_name(start, end)))  # noqa: PTH108, PTH118

    def put_later(
        self, xorb: Hash, chunk_start: int, body: Sequence[Buffer], chunks: ChunkList, ends: Sequence[int] | bytes
    ) -> None:
        """As :meth:`put`, which is done in a thread of its own, unless that has something to do already: so the memory
        is that of one entry. Only a call that asks for an entry waits for it.
        """
        with self._lock:
            if self._unwritten is None or self._unwritten.done():
                if self._writer is None:
                    self._writer = Threads(1, "chunk-cache")
                # The program may end, when no thread begins anything, or the system refuses one.
                with contextlib.suppress(RuntimeError, UnavailableError):
                    self._unwritten = self._writer.submit(self.put, xorb, chunk_start, body, chunks, ends)
                return
        self.put(xorb, chunk_start, body, chunks, ends)

    def settle(self) -> None:
        """Return when all is written that is to be kept."""
        unwritten = self._unwritten
        if unwritten is not None:
            wait_all((unwritten,))

    def close(self) -> None:
        """Settle, and end the thread; another one begins where it is needed."""
        self.settle()
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.shutdown()  # it is idle

    def _disable(self, error: OSError) -> None:
        with self._lock:
            first, self._writing = self._writing, False
        if first:
            self._emit(CacheDisabled(f"{self._folder.path} cannot be written to: {error.strerror or error}"))


def _ranges_in(names: Iterable[str]) -> list[tuple[int, int]]:
    """The chunk ranges of the entries of a xorb, by their names."""
    return [found for name in names if (found := entry_range(name)) is not None]


def _end_of(entry: tuple[int, int]) -> int:
    return entry[1]
