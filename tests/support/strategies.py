"""Data for tests: deterministic generators (some of them behind golden vectors) and Hypothesis strategies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from xetstore import _kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite
from xetstore.protocol.xorb import XorbBuilder, XorbInfo

GOLDEN = Path(__file__).parents[1] / "vectors" / "golden"

# The same algorithm with small numbers: many chunks and all limits within reach of the slow twin.
TINY_SUITE: AlgorithmSuite = replace(
    XET_GEARHASH_BLAKE3,
    name="TINY",
    min_chunk_bytes=64,
    target_chunk_bytes=128,
    max_chunk_bytes=512,
    cut_mask=0xFC00_0000_0000_0000,
    max_xorb_bytes=8192,
    max_xorb_chunks=40,
)

# --- Generators -----------------------------------------------------------------------------------------


def splitmix64(seed: int, size: int) -> bytes:
    """Random bytes: the 64-bit outputs of splitmix64, little-endian, cut to size."""
    count = -(-size // 8)
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state.astype("<u8").tobytes()[:size]


def constant(size: int, byte: int = 59) -> bytes:
    """One byte value over and over; 59 never cuts before the maximum."""
    return bytes([byte]) * size


def text(size: int) -> bytes:
    """A sentence over and over."""
    sentence = b"The quick brown fox jumps over the lazy dog. "
    return (sentence * (size // len(sentence) + 1))[:size]


def float32(size: int, seed: int = 7) -> bytes:
    """Small little-endian floats around 0, as of a layer of weights."""
    words = np.frombuffer(splitmix64(seed, -(-size // 4) * 4), dtype="<u4")
    return ((words / 2**32 - 0.5) * 0.1).astype("<f4").tobytes()[:size]


def ramp(size: int) -> bytes:
    """Little-endian floats 0, 1, 2, …: they shrink when grouped by byte, and hardly at all otherwise."""
    return np.arange(-(-size // 4), dtype="<f4").tobytes()[:size]


def few_values(size: int) -> bytes:
    """Random, but of four byte values: compresses by its statistics, without long matches."""
    return (np.frombuffer(splitmix64(11, size), dtype=np.uint8) & 3).tobytes()


GENERATORS: dict[str, Callable[[int], bytes]] = {
    "random": lambda size: splitmix64(0, size),
    "constant": constant,
    "text": text,
    "float32": float32,
    "ramp": ramp,
    "few values": few_values,
}


def gear_window() -> bytes:
    """64 bytes behind which a chunk ends, wherever its length allows it: from the first golden vector."""
    return splitmix64(0, 84493)[-64:]


def chunk_list(entries: list[tuple[bytes, int]]) -> ChunkList:
    """A ChunkList of raw hashes and lengths, whether or not any data has them."""
    return ChunkList(b"".join(digest for digest, _ in entries), packed([length for _, length in entries]))


def packed(numbers: Sequence[int]) -> bytes:
    """Numbers as the kernel takes them: native u64."""
    return struct.pack(f"={len(numbers)}Q", *numbers)


def unpacked(numbers: bytes) -> list[int]:
    """The inverse of :func:`packed`."""
    return list(memoryview(numbers).cast("Q"))


def cut_lengths(data: bytes, size: int) -> bytes:
    """Packed lengths of chunks of ``size`` bytes, for calls that do not ask for content-defined ones."""
    return packed([len(data[at : at + size]) for at in range(0, len(data), size)])


def hashed_chunks(chunks: Sequence[bytes], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> ChunkList:
    """The ChunkList of given chunks, wherever content-defined chunking would have cut."""
    lengths = packed([len(chunk) for chunk in chunks])
    return ChunkList(_kernel.hash_chunks(suite.kernel, b"".join(chunks), lengths), lengths)


def encode(chunks: Sequence[bytes], policy: int = _kernel.AUTO, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The chunk region of a xorb of these chunks."""
    out = bytearray(sum(len(chunk) + CHUNK_HEADER_BYTES for chunk in chunks))
    lengths = packed([len(chunk) for chunk in chunks])
    ends = unpacked(_kernel.encode_chunks(suite.kernel, chunks, lengths, out, policy=policy))
    return bytes(out[: ends[-1]]) if ends else b""


def small_xorb() -> tuple[XorbInfo, bytes]:
    """Three chunks, one of each scheme, in a few hundred bytes: to be broken in every way."""
    chunks = [splitmix64(3, 40), text(150), ramp(400)]
    builder = XorbBuilder()
    for chunk, policy in zip(chunks, (_kernel.NONE, _kernel.LZ4, _kernel.BG4_LZ4), strict=True):
        builder.append([chunk], hashed_chunks([chunk]), policy=policy)
    info, body = builder.finish()
    return info, bytes(body)


# --- Hypothesis strategies ------------------------------------------------------------------------------


def hashes() -> st.SearchStrategy[Hash]:
    """Any hash; every other one cuts a merkle level (its last u64 is a multiple of 4)."""
    any_hash = st.binary(min_size=32, max_size=32)
    cutting = any_hash.map(lambda digest: digest[:24] + bytes([digest[24] & 0xFC]) + digest[25:])
    return st.one_of(any_hash, cutting).map(Hash)


def chunk_lists(min_size: int = 0, max_size: int = 60) -> st.SearchStrategy[ChunkList]:
    """Lists of chunks with any hashes and legal lengths."""
    entry = st.tuples(hashes().map(lambda name: name.digest), st.integers(1, 131072))
    return st.lists(entry, min_size=min_size, max_size=max_size).map(chunk_list)


@st.composite
def payloads(draw: st.DrawFn, max_size: int = 20_000) -> bytes:
    """Data of mixed kinds in runs: random, repetitive, text, floats; with sizes around the powers of two."""
    edges = [n + d for n in (8, 64, 256, 512, 1024, 8192, 16384) for d in (-1, 0, 1) if n + d <= max_size]
    size = draw(st.one_of(st.integers(0, max_size), st.sampled_from(edges)))
    parts = []
    while size > 0:
        part = draw(st.integers(1, size))
        kind = draw(st.sampled_from([*GENERATORS, "drawn"]))
        if kind == "drawn":
            parts.append(draw(st.binary(min_size=1, max_size=min(part, 300))))
        elif kind == "random":
            parts.append(splitmix64(draw(st.integers(0, 1000)), part))
        else:
            parts.append(GENERATORS[kind](part))
        size -= len(parts[-1])
    return b"".join(parts)


@st.composite
def splits(draw: st.DrawFn, size: int, max_cuts: int = 8) -> list[tuple[int, int]]:
    """Consecutive ranges ``(start, end)`` that cover ``size``, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=max_cuts)))
    return list(zip([0, *cuts], [*cuts, size], strict=True))


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with some of them flipped, set, removed, repeated or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "set", "u32", "remove", "insert", "cut"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[at] = draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF]))
            case "u32":
                data[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
            case "remove":
                del data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "cut":
                del data[at:]
    return bytes(data)
