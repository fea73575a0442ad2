"""FileRepair: rows of a file that contradict its xorbs or its shard, made anew from what is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from xetstore.cas.claims import ClaimCheck
from xetstore.cas.index import Reader, ShardRow, Writer, XorbRow
from xetstore.cas.repair.entries import ALL_BYTES, entry_of, register_entries
from xetstore.cas.repair.run import Run
from xetstore.cas.repair.sources import objects_of, region_of
from xetstore.cas.repair.xorbs import store_xorb
from xetstore.errors import DamagedError, IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard


class FileRepair:
    """Repairs files, one at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def repair(self, name: Hash) -> None:
        """Mend the rows of a file."""
        run = self._run
        try:
            with run.cas.index.snapshot() as reader:
                terms, rows = reader.terms(name, 0, ALL_BYTES)[1:]
        except DamagedError:
            terms, rows = [], {}
        made = self._made_by(terms, rows)
        listed = list(self._listed(name))
        if made is not None and made.hash == name:
            self._bind(made, "its rows say again what its terms make")
            if listed and not any(entry.hash == name and self._is_right(entry) for entry in listed):
                self._name(made)
            return
        for entry in listed:
            if entry.hash == name and self._is_right(entry):
                self._bind(entry, "it has the terms of its shard again")
                return
        if made is not None and any(entry.hash == made.hash and entry.terms == made.terms for entry in listed):
            self._rename(name, made)
            return
        run.left(f"file {name}", "its rows are wrong, and no shard tells its terms")

    def _made_by(self, terms: list[Term], rows: dict[Hash, XorbRow]) -> FileEntry | None:
        if not terms:
            return None
        try:
            return entry_of(self._run, terms, rows)
        except IntegrityError:
            return None

    def _listed(self, name: Hash) -> Iterator[FileEntry]:
        """The entries of shards that name a file, and of older ones whose files are not known, which name it."""
        index = self._run.cas.index
        with index.snapshot() as reader:
            named = list(reader.shards(reader.shards_of(name)).values())
        for row in named:
            yield from self._read(row)
        for page in index.pages(Reader.unlinked_shards_after, lambda row: row.hash, None):
            for row in page:
                yield from (entry for entry in self._read(row) if entry.hash == name)

    def _read(self, row: ShardRow) -> tuple[FileEntry, ...]:
        try:
            data = self._run.cas.blobs.get(row.key)
            return Shard.parse(data).files if chunk_hash(data) == row.hash else ()
        except (NotFoundError, IntegrityError):
            return ()

    def _is_right(self, entry: FileEntry) -> bool:
        """True if these terms make the file, of xorbs that are here; one that has an object and no row gets a row."""
        run = self._run
        names = {term.xorb for term in entry.terms}
        with run.cas.index.snapshot() as reader:
            rows = reader.xorbs(names)
        for missing in names - rows.keys():
            for data in objects_of(run.cas.blobs, missing):
                region, info = region_of(data, missing)
                if info is None or run.is_dry:
                    continue
                with suppress(IntegrityError):
                    store_xorb(run, region, missing, None)
                    run.mended(f"xorb {missing}", "it has a row again")
                    break
        with run.cas.index.snapshot() as reader:
            rows = reader.xorbs(names)
        if names - rows.keys():
            return False
        try:
            ClaimCheck(rows, run.cas.footers).check(Shard((entry,)))
        except IntegrityError:
            return False
        return True

    def _bind(self, entry: FileEntry, how: str) -> None:
        """Write all rows of a file that follow from its terms."""
        run = self._run

        def bind(writer: Writer) -> None:
            if entry.hash not in writer.file_records([entry.hash]):
                return  # deleted and collected meanwhile
            rows = writer.xorbs({term.xorb for term in entry.terms})
            writer.add_files([entry], rows, namespace=None, now=run.cas.now(), rebound={entry.hash})
            writer.set_size(entry.hash, entry.size)

        if not run.is_dry:
            run.change(bind)
        run.mended(f"file {entry.hash}", how)

    def _name(self, entry: FileEntry) -> None:
        """Write a shard of a file that those which should do not name, or not as it is."""
        if not self._run.is_dry:
            register_entries(self._run, [entry])
        self._run.mended(f"file {entry.hash}", "a shard names it again")

    def _rename(self, name: Hash, made: FileEntry) -> None:
        run = self._run
        with run.cas.index.snapshot() as reader:
            is_taken = made.hash in reader.file_records([made.hash])
        if is_taken:
            run.left(f"file {name}", f"its terms make file {made.hash}, which is there too")
            return
        if not run.is_dry:
            run.change(lambda writer: writer.rename_file(name, made.hash))
        run.mended(f"file {name}", f"it is file {made.hash} again, which its terms make and its shard names")
