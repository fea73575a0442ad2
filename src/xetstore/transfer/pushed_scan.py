"""PushedScan: bytes that come in one after the other, cut as FileScan cuts those of a local file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from xetstore.errors import UsageError
from xetstore.records import FileInfo
from xetstore.transfer.scan import BLOCK_BYTES, Block, Cutter

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.transfer.progress import Progress


class PushedScan:
    """One file, pushed in: the blocks that each part completes, those that are left, then :meth:`info`.

    ``size`` is that of the file, where it is known: UsageError if it is not so. Two blocks are in memory at most, and
    no thread waits between two calls. SHA-256 is always computed. Not thread-safe. A context manager.
    """

    def __init__(
        self,
        size: int | None = None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._size = size
        self._cutter = Cutter(sha256=True, threads=threads, progress=progress, block_bytes=block_bytes, buffers=2)
        # A file that is known to be small is one block, in memory of its own.
        self._head = 0 if size is not None and size <= block_bytes else Cutter.HEAD_BYTES
        self._buffer = self._cutter.buffer() if self._head else memoryview(bytearray(size or 0))
        self._filled = 0
        self._received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._cutter.__exit__(*exc)

    def write(self, part: Buffer) -> Iterator[Block]:
        """Take the next bytes, to be iterated to the end: blocks that are complete, each valid as Block says."""
        left = memoryview(part).cast("B")
        self._received += len(left)
        if self._size is not None and self._received > self._size:
            raise UsageError(f"more than {self._size} bytes came, the size that was announced")
        while left:
            room = self._buffer[self._head + self._filled :]
            if not room:
                yield self._cutter.cut(self._buffer, self._filled, final=False)
                self._buffer, self._filled = self._cutter.buffer(), 0
                continue
            count = min(len(room), len(left))
            room[:count] = left[:count]
            self._filled += count
            left = left[count:]

    def finish(self) -> Iterator[Block]:
        """The blocks that are left, to be iterated to the end."""
        if self._size is not None and self._received != self._size:
            raise UsageError(f"{self._received} bytes came, not the {self._size} that were announced")
        if self._received == self._filled:  # nothing was cut yet
            if self._filled:
                yield self._cutter.whole(self._buffer[self._head :][: self._filled])
        else:
            block = self._cutter.cut(self._buffer, self._filled, final=True)
            if len(block.chunks):
                yield block

    def info(self) -> FileInfo:
        """The identity of the whole file, once it is finished."""
        return self._cutter.info()
