"""EmbeddedCas: a store in this process. It verifies, and keeps the order in which things become durable.

The invariants; ``check.verify_invariants`` checks those that can be seen in a store at rest, 1, 2, 6, 7 and 8:

1. An index row for a xorb exists only after its bytes are durable, in an object under a key that none has had. Write,
   fsync, link, fsync the directory: then the row.
2. A file row references only registered xorbs, with ranges in bounds, lengths, verification hashes and the
   file hash recomputed by us from the footers of these xorbs, which we wrote from what we decoded.
3. A file hash is never rebound to other content. Its terms are replaced by others that make the same bytes: where a
   xorb of the old ones is damaged, and by a rewrite, which looks in the same transaction that they are those it read.
4. A xorb that an answer of ours offered is not deleted before the grace, 22 days. A file that is made of it keeps it;
   what takes it out of its last file notes the time (``offered_at``), and so does an upload. An answer offers one that
   no file is made of only if that time is of the last day, or is noted anew before. A collection dooms a xorb first,
   and deletes it when the grace has passed since then, too, if no file is made of it: it looks with the row locked. No
   answer offers a doomed one; an upload, and a shard that names it, end its doom in their own transaction.
5. No caller reads a file, or a xorb range, without a grant. A file is granted to the namespaces that registered
   it, until they delete it, and each EmbeddedCas acts for one; a caller in the store's own process is in "default".
6. Acknowledged means durable and readable: a put never leans on an object that is known, or seen, to be missing or
   damaged. What a check or a failed read finds is marked in the row; the next put of the same bytes stores them
   in an object of its own, which counts from then on. A server sends no byte of an object that is not as it was stored.
7. The SHA-256 of a file is a claim of its uploader, in the namespace of that uploader alone, until it was computed
   here from the file's bytes. No claim changes it then.
8. A registered shard names each file, with terms that make it from registered xorbs: those that count, or others.
   What changes the terms registers such a shard in the same transaction. A shard that names a file which is gone is
   noted as stale in the transaction in which the file goes, and a rewrite takes the name away.

So a crash at any point leaves at most an object that no row names, which nothing takes up, and which a collection
removes when it is a week old; and a temporary file, which is swept a day later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Self

from xetstore.access.tenant import DEFAULT_NAMESPACE, DedupDomain, Tenant
from xetstore.blobs.layers import innermost
from xetstore.blobs.local import LocalBlobStore
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import deleting
from xetstore.cas.assembly import OpenParts, open_parts
from xetstore.cas.footers import CACHE_BYTES, FooterCache
from xetstore.cas.grace import Grace
from xetstore.cas.healing import Healing
from xetstore.cas.index.index import Index
from xetstore.cas.layout import xorb_key
from xetstore.cas.parts import StoreParts
from xetstore.cas.seen_rows import SeenRows
from xetstore.errors import (
    DamagedError,
    ForbiddenError,
    NotFoundError,
    RangeError,
    RepositoryNotFoundError,
    UnavailableError,
    UsageError,
)
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.access.secrets import Secrets
    from xetstore.cancellation import Cancellation
    from xetstore.cas.answers import Offer
    from xetstore.cas.index.queries.reader import Reader, Writer
    from xetstore.cas.index.queries.rows import TermCount, XorbRow
    from xetstore.cas.receive import XorbReceiver
    from xetstore.cas.stored_xorb import StoredXorb
    from xetstore.interfaces import BlobStore, ByteStream, FileSpan
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.dedup import QueryRule
    from xetstore.protocol.reconstruction import BatchReconstruction, Bodies, FetchRange, Reconstruction
    from xetstore.protocol.shard import Shard
    from xetstore.records import DeletedFile, FileRecord, Totals


class EmbeddedCas:
    """A Cas over a blob store and an index. Thread-safe, and safe between processes on one directory.

    It acts for one tenant: :meth:`in_namespace` gives the same store to another. ``blobs``, ``index``,
    ``footers``, ``healing`` and ``now``, unix seconds, are for the other rooms of ``cas``. Without ``clock`` the time
    is that of the index, which all who share it have in common.
    """

    def __init__(
        self,
        blobs: BlobStore,
        index: Index,
        *,
        clock: Callable[[], float] | None = None,
        footer_cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.blobs = blobs
        self.index = index
        self.now = clock or index.clock
        self.healing = Healing(blobs, index, self.now)
        self.footers = FooterCache(blobs, footer_cache_bytes, on_damage=self.healing.report)
        self.tenant = Tenant()
        self.grace = Grace()
        """The time for which what is deleted can be given back; a server takes it from its settings."""
        self.deletion_guard: deleting.DeletionGuard = deleting.unguarded
        """Refuses to delete what has a name; whatever opens a store in which repositories may be sets it."""
        self._hashes_bytes = False
        self._opened: OpenParts | None = None
        self._seen = SeenRows()

    @classmethod
    def open(
        cls,
        where: StoreParts | Path | str,
        *,
        create: bool = True,
        clock: Callable[[], float] | None = None,
        patience_seconds: float | None = None,
    ) -> Self:
        """The store in a directory, or the one that a store file or its parts name. With ``create``, one is made where
        nothing is. ``patience_seconds`` is for servers.

        Takes constant time. Raises as :func:`~xetstore.cas.assembly.open_parts`. A store that cannot be written to can
        be read.
        """
        parts = where if isinstance(where, StoreParts) else StoreParts.at(where)
        opened = open_parts(parts, create=create, patience_seconds=patience_seconds)
        cas = cls(opened.blobs, opened.index, clock=clock)
        cas._opened = opened
        return cas

    @classmethod
    def in_memory(cls, *, clock: Callable[[], float] | None = None) -> Self:
        """A store that lives as long as this object, for tests."""
        return cls(MemoryBlobStore(), Index.in_memory(), clock=clock)

    def in_namespace(
        self,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        dedup: DedupDomain = DedupDomain.STORE,
        private: frozenset[str] = frozenset(),
    ) -> EmbeddedCas:
        """The same store, acting for another namespace; see :class:`~xetstore.access.tenant.Tenant`. Costs nothing."""
        view = copy(self)
        view.tenant = Tenant(namespace, dedup, private)
        return view

    # The verbs of Cas

    def for_local_bytes(self) -> EmbeddedCas:
        """The same store for an upload of this process, which has hashed the bytes of each file that it registers.

        The SHA-256 in its shards count as computed. A shard that comes over a network is never put here.
        """
        view = copy(self)
        view._hashes_bytes = True
        return view

    @property
    def is_remote(self) -> bool:
        """True if its objects or its index are on another machine, as far as its parts tell."""
        return self._opened is not None and self._opened.parts.is_far

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of this machine that its parts are in: ``objects`` and ``index``, without those elsewhere."""
        if self._opened is None:
            return {}
        objects, index = self._opened.parts.objects, self._opened.parts.index
        folders = {"objects": objects, "index": index.parent if isinstance(index, Path) else index}
        return {part: folder for part, folder in folders.items() if isinstance(folder, Path)}

    @property
    def queries(self) -> QueryRule:
        """Which chunks :meth:`find_chunks` can find, beside the first of every file."""
        from xetstore.cas.claims import INDEXED_CHUNKS

        return INDEXED_CHUNKS

    def reconstruct(
        self,
        file: Hash,
        start: int = 0,
        end: int | None = None,
        *,
        hashes: bool = False,
        inline: int = 0,
        most: TermCount | None = None,
    ) -> Reconstruction:
        """Terms and fetches that make bytes ``[start, end)`` of a file (11.3); ``end`` is clamped to the file's size.

        With ``hashes`` the answer has the chunk hashes of its terms: this costs reading the footer of every xorb.
        The bytes of its fetches come along where they are at most ``inline``.
        Raises TooLargeError, before anything is computed, where there are more terms or chunks than ``most``.
        """
        found, rows = self.located(file, start, end, hashes=hashes, most=most)
        return found.with_bodies(self._bodies(found.fetches, rows, inline)) if inline else found

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None]:
        """The answers for several ranges, with hashes. As :meth:`interfaces.Cas.reconstruct_ranges`."""
        answers: list[Reconstruction | None] = []
        for file, start, end in spans:
            try:
                found = self.reconstruct(file, start, end, hashes=True, inline=inline)
            except (NotFoundError, RangeError, DamagedError):
                found = None
            inline -= sum(map(len, found.bodies.values())) if found is not None and found.bodies else 0
            answers.append(found)
        return answers

    def located(
        self,
        file: Hash,
        start: int = 0,
        end: int | None = None,
        *,
        hashes: bool = False,
        most: TermCount | None = None,
    ) -> tuple[Reconstruction, Mapping[Hash, XorbRow]]:
        """:meth:`reconstruct`, and the rows of the xorbs that are named."""
        from xetstore.cas.fetches import as_damage, chunks_of, fetches_of
        from xetstore.protocol.reconstruction import Reconstruction, trim

        if start < 0 or (end is not None and end < 0):
            raise UsageError(f"bytes {start} to {end} are not a range")
        with self.index.snapshot() as reader:
            record = self._granted(reader, file)
            stop = record.size if end is None else min(end, record.size)
            if start == 0 and record.size == 0:
                return Reconstruction(0, (), {}, () if hashes else None), {}
            if start >= stop:
                past = f"byte {start} is past its end" if start >= record.size else f"none is in {start} to {end}"
                raise RangeError(f"file {file} has {record.size} bytes: {past}")
            first_byte, terms, rows = reader.terms(file, start, stop, most=most)
        self._seen.note(rows)
        with as_damage(file):
            offset, kept = trim(
                terms,
                lambda term: next(chunks_of(self.footers, rows, [term])).sizes,
                start - first_byte,
                stop - first_byte,
            )
            term_hashes = tuple(chunks.hashes for chunks in chunks_of(self.footers, rows, kept)) if hashes else None
            return Reconstruction(offset, kept, fetches_of(self.footers, rows, kept), term_hashes), rows

    def _bodies(
        self, fetches: Mapping[Hash, tuple[FetchRange, ...]], rows: Mapping[Hash, XorbRow], most_bytes: int
    ) -> Bodies | None:
        """The bytes of the first fetches, as they are, read at once; None if they have to be fetched one by one."""
        from xetstore.protocol.inline import inline_ranges, listed

        wanted = inline_ranges(listed(fetches), most_bytes)
        read = self.blobs.get_ranges([(rows[fetch.xorb].key, fetch.byte_start, fetch.byte_end) for fetch in wanted])
        return {
            fetch: memoryview(body) for fetch, body in zip(wanted, read, strict=True) if isinstance(body, bytes)
        } or None

    def reconstruct_many(
        self, files: Iterable[Hash], *, inline: int = 0, most: TermCount | None = None
    ) -> BatchReconstruction:
        """The terms of several whole files, and the ranges that hold them all, coalesced over all files.

        Raises NotFoundError if any of the files is not there; TooLargeError as :meth:`reconstruct`.
        """
        found, rows = self.located_many(files, most=most)
        return found.with_bodies(self._bodies(found.fetches, rows, inline)) if inline else found

    def located_many(
        self, files: Iterable[Hash], *, most: TermCount | None = None
    ) -> tuple[BatchReconstruction, Mapping[Hash, XorbRow]]:
        """:meth:`reconstruct_many`, and the rows of the xorbs that are named."""
        from xetstore.cas.fetches import as_damage, fetches_of
        from xetstore.protocol.reconstruction import BatchReconstruction

        wanted = list(dict.fromkeys(files))
        with self.index.snapshot() as reader:
            found, rows = reader.terms_of_files(wanted, self.tenant.namespace, most=most)
        if missing := next((file for file in wanted if file not in found), None):
            raise _unknown_file(missing)
        self._seen.note(rows)
        terms = {file: tuple(found[file]) for file in wanted}
        every = [term for listed in terms.values() for term in listed]
        with as_damage(*terms):
            return BatchReconstruction(terms, fetches_of(self.footers, rows, every)), rows

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        """A dedup answer for eligible chunks (11.4): xorbs worth knowing, hashes keyed; None if all are unknown.

        UsageError for more chunks than :data:`interfaces.MANY_CHUNKS`.
        """
        if not 0 < len(chunks) <= MANY_CHUNKS:
            raise UsageError(f"between 1 and {MANY_CHUNKS} chunks can be asked for at once, not {len(chunks)}")
        offer = self.find_offer(*chunks)
        return None if offer is None else self.answer_with(offer)

    def find_recent(self, most_chunks: int) -> Shard | None:
        """A dedup answer of what this namespace uploaded last: at most 64 xorbs, of some ``most_chunks`` chunks."""
        from xetstore.cas.answers import uploaded_offer

        offer = uploaded_offer(self.index, self.tenant, most_chunks)
        return None if offer is None else self.answer_with(offer)

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        """Store a serialized xorb under its name (11.5). True if it is new. Verified; durable on return.

        Every chunk is decoded and hashed. A footer that came with the body is checked, and replaced by ours. If this
        namespace has uploaded the xorb before, the body is not looked at: nothing of it would be kept. But where its
        object is damaged, as far as that is known or can be seen, the body replaces it, and True is returned.
        """
        with self.receive_xorb(xorb) as receiver:
            receiver.write(body)
            return receiver.commit()

    def receive_xorb(self, xorb: Hash, *, is_care: bool = False) -> XorbReceiver:
        """:meth:`put_xorb` for a body that is not all there yet. No quota stands in the way of care, and of a copy."""
        from xetstore.cas.receive import XorbReceiver

        return XorbReceiver(
            xorb,
            self.tenant.namespace,
            blobs=self.blobs,
            index=self.index,
            footers=self.footers,
            now=self.now,
            is_care=is_care,
        )

    def put_shard(self, shard: Shard, *, progress: Callable[[int, int], None] = lambda *_: None) -> bool:
        """Register files (11.6). True if anything in it is new. Every xorb it names is stored already.

        All claims are checked first (``progress`` is told how many are, and of how many), then the shard itself is
        stored, then all files are registered at once or not at all. A file that is known and made of xorbs which are
        damaged gets the terms of the shard. Raises MissingXorbError, also for a xorb whose object is damaged, or
        RejectedShardError for any other claim that is not so.
        """
        from xetstore.cas.claims import ClaimCheck, named_xorbs
        from xetstore.cas.registering import register_shard

        names = named_xorbs(shard)
        rows = self.healing.sound_xorbs(names, self.tenant)
        claims = ClaimCheck(rows, self.footers)
        try:
            claims.check(shard, progress)
        except DamagedError:
            self.healing.sound_xorbs(names, self.tenant)  # what was found just now is marked
            raise
        rebound = self.healing.broken_files(shard, rows, self.tenant)
        if not (shard.files or shard.xorbs):
            return False
        now = returned_at = self.now()
        returned: set[Hash] = set()

        def add_files(writer: Writer) -> bool:
            nonlocal returned_at
            returned.clear()
            # Asked again inside: what was registered when we looked must still be when the files come to depend on it.
            kept = writer.keep_xorbs(names, self.tenant, now=now)
            is_new = writer.add_files(
                shard.files,
                kept,
                namespace=self.tenant.namespace,
                now=now,
                rebound=rebound,
                is_checked=self._hashes_bytes,
                returned=returned,
            )
            writer.add_dedup(claims.eligible_in(kept))
            returned_at = self.now()  # behind a deletion that came before this transaction
            return is_new

        is_new = register_shard(
            _normalised(shard, rows),
            add_files,
            files=[entry.hash for entry in shard.files],
            xorbs=names,
            now=now,
            blobs=self.blobs,
            index=self.index,
        )
        if returned:  # the journal says that they were deleted
            from xetstore.cas.snapshots.journal import note_restored

            note_restored(self, self.tenant.namespace, returned, at=returned_at)
        return is_new

    def put_again(self, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        """Put files by their hashes; see :func:`xetstore.cas.putting_again.put_again`."""
        from xetstore.cas.putting_again import put_again

        return put_again(self, files, dry_run=dry_run)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        """The bytes ``[fetch.byte_start, fetch.byte_end)`` of a xorb, as a reconstruction offered them (13.3)."""
        from xetstore.cas.fetches import SCHEME, object_url

        is_offered = fetch.url.startswith(SCHEME)
        try:
            stored = self.stored_xorb(fetch.xorb, visible=False)
        except NotFoundError as error:
            raise _rewritten(fetch.xorb) if is_offered else error from None
        if is_offered and fetch.url != object_url(fetch.xorb, stored.generation):
            raise _rewritten(fetch.xorb)
        return stored.read(fetch.byte_start, fetch.byte_end)

    def suspect(self, xorb: Hash) -> None:
        """Look at all of a xorb's object, and mark it if it is damaged: bytes of it came out wrong."""
        with self.index.snapshot() as reader:
            row = reader.visible_xorb(xorb, self.tenant.namespace)
        if row is not None:
            self.healing.look(row)

    def delete(self, files: Iterable[Hash], *, dry_run: bool = False) -> list[DeletedFile]:
        """Take files out of this namespace; see :func:`xetstore.cas.deleting.delete`."""
        return deleting.delete(self, files, dry_run=dry_run)

    def undelete(self, files: Iterable[Hash]) -> list[FileRecord]:
        """Give files back that were deleted; see :func:`xetstore.cas.deleting.undelete`."""
        return deleting.undelete(self, files)

    def deleted(self) -> Iterator[DeletedFile]:
        """The files of this namespace that can be given back, the last deleted one first."""
        return deleting.deleted(self)

    def under(self, cancellation: Cancellation) -> EmbeddedCas:  # noqa: ARG002  # of the interface
        """Itself: nothing here waits for another machine."""
        return self

    # What a server serves beyond that

    def secrets(self) -> Secrets:
        """The secrets of the store, in private files or in its database; a place for them is made."""
        if self._opened is None:
            raise UsageError("a store that was made of its objects and its index has no place for secrets")
        return self._opened.secrets()

    @property
    def scratch_folder(self) -> Path | None:
        """The folder where a server may keep what comes in until it is whole; None if no directory has the objects."""
        blobs = innermost(self.blobs)
        if not isinstance(blobs, LocalBlobStore):
            return None
        blobs.scratch_folder.mkdir(exist_ok=True)
        return blobs.scratch_folder

    def count_terms(
        self, file: Hash, start: int = 0, end: int | None = None, *, enough: int | None = None
    ) -> TermCount:
        """The sums of what :meth:`reconstruct` would answer with: of all terms, or of the first ``enough``.

        Nothing is computed for it, or kept.
        """
        with self.index.snapshot() as reader:
            record = self._granted(reader, file)
            return reader.count_terms(file, start, record.size if end is None else end, enough=enough)

    def count_terms_of(self, files: Iterable[Hash], *, enough: int | None = None) -> TermCount:
        """The same for :meth:`reconstruct_many`; files that are not there count for nothing."""
        with self.index.snapshot() as reader:
            return reader.count_terms_of_files(list(dict.fromkeys(files)), self.tenant.namespace, enough=enough)

    def find_offer(self, *chunks: Hash) -> Offer | None:
        """The offer behind :meth:`find_chunks`; only footers of xorbs that hold the chunks were read for it."""
        from xetstore.cas.answers import find_offer

        return find_offer(self.index, self.blobs, self.footers, chunks, self.tenant)

    def recent_offer(self) -> Offer | None:
        """The offer of what this namespace put last, for a query for something that is not known."""
        from xetstore.cas.answers import recent_offer

        return recent_offer(self.index, self.tenant)

    def lacks_chunk(self, chunk: Hash) -> bool:
        """True if :meth:`find_offer` would find nothing; False also where that cannot be seen without waiting."""
        from xetstore.cas.index.queries.rows import chunk_key

        return self.tenant.dedup is DedupDomain.OFF or self.index.lacks_chunk(chunk_key(chunk.digest), self.tenant)

    def answer_with(self, offer: Offer) -> Shard | None:
        """The answer of :meth:`find_chunks`; None if all of it was damaged meanwhile."""
        from xetstore.cas.answers import answer_with

        return answer_with(offer, self.index, self.blobs, self.footers, self.tenant, now=self.now())

    def stored_xorb(self, xorb: Hash, *, visible: bool = True) -> StoredXorb:
        """A xorb, to be read. NotFoundError; with ``visible`` also where this namespace neither uploaded it nor has a
        file of it. Without, the caller makes sure that it may be read.
        """
        with self.index.snapshot() as reader:
            row = reader.visible_xorb(xorb, self.tenant.namespace) if visible else reader.xorb(xorb)
        if row is None:
            raise NotFoundError(f"there is no xorb {xorb}")
        return self.reader_of(row)

    def granted_xorb(self, xorb: Hash, generation: str) -> StoredXorb:
        """A xorb that a signed URL names, to be read; the caller makes sure that it may be.

        While the index does not answer, it is the object of this generation, if its row was read lately: no key is
        written twice, so the bytes under it are the same. ForbiddenError where another object counts, or none any more.
        """
        try:
            stored = self.stored_xorb(xorb, visible=False)
        except UnavailableError:
            row = self._seen.get(xorb, generation)
            if row is None:
                raise
            return self.reader_of(row)
        except NotFoundError:
            raise _rewritten(xorb) from None
        self._seen.note({xorb: stored.row})
        if stored.generation != generation:
            raise _rewritten(xorb)
        return stored

    def reader_of(self, row: XorbRow) -> StoredXorb:
        """The xorb of this row, to be read."""
        from xetstore.cas.stored_xorb import StoredXorb

        return StoredXorb(row, self.blobs, self.footers, self.healing.report)

    def may_read(self, xorb: Hash, ranges: Sequence[tuple[int, int]]) -> bool:
        """True if files granted to this namespace are made of all these bytes ``[start, end)`` of a xorb."""
        with self.index.snapshot() as reader:
            row = reader.xorb(xorb)
        if row is None or any(end > row.region_bytes for _, end in ranges):
            return False
        # 1 for each chunk that some of the bytes lie in. Each term of a file takes some away, and costs the same
        # however many came before.
        info = self.footers.get(row)
        missing, zeros = bytearray(row.chunk_count), bytes(row.chunk_count)
        ones = b"\1" * row.chunk_count
        for first, last in ranges:
            start, end = info.chunks_of(first, last)
            missing[start:end] = ones[start:end]
        with self.index.snapshot() as reader:
            for spans in reader.granted_terms(row.id, self.tenant.namespace):
                for start, end in spans:
                    missing[start:end] = zeros[start:end]
                if 1 not in missing:
                    return True
        return False

    def file_chunks(self, file: Hash) -> ChunkList:
        """Every chunk of a file, in order: 40 bytes a chunk, so some 600 MB for a file of 1 TB."""
        from xetstore.cas.fetches import as_damage, chunks_of
        from xetstore.protocol.chunking import ChunkList

        with self.index.snapshot() as reader:
            record = self._granted(reader, file)
            _, terms, rows = reader.terms(file, 0, record.size)
        with as_damage(file):
            return ChunkList.concat(chunks_of(self.footers, rows, terms))

    # Beyond the protocol

    def stat(self, file: Hash) -> FileRecord:
        """The record of a file. Raises NotFoundError."""
        with self.index.snapshot() as reader:
            return self._granted(reader, file)

    def files(self) -> Iterator[FileRecord]:
        """All files in the order of their registration; those registered meanwhile may be among them."""
        namespace = self.tenant.namespace
        for page in self.index.pages(
            lambda reader, last: reader.files_after(last, namespace), lambda entry: entry[0], 0
        ):
            yield from (record for _, record in page)

    def files_beginning(self, prefix: str, most: int) -> list[Hash]:
        """The hashes of at most ``most`` files that begin with these hexadecimal digits, as text. Reads all hashes."""
        with self.index.snapshot() as reader:
            return [record.hash for record in reader.files_beginning(prefix, self.tenant.namespace)[:most]]

    def files_page(self, after: Hash | None, prefix: str = "") -> list[FileRecord]:
        """Some files of this namespace, in the order of :meth:`files`, behind ``after``; none at the end, and none of a
        repository that was deleted. With a ``prefix`` those whose hashes begin with these digits instead.

        Raises UsageError if ``after`` is no file of this namespace, and was none lately.
        """
        namespace = self.tenant.namespace
        with self.index.snapshot() as reader:
            last = 0 if after is None else reader.place_of(after, namespace)
            if last is None:
                raise UsageError("after is no place in this list", hint="it is what the page before has as `next`")
            try:
                self.deletion_guard(reader, namespace, ())
            except RepositoryNotFoundError:
                return []
            if prefix:
                return reader.files_beginning(prefix, namespace)
            return [record for _, record in reader.files_after(last, namespace)]

    def totals(self) -> Totals:
        """Sums over the whole store."""
        with self.index.snapshot() as reader:
            return reader.totals()

    def ping(self) -> None:
        """Raises XetError if the store cannot be read now, or is not the one that was opened any more."""
        self.ping_index()
        self.ping_objects()

    def ping_index(self) -> None:
        """Raises XetError if the index cannot be read now, or is not the one that was opened any more."""
        self.index.require_in_place()
        with self.index.snapshot() as reader:
            reader.dedup_key()

    def ping_objects(self) -> None:
        """Raises XetError if the objects cannot be read now, or are not those that were opened any more."""
        self.blobs.stat(xorb_key(Hash.ZERO))

    def close(self) -> None:
        """Close the index. May be called again; every other call then raises UsageError."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _granted(self, reader: Reader, file: Hash) -> FileRecord:
        record = reader.file(file, self.tenant.namespace)
        if record is None:
            raise _unknown_file(file)
        return record


def _normalised(shard: Shard, rows: dict[Hash, XorbRow]) -> bytes:
    """The stored form of a shard: each file and xorb once, in order, our sizes, no times; so it has one name."""
    from dataclasses import replace

    from xetstore.protocol.shard import Shard

    files = {entry.hash: entry for entry in reversed(shard.files)}
    xorbs = {entry.hash: entry for entry in shard.xorbs}
    stored = Shard(
        tuple(replace(entry, verification=()) if entry.verification is None else entry for entry in files.values()),
        tuple(replace(entry, stored_bytes=rows[name].region_bytes) for name, entry in xorbs.items()),
    )
    return stored.serialize_with_footer()


def _rewritten(xorb: Hash) -> ForbiddenError:
    """The error at which clients ask anew, and are told of what counts now."""
    return ForbiddenError(f"xorb {xorb} was stored anew", hint="ask for a new reconstruction")


def _unknown_file(file: Hash) -> NotFoundError:
    return NotFoundError(f"there is no file {file}", hint="the hash is that of `xet put` or `xet hash`")
