"""Reading a local file once: its blocks cut into hashed chunks, its file hash and, beside them, its SHA-256.

Reading ahead, SHA-256 and the chunk pass run at the same time in threads that hold no GIL; the chunk pass
itself is shared by ``threads`` cores. Memory is a few blocks, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from xetstore.errors import NotFoundError, SourceChangedError, UsageError, XetError, kind_of
from xetstore.platform.descriptors import READ, read_next
from xetstore.platform.homes import local_path
from xetstore.platform.threads import Threads, usable_cores
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import file_hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.records import FileInfo
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.waiting import result_of, wait_all

_SUITE = XET_GEARHASH_BLAKE3

BLOCK_BYTES = 4 << 20
"""Bytes that are read and cut at a time: three or four such blocks stay in the processor's cache."""

SHARED_BLOCK_BYTES = 2 << 20
"""The same where others read the blocks too, and lag behind: there are more of them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole chunks of a file in order.

    ``data`` is their bytes, valid until the next block is taken, or longer: until the futures in ``readers`` are done.
    Where that is None, they are valid for as long as anybody holds them.
    """

    data: memoryview
    chunks: ChunkList
    readers: list[Future[Any]] | None = None

    def is_uniform(self, index: int) -> bool:
        """True if a chunk is one byte over and over: compressed, it takes hardly any room."""
        start, length = sum(self.chunks.sizes[:index]), self.chunks.sizes[index]
        data = self.data[start : start + length]
        return data[1:] == data[:-1]


class Cutter:
    """Cuts one file into hashed chunks, block by block; its file hash and, in a thread beside, its SHA-256.

    Either :meth:`whole`, of a small file, or for each block: :meth:`buffer`, filled behind its first ``HEAD_BYTES``,
    and :meth:`cut`, as soon as what that gave is not used any more but by its readers. ``buffers``, at least two, is
    how many blocks are in memory. A context manager, which lets go of the thread.
    """

    HEAD_BYTES = _SUITE.max_chunk_bytes
    """Room before each block, for the open chunk of the one before."""

    def __init__(
        self,
        *,
        sha256: bool,
        threads: int | None = None,
        progress: Progress | None = None,
        block_bytes: int = BLOCK_BYTES,
        buffers: int = 3,
    ) -> None:
        self.block_bytes = block_bytes
        self.progress = progress or NoProgress()
        self.chunk_count = 0
        self._unmade = buffers
        self._threads = threads or usable_cores()
        self._sha = hashlib.sha256() if sha256 else None
        self._hasher: Threads | None = None
        self._hashed: Future[None] | None = None
        self._tree = kernel.MerkleTree(_SUITE.kernel)
        self._free: deque[memoryview] = deque()
        self._busy: deque[tuple[list[Future[Any]], memoryview]] = deque()
        self._carry = memoryview(b"")

    @property
    def total_bytes(self) -> int:
        """Bytes in the chunks so far."""
        return self._tree.total_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._hasher is not None:
            self._hasher.shutdown()

    def whole(self, data: memoryview) -> Block:
        """All of a file, in memory that is not used again."""
        if self._sha is not None:
            self._sha.update(data)
        return self._cut(data, None, final=True)

    def buffer(self) -> memoryview:
        """Memory for the next block, when nothing reads it any more."""
        if self._unmade:
            self._unmade -= 1
            return memoryview(bytearray(self.HEAD_BYTES + self.block_bytes))
        while not self._free:
            readers, used = self._busy.popleft()
            wait_all(readers)
            self._free.append(used)
        return self._free.popleft()

    def cut(self, buffer: memoryview, filled: int, *, final: bool) -> Block:
        """The next block; there may be no chunk in it."""
        head = self.HEAD_BYTES
        readers: list[Future[Any]] = []
        if self._sha is not None:
            self._hasher = self._hasher or Threads(1, "sha256")
            self._hashed = self._hasher.submit(self._sha.update, buffer[head : head + filled])
            readers.append(self._hashed)
        start = head - len(self._carry)
        buffer[start:head] = self._carry
        block = self._cut(buffer[start : head + filled], readers, final=final)
        self._carry = buffer[start + len(block.data) : head + filled]
        self._busy.append((readers, buffer))
        return block

    def info(self) -> FileInfo:
        """The identity of the whole file, once all of it was cut."""
        if self._hashed is not None:  # and not for other readers of the last blocks, which may wait for a network
            wait_all((self._hashed,))
        sha256 = self._sha.hexdigest() if self._sha is not None else None
        return FileInfo(file_hash(self._tree.root()), self.total_bytes, sha256)

    def _cut(self, data: memoryview, readers: list[Future[Any]] | None, *, final: bool) -> Block:
        hashes, lengths = kernel.find_chunks(_SUITE.kernel, data, final=final, threads=self._threads)
        self._tree.update(hashes, lengths)
        chunks = ChunkList(hashes, lengths)
        self.chunk_count += len(chunks)
        used = chunks.total_bytes
        self.progress.advance(logical=used)
        return Block(data[:used], chunks, readers)


