"""Sample files: content from a seed, cut and packed as an uploader does, and the way back through any Cas."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from xetstore.interfaces import Cas
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, file_hash, verification_hash
from xetstore.protocol.reconstruction import Term, plan_fetches
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo


@dataclass(frozen=True)
class Sample:
    """A file in one xorb: its bytes, the xorb with its body (no footer), and the file's entry in a shard."""

    data: bytes
    xorb: XorbInfo
    body: bytes
    file: FileEntry

    @property
    def shard(self) -> Shard:
        """The shard that registers the file and its xorb."""
        return Shard((self.file,), (XorbEntry(self.xorb.hash, self.xorb.chunks),))


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def make_sample(data: bytes, *, before: bytes = b"", policy: CompressionPolicy = CompressionPolicy.LZ4) -> Sample:
    """Pack a file of at most 64 MiB into a xorb, behind ``before``, which is another file's data.

    >>> sample = make_sample(b"Hello World!")
    >>> str(sample.file.hash)[:16], sample.xorb.chunk_count
    ('a9dae0ad88b060bd', 1)
    """
    first, chunks = chunk_bytes(before), chunk_bytes(data)
    builder = XorbBuilder()
    builder.append([before, data], ChunkList.concat([first, chunks]), policy=policy)
    xorb, body = builder.finish()
    term = Term(xorb.hash, len(first), len(first) + len(chunks), len(data))
    return Sample(data, xorb, bytes(body), entry_of([(term, chunks)], sha256=hashlib.sha256(data).digest()))


def entry_of(parts: list[tuple[Term, ChunkList]], *, sha256: bytes | None = None) -> FileEntry:
    """The entry of a file that is made of these terms, given with the chunks of each."""
    tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
    for _, chunks in parts:
        tree.update(chunks.hashes, chunks.lengths)
    terms = tuple(term for term, _ in parts)
    verification = tuple(verification_hash(chunks.hashes) for _, chunks in parts)
    return FileEntry(file_hash(Hash(tree.root())), terms, verification, sha256)


def upload(cas: Cas, sample: Sample) -> Hash:
    """Store a sample: the xorb, then the shard. Returns the file's hash."""
    cas.put_xorb(sample.xorb.hash, sample.body)
    cas.put_shard(sample.shard)
    return sample.file.hash


def read_back(cas: Cas, file: Hash, start: int = 0, end: int | None = None) -> bytes:
    """Bytes ``[start, end)`` of a file, fetched and decoded as a client does."""
    reconstruction = cas.reconstruct(file, start, end)
    length = reconstruction.unpacked_bytes - reconstruction.offset_into_first_term
    if end is not None:
        length = min(length, end - start)
    output = bytearray(length)
    for planned in plan_fetches(reconstruction, length):
        fetch = planned.fetch
        body = bytearray()
        with cas.fetch_xorb(fetch) as stream:
            block = memoryview(bytearray(1 << 16))
            while count := stream.readinto(block):
                body += block[:count]
        raw = bytearray((fetch.chunk_end - fetch.chunk_start) * XET_GEARHASH_BLAKE3.max_chunk_bytes)
        _, lengths, _ = kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, body, raw, final=True)
        sizes = memoryview(lengths).cast("Q")
        for place in planned.placements:
            at = sum(sizes[: place.chunk_start - fetch.chunk_start]) + place.skip
            output[place.output_offset : place.output_offset + place.length] = raw[at : at + place.length]
    return bytes(output)
