"""XorbCopier: xorbs of one store into another, each chunk decoded and hashed on the way in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Final

from xetstore.access.tenant import DEFAULT_NAMESPACE
from xetstore.cas.check import Problem
from xetstore.cas.copying.run import Run
from xetstore.cas.index import Reader, XorbRow
from xetstore.cas.index.queries.copying import Held, NewRows
from xetstore.cas.receive import XorbReceiver
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import FormatError, HashMismatchError, IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash

_BLOCK_BYTES: Final = 1 << 20


class XorbCopier:
    """Copies xorbs, with their holders: the namespaces that have uploaded them. To be called by one thread.

    A xorb that the target has is not read, whichever generation it has in the source: its row there, unmarked, is
    enough until a file comes to depend on it. One that is damaged in the source is reported once, and left out.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._failed: set[Hash] = set()

    def copy_new(self, new: NewRows) -> None:
        """Copy the xorbs that are new in the source."""
        for page in self._run.source.index.pages(
            lambda reader, behind: reader.new_xorbs(new, behind), attrgetter("id"), 0
        ):
            self._run.compared += len(page)
            self._copy_page(page)

    def copy_marked(self) -> None:
        """Copy the xorbs that were found damaged in the target, as far as the source has them."""
        for marked in self._run.target.index.pages(Reader.marked_xorbs, attrgetter("id"), 0):
            with self._run.source.index.snapshot() as reader:
                rows = reader.xorbs([row.hash for row in marked])
            self._copy_page([*rows.values()])

    def whole(self, names: Collection[Hash]) -> dict[Hash, XorbRow]:
        """The rows in the target of those of these xorbs that files may be made of: each is looked at, and copied now
        if it is not there, or does not look whole.
        """
        target = self._run.target
        with target.index.snapshot() as reader:
            rows = reader.xorbs(names)
        looks = self._run.map(lambda row: looks_whole(row, target.blobs), rows.values())
        for row, is_whole in zip(list(rows.values()), looks, strict=True):
            if not is_whole:
                target.healing.mark(row)
                del rows[row.hash]
        lacking = set(names) - rows.keys() - self._failed
        if lacking:
            with self._run.source.index.snapshot() as reader:
                listed = reader.xorbs(lacking)
            self._copy_page([*listed.values()], again=True)
            with target.index.snapshot() as reader:
                rows |= {name: row for name, row in reader.xorbs(lacking).items() if not row.is_damaged}
        return rows

    def _copy_page(self, rows: Sequence[XorbRow], *, again: bool = False) -> None:
        """Copy those of these xorbs that the target lacks, or all of them ``again``, and the holders of all of them."""
        run = self._run
        names = [row.hash for row in rows]
        with run.source.index.snapshot() as reader:
            holders = reader.holders_of(names)
        with run.target.index.snapshot() as reader:
            present, held = reader.xorbs(names), reader.holders_of(names)
        missing = [
            row
            for row in rows
            if (again or row.hash not in present or present[row.hash].is_damaged) and row.hash not in self._failed
        ]
        copied = self._copy(missing, holders)
        there = present.keys() | {row.hash for row in copied}
        lacking = {one for one in holders - held if one[0] in there}
        run.tally.xorbs += len(copied)
        run.tally.bytes += sum(row.region_bytes for row in copied)
        run.tally.holders += len(lacking)
        if lacking and not run.is_dry:
            added = sorted(lacking, key=lambda one: (one[0].digest, one[1]))
            run.target.index.change(lambda writer: writer.add_holders(added))

    def _copy(self, rows: Sequence[XorbRow], holders: Iterable[Held]) -> list[XorbRow]:
        """Copy xorbs; those for which that went well."""
        # Each xorb has a holder: it is received for that namespace, and the others are added then.
        first = dict(sorted(holders, key=lambda one: one[1], reverse=True))
        if self._run.progress is not None:
            self._run.progress.total(sum(row.region_bytes for row in rows))
        if self._run.is_dry:
            faults = [self._foreseen(row) for row in rows]
        else:
            faults = self._run.map(lambda row: self._fault(row, first.get(row.hash, DEFAULT_NAMESPACE)), rows)
        for row, fault in zip(rows, faults, strict=True):
            if fault is not None:
                self._failed.add(row.hash)
                with self._run.source.index.snapshot() as reader:
                    users = reader.users_of(row.id)
                self._run.report(Problem(f"xorb {row.hash}", fault, tuple(users)))
        return [row for row, fault in zip(rows, faults, strict=True) if fault is None]

    def _foreseen(self, row: XorbRow) -> str | None:
        return "it was found damaged before" if row.is_damaged else None

    def _fault(self, row: XorbRow, namespace: str) -> str | None:
        """Copy one xorb; what is wrong with it, or None."""
        fault = self._receive(row, namespace)
        if fault is None:
            return None
        with self._run.source.index.snapshot() as reader:
            now = reader.xorb(row.hash)
        if now is not None and now.generation != row.generation:  # it was stored anew meanwhile
            return self._receive(now, namespace)
        return fault

    def _receive(self, row: XorbRow, namespace: str) -> str | None:
        source = self._run.source
        with self._run.target.in_namespace(namespace).receive_xorb(row.hash, is_care=True) as receiver:
            try:
                if not receiver.is_known:
                    self._pour(row, receiver)
            except (IntegrityError, NotFoundError) as error:
                source.healing.mark(row)
                return str(error)
            try:
                receiver.commit()
            except (FormatError, HashMismatchError) as error:
                source.healing.mark(row)
                return str(error)
            except IntegrityError as error:  # of an object that the target has
                return str(error)
        return None

    def _pour(self, row: XorbRow, receiver: XorbReceiver) -> None:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        progress = self._run.progress
        with self._run.source.reader_of(row).read(0, row.region_bytes) as stream:
            while count := stream.readinto(buffer):
                self._run.cancellation.check()
                receiver.write(buffer[:count])
                if progress is not None:
                    progress.advance(logical=count)
