"""FileCopier: files and shards of one store into another, each file's hash recomputed from the chunks that are there.

The rows of the source are the truth for files, because they have the terms that count now, also of a file that was
healed; their times; and all grants, of which a shard knows none. Shards are copied for what else they are: the objects
of which an index can be made anew. They come first, and each takes its files along, in one transaction as in
``put_shard``; the rows then bring the files whose shards are damaged, and grants of files that the target has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from xetstore.cas.check import Problem
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.copying.run import Run
from xetstore.cas.copying.xorbs import XorbCopier
from xetstore.cas.fetches import as_damage, chunks_of
from xetstore.cas.index import ShardRow, Writer, XorbRow
from xetstore.cas.index.queries import Granted, NewRows
from xetstore.cas.registering import register_shard
from xetstore.errors import DamagedError, HashMismatchError, IntegrityError, MissingXorbError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.records import FileRecord

_TERMS: Final = 1 << 16
"""The most terms of the files of one transaction, unless one file has more: some 30 MB."""
_SHARDS: Final = 200
_SHARD_BYTES: Final = 4 << 20
"""The most shards, and bytes of them, that are held at a time, unless one is longer."""
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A shard of the source, whole, and the files and xorbs that it names and that are there."""

    name: Hash
    data: bytes
    shard: Shard
    files: frozenset[Hash]
    xorbs: frozenset[Hash]


