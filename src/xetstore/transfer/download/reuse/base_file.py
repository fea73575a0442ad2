"""BaseFile: a local file, an older version as a rule, whose chunks are not fetched."""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import SourceChangedError
from xetstore.platform.descriptors import READ, read_into
from xetstore.protocol.suite import HASH_BYTES
from xetstore.transfer.scan import FileScan, source_error

if TYPE_CHECKING:
    from xetstore.transfer.progress import Progress

_LENGTH_BITS: Final = 20
_OFFSET_BITS: Final = 44
_BUCKETS: Final = 256


class BaseFile:
    """A local file that is read once, when the first chunk is looked for. Thread-safe; close it, or use ``with``.

    Holds 16 bytes a chunk (26 MB for 100 GB), by the first 8 bytes of its hash: the reader compares the whole hash
    of what was read, so that neither a likeness of hashes nor a file that is being changed can do any harm. Raises
    NotFoundError, AccessDeniedError and UsageError (not a regular file), and the first look at it AccessDeniedError.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._table: _Table | None = None
        self._fd = -1
        self._scan: FileScan | None = FileScan(path, threads=threads, progress=progress)
        try:
            # A descriptor of its own: the scan's ends with the scan.
            self._fd = os.open(path, READ)
        except OSError as error:
            self.close()
            raise source_error(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._scan is not None:
            self._scan.__exit__()
            self._scan = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def locate(self, digest: bytes) -> tuple[int, int] | None:
        """Offset and length of a chunk with this hash; None if there is none."""
        table = self._table
        return (self._scanned() if table is None else table).find(digest)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes from ``offset`` on; raises SourceChangedError where they are not all there."""
        filled = 0
        while filled < len(view):
            try:
                count = read_into(self._fd, view[filled:], offset + filled)
            except OSError as error:
                raise source_error(self.path, error) from error
            if count == 0:
                raise SourceChangedError(f"{self.path} became shorter while it was read", hint="leave it as it is")
            filled += count

    def _scanned(self) -> _Table:
        with self._lock:
            if self._table is None:
                if self._scan is None:
                    raise ValueError("the file is closed")
                table = _Table()
                # Found changed at the end, it is as good as before: each chunk is compared when it is read.
                try:
                    for block in self._scan:
                        table.add(block.chunks.hashes, block.chunks.sizes)
                except SourceChangedError:
                    pass
                self._scan.__exit__()
                self._scan = None
                table.sort()
                self._table = table
            return self._table


class _Table:
    """Digest prefix to offset and length: sorted arrays in buckets by the first byte of the digest."""

    def __init__(self) -> None:
        self._position = 0
        self._last: int | None = None
        self._prefixes = [array("Q") for _ in range(_BUCKETS)]
        # Offset and length of each in one number.
        self._places = [array("Q") for _ in range(_BUCKETS)]

    def add(self, hashes: bytes, sizes: memoryview[int]) -> None:
        position, last = self._position, self._last
        if position >> _OFFSET_BITS:
            return  # no file is as long; what lies behind is not found
        prefixes, places = self._prefixes, self._places
        words = memoryview(hashes).cast("Q")[:: HASH_BYTES // 8].tolist()
        for bucket, word, size in zip(hashes[::HASH_BYTES], words, sizes, strict=True):
            if word != last:  # a sparse file has millions of the same
                prefixes[bucket].append(word)
                places[bucket].append(position << _LENGTH_BITS | size)
                last = word
            position += size
        self._position, self._last = position, last

    def sort(self) -> None:
        """Make :meth:`find` possible: once all are there. The first of equal ones stays."""
        for bucket, words in enumerate(self._prefixes):
            first = dict(zip(reversed(words), reversed(self._places[bucket]), strict=True))
            self._prefixes[bucket] = array("Q", sorted(first))
            self._places[bucket] = array("Q", (first[word] for word in self._prefixes[bucket]))

    def find(self, digest: bytes) -> tuple[int, int] | None:
        bucket = digest[0]
        words = self._prefixes[bucket]
        (word,) = memoryview(digest)[:8].cast("Q")
        at = bisect_left(words, word)
        if at == len(words) or words[at] != word:
            return None
        place = self._places[bucket][at]
        return place >> _LENGTH_BITS, place & ((1 << _LENGTH_BITS) - 1)
