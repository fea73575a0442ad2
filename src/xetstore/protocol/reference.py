"""The slow twin of the kernel, straight from the draft: an oracle for tests, and the format in plain Python.

Nothing here is fast and nothing calls the kernel. Section numbers are those of the draft; hashes are 32
raw bytes. Decoders raise FormatError on whatever breaks a rule; which rule is named may differ from the
kernel, whether and what is decoded may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.errors import FormatError
from xetstore.protocol.reference_blake3 import keyed_hash
from xetstore.protocol.reference_lz4 import lz4_decode
from xetstore.protocol.suite import (
    CHUNK_HEADER_BYTES,
    CHUNK_VERSION,
    HASH_BYTES,
    XET_GEARHASH_BLAKE3,
    XORB_IDENT,
    AlgorithmSuite,
)

Entry = tuple[bytes, int]
"""A hash and the number of raw bytes below it."""

# --- Chunking (section 5) ------------------------------------------------------------------------------


def chunk_file(data: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> list[bytes]:
    """Cut data into chunks (5.3)."""
    h = 0
    start_offset = 0
    chunks = []
    for i, b in enumerate(data):
        h = ((h << 1) + suite.gear_table[b]) & 0xFFFF_FFFF_FFFF_FFFF
        chunk_size = i - start_offset + 1
        if chunk_size < suite.min_chunk_bytes:
            continue
        if chunk_size >= suite.max_chunk_bytes or (h & suite.cut_mask) == 0:
            chunks.append(data[start_offset : i + 1])
            start_offset = i + 1
            h = 0
    if start_offset < len(data):
        chunks.append(data[start_offset:])
    return chunks


# --- Hashes (section 6) --------------------------------------------------------------------------------


def chunk_hash(data: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The hash of one chunk (6.1)."""
    return keyed_hash(suite.data_key, data)


