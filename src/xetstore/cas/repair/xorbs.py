"""XorbRepair: a damaged xorb made whole, from itself, from another object of it, or from other stores."""

from __future__ import annotations

from collections.abc import Iterator

from xetstore.cas.checksums import with_checksums
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.index.queries.rows import chunk_key
from xetstore.cas.layout import new_generation, xorb_key
from xetstore.cas.registering import register
from xetstore.cas.repair.run import Run
from xetstore.cas.repair.salvage import Salvage
from xetstore.cas.repair.sources import Source, Use, chunks_in, listed_chunks, objects_of
from xetstore.cas.stored_xorb import verify_object
from xetstore.errors import DamagedError, HashMismatchError, IntegrityError, NotFoundError, XetError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash, xorb_hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

HERE = "another object of it here"


class XorbRepair:
    """Repairs xorbs, one at a time. What a xorb lacks at the end is in the :class:`Salvage` that is returned."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def repair(self, name: Hash) -> Salvage | None:
        """Make a xorb whole. None if it is, or is not there any more; else the chunks of it that are left."""
        run, blobs = self._run, self._run.cas.blobs
        with run.cas.index.snapshot() as reader:
            row = reader.xorb(name)
        if row is None:
            return None
        try:
            info = verify_object(blobs, row.key, name)
        except (IntegrityError, NotFoundError):
            pass
        else:
            self._mend_row(row, info)
            return None
        salvage, origin = self._gather(row)
        if not salvage.is_whole():
            return salvage
        if not run.is_dry:
            self._replace(row, salvage.region())
        run.mended(f"xorb {name}", f"made whole from {origin}")
        return None

    def _gather(self, row: XorbRow) -> tuple[Salvage, str]:
        """The chunks of a xorb, and where those came from that its own object does not have."""
        blobs = self._run.cas.blobs
        try:
            own: bytes | None = blobs.get(row.key)
        except (NotFoundError, IntegrityError):
            own = None
        chunks = (None if own is None else listed_chunks(own, row.hash)) or self._listed(row)
        salvage = Salvage(row.hash, row.chunk_count, chunks)
        if own is not None:
            for first, stored in chunks_in(own, row.hash):
                salvage.take(stored, first)
            salvage.in_object = salvage.held
            if salvage.is_whole():
                return salvage, "its own chunks, which are sound"
        for data in objects_of(blobs, row.hash, but=row.key):
            if self._take_object(salvage, data):
                return salvage, HERE
        for source in self._run.sources:
            try:
                salvage = self._take_source(salvage, row, source)
            except XetError as error:
                self._run.report.notes.append(f"{source.name}: {error}")
            if salvage.is_whole():
                return salvage, source.name
        return salvage, ""

    def _take_object(self, salvage: Salvage, data: bytes) -> bool:
        for first, stored in chunks_in(data, salvage.name):
            salvage.take(stored, first)
        return salvage.is_whole()

    def _take_source(self, salvage: Salvage, row: XorbRow, source: Source) -> Salvage:
        for data in source.xorb(row.hash):
            if salvage.chunks is None and (chunks := listed_chunks(data, row.hash)) is not None:
                # Only now is it known which chunks there are: those that are held were taken on trust.
                known, salvage = salvage, Salvage(row.hash, row.chunk_count, chunks)
                salvage.take_from(known)
            if self._take_object(salvage, data):
                return salvage
        for use in self._uses(row, salvage):
            if not _overlaps(salvage.missing, use):
                continue
            self._run.keep()
            try:
                found = [stored for part in source.chunks(use) for stored in part]
            except NotFoundError:
                continue
            is_all = len(found) == use.chunk_end - use.chunk_start
            salvage.take(found, use.chunk_start if is_all else None)
            if not salvage.missing and salvage.is_whole():
                break
        return salvage

    def _uses(self, row: XorbRow, salvage: Salvage) -> Iterator[Use]:
        """The places in files of the chunks that are missing."""
        with self._run.cas.index.snapshot() as reader:
            users = reader.users_of(row.id)
        for file in users:
            yield from uses_of(self._run, file, row.hash)
            if not salvage.missing:
                return

    def _listed(self, row: XorbRow) -> ChunkList | None:
        """The chunks of a xorb as a shard lists them, if they make it."""
        blobs = self._run.cas.blobs
        with self._run.cas.index.snapshot() as reader:
            shards = reader.shards(reader.shards_of_xorb(row.id))
        for shard in shards.values():
            try:
                data = blobs.get(shard.key)
                if chunk_hash(data) != shard.hash:
                    continue
                for entry in Shard.parse(data).xorbs:
                    if entry.hash == row.hash == xorb_hash(entry.chunks.hashes, entry.chunks.lengths):
                        return entry.chunks
            except (NotFoundError, IntegrityError):
                continue
        return None

    def _replace(self, row: XorbRow, region: bytes) -> None:
        """Store a xorb anew, and set the damaged object aside."""
        store_xorb(self._run, region, row.hash, row)
        self._run.set_aside(row.key)

    def _mend_row(self, row: XorbRow, info: XorbInfo) -> None:
        """Let the rows of a xorb, whose object is whole, tell what it holds."""
        run = self._run
        with run.cas.index.snapshot() as reader:
            found = set(reader.dedup_keys_of(row.id))
        wrong = found - {chunk_key(info.chunks.digest(i)) for i in range(info.chunk_count)}
        sizes = (row.region_bytes, row.raw_bytes, row.chunk_count)
        is_right = sizes == (info.region_bytes, info.raw_bytes, info.chunk_count)

        def mend(writer: Writer) -> None:
            writer.mend_xorb(row, info)
            writer.drop_dedup(row.id, sorted(wrong))

        if is_right and not wrong and not row.is_damaged:
            return
        if not run.is_dry:
            run.change(mend)
        if not is_right:
            run.mended(f"xorb {row.hash}", "its row tells again what its object holds")
        if wrong:
            run.mended(f"xorb {row.hash}", "dedup is not told any more of chunks that it does not hold")
        if is_right and row.is_damaged:
            run.mended(f"xorb {row.hash}", "it is whole, and not marked any more")


def uses_of(run: Run, file: Hash, xorb: Hash) -> list[Use]:
    """The places of a xorb in a file; none where the index does not tell."""
    try:
        with run.cas.index.snapshot() as reader:
            record = reader.file_records([file]).get(file)
            if record is None:
                return []
            position, terms, _ = reader.terms(file, 0, record.size)
    except DamagedError:
        return []
    uses: list[Use] = []
    for term in terms:
        end = position + term.unpacked_bytes
        if term.xorb == xorb:
            uses.append(Use(file, position, end, term.chunk_start, term.chunk_end))
        position = end
    return uses


def store_xorb(run: Run, region: bytes, name: Hash | None, damaged: XorbRow | None) -> XorbInfo:
    """Store a serialized region as a new object, and register it: in place of a damaged one, or under its own name.

    Every chunk is decoded and hashed once more. Durable on return.
    """
    verifier = XorbVerifier()
    verifier.update(region)
    info = verifier.finish()
    if name is not None and info.hash != name:
        raise HashMismatchError("a repaired xorb", expected=str(name), actual=str(info.hash))
    now, generation = run.cas.now(), new_generation()
    key = xorb_key(info.hash, generation)

    def store() -> None:
        parts = [region, with_checksums(info.serialize_footer(), verifier.checksums)]
        run.cas.blobs.put_new(key, parts)

    def add(writer: Writer, old: XorbRow | None) -> tuple[bool, XorbRow]:
        run.require(writer)
        if old is not None:
            writer.replace_object(old, info, generation, now=now)
            writer.forget_superseded([old.key])  # it goes into quarantine
        else:
            writer.add_xorb_of_none(info, now=now, generation=generation)
        return True, writer.xorbs([info.hash])[info.hash]

    register(key, store, add, damaged=damaged, blobs=run.cas.blobs, index=run.cas.index)
    return info


def _overlaps(missing: list[tuple[int, int]], use: Use) -> bool:
    return any(start < use.chunk_end and use.chunk_start < end for start, end in missing)
