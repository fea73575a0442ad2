"""FileCopier: files of one store into another, each file's hash recomputed from the chunks that are there.

The rows of the source are the truth for files, because they have the terms that count now, also of a file that was
healed; their times; and all grants, of which a shard knows none, with what is claimed or known of their SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cas.check import Problem
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.copying.run import Run
from xetstore.cas.copying.xorbs import XorbCopier
from xetstore.cas.fetches import as_damage, chunks_of
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.index.queries.copying import Granted, NewRows
from xetstore.cas.registering import register_shard
from xetstore.errors import DamagedError, IntegrityError, MissingXorbError
from xetstore.protocol.hashes import Hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.records import FileRecord

_TERMS: Final = 1 << 16
"""The most terms of the files of one transaction, unless one file has more: some 30 MB."""
_ATTEMPTS: Final = 3


class FileCopier:
    """Copies files, with their grants. To be called by one thread."""

    def __init__(self, run: Run, xorbs: XorbCopier) -> None:
        self._run = run
        self._xorbs = xorbs

    def copy_new(self, new: NewRows) -> None:
        """Copy the files that are new in the source, or newly granted."""
        for page in self._run.source.index.pages(
            lambda reader, behind: reader.new_files(new, behind), itemgetter(0), 0
        ):
            self._run.compared += len(page)
            self.copy([record for _, record in page])

    def copy(self, records: Sequence[FileRecord]) -> set[Hash]:
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
        run.tally.files += len(copied)
        if late := [one for one in grants if one[0] in known]:
            run.target.index.change(lambda writer: writer.add_grants(late))
            run.tally.grants += len(late)
        present = copied | known.keys()
        self._copy_sha256([record for record in records if record.hash in present])
        return present

    def _copy_sha256(self, records: Sequence[FileRecord]) -> None:
        """Let the target know each SHA-256 that was computed for these files, which it has, or else is claimed."""
        names = [record.hash for record in records]
        with self._run.source.index.snapshot() as reader:
            claims = reader.claims_of(names)
        with self._run.target.index.snapshot() as reader:
            claims -= reader.claims_of(names)
            checked = {name for name, record in reader.file_records(names).items() if record.sha256 is not None}
            granted = {one[:2] for one in reader.grants_of(names)}
        computed = {
            record.hash: bytes.fromhex(record.sha256)
            for record in records
            if record.sha256 is not None and record.hash not in checked
        }
        added = [one for one in claims if one[0] not in checked and one[:2] in granted]

        def add(writer: Writer) -> None:
            writer.note_many(computed)
            writer.copy_claims(added)

        if computed or added:
            self._run.target.index.change(add)

    def copy_broken(self) -> None:
        """Give the source's terms to files of the target that are made of xorbs which are damaged there, and which the
        source could not mend: it may have healed the files from others.

        A file that a namespace has in the target and not in the source keeps its terms: it would learn of these xorbs.
        """
        behind = 0
        while not self._run.is_dry:
            with self._run.target.index.snapshot() as reader:
                marked = reader.marked_xorbs(behind)
                names = {name for row in marked for name in reader.users_of(row.id)}
                readers = {(name, namespace) for name, namespace, _ in reader.grants_of(names)}
            if not marked:
                return
            with self._run.source.index.snapshot() as reader:
                records = reader.file_records(names)
                allowed = {(name, namespace) for name, namespace, _ in reader.grants_of(names)}
            kept = {name for name, _ in readers - allowed}
            for batch in _batches([record for name, record in records.items() if name not in kept]):
                self._register(batch, (), is_rebound=True)
            behind = marked[-1].id

    def _register(
        self,
        records: Sequence[FileRecord],
        grants: Sequence[Granted],
        *,
        is_rebound: bool = False,
        attempt: int = 1,
    ) -> set[Hash]:
        """Register files that the target has not got, or give them other terms; those for which that went well."""
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
            return self._register(records, grants, is_rebound=is_rebound, attempt=attempt + 1)
        names = {entry.hash for listed in entries.values() for entry in listed}
        used = {term.xorb for listed in entries.values() for entry in listed for term in entry.terms}
        added = [one for one in grants if one[0] in names]

        def add(writer: Writer) -> None:
            # Asked again inside, as put_shard does.
            now = writer.xorbs(used)
            if gone := next((name for name in used if name not in now or now[name].is_damaged), None):
                raise MissingXorbError(str(gone))
            writer.revive(now.values(), now=run.target.now())
            for created_at, listed in entries.items():
                rebound = names if is_rebound else ()
                writer.add_files(listed, now, namespace=None, now=created_at, rebound=rebound)
            writer.add_grants(added)
            writer.add_dedup(claims.eligible_in(now))

        try:
            if is_rebound and names:
                self._register_shard([entry for listed in entries.values() for entry in listed], add)
            elif names:
                run.target.index.change(add)
        except MissingXorbError:
            if attempt == _ATTEMPTS:
                raise
            return self._register(records, grants, is_rebound=is_rebound, attempt=attempt + 1)
        run.tally.grants += len(added)
        return names

    def _register_shard(self, entries: Sequence[FileEntry], add: Callable[[Writer], None]) -> None:
        """Register a shard of files that get other terms than those with which the shards of the target name them."""
        target, shard = self._run.target, Shard(tuple(entries))

        def add_files(writer: Writer) -> bool:
            add(writer)
            return True

        register_shard(
            shard.serialize_with_footer(),
            add_files,
            files=[entry.hash for entry in entries],
            xorbs=named_xorbs(shard),
            now=target.now(),
            blobs=target.blobs,
            index=target.index,
        )

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
            entry = FileEntry(record.hash, tuple(terms), verification)
            claims.check(Shard((entry,)))
        except IntegrityError as error:
            if isinstance(error, DamagedError) and not is_last:
                raise
            self._report(record.hash, str(error))
            return None
        return entry

    def _report(self, file: Hash, what: str) -> None:
        self._run.report(Problem(f"file {file}", what, (file,)))


def _batches(records: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Files of a bounded number of terms together."""
    return sized_batches(records, lambda record: record.terms or 0, _TERMS)
