"""BLAKE3 in keyed mode, from its specification: slow, obvious, and independent of the kernel.

Section numbers are those of the BLAKE3 paper. Only what Xet uses is here: a 32-byte key, a 32-byte result.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

CHUNK_BYTES: Final = 1024
BLOCK_BYTES: Final = 64

# Table 1: the initial value (that of SHA-256). In keyed mode the key takes its place as chaining value.
IV: Final = (
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)
# Table 2: how the message words are permuted between rounds.
PERMUTATION: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
# Table 3: domain flags.
CHUNK_START: Final = 1
CHUNK_END: Final = 2
PARENT: Final = 4
ROOT: Final = 8
KEYED_HASH: Final = 16

_MASK: Final = 0xFFFF_FFFF

Words = tuple[int, ...]


def keyed_hash(key: bytes, data: bytes) -> bytes:
    """The 32-byte keyed hash of ``data`` (2.3)."""
    key_words = struct.unpack("<8I", key)
    last = _subtree(key_words, data, first_chunk=0)
    return struct.pack("<8I", *last.chaining_value(ROOT))


@dataclass(frozen=True)
class _Compression:
    """The arguments of a node's last compression: whether it is the root is known only by its user."""

    chaining: Words
    block: Words
    counter: int
    block_bytes: int
    flags: int

    def chaining_value(self, more_flags: int = 0) -> Words:
        flags = self.flags | more_flags
        return compress(self.chaining, self.block, self.counter, self.block_bytes, flags)


def _subtree(key: Words, data: bytes, first_chunk: int) -> _Compression:
    """A chunk if there is only one, else a parent of two subtrees; the left one is complete (2.1)."""
    if len(data) <= CHUNK_BYTES:
        return _chunk(key, data, first_chunk)
    # The left subtree has the largest power of two of chunks that leaves at least a byte to the right.
    chunks_on_the_left = 1
    while 2 * chunks_on_the_left * CHUNK_BYTES < len(data):
        chunks_on_the_left *= 2
    cut = chunks_on_the_left * CHUNK_BYTES
    left = _subtree(key, data[:cut], first_chunk)
    right = _subtree(key, data[cut:], first_chunk + chunks_on_the_left)
    children = left.chaining_value() + right.chaining_value()
    return _Compression(key, children, 0, BLOCK_BYTES, PARENT | KEYED_HASH)


def _chunk(key: Words, data: bytes, index: int) -> _Compression:
    """The blocks of a chunk, each compressed with the chaining value of the one before (2.4)."""
    blocks = [data[i : i + BLOCK_BYTES] for i in range(0, len(data), BLOCK_BYTES)] or [b""]
    chaining = key
    for i, block in enumerate(blocks):
        words = struct.unpack("<16I", block.ljust(BLOCK_BYTES, b"\0"))
        flags = KEYED_HASH
        if i == 0:
            flags |= CHUNK_START
        if i == len(blocks) - 1:
            return _Compression(chaining, words, index, len(block), flags | CHUNK_END)
        chaining = compress(chaining, words, index, BLOCK_BYTES, flags)
    raise AssertionError("the last block returns")


def compress(chaining: Words, block: Words, counter: int, block_bytes: int, flags: int) -> Words:
    """The compression function, its result truncated to 8 words (2.2)."""
    low, high = counter & _MASK, counter >> 32
    v = [*chaining, *IV[:4], low, high, block_bytes, flags]
    for _ in range(7):
        _mix(v, 0, 4, 8, 12, block[0], block[1])
        _mix(v, 1, 5, 9, 13, block[2], block[3])
        _mix(v, 2, 6, 10, 14, block[4], block[5])
        _mix(v, 3, 7, 11, 15, block[6], block[7])
        _mix(v, 0, 5, 10, 15, block[8], block[9])
        _mix(v, 1, 6, 11, 12, block[10], block[11])
        _mix(v, 2, 7, 8, 13, block[12], block[13])
        _mix(v, 3, 4, 9, 14, block[14], block[15])
        block = tuple(block[i] for i in PERMUTATION)
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def _mix(v: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    """The quarter round G (2.2)."""
    v[a] = (v[a] + v[b] + x) & _MASK
    v[d] = _rotate_right(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & _MASK
    v[b] = _rotate_right(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & _MASK
    v[d] = _rotate_right(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & _MASK
    v[b] = _rotate_right(v[b] ^ v[c], 7)


def _rotate_right(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & _MASK