def node_hash(children: Sequence[Entry], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The hash of an inner node: of a text with a line for each child (6.2.1)."""
    text = "".join(f"{hash_to_string(child)} : {size}\n" for child, size in children)
    return keyed_hash(suite.node_key, text.encode())


def next_merge_cut(entries: Sequence[Entry], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> int:
    """The number of entries that the next node takes from the front of a level (6.2.2.2)."""
    if len(entries) <= 2:
        return len(entries)
    end = min(suite.max_children, len(entries))
    for i in range(2, end):
        if int.from_bytes(entries[i][0][24:32], "little") % suite.mean_branching == 0:
            return i + 1
    return end


def merkle_root(entries: Sequence[Entry], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The root of the tree over the entries (6.2.2.4).

    An entry left over alone at the end of a level is hashed again, as a node of one line, whatever the
    note in 6.2.2.2 says: real clients do, and names depend on it. A list of one entry is its own root.
    """
    if not entries:
        return bytes(HASH_BYTES)
    level = list(entries)
    while len(level) > 1:
        parents = []
        while level:
            cut = next_merge_cut(level, suite)
            children, level = level[:cut], level[cut:]
            parents.append((node_hash(children, suite), sum(size for _, size in children)))
        level = parents
    return level[0][0]


def xorb_hash(chunks: Iterable[bytes], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The name of a xorb with these chunks (6.2.3)."""
    return merkle_root([(chunk_hash(chunk, suite), len(chunk)) for chunk in chunks], suite)


def file_hash(data: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The hash of a file (6.3): 32 zero bytes for an empty one, as real clients and later drafts have it."""
    if not data:
        return bytes(HASH_BYTES)
    return keyed_hash(suite.file_key, xorb_hash(chunk_file(data, suite), suite))


def verification_hash(chunk_hashes: Iterable[bytes], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> bytes:
    """The verification hash of a term over these chunks (6.4)."""
    return keyed_hash(suite.verification_key, b"".join(chunk_hashes))


def hash_to_string(digest: bytes) -> str:
    """Four little-endian u64, 16 hex digits each (6.5)."""
    return "".join(f"{int.from_bytes(digest[i : i + 8], 'little'):016x}" for i in range(0, HASH_BYTES, 8))


def string_to_hash(text: str) -> bytes:
    """The inverse of :func:`hash_to_string` (6.5)."""
    return b"".join(int(text[i : i + 16], 16).to_bytes(8, "little") for i in range(0, 2 * HASH_BYTES, 16))


# --- Xorbs (section 7) ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredChunk:
    """One chunk as it lies in a serialized xorb."""

    scheme: int
    payload: bytes
    raw_bytes: int


def walk_xorb(body: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Iterator[StoredChunk]:
    """The chunks of a serialized xorb, up to its end or its footer (7.2, 7.3)."""
    at = count = 0
    while at < len(body) and not body.startswith(XORB_IDENT, at):
        header = body[at : at + CHUNK_HEADER_BYTES]
        if len(header) < CHUNK_HEADER_BYTES:
            raise FormatError("chunk.header", at, f"a chunk header of {len(header)} bytes")
        payload_bytes = int.from_bytes(header[1:4], "little")
        raw_bytes = int.from_bytes(header[5:8], "little")
        if header[0] != CHUNK_VERSION:
            raise FormatError("chunk.version", at, f"chunk version {header[0]}")
        if header[4] not in _DECODERS:
            raise FormatError("chunk.scheme", at + 4, f"compression scheme {header[4]}")
        if not 1 <= raw_bytes <= suite.max_chunk_bytes:
            raise FormatError("chunk.raw_bytes", at + 5, f"a chunk of {raw_bytes} bytes")
        if header[4] == 0 and payload_bytes != raw_bytes:
            raise FormatError("chunk.payload", at + 1, f"{payload_bytes} stored bytes for a chunk of {raw_bytes}")
        if not 1 <= payload_bytes <= min(suite.max_chunk_bytes, len(body) - at - CHUNK_HEADER_BYTES):
            raise FormatError("chunk.payload_bytes", at + 1, f"a payload of {payload_bytes} bytes")
        payload_start = at + CHUNK_HEADER_BYTES
        count += 1
        end = payload_start + payload_bytes
        if count > suite.max_xorb_chunks or end > suite.max_xorb_body_bytes:
            raise FormatError("xorb.size", at, f"{count} chunks of {end} bytes in one xorb")
        at = end
        yield StoredChunk(header[4], body[payload_start:at], raw_bytes)


def decode_xorb(body: bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> list[bytes]:
    """The raw chunks of a serialized xorb; it holds at least one."""
    chunks = [decode_chunk(chunk) for chunk in walk_xorb(body, suite)]
    if not chunks:
        raise FormatError("xorb.empty", 0, "a xorb without chunks")
    return chunks


def decode_chunk(chunk: StoredChunk) -> bytes:
    """A chunk's raw bytes: exactly as many as its header says (7.4)."""
    raw = _DECODERS[chunk.scheme](chunk.payload, chunk.raw_bytes)
    if len(raw) != chunk.raw_bytes:
        raise FormatError("chunk.raw_bytes", 5, f"{len(raw)} bytes where {chunk.raw_bytes} were declared")
    return raw


def encode_stored_chunk(data: bytes) -> bytes:
    """Header and payload of an uncompressed chunk (7.3, 7.4.1)."""
    return encode_chunk(0, data, len(data))


def encode_chunk(scheme: int, payload: bytes, raw_bytes: int) -> bytes:
    """A chunk header with whatever payload, in front of it (7.3)."""
    sizes = len(payload).to_bytes(3, "little"), raw_bytes.to_bytes(3, "little")
    return bytes([CHUNK_VERSION]) + sizes[0] + bytes([scheme]) + sizes[1] + payload


def byte_group(data: bytes) -> bytes:
    """Bytes 0, 4, 8, … then 1, 5, 9, … then 2, 6, … then 3, 7, … (7.4.3)."""
    groups: list[list[int]] = [[], [], [], []]
    for i, b in enumerate(data):
        groups[i % 4].append(b)
    return bytes(groups[0] + groups[1] + groups[2] + groups[3])


def byte_ungroup(grouped: bytes) -> bytes:
    """The inverse of :func:`byte_group`; the first lanes are longer if need be (7.4.3)."""
    base_size, remainder = divmod(len(grouped), 4)
    groups = []
    offset = 0
    for lane in range(4):
        size = base_size + (1 if lane < remainder else 0)
        groups.append(grouped[offset : offset + size])
        offset += size
    return bytes(groups[i % 4][i // 4] for i in range(len(grouped)))


def _decode_stored(payload: bytes, _raw_bytes: int) -> bytes:
    return payload


def _decode_lz4(payload: bytes, raw_bytes: int) -> bytes:
    return lz4_decode(payload, raw_bytes)


def _decode_bg4_lz4(payload: bytes, raw_bytes: int) -> bytes:
    return byte_ungroup(lz4_decode(payload, raw_bytes))


_DECODERS: Final = {0: _decode_stored, 1: _decode_lz4, 2: _decode_bg4_lz4}

# --- Checksums (of uploads by grant, and of stored chunks) ----------------------------------------------


def crc64_nvme(data: bytes) -> int:
    """CRC-64/NVME: reflected polynomial, all ones at the start, inverted at the end."""
    crc = 0xFFFF_FFFF_FFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x9A6C_9329_AC4B_C9B5 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF_FFFF_FFFF


# --- Inline answers (an extension of ours, see protocol/inline.py) --------------------------------------------------


def read_inline(frame: bytes, question: str) -> tuple[bytes, int, bytes]:
    """The JSON of a frame, how many ranges have their bytes in it, and these bytes."""
    if frame[:8] != b"XETREAD1" or len(frame) < 48:
        raise FormatError("inline.head", 0, "no inline answer")
    json_bytes = int.from_bytes(frame[8:12], "little")
    json = frame[48 : 48 + json_bytes]
    if len(json) != json_bytes:
        raise FormatError("inline.json", 0, "the JSON is cut off")
    content = hashlib.sha256(frame[8:16] + json).digest()
    if hashlib.sha256(question.encode() + b"\n" + content).digest() != frame[16:48]:
        raise FormatError("inline.binding", 0, "the answer to another question")
    return json, int.from_bytes(frame[12:16], "little"), frame[48 + json_bytes :]
