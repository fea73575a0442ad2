"""Content-defined chunks: the packed list of them, and the streaming chunker (draft sections 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from xetstore import _kernel
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Updates are gathered to this size before the kernel is called: a small copy costs less than a call.
BLOCK_BYTES: Final = 1 << 20

_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class ChunkList:
    """Consecutive chunks as (hash, length), packed the way the kernel returns and takes them.

    ``hashes`` is 32 raw bytes a chunk, ``lengths`` a native u64 a chunk: bytes of raw data.

    >>> chunks = chunk_bytes(b"Hello World!")
    >>> [(str(hash)[:8], length) for hash, length in chunks]
    [('d8d408e6', 12)]
    """

    hashes: bytes
    lengths: bytes

    EMPTY: ClassVar[ChunkList]

    def __post_init__(self) -> None:
        count, rest = divmod(len(self.hashes), HASH_BYTES)
        if rest or len(self.lengths) != count * _LENGTH_BYTES:
            raise ValueError(f"{len(self.hashes)} bytes of hashes do not go with {len(self.lengths)} of lengths")

    @classmethod
    def concat(cls, lists: Iterable[ChunkList]) -> ChunkList:
        """All chunks of all lists, in order."""
        parts = tuple(lists)
        return cls(b"".join(part.hashes for part in parts), b"".join(part.lengths for part in parts))

    def __len__(self) -> int:
        return len(self.hashes) // HASH_BYTES

    def __iter__(self) -> Iterator[tuple[Hash, int]]:
        return ((Hash(self.digest(i)), length) for i, length in enumerate(self.sizes))

    @property
    def sizes(self) -> memoryview[int]:
        """The raw length of each chunk, as numbers."""
        return memoryview(self.lengths).cast("Q")

    @property
    def total_bytes(self) -> int:
        """Raw bytes of all chunks together."""
        return sum(self.sizes)

    def digest(self, index: int) -> bytes:
        """The 32 raw hash bytes of one chunk."""
        if not 0 <= index < len(self):
            raise IndexError(f"no chunk {index} in a list of {len(self)}")
        return self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def slice(self, start: int, end: int) -> ChunkList:
        """Chunks ``[start, end)``; raises ValueError where the list does not hold them."""
        if not 0 <= start <= end <= len(self):
            raise ValueError(f"no chunks {start} to {end} in a list of {len(self)}")
        return ChunkList(
            self.hashes[start * HASH_BYTES : end * HASH_BYTES],
            self.lengths[start * _LENGTH_BYTES : end * _LENGTH_BYTES],
        )


ChunkList.EMPTY = ChunkList(b"", b"")


def chunk_bytes(data: Buffer, *, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3, threads: int = 1) -> ChunkList:
    """Cut and hash data that is there as a whole; nothing for no bytes."""
    return ChunkList(*_kernel.find_chunks(suite.kernel, data, final=True, threads=threads))


class Chunker:
    """Cuts and hashes a stream. However the stream is split into updates, the chunks are the same.

    Give it large blocks (8 MiB): they are cut where they lie, but for the chunk that spans two of them.
    Not thread-safe; ``threads`` is how many the kernel may use inside a call.

    >>> chunker = Chunker()
    >>> ChunkList.concat([chunker.update(b"Hello "), chunker.update(b"World!"), chunker.finish()]).total_bytes
    12
    """

    def __init__(self, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3, threads: int = 1) -> None:
        self._suite = suite
        self._threads = threads
        # Bytes behind the last chunk returned: an open chunk, or updates too small to be worth a call.
        self._held = bytearray()

    def update(self, data: Buffer) -> ChunkList:
        """Take the next bytes; return the chunks that are complete by now and were not returned before."""
        whole = memoryview(data)
        if not whole.nbytes:
            return ChunkList.EMPTY
        block = whole.cast("B")
        if len(self._held) + len(block) < BLOCK_BYTES:
            self._held += block
            return ChunkList.EMPTY
        found: list[ChunkList] = []
        if self._held:
            # With max_chunk_bytes more, the chunk open at the seam is sure to end inside the block.
            seam = len(self._held)
            self._held += block[: self._suite.max_chunk_bytes]
            found.append(self._cut(self._held))
            consumed = found[0].total_bytes
            if consumed < seam:  # only if all of the block is in _held by now
                del self._held[:consumed]
                return found[0]
            block = block[consumed - seam :]
            self._held.clear()
        if len(block) >= BLOCK_BYTES:
            found.append(self._cut(block))
            block = block[found[-1].total_bytes :]
        self._held += block
        return ChunkList.concat(found)

    def finish(self) -> ChunkList:
        """The chunks that are left. Afterwards the chunker is as new, ready for the next stream."""
        last = chunk_bytes(self._held, suite=self._suite, threads=self._threads)
        self._held.clear()
        return last

    def _cut(self, data: Buffer) -> ChunkList:
        return ChunkList(*_kernel.find_chunks(self._suite.kernel, data, final=False, threads=self._threads))
