"""check(): compares everything that is stored with its row in the index, and with its own name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final, Protocol

from xetstore.blobs.ranges import read_all
from xetstore.cas.claims import term_fault
from xetstore.cas.index import ObjectRow, Reader, ShardRow, XorbRow
from xetstore.cas.index.queries import chunk_key
from xetstore.cas.layout import SHARDS, XORBS, named_by
from xetstore.cas.naming import NamingCheck
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.stored_xorb import compare_checksums, read_tail, verify_row, whole_size
from xetstore.errors import IntegrityError, NotFoundError
from xetstore.interfaces import BlobInfo
from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileRecord


class CheckProgress(Protocol):
    """Receives counts of stored bytes: those to be checked, and those that were."""

    def total(self, nbytes: int) -> None:
        """Announce bytes that will be checked."""

    def advance(self, *, logical: int = 0) -> None:
        """Count bytes that were checked since the last call."""


_THREADS: Final = os.cpu_count() or 1
# Objects compared with the index at a time.
_BATCH: Final = 500
_MARKED: Final = "it was found damaged before; reading it (--read-data) tells whether it still is"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it must be. ``name`` is the object, ``files`` are those that it affects."""

    name: str
    what: str
    files: tuple[Hash, ...] = ()

    def __str__(self) -> str:
        affected = ", ".join(map(str, self.files))
        return f"{self.name}: {self.what}" + (f" (affects {affected})" if affected else "")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check. ``notes`` are leftovers that do no harm, such as those of an interrupted upload.

    ``repositories`` is how many were checked: this room knows none.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    xorbs: int
    files: int
    bytes_read: int
    repositories: int = 0


def check(
    cas: EmbeddedCas, *, read_data: bool = False, checksums: bool = False, progress: CheckProgress | None = None
) -> CheckReport:
    """Check a store, also while it is in use.

    Every registered xorb has an object of the right size with a valid footer of its own name; the terms of
    every file fit these xorbs and make its hash; every object has a row. With ``checksums`` every
    stored byte is read and compared with the checksum that it was stored with; with ``read_data``, and in objects that
    have no checksums, every chunk is decoded and hashed.

    What is found damaged is marked in the index, if it can be written to: no put leans on it any more, and one that
    brings the same bytes again replaces it. A mark is taken back where all bytes were read and are well. Objects
    that were replaced more than a day ago are removed.
    """
    cas.healing.sweep()
    run = _Check(cas, read_data, checksums, progress)
    run.index()
    run.xorbs()
    run.files()
    run.shards()
    run.unregistered()
    return CheckReport(tuple(run.problems), tuple(run.notes), run.xorb_count, run.file_count, run.bytes_read)


def verify_invariants(cas: EmbeddedCas) -> None:
    """Raises IntegrityError with all findings unless the invariants of ``cas.service`` hold. Reads all data, and all
    of each file whose SHA-256 was computed.
    """
    problems = check(cas, read_data=True).problems or tuple(_wrong_sha256(cas))
    if problems:
        raise IntegrityError("; ".join(map(str, problems)))


