"""Every constant of the protocol, each with its section of the draft, and the AlgorithmSuite that holds them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from xetstore.protocol import kernel
from xetstore.protocol.gear_table import GEAR_TABLE

HASH_BYTES: Final = 32


@dataclass(frozen=True)
class AlgorithmSuite:
    """A chunker, a keyed hash and their parameters as one value (draft section 4).

    All participants of a deployment use the same suite; formats carry no suite identifier (4.3).
    ``kernel`` is the same suite as the native kernel takes it.
    """

    name: str
    # Chunking (5.2).
    gear_table: tuple[int, ...]
    min_chunk_bytes: int
    target_chunk_bytes: int
    max_chunk_bytes: int
    cut_mask: int
    # Domain-separated keys of the hash function (6.1 to 6.4), 32 bytes each.
    data_key: bytes
    node_key: bytes
    file_key: bytes
    verification_key: bytes
    # Merkle tree (6.2.2.1).
    mean_branching: int
    # Xorbs (7.1). max_xorb_bytes of raw chunks are what we write, as the reference client does. The JavaScript client
    # counts serialized bytes only: what is read has at most max_xorb_body_bytes of these, and is as long as that gives.
    max_xorb_bytes: int
    max_xorb_chunks: int
    # Global deduplication (10.3.1): eligible when the last u64 of a chunk hash % this == 0.
    dedup_modulus: int

    def __post_init__(self) -> None:
        keys = (self.data_key, self.node_key, self.file_key, self.verification_key)
        if len(self.gear_table) != 256 or any(len(key) != HASH_BYTES for key in keys):
            raise ValueError("a suite needs 256 gear constants and 32-byte keys")
        if not 64 <= self.min_chunk_bytes <= self.target_chunk_bytes <= self.max_chunk_bytes:
            raise ValueError("chunk sizes must satisfy 64 <= min <= target <= max")

    @property
    def max_children(self) -> int:
        """Most children of an inner node (6.2.2.1)."""
        return 2 * self.mean_branching + 1

    @property
    def max_xorb_body_bytes(self) -> int:
        """Longest chunk region of a xorb: one of max_xorb_bytes, all chunks stored raw, with their headers."""
        return self.max_xorb_bytes + CHUNK_HEADER_BYTES * self.max_xorb_chunks

    @cached_property
    def kernel(self) -> kernel.Suite:
        """This suite as the kernel's functions take it."""
        return kernel.Suite(
            gear_table=struct.pack("<256Q", *self.gear_table),
            min_chunk_bytes=self.min_chunk_bytes,
            max_chunk_bytes=self.max_chunk_bytes,
            cut_mask=self.cut_mask,
            data_key=self.data_key,
            node_key=self.node_key,
            mean_branching=self.mean_branching,
            max_xorb_body_bytes=self.max_xorb_body_bytes,
            max_xorb_chunks=self.max_xorb_chunks,
        )


XET_GEARHASH_BLAKE3: Final = AlgorithmSuite(
    name="XET-GEARHASH-BLAKE3",
    gear_table=GEAR_TABLE,
    min_chunk_bytes=8192,
    target_chunk_bytes=65536,
    max_chunk_bytes=131072,
    cut_mask=0xFFFF_0000_0000_0000,
    data_key=bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229"),
    node_key=bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f"),
    file_key=bytes(HASH_BYTES),
    verification_key=bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3"),
    mean_branching=4,
    max_xorb_bytes=67_108_864,
    max_xorb_chunks=8192,
    dedup_modulus=1024,
)

# Chunk header (7.3): u8 version, u24 payload bytes, u8 scheme, u24 raw bytes.
CHUNK_HEADER_BYTES: Final = 8
CHUNK_VERSION: Final = 0

# Xorb footer, CasObjectInfo (published draft 7.5).
XORB_IDENT: Final = b"XETBLOB"
XORB_HASHES_IDENT: Final = b"XBLBHSH"
XORB_BOUNDARIES_IDENT: Final = b"XBLBBND"

# Shard (9.3, published draft 9.6).
SHARD_APPLICATION_ID: Final = b"HFRepoMetaData"
SHARD_MAGIC: Final = bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
SHARD_TAG: Final = SHARD_APPLICATION_ID + b"\0" + SHARD_MAGIC
SHARD_VERSION: Final = 2
SHARD_FOOTER_VERSION: Final = 1
SHARD_RECORD_BYTES: Final = 48
SHARD_FOOTER_BYTES: Final = 200
SHARD_BOOKEND: Final = b"\xff" * 32 + bytes(16)
MAX_SHARD_BYTES: Final = 67_108_864
FILE_WITH_VERIFICATION: Final = 1 << 31
FILE_WITH_METADATA: Final = 1 << 30
CHUNK_DEDUP_ELIGIBLE: Final = 1 << 31

# Deduplication habits of the reference client (10.3, 10.4): chunks between two global queries of a
# file, and its fragmentation rule: mean chunks a run over the last runs, with hysteresis.
DEDUP_QUERY_SPACING_CHUNKS: Final = 256
FRAGMENTATION_WINDOW_RUNS: Final = 128
FRAGMENTATION_TARGET_CHUNKS: Final = 8.0
FRAGMENTATION_LOW_FACTOR: Final = 0.5
