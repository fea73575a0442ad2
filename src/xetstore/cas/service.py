"""EmbeddedCas: a store in this process. What is verified, and in which order things become durable.

The invariants, of which ``check.verify_invariants`` checks what can be seen in a store at rest, 1 and 2:

1. An index row for a xorb exists only after its bytes are durable. Write, fsync, link, fsync the directory:
   then the row.
2. A file row references only registered xorbs, with ranges in bounds, lengths, verification hashes and the
   file hash recomputed by us from the footers of these xorbs, which we wrote from what we decoded.
3. A file hash is never rebound. The same upload twice is the same answer twice.
4. A xorb that an answer of ours offered is not deleted before the grace. Nothing deletes here at all.
5. Nobody reads a file, or a xorb range, without a grant. All callers of an embedded store share one
   namespace: what is registered here is granted here.

So a crash at any point leaves at most an object that no row names, which the next upload of the same
xorb takes up, and a temporary file, which is swept a day later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xetstore.cas.answers import find_answer
from xetstore.cas.blobs.local import LocalBlobStore
from xetstore.cas.blobs.memory import MemoryBlobStore
from xetstore.cas.claims import INDEXED_CHUNKS, ClaimCheck, named_xorbs
from xetstore.cas.footers import CACHE_BYTES, FooterCache, damaged
from xetstore.cas.index import Index, XorbRow
from xetstore.cas.layout import open_directory, shard_key, xorb_key
from xetstore.cas.records import FileRecord, Totals
from xetstore.errors import (
    HashMismatchError,
    IntegrityError,
    NotFoundError,
    RangeError,
    UsageError,
)
from xetstore.interfaces import BlobStore, ByteStream
from xetstore.protocol.dedup import QueryRule
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction, Term, chunk_ranges, trim
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NAMESPACE", "EmbeddedCas", "FileRecord", "Totals"]

NAMESPACE: Final = "default"
"""The one namespace of an embedded store."""


class EmbeddedCas:
    """A Cas over a blob store and an index. Thread-safe, and safe between processes on one directory.

    ``blobs``, ``index`` and ``footers`` are for the other rooms of ``cas``; ``clock`` gives unix seconds.
    """

    def __init__(
        self,
        blobs: BlobStore,
        index: Index,
        *,
        clock: Callable[[], float] = time.time,
        footer_cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.blobs = blobs
        self.index = index
        self.footers = FooterCache(blobs, footer_cache_bytes)
        self._clock = clock
        self._threads = os.cpu_count() or 1

    @classmethod
    def open(cls, root: Path | str, *, create: bool = True, clock: Callable[[], float] = time.time) -> Self:
        """The store in directory ``root``. With ``create``, one is made where nothing is.

        Takes constant time. NotFoundError if there is none; UsageError if the directory holds something
        else, or was written by newer code. A store that cannot be written to can be read.
        """
        root = Path(root)
        index = Index(open_directory(root, create=create))
        return cls(LocalBlobStore(root), index, clock=clock)

    @classmethod
    def in_memory(cls, *, clock: Callable[[], float] = time.time) -> Self:
        """A store that lives as long as this object, for tests."""
        return cls(MemoryBlobStore(), Index.in_memory(), clock=clock)

    # The verbs of Cas

    @property
    def queries(self) -> QueryRule:
        """Which chunks :meth:`find_chunk` can find, beside the first of every file."""
        return INDEXED_CHUNKS

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False
    ) -> Reconstruction:
        """How to rebuild bytes ``[start, end)`` of a file (11.3); ``end`` is clamped to the file's size.

        With ``hashes`` the answer has the chunk hashes of its terms: this costs reading the footer of every xorb.
        """
        if start < 0 or (end is not None and end < 0):
            raise UsageError(f"bytes {start} to {end} are not a range")
        with self.index.snapshot() as reader:
            record = reader.file(file, NAMESPACE)
            if record is None:
                raise _unknown_file(file)
            stop = record.size if end is None else min(end, record.size)
            if start == 0 and record.size == 0:
                return Reconstruction(0, (), {}, () if hashes else None)
            if start >= stop:
                raise RangeError(f"file {file} has {record.size} bytes; none of them is in {start} to {end}")
            first_byte, terms = reader.terms(file, start, stop)
            rows = reader.xorbs({term.xorb for term in terms})
        try:
            offset, kept = trim(terms, lambda term: self._sizes(rows, term), start - first_byte, stop - first_byte)
            fetches = {
                xorb: tuple(self._fetch(rows[xorb], *chunks) for chunks in ranges)
                for xorb, ranges in chunk_ranges(kept).items()
            }
            term_hashes = tuple(self._term_hashes(rows, term) for term in kept) if hashes else None
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"the index and the xorbs of file {file} differ: {error}") from error
        return Reconstruction(offset, kept, fetches, term_hashes)

    def find_chunk(self, chunk: Hash) -> Shard | None:
        """A dedup answer for an eligible chunk (11.4): xorbs worth knowing, hashes keyed; None if unknown."""
        return find_answer(self.index, self.footers, chunk, now=self._clock())

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        """Store a serialized xorb under its name (11.5). True if it is new. Verified; durable on return.

        Every chunk is decoded and hashed. A footer that came with the body is checked, and replaced by ours. If the
        name is registered already, the body is not looked at: nothing of it would be kept.
        """
        with self.index.snapshot() as reader:
            if reader.xorb(xorb) is not None:
                return False
        info = XorbInfo.read(body, threads=self._threads)
        if info.hash != xorb:
            raise HashMismatchError("the xorb", expected=str(xorb), actual=str(info.hash))
        region = memoryview(body).cast("B")[: info.region_bytes]
        if not self.blobs.put_new(xorb_key(xorb), [region, info.serialize_footer()]):
            info = self._adopt(xorb, info)
        with self.index.transaction() as writer:
            is_new = writer.add_xorb(info, now=self._clock())
        self.footers.remember(info)
        return is_new

    def put_shard(self, shard: Shard) -> bool:
        """Register files (11.6). True if anything in it is new. Every xorb it names is stored already.

        All claims are checked first, then the shard itself is stored, then all files are registered at once or
        not at all. Raises MissingXorbError, or RejectedShardError for any other claim that is not so.
        """
        names = named_xorbs(shard)
        with self.index.snapshot() as reader:
            rows = reader.require_xorbs(names)
        claims = ClaimCheck(rows, self.footers)
        claims.check(shard)
        if not (shard.files or shard.xorbs):
            return False
        stored = _normalised(shard, rows)
        shard_name = chunk_hash(stored)
        self.blobs.put_new(shard_key(shard_name), [stored])
        now = self._clock()
        with self.index.transaction() as writer:
            # Asked again inside: what was registered when we looked must still be when the files come to depend on it.
            rows = writer.require_xorbs(names)
            is_new = writer.add_files(shard.files, rows, namespace=NAMESPACE, now=now)
            writer.add_dedup(sorted(claims.eligible))
            writer.add_shard(shard_name, len(stored), now=now)
        return is_new

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        """The bytes ``[fetch.byte_start, fetch.byte_end)`` of a xorb, as a reconstruction offered them (13.3)."""
        with self.index.snapshot() as reader:
            row = reader.xorb(fetch.xorb)
        if row is None:
            raise NotFoundError(f"there is no xorb {fetch.xorb}")
        if not 0 <= fetch.byte_start < fetch.byte_end <= row.region_bytes:
            raise RangeError(
                f"xorb {fetch.xorb} has {row.region_bytes} bytes, "
                f"bytes {fetch.byte_start} to {fetch.byte_end} are not in it"
            )
        try:
            return self.blobs.get_range(xorb_key(fetch.xorb), fetch.byte_start, fetch.byte_end)
        except (NotFoundError, RangeError) as error:
            raise damaged(fetch.xorb, str(error)) from error

    # Beyond the protocol

    def stat(self, file: Hash) -> FileRecord:
        """What is known of a file. Raises NotFoundError."""
        with self.index.snapshot() as reader:
            record = reader.file(file, NAMESPACE)
        if record is None:
            raise _unknown_file(file)
        return record

    def files(self) -> Iterator[FileRecord]:
        """All files in the order of their registration; those registered meanwhile may be among them."""
        last = 0
        while True:
            with self.index.snapshot() as reader:
                page = reader.files_after(last, NAMESPACE)
            if not page:
                return
            yield from (record for _, record in page)
            last = page[-1][0]

    def totals(self) -> Totals:
        """Sums over the whole store."""
        with self.index.snapshot() as reader:
            return reader.totals()

    def close(self) -> None:
        """Close the index. May be called again; every other call then raises UsageError."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sizes(self, rows: dict[Hash, XorbRow], term: Term) -> memoryview:
        return self.footers.get(rows[term.xorb]).chunks.sizes[term.chunk_start : term.chunk_end]

    def _term_hashes(self, rows: dict[Hash, XorbRow], term: Term) -> bytes:
        return self.footers.get(rows[term.xorb]).chunks.slice(term.chunk_start, term.chunk_end).hashes

    def _fetch(self, row: XorbRow, chunk_start: int, chunk_end: int) -> FetchRange:
        if (chunk_start, chunk_end) == (0, row.chunk_count):
            # All of a xorb, as in most files: its footer need not be read.
            start, end = 0, row.region_bytes
        else:
            start, end = self.footers.get(row).byte_range(chunk_start, chunk_end)
        return FetchRange(row.hash, f"xorb:{row.hash}", chunk_start, chunk_end, start, end)

    def _adopt(self, xorb: Hash, sent: XorbInfo) -> XorbInfo:
        """What the object holds that exists under the name of a xorb, which has no row, or had none just now.

        Another upload of the same xorb is under way, or was cut off before it was registered. Its chunks are
        the same, its compression may not be: so it is the object that counts, and is verified as a body is.
        """
        with self.index.snapshot() as reader:
            row = reader.xorb(xorb)
        if row is not None:
            return self.footers.get(row)
        found = self.blobs.get(xorb_key(xorb))
        try:
            info = XorbInfo.read(found, threads=self._threads)
        except IntegrityError as error:
            raise damaged(xorb, str(error)) from error
        if (info.hash, info.region_bytes + XorbInfo.footer_bytes(sent.chunk_count)) != (xorb, len(found)):
            raise damaged(xorb, f"the object under its name holds xorb {info.hash}, or is incomplete")
        return info


def _normalised(shard: Shard, rows: dict[Hash, XorbRow]) -> bytes:
    """The stored form of a shard: each file and xorb once, in order, our sizes, no times; so it has one name."""
    files = {entry.hash: entry for entry in reversed(shard.files)}
    xorbs = {entry.hash: entry for entry in shard.xorbs}
    stored = Shard(
        tuple(replace(entry, verification=entry.verification or ()) for entry in files.values()),
        tuple(replace(entry, stored_bytes=rows[name].region_bytes) for name, entry in xorbs.items()),
    )
    return stored.serialize_with_footer()


def _unknown_file(file: Hash) -> NotFoundError:
    return NotFoundError(f"there is no file {file}", hint="the hash is that of `xet put` or `xet hash`")
