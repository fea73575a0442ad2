"""ShardRepair: a damaged shard made anew, so that the index can be made anew from shards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter

from xetstore.cas.checking.naming import shard_fault
from xetstore.cas.index import Reader, ShardRow, Writer
from xetstore.cas.layout import new_generation, shard_key
from xetstore.cas.registering import register
from xetstore.cas.repair.entries import ALL_BYTES, entry_of, in_shards, register_entries
from xetstore.cas.repair.run import Run
from xetstore.cas.repair.sources import whole_shard
from xetstore.errors import FormatError, IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import FileEntry, Shard


class ShardRepair:
    """Repairs shards, one at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._has_lost_unlinked = False

    def repair(self, name: Hash) -> None:
        """Make a shard whole, or make another one of the files that it named."""
        run = self._run
        with run.cas.index.snapshot() as reader:
            row = reader.shards([name]).get(name)
        if row is None:
            return
        data = self._own(row)
        if data is not None:
            self._mend_row(row, len(data))
            if shard_fault(run.cas, row, Shard.parse(data)) is not None:
                self._make_anew(row)
            return
        run.cas.healing.mark(row)  # so that one of the same name is not taken for this one
        if (data := whole_shard(run.cas.blobs, name, but=row.key)) is not None:
            self._replace(row, data, "another object of it here")
            return
        for source in run.sources:
            if (data := source.shard(name)) is not None and _is_shard(data, name):
                self._replace(row, data, source.name)
                return
        self._make_anew(row)

    def cover(self) -> None:
        """Make shards of files that no shard names, if there is no other that may."""
        run = self._run
        with run.cas.index.snapshot() as reader:
            may_be_named = bool(reader.unlinked_shards_after(None))
        if may_be_named and not self._has_lost_unlinked:
            return
        for page in run.cas.index.pages(Reader.unsharded_after, itemgetter(0), 0):
            entries = self._entries([record.hash for _, record in page])
            for batch in in_shards(entries):
                if not run.is_dry:
                    register_entries(run, batch)
                run.mended(f"{len(batch)} files", "they have a shard again, which none did name")

    def _own(self, row: ShardRow) -> bytes | None:
        try:
            data = self._run.cas.blobs.get(row.key)
        except (NotFoundError, IntegrityError):
            return None
        return data if _is_shard(data, row.hash) else None

    def _mend_row(self, row: ShardRow, size: int) -> None:
        if size == row.size and not row.is_damaged:
            return
        if not self._run.is_dry:
            self._run.change(lambda writer: writer.mend_shard(row, size))
        self._run.mended(f"shard {row.hash}", "it is whole, and its row tells so again")

    def _replace(self, row: ShardRow, data: bytes, origin: str) -> None:
        run = self._run
        if not run.is_dry:
            now, generation = run.cas.now(), new_generation()
            key = shard_key(row.hash, generation)

            def add(writer: Writer, old: ShardRow | None) -> tuple[bool, ShardRow]:
                run.require(writer)
                assert old is not None
                writer.replace_shard(old, generation, now=now)
                counts = writer.shards([row.hash])[row.hash]
                writer.forget_superseded([old.key])
                if counts.key == key:
                    writer.mend_shard(counts, len(data))
                return True, writer.shards([row.hash])[row.hash]

            blobs = run.cas.blobs
            register(key, lambda: blobs.put_new(key, [data]), add, damaged=row, blobs=blobs, index=run.cas.index)
            run.set_aside(row.key)
        run.mended(f"shard {row.hash}", f"made whole from {origin}")

    def _make_anew(self, row: ShardRow) -> None:
        """Another shard of the files and xorbs that this one named, as far as they are there."""
        run = self._run
        with run.cas.index.snapshot() as reader:
            named = reader.named_by(row.hash)
        if named is None:
            self._has_lost_unlinked = True
            files: set[Hash] = set()
            xorbs: set[Hash] = set()
        else:
            files, xorbs = named
        entries = self._entries(sorted(files, key=str))
        lacking = files - {entry.hash for entry in entries}
        if lacking:
            run.left(f"shard {row.hash}", f"{len(lacking)} of its files cannot be read")
        listed = self._readable(xorbs)
        if not run.is_dry:
            batches = list(in_shards(entries)) or ([[]] if listed else [])
            for batch in batches:
                register_entries(run, batch, xorbs=listed if batch is batches[0] else ())
            if not lacking:
                self._drop(row)
        if not lacking:
            run.mended(f"shard {row.hash}", "made anew from the rows of the index, under another name")

    def _drop(self, row: ShardRow) -> None:
        """Forget a shard in whose place others are, and set its object aside."""
        run = self._run
        run.change(lambda writer: writer.forget_shard(row))  # unless it was made anew under the same name
        run.set_aside(row.key)
        run.change(lambda writer: writer.forget_superseded([row.key]))

    def _entries(self, names: Collection[Hash]) -> list[FileEntry]:
        """The entries of those of these files that can be read."""
        run = self._run
        entries: list[FileEntry] = []
        for name in names:
            try:
                with run.cas.index.snapshot() as reader:
                    record = reader.file_records([name]).get(name)
                    _, terms, rows = reader.terms(name, 0, ALL_BYTES)
                if record is None:
                    continue
                entry = entry_of(run, terms, rows, sha256=record.sha256)
            except IntegrityError:
                continue
            if entry.hash == name:
                entries.append(entry)
        return entries

    def _readable(self, names: Collection[Hash]) -> Sequence[Hash]:
        """Those of these xorbs whose footers can be read."""
        cas = self._run.cas
        with cas.index.snapshot() as reader:
            rows = reader.xorbs(names)
        found: list[Hash] = []
        for name, row in rows.items():
            try:
                cas.footers.get(row)
            except IntegrityError:
                continue
            found.append(name)
        return found


def _is_shard(data: bytes, name: Hash) -> bool:
    if chunk_hash(data) != name:
        return False
    try:
        Shard.parse(data)
    except FormatError:
        return False
    return True
