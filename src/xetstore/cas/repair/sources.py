"""Sources: other copies of what a store has lost. Each is only read, and nothing of it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol

from xetstore.blobs.ranges import read_all
from xetstore.cas.checksums import END_BYTES, told_section_bytes
from xetstore.cas.index import Index, XorbRow
from xetstore.cas.layout import named_by, shard_key, xorb_key
from xetstore.cas.repair.quarantine import QUARANTINE
from xetstore.cas.repair.salvage import Stored, sound_chunks, split
from xetstore.errors import FormatError, IntegrityError, NotFoundError, RangeError
from xetstore.interfaces import BlobStore, Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash, xorb_hash
from xetstore.protocol.reconstruction import FetchRange, Term
from xetstore.protocol.xorb import XorbInfo


@dataclass(frozen=True, slots=True)
class Use:
    """Chunks ``[chunk_start, chunk_end)`` of a xorb in a file, where they are the bytes ``[start, end)``."""

    file: Hash
    start: int
    end: int
    chunk_start: int
    chunk_end: int


class Source(Protocol):
    """Another place where chunks of a xorb, or a shard, may be."""

    @property
    def name(self) -> str:
        """The place, as it may be shown."""

    def xorb(self, xorb: Hash) -> Iterator[bytes]:
        """The objects that this place has of a xorb, as they are: sound or not."""

    def chunks(self, use: Use) -> Iterator[list[Stored]]:
        """The chunks of a part of a file, verified, in order. Raises XetError where the file is not there."""

    def shard(self, shard: Hash) -> bytes | None:
        """A shard, whole; None where it is not there."""


class ObjectSource:
    """Objects of a store, and its index if there is one. None of it is written to."""

    def __init__(self, name: str, blobs: BlobStore, index: Index | None = None) -> None:
        self.name = name
        self._blobs = blobs
        self._index = index

    def xorb(self, xorb: Hash) -> Iterator[bytes]:
        """All objects under the hash, whichever of them counts there."""
        yield from objects_of(self._blobs, xorb)

    def chunks(self, use: Use) -> Iterator[list[Stored]]:
        """By the terms that the index of this place has for the file."""
        if self._index is None:
            return
        with self._index.snapshot() as reader:
            first, terms, rows = reader.terms(use.file, use.start, use.end)
        position = first
        for term in terms:
            row = rows[term.xorb]
            if (info := footer_in(self._blobs, row)) is not None:
                start, end = info.byte_range(term.chunk_start, term.chunk_end)
                body = read_all(self._blobs.get_range(row.key, start, end), end - start)
                yield from _aligned(_sound(body), position, use)
            position += term.unpacked_bytes

    def shard(self, shard: Hash) -> bytes | None:
        """The first of the objects under the hash that is whole."""
        return whole_shard(self._blobs, shard)


class CasSource:
    """A server, or a repository on a Hub: any Cas, by the files that it gives."""

    def __init__(self, name: str, cas: Cas) -> None:
        self.name = name
        self._cas = cas

    def xorb(self, xorb: Hash) -> Iterator[bytes]:  # noqa: ARG002  # a Cas gives no xorb without a file
        """None: a Cas gives ranges of xorbs as parts of files."""
        return iter(())

    def chunks(self, use: Use) -> Iterator[list[Stored]]:
        """By its own terms for the file, which may be in quite other xorbs."""
        answer = self._cas.reconstruct(use.file, use.start, use.end)
        position = use.start - answer.offset_into_first_term
        for term in answer.terms:
            for fetch in _fetches(answer.fetches.get(term.xorb, ()), term):
                body = read_all(self._cas.fetch_xorb(fetch), fetch.byte_end - fetch.byte_start)
                stored = _sound(body)[term.chunk_start - fetch.chunk_start : term.chunk_end - fetch.chunk_start]
                yield from _aligned(stored, position, use)
            position += term.unpacked_bytes

    def shard(self, shard: Hash) -> bytes | None:  # noqa: ARG002  # no Cas gives one back
        """None."""
        return None


def objects_of(blobs: BlobStore, xorb: Hash, *, but: str | None = None) -> Iterator[bytes]:
    """The objects under the hash of a xorb, one at a time, but for that with the key ``but``."""
    for key in keys_of(blobs, xorb_key(xorb), xorb):
        if key != but:
            try:
                yield blobs.get(key)
            except (NotFoundError, IntegrityError):
                continue  # it cannot be read, and there may be others


def whole_shard(blobs: BlobStore, shard: Hash, *, but: str | None = None) -> bytes | None:
    """The first object under the hash of a shard that is whole."""
    for key in keys_of(blobs, shard_key(shard), shard):
        if key != but:
            try:
                data = blobs.get(key)
            except (NotFoundError, IntegrityError):
                continue
            if chunk_hash(data) == shard:
                return data
    return None


def keys_of(blobs: BlobStore, prefix: str, name: Hash) -> list[str]:
    """The keys of all objects under a hash, those that were set aside behind the others."""
    listed = chain(blobs.list(prefix), blobs.list(QUARANTINE + prefix))
    named = ((blob.key, named_by(blob.key.removeprefix(QUARANTINE))) for blob in listed)
    return [key for key, found in named if found is not None and found[0] == name]


def footer_in(blobs: BlobStore, row: XorbRow) -> XorbInfo | None:
    """The footer of an object, if it is that of its xorb; None if it is damaged or not there."""
    try:
        size = row.stored_bytes - row.region_bytes
        data = read_all(blobs.get_range(row.key, row.region_bytes, row.stored_bytes), size)
        return _of(row.hash, XorbInfo.parse_footer(data, offset=row.region_bytes))
    except (NotFoundError, RangeError, IntegrityError):
        return None


def region_of(data: bytes, xorb: Hash) -> tuple[bytes, XorbInfo | None]:
    """The chunk region of an object of a xorb, as far as that can be told, and its footer where that is right.

    A footer is right if the chunks that it lists make the xorb. Where it is not, the region may have it at its end.
    """
    end = len(data) - told_section_bytes(data[-END_BYTES:])
    length = int.from_bytes(data[max(0, end - 4) : end], "little") + 4
    if 4 < length < end:
        try:
            info = _of(xorb, XorbInfo.parse_footer(data[end - length : end], offset=end - length))
        except IntegrityError:
            info = None
        if info is not None and info.region_bytes == end - length:
            return data[: info.region_bytes], info
    return data, None


def chunks_in(data: bytes, xorb: Hash) -> Iterator[tuple[int, list[Stored]]]:
    """The chunks of an object of a xorb that are sound, with the number of the first of each list."""
    region, info = region_of(data, xorb)
    return sound_chunks(region, None if info is None else memoryview(info.ends).cast("Q"))


def _of(xorb: Hash, info: XorbInfo) -> XorbInfo | None:
    is_right = info.hash == xorb and xorb_hash(info.chunks.hashes, info.chunks.lengths) == xorb
    return info if is_right else None


def listed_chunks(data: bytes, xorb: Hash) -> ChunkList | None:
    """The chunks of a xorb, as the footer of an object lists them; None where that is not right."""
    info = region_of(data, xorb)[1]
    return None if info is None else info.chunks


def _sound(body: bytes) -> list[Stored]:
    """All chunks of some bytes; none where one of them is damaged, because those behind it may be other ones."""
    try:
        return split(body)
    except FormatError:
        return []


def _aligned(stored: Sequence[Stored], position: int, use: Use) -> Iterator[list[Stored]]:
    """Those of consecutive chunks, the first at ``position`` of a file, that lie within the part that is asked for."""
    ends = list(accumulate((length for _, length, _ in stored), initial=position))
    yield [chunk for i, chunk in enumerate(stored) if ends[i] >= use.start and ends[i + 1] <= use.end]


def _fetches(fetches: Sequence[FetchRange], term: Term) -> Iterator[FetchRange]:
    """The range that holds all chunks of a term."""
    for fetch in fetches:
        if fetch.chunk_start <= term.chunk_start and term.chunk_end <= fetch.chunk_end:
            yield fetch
            return
