"""The native kernel: pure functions over bytes that touch every byte. No I/O, no policy.

Conventions. ``Buffer`` arguments are C-contiguous bytes-like objects, read (or, where named ``out``,
written) in place without a copy; the GIL is released while they are worked on. Lists of per-chunk
numbers travel packed: ``hashes`` is 32 raw bytes a chunk, ``lengths``, ``sizes`` and ``ends`` are
native-endian u64 (``memoryview(x).cast("Q")``). ``threads`` is the number of threads that share the work, the
calling one included. Malformed input raises :class:`xetstore.errors.FormatError` with rule and offset;
an argument that breaks the contract itself raises ``ValueError``. Nothing here panics on any input.
"""

from collections.abc import Sequence
from typing import final

from typing_extensions import Buffer

# Compression schemes, as in the chunk header (draft 7.3.3).
NONE: int
LZ4: int
BG4_LZ4: int
# Policies for encode_chunks beside the three schemes: choose per chunk.
AUTO: int

@final
class Suite:
    """The constants of an algorithm suite, validated once (draft section 4). Immutable, thread-safe."""

    def __new__(
        cls,
        *,
        gear_table: Buffer,
        min_chunk_bytes: int,
        max_chunk_bytes: int,
        cut_mask: int,
        data_key: Buffer,
        node_key: Buffer,
        mean_branching: int,
        max_xorb_body_bytes: int,
        max_xorb_chunks: int,
    ) -> Suite:
        """``gear_table`` is 256 u64 little-endian (2,048 bytes); keys are 32 bytes."""

def find_chunks(suite: Suite, data: Buffer, *, final: bool, threads: int = 1) -> tuple[bytes, bytes]:
    """Cut ``data``, which starts at a chunk boundary, and hash its chunks (draft 5.3, 6.1).

    Returns ``(hashes, lengths)``. With ``final`` the lengths add up to ``len(data)``; without it
    the last, still open chunk is left out: call again with those bytes in front of the next block.
    Any split of a stream into blocks gives the same chunks.
    """

def find_cuts(suite: Suite, data: Buffer, *, final: bool, threads: int = 1) -> bytes:
    """The boundaries alone: ``lengths`` of :func:`find_chunks`, without hashing."""

def hash_chunks(suite: Suite, data: Buffer, lengths: Buffer, *, threads: int = 1) -> bytes:
    """Chunk hashes of consecutive chunks; ``lengths`` must add up to ``len(data)`` (draft 6.1)."""

def keyed_hash(key: Buffer, data: Buffer) -> bytes:
    """BLAKE3 keyed hash, 32 bytes. ``key`` is 32 bytes."""

def keyed_hashes(key: Buffer, hashes: Buffer) -> bytes:
    """The keyed hash of each 32-byte hash, packed (dedup answers, draft 10.3.3)."""

@final
class MerkleTree:
    """The merkle root of a growing list of (hash, size), in memory logarithmic in its length (draft 6.2.2)."""

    def __new__(cls, suite: Suite) -> MerkleTree: ...
    def update(self, hashes: Buffer, sizes: Buffer) -> None:
        """Append entries. Not thread-safe."""
    def root(self) -> bytes:
        """The root of what was appended so far, 32 bytes; 32 zero bytes for nothing. May be called again."""
    @property
    def total_bytes(self) -> int: ...

def merkle_root(suite: Suite, hashes: Buffer, sizes: Buffer) -> bytes:
    """The merkle root of a whole list: a xorb's hash when the entries are its chunks (draft 6.2.3)."""

def encode_chunks(
    suite: Suite, pieces: Sequence[Buffer], lengths: Buffer, out: Buffer, *, policy: int, threads: int = 1
) -> bytes:
    """Serialize chunks (header and payload each, draft 7.3) into ``out`` from its start.

    ``pieces`` are runs of whole chunks; their total equals the sum of ``lengths``. Returns the
    packed ``ends``: the offset behind each chunk in ``out``. ``out`` must have room for
    ``sum(lengths) + 8 * len(lengths)`` bytes (the worst case), else ValueError.
    A chunk that compression does not shrink is stored as it is, under every policy.
    """

def walk_chunks(suite: Suite, body: Buffer) -> tuple[bytes, bytes, bytes]:
    """Walk the chunk headers of a serialized xorb without decoding (draft 7.3).

    Stops at the end of ``body``, or at a footer (``XETBLOB`` where a header would begin). Returns
    ``(lengths, ends, schemes)``: raw lengths, end offsets in ``body`` (the last is where the chunk
    region ends) and one byte of scheme a chunk. Refuses more than 8,192 chunks or 67,174,400 bytes of them.
    """

def verify_chunks(
    suite: Suite,
    body: Buffer,
    *,
    final: bool,
    chunks_before: int = 0,
    body_bytes_before: int = 0,
    threads: int = 1,
) -> tuple[bytes, bytes, bytes, bytes]:
    """Decode and hash the chunks of a serialized xorb, which may come in pieces; stops at a footer.

    Returns ``(hashes, lengths, ends, checksums)``, these as of :func:`chunk_checksums`. With ``final``, ``body`` must
    end behind a chunk or with a footer; without it a partial chunk at the end is left for the next call. The chunks and
    bytes of the same xorb before ``body`` count for the limits of a xorb.
    """

def decode_chunks(
    suite: Suite, body: Buffer, out: Buffer, *, final: bool, threads: int = 1
) -> tuple[bytes, bytes, int]:
    """Decode as many whole chunks of ``body`` as it holds and ``out`` has room for, in order, into ``out``.

    Returns ``(hashes, lengths, consumed)``: hashes of the decoded bytes, raw lengths, and how many
    bytes of ``body`` were used. With ``final``, ``body`` must end exactly behind a chunk (a truncated
    chunk raises); without it a partial chunk at the end is left for the next call. Stops early, without error, where
    ``out`` has no room for the next chunk.
    """

def byte_group(data: Buffer) -> bytes:
    """Byte i goes to lane i % 4, lanes concatenated (draft 7.4.3)."""

def byte_ungroup(data: Buffer) -> bytes:
    """The inverse of :func:`byte_group`."""

def crc64_nvme(data: Buffer) -> int:
    """CRC-64/NVME (check value of ``b"123456789"``: 0xAE8B14860A799888)."""

def chunk_checksums(data: Buffer, lengths: Buffer) -> bytes:
    """CRC-64/NVME of each of consecutive chunks as they are stored, headers included: native u64, packed.

    ``lengths`` must add up to ``len(data)``.
    """