@dataclass(slots=True)
class _Check:
    cas: EmbeddedCas
    read_data: bool
    checksums: bool
    progress: CheckProgress | None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    xorb_count: int = 0
    file_count: int = 0
    bytes_read: int = 0
    broken: set[Hash] = field(default_factory=set)
    naming: NamingCheck = field(init=False)

    def __post_init__(self) -> None:
        self.naming = NamingCheck(self.cas, reads=self.read_data or self.checksums)

    def index(self) -> None:
        """The database itself."""
        self.problems.extend(Problem("index", finding) for finding in self.cas.index.damage())
        if self.progress is not None:
            self.progress.total(self.cas.totals().stored_bytes)

    def xorbs(self) -> None:
        """Each row has its object, and the object agrees with the row."""
        for page in self.cas.index.pages(Reader.xorbs_after, attrgetter("id"), 0):
            for row in page:
                self._xorb(row)
                self.xorb_count += 1
                if self.progress is not None:
                    self.progress.advance(logical=row.stored_bytes)

    def files(self) -> None:
        """Each file is made of registered xorbs, whose footers give its size and its hash."""
        for page in self.cas.index.pages(lambda reader, last: reader.files_after(last, None), itemgetter(0), 0):
            for _, record in page:
                try:
                    fault = self._file(record)
                except IntegrityError as error:
                    fault = str(error)
                if fault is not None:
                    self.problems.append(Problem(f"file {record.hash}", fault, (record.hash,)))
                elif self.naming.is_unnamed(record):
                    self.notes.append(f"file {record.hash} is named by no shard yet: a rewrite writes one")
                self.file_count += 1

    def shards(self) -> None:
        """Each row has its object, of the right size; where data is read, it has the hash that is its name."""
        first: Hash | None = None
        for page in self.cas.index.pages(Reader.shards_after, attrgetter("hash"), first):
            for row in page:
                self._shard(row)

    def unregistered(self) -> None:
        """Each object is named by a row; one that is not does no harm, and nothing takes it up."""
        for prefix in (XORBS, SHARDS):
            for batch in _batches(self.cas.blobs.list(prefix)):
                named = {blob.key: found[0] for blob in batch if (found := named_by(blob.key)) is not None}
                with self.cas.index.snapshot() as reader:
                    rows: Mapping[Hash, ObjectRow] = (
                        reader.xorbs(named.values()) if prefix == XORBS else reader.shards(named.values())
                    )
                for blob in batch:
                    row = rows.get(named[blob.key]) if blob.key in named else None
                    if blob.key not in named:
                        self.notes.append(f"{blob.key} is not the name of an object")
                    elif row is None:
                        self.notes.append(
                            f"{blob.key} is stored but not registered: an upload was interrupted, or is under way"
                        )
                    elif row.key != blob.key:
                        self.notes.append(f"{blob.key} is not used: another object counts in place of it")

    def _xorb(self, row: XorbRow) -> None:
        try:
            info = self._read(row)
            if info.chunk_count != row.chunk_count or info.raw_bytes != row.raw_bytes:
                raise IntegrityError("the index tells another number of chunks or bytes than its footer")
            if self.read_data or self.checksums:
                self.cas.healing.mark(row, whole=True)
            elif row.is_damaged:
                raise IntegrityError(_MARKED)
        except (IntegrityError, NotFoundError) as error:
            self.broken.add(row.hash)
            self.cas.healing.mark(row)
            with self.cas.index.snapshot() as reader:
                now, users = reader.xorb(row.hash), reader.users_of(row.id)
            if now is None or now.generation == row.generation:  # else it was stored anew while we looked
                self.problems.append(Problem(f"xorb {row.hash}", str(error), tuple(users)))
            return
        with self.cas.index.snapshot() as reader:
            offered = set(reader.dedup_keys_of(row.id))
        held = {chunk_key(info.chunks.digest(i)) for i in range(info.chunk_count)} if offered else set()
        if not offered <= held:
            self.problems.append(Problem(f"xorb {row.hash}", "dedup is told of a chunk that it does not hold"))

    def _read(self, row: XorbRow) -> XorbInfo:
        blobs = self.cas.blobs
        size = whole_size(row, blobs)
        if self.read_data:
            self.bytes_read += size
            return verify_row(row, blobs, threads=_THREADS)
        info, checksums = read_tail(row, size, blobs)
        if self.checksums:
            self.bytes_read += size
            if not checksums:
                return verify_row(row, blobs, threads=_THREADS)
            compare_checksums(row, info, checksums, blobs)
        return info

    def _file(self, record: FileRecord) -> str | None:
        """The fault of a file, or None. Raises IntegrityError where the index itself is broken."""
        with self.cas.index.snapshot() as reader:
            _, terms, rows = reader.terms(record.hash, 0, record.size)
            edges = reader.edges_of(record.hash)
        if not self.broken.isdisjoint(rows):
            return None  # reported with the xorb
        tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
        first_uses: dict[Hash, int] = {}
        for i, term in enumerate(terms):
            chunks = self.cas.footers.get(rows[term.xorb]).chunks
            if fault := term_fault(term, chunks):
                return f"term {i} {fault}"
            first_uses.setdefault(term.xorb, tree.total_bytes)
            taken = chunks.slice(term.chunk_start, term.chunk_end)
            tree.update(taken.hashes, taken.lengths)
        actual = file_hash(Hash(tree.root()))
        if actual != record.hash:
            return f"its terms make file {actual}"
        if tree.total_bytes != record.size:
            return f"the index says it has {record.size} bytes, its terms make {tree.total_bytes}"
        if first_uses != edges or (len(terms), len(edges)) != (record.terms, record.xorbs):
            return "the index counts other xorbs or terms than it is made of"
        return self.naming.file_fault(record, terms)

    def _shard(self, row: ShardRow) -> None:
        try:
            size = whole_size(row, self.cas.blobs)
            if self.read_data or self.checksums:
                self.bytes_read += size
                data = self.cas.blobs.get(row.key)
                if (actual := chunk_hash(data)) != row.hash:
                    raise IntegrityError(f"the object hashes to {actual}")
                shard = Shard.parse(data)
                self.cas.healing.mark(row, whole=True)
                if fault := self.naming.shard_fault(row, shard):
                    self.problems.append(Problem(f"shard {row.hash}", fault))
            elif row.is_damaged:
                raise IntegrityError(_MARKED)
        except (IntegrityError, NotFoundError) as error:
            self.cas.healing.mark(row)
            with self.cas.index.snapshot() as reader:
                now = reader.shards([row.hash]).get(row.hash)
            if now is None or now.generation == row.generation:  # else it was stored anew while we looked
                self.problems.append(Problem(f"shard {row.hash}", str(error)))


def _wrong_sha256(cas: EmbeddedCas) -> Iterator[Problem]:
    """The files of which another SHA-256 is taken to be computed than their bytes have."""
    for page in cas.index.pages(lambda reader, last: reader.files_after(last, None), itemgetter(0), 0):
        for _, record in page:
            if record.sha256 is not None and (actual := _sha256(cas, record)) != record.sha256:
                yield Problem(f"file {record.hash}", f"its SHA-256 is {actual}, not {record.sha256}", (record.hash,))


def _sha256(cas: EmbeddedCas, record: FileRecord) -> str:
    digest = hashlib.sha256()
    with cas.index.snapshot() as reader:
        _, terms, rows = reader.terms(record.hash, 0, record.size)
    for term in terms:
        row = rows[term.xorb]
        start, end = cas.footers.get(row).byte_range(term.chunk_start, term.chunk_end)
        body, raw = read_all(cas.blobs.get_range(row.key, start, end), end - start), bytearray(term.unpacked_bytes)
        kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, body, raw, final=True)
        digest.update(raw)
    return digest.hexdigest()


def _batches(blobs: Iterator[BlobInfo]) -> Iterator[list[BlobInfo]]:
    while batch := list(islice(blobs, _BATCH)):
        yield batch
