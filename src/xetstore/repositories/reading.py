"""Reading files of a repository that no store has by their hashes: whole, verified, then any part of them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from xetstore.errors import RangeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES: Final = 1 << 20
_IN_MEMORY_BYTES: Final = 8 << 20


def held(parts: Iterator[Buffer]) -> BinaryIO:
    """All bytes of a file that has no other place to be read from, on the disk if they are many."""
    held = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  # the caller closes it
    try:
        for part in parts:
            held.write(part)
        held.seek(0)
    except BaseException:
        held.close()
        raise
    return held  # type: ignore[return-value]


def sliced(held: BinaryIO, start: int, end: int | None) -> Iterator[memoryview]:
    """Bytes ``[start, end)``, after which the file is closed. Raises RangeError for a start at the end or behind it."""
    with held:
        size = held.seek(0, io.SEEK_END)
        if start >= size and (start or size):
            raise RangeError(f"byte {start} is past the end of a file of {size} bytes")
        end = size if end is None else min(end, size)
        held.seek(start)
        while start < end and (part := held.read(min(BLOCK_BYTES, end - start))):
            start += len(part)
            yield memoryview(part)