class FileCopier:
    """Copies files, with their grants, and shards. To be called by one thread."""

    def __init__(self, run: Run, xorbs: XorbCopier) -> None:
        self._run = run
        self._xorbs = xorbs

    def copy_new_shards(self, new: NewRows) -> None:
        """Copy the shards that are new in the source, and the files that they name."""
        behind = 0
        while True:
            with self._run.source.index.snapshot() as reader:
                page = reader.new_shards(new, behind)
            if not page:
                return
            self._run.compared += len(page)
            self._copy_missing([row for _, row in page])
            behind = page[-1][0]

    def copy_marked_shards(self) -> None:
        """Copy the shards that were found damaged in the target, as far as the source has them."""
        behind = 0
        while True:
            with self._run.target.index.snapshot() as reader:
                marked = reader.marked_shards(behind)
            if not marked:
                return
            with self._run.source.index.snapshot() as reader:
                rows = reader.shards([row.hash for _, row in marked])
            self._copy_missing([*rows.values()])
            behind = marked[-1][0]

    def copy_new(self, new: NewRows) -> None:
        """Copy the files that are new in the source, or newly granted."""
        behind = 0
        while True:
            with self._run.source.index.snapshot() as reader:
                page = reader.new_files(new, behind)
            if not page:
                return
            self._run.compared += len(page)
            self._copy_files([record for _, record in page])
            behind = page[-1][0]

    def _copy_files(self, records: Sequence[FileRecord]) -> set[Hash]:
        """Copy files and grants; those of the files that the target has then."""
        run = self._run
        names = [record.hash for record in records]
        with run.source.index.snapshot() as reader:
            granted = reader.grants_of(names)
        with run.target.index.snapshot() as reader:
            known = reader.file_records(names)
            had = {(name, namespace) for name, namespace, _ in reader.grants_of(names)}
        new = [record for record in records if record.hash not in known]
        grants = [one for one in granted if one[:2] not in had]
        if run.is_dry:
            run.tally.files += len(new)
            run.tally.grants += len(grants)
            return set(names)
        copied = {name for batch in _batches(new) for name in self._register(batch, grants)}
        told = [record for record in records if record.sha256 and record.hash in known]
        silent = [record for record in told if known[record.hash].sha256 is None]
        late = [one for one in grants if one[0] in known]
        if silent or late:
            sha256 = {record.hash: bytes.fromhex(record.sha256 or "") for record in silent}

            def add(writer: Writer) -> None:
                writer.add_grants(late)
                writer.add_sha256(sha256)

            run.target.index.change(add)
            run.tally.grants += len(late)
        return copied | known.keys()

    def _register(self, records: Sequence[FileRecord], grants: Sequence[Granted], attempt: int = 1) -> set[Hash]:
        """Register files that the target has not got; those for which that went well."""
        run = self._run
        terms = self._terms(records)
        rows = self._xorbs.whole({term.xorb for listed in terms.values() for term in listed})
        claims = ClaimCheck(rows, run.target.footers)
        entries: dict[float, list[FileEntry]] = {}
        try:
            for record in records:
                entry = self._checked(record, terms.get(record.hash), rows, claims, is_last=attempt == _ATTEMPTS)
                if entry is not None:
                    entries.setdefault(record.created_at or 0.0, []).append(entry)
        except DamagedError:  # of a footer in the target: its xorb is marked now, and copied anew
            return self._register(records, grants, attempt + 1)
        names = {entry.hash for listed in entries.values() for entry in listed}
        used = {term.xorb for listed in entries.values() for entry in listed for term in entry.terms}
        added = [one for one in grants if one[0] in names]

        def add(writer: Writer) -> None:
            # Asked again inside, as put_shard does.
            now = writer.xorbs(used)
            if gone := next((name for name in used if name not in now or now[name].is_damaged), None):
                raise MissingXorbError(str(gone))
            for created_at, listed in entries.items():
                writer.add_files(listed, now, namespace=None, now=created_at)
            writer.add_grants(added)
            writer.add_dedup(sorted(claims.eligible))

        try:
            if names:
                run.target.index.change(add)
        except MissingXorbError:
            if attempt == _ATTEMPTS:
                raise
            return self._register(records, grants, attempt + 1)
        run.tally.files += len(names)
        run.tally.grants += len(added)
        return names

    def _terms(self, records: Sequence[FileRecord]) -> dict[Hash, list[Term]]:
        """The terms of files in the source; a file of which the index there is broken is reported, and left out."""
        found: dict[Hash, list[Term]] = {}
        with self._run.source.index.snapshot() as reader:
            for record in records:
                try:
                    found[record.hash] = reader.terms(record.hash, 0, record.size)[1]
                except DamagedError as error:
                    self._report(record.hash, str(error))
        return found

    def _checked(
        self,
        record: FileRecord,
        terms: Sequence[Term] | None,
        rows: dict[Hash, XorbRow],
        claims: ClaimCheck,
        *,
        is_last: bool,
    ) -> FileEntry | None:
        """The entry of a file as a shard has it, with every claim checked against the target's xorbs; None if one of
        these cannot be had, or a claim is not so: that is reported. DamagedError unless this is the last attempt.
        """
        if terms is None:
            return None
        lacking = {term.xorb for term in terms} - rows.keys()
        if lacking:
            if not any(f"xorb {name}" in self._run.problems for name in lacking):
                self._report(record.hash, f"xorb {min(lacking, key=str)} is not there")
            return None
        try:
            with as_damage(record.hash):
                chunks = chunks_of(self._run.target.footers, rows, terms)
                verification = tuple(verification_hash(each.hashes) for each in chunks)
            sha256 = None if record.sha256 is None else bytes.fromhex(record.sha256)
            entry = FileEntry(record.hash, tuple(terms), verification, sha256)
            claims.check(Shard((entry,)))
        except IntegrityError as error:
            if isinstance(error, DamagedError) and not is_last:
                raise
            self._report(record.hash, str(error))
            return None
        return entry

    def _report(self, file: Hash, what: str) -> None:
        self._run.report(Problem(f"file {file}", what, (file,)))

    # Shards

    def _copy_missing(self, rows: Sequence[ShardRow]) -> None:
        """Copy those of these shards that the target has not got, or has damaged."""
        with self._run.target.index.snapshot() as reader:
            known = reader.shards([row.hash for row in rows])
        missing = [row for row in rows if row.hash not in known or known[row.hash].is_damaged]
        if self._run.is_dry:
            self._run.tally.shards += len(missing)
            return
        for group in _groups(missing):
            self._copy_shards(group)

    def _copy_shards(self, group: Sequence[ShardRow]) -> None:
        run = self._run
        loaded = [shard for row in group if (shard := self._load(row)) is not None]
        files = {name for shard in loaded for name in shard.files}
        with run.source.index.snapshot() as reader:
            records = reader.file_records(files)
        present = self._copy_files([*records.values()])
        rows = self._xorbs.whole({name for shard in loaded for name in shard.xorbs})
        claims = ClaimCheck(rows, run.target.footers)
        # One that names a file or a xorb which could not be copied comes later, when it can be linked to all of them.
        complete = [
            shard
            for shard in loaded
            if self._lists_right(shard, rows, claims) and shard.files <= present and shard.xorbs <= rows.keys()
        ]
        if claims.eligible:
            run.target.index.change(lambda writer: writer.add_dedup(sorted(claims.eligible)))
        run.map(self._register_shard, complete)
        run.tally.shards += len(complete)

    def _register_shard(self, shard: _Loaded) -> None:
        target = self._run.target
        register_shard(
            shard.data,
            lambda _: True,  # its files are registered
            files=shard.files,
            xorbs=shard.xorbs,
            now=target.now(),
            blobs=target.blobs,
            index=target.index,
        )

    def _load(self, row: ShardRow) -> _Loaded | None:
        """Read a shard of the source; None if it is damaged, which is reported."""
        name = row.hash
        try:
            data = self._run.source.blobs.get(row.key)
            actual = chunk_hash(data)
            if actual != name:
                raise HashMismatchError("the object", expected=str(name), actual=str(actual))
            shard = Shard.parse(data)
        except (NotFoundError, IntegrityError) as error:
            self._run.source.healing.mark(row)
            self._run.report(Problem(f"shard {name}", str(error)))
            return None
        files, xorbs = {entry.hash for entry in shard.files}, set(named_xorbs(shard))
        with self._run.source.index.snapshot() as reader:
            # Of one that was linked, what is not there any more was deleted, and stays so.
            named = reader.named_by(name) or (reader.file_records(files).keys(), reader.xorbs(xorbs).keys())
        return _Loaded(name, data, shard, frozenset(named[0]), frozenset(named[1]))

    def _lists_right(self, shard: _Loaded, rows: dict[Hash, XorbRow], claims: ClaimCheck) -> bool:
        """True if the chunks that a shard lists for its xorbs are those that the target has."""
        listed = tuple(entry for entry in shard.shard.xorbs if entry.hash in rows)
        try:
            claims.check(Shard(xorbs=listed))
        except IntegrityError as error:
            self._run.report(Problem(f"shard {shard.name}", str(error)))
            return False
        return True


def _batches(records: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Files of a bounded number of terms together."""
    total = 0

    def number(record: FileRecord) -> int:
        nonlocal total
        total += record.terms or 0
        return total // _TERMS

    for _, batch in groupby(records, number):
        yield list(batch)


def _groups(shards: Sequence[ShardRow]) -> Iterator[list[ShardRow]]:
    group: list[ShardRow] = []
    total = 0
    for row in shards:
        if group and (len(group) == _SHARDS or total + row.size > _SHARD_BYTES):
            yield group
            group, total = [], 0
        group.append(row)
        total += row.size
    if group:
        yield group
