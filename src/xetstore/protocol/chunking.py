"""Content-defined chunks: cutting bytes into them, and the packed list of them (draft sections 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash, xorb_hash
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

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

    @property
    def root(self) -> Hash:
        """The merkle root over the chunks: the name of a xorb of them; of a file :func:`file_hash` makes its hash."""
        return xorb_hash(self.hashes, self.lengths)

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
    return ChunkList(*kernel.find_chunks(suite.kernel, data, final=True, threads=threads))