class FileScan:
    """One pass over one file: iterate over its blocks, then ask for :meth:`info`.

    Raises NotFoundError, AccessDeniedError, UsageError (not a regular file, or no name of one) on opening, and
    SourceChangedError at the end if the file changed while it was read. A context manager.
    """

    def __init__(
        self,
        path: Path,
        *,
        sha256: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.path = path
        # One is being read, one is being cut, one holds the open chunk for the next; who reads them may lag behind.
        blocks = {"buffers": 5, "block_bytes": SHARED_BLOCK_BYTES} if sha256 else {"buffers": 3}
        self._cutter = Cutter(sha256=sha256, threads=threads, progress=progress, **blocks)
        self._after: os.stat_result | None = None
        try:
            # O_NONBLOCK: opening a FIFO must not hang; on a regular file it means nothing.
            self._fd = os.open(path, READ)
        except OSError as error:
            raise source_error(path, error) from error
        except ValueError as error:
            raise UsageError(f"{str(path)!r} is no name that a file can have", hint="no name holds a NUL") from error
        self._before = os.fstat(self._fd)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(self._fd)
            kind = "a directory" if stat.S_ISDIR(self._before.st_mode) else "not a regular file"
            raise UsageError(f"{path} is {kind}", hint="give a file")

    @property
    def size(self) -> int:
        """The file's size in bytes when it was opened."""
        return self._before.st_size

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """Which version of a file was opened: device, inode, size in bytes, time of its last change."""
        return _identity(self._before)

    @property
    def still(self) -> os.stat_result | None:
        """The status of the file, once it was read; None if any of it but the time of access changed meanwhile."""
        after = self._after
        return after if after is not None and after.st_ctime_ns == self._before.st_ctime_ns else None

    @property
    def chunk_count(self) -> int:
        """Chunks so far."""
        return self._cutter.chunk_count

    def __enter__(self) -> FileScan:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __iter__(self) -> Iterator[Block]:
        self._cutter.progress.total(self.size)
        try:
            yield from self._small() if self.size <= BLOCK_BYTES else self._large()
        except XetError:
            raise
        except OSError as error:
            raise source_error(self.path, error) from error
        after = os.fstat(self._fd)
        # A file that lost its last name was removed or replaced: what was read is not what its path means now.
        gone = not after.st_nlink and self._before.st_nlink
        if gone or _identity(after) != _identity(self._before) or self._cutter.total_bytes != after.st_size:
            raise SourceChangedError(f"{self.path} changed while it was read", hint="try again when it is still")
        self._after = after

    def info(self) -> FileInfo:
        """The identity of the whole file, once all blocks were taken."""
        if self._after is None:
            raise RuntimeError("the file was not read to its end")
        return self._cutter.info()

    def _small(self) -> Iterator[Block]:
        # One byte more than there should be: what grew is noticed without a second read, and so is what tells no size.
        data = memoryview(bytearray(self.size + 1))
        filled = self._fill(data, max(self.size, 1))
        if filled:
            yield self._cutter.whole(data[:filled])

    def _large(self) -> Iterator[Block]:
        head = Cutter.HEAD_BYTES
        with Threads(1, "read") as reader, self._cutter as cutter:
            buffer = cutter.buffer()
            reading = reader.submit(self._fill, buffer[head:])
            final = False
            while not final:
                filled = result_of(reading)
                current, final = buffer, filled < cutter.block_bytes
                if not final:
                    buffer = cutter.buffer()
                    reading = reader.submit(self._fill, buffer[head:])
                block = cutter.cut(current, filled, final=final)
                if len(block.chunks):
                    yield block

    def _fill(self, buffer: memoryview, enough: int | None = None) -> int:
        """Read until the buffer is full, or has enough, or the file ends."""
        filled, enough = 0, len(buffer) if enough is None else enough
        while filled < enough:
            count = read_next(self._fd, buffer[filled:])
            if count == 0:
                break
            filled += count
        return filled


@dataclass(frozen=True, slots=True)
class HashReport:
    """A hashed file: how many chunks it has and, where they were asked for, which."""

    info: FileInfo
    chunk_count: int
    chunks: ChunkList | None = None


def hash_report(
    path: Path | str,
    *,
    sha256: bool = False,
    keep_chunks: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> HashReport:
    """As :func:`hash_file`, with the chunks: 40 bytes of memory each when ``keep_chunks``."""
    kept: list[ChunkList] = []
    with FileScan(local_path(path), sha256=sha256, threads=threads, progress=progress) as scan:
        for block in scan:
            if keep_chunks:
                kept.append(block.chunks)
        return HashReport(scan.info(), scan.chunk_count, ChunkList.concat(kept) if keep_chunks else None)


def hash_file(
    path: Path | str, *, sha256: bool = False, threads: int | None = None, progress: Progress | None = None
) -> FileInfo:
    """The Xet hash and size of a file, without storing anything; ``sha256=True`` adds its SHA-256.

    ``threads`` is how many cores to use, all by default. Raises NotFoundError, AccessDeniedError, UsageError
    and SourceChangedError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "greeting.txt"
    >>> _ = path.write_text("Hello World!")
    >>> str(hash_file(path).hash)[:16]
    'a9dae0ad88b060bd'
    """
    return hash_report(path, sha256=sha256, threads=threads, progress=progress).info


def source_error(path: Path | str, error: OSError) -> XetError:
    """Say in our words why a file of the user's cannot be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"{path} does not exist")
    return kind_of(error)(f"{path} cannot be read: {error.strerror}")


def _identity(info: os.stat_result) -> tuple[int, int, int, int]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
