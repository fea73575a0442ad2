"""check(): compares everything that is stored with its row in the index, and with its own name."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.cas.checking.files import check_files, wrong_sha256
from xetstore.cas.checking.naming import NamingCheck
from xetstore.cas.checking.objects import ObjectCheck
from xetstore.cas.checking.report import CheckReport, Problem
from xetstore.cas.checking.selection import Selection
from xetstore.cas.index import Reader
from xetstore.cas.layout import SHARDS, XORBS
from xetstore.cas.object_rows import object_rows
from xetstore.cas.quotas import differences, recount
from xetstore.errors import IntegrityError

if TYPE_CHECKING:
    from xetstore.cas.progress import StoreProgress
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

__all__ = ["CheckReport", "Problem", "Selection", "check", "verify_invariants"]

# Objects compared with the index at a time.
_BATCH: Final = 500


def check(
    cas: EmbeddedCas,
    *,
    read_data: bool = False,
    checksums: bool = False,
    selection: Selection | None = None,
    dry_run: bool = False,
    progress: StoreProgress | None = None,
) -> CheckReport:
    """Check a store, also while it is in use: what is deleted or stored anew meanwhile is no problem.

    Every registered xorb has an object of the right size with a valid footer of its own name; the terms of
    every file fit these xorbs and make its hash; every object has a row. With ``checksums`` every
    stored byte is read and compared with the checksum that it was stored with; with ``read_data``, and in objects that
    have no checksums, every chunk is decoded and hashed. With a ``selection`` only its xorbs are read, after all of
    them were compared; shards are read in every case.

    What is found damaged is marked in the index, if it can be written to: no put leans on it any more, and one that
    brings the same bytes again replaces it. A mark is taken back where all bytes were read and are well, and the time
    of it is noted. Objects without checksums that are read are stored anew with them. Objects that were replaced more
    than a day ago are removed. What is used of a quota is counted anew where it is wrong. With ``dry_run`` nothing of
    that is done.
    """
    if not dry_run:
        cas.healing.sweep()
    run = _Check(cas, read_data or checksums, ObjectCheck(cas, decode=read_data, changes=not dry_run), progress)
    try:
        run.index()
        run.xorbs(selection)
        run.files()
        run.shards()
        run.unregistered()
        run.quotas(mends=not dry_run)
    finally:
        run.objects.note()
    return run.report()


def verify_invariants(cas: EmbeddedCas) -> None:
    """Raises IntegrityError with all findings unless the invariants of ``cas.service`` hold. Reads all data, and all
    of each file whose SHA-256 was computed.
    """
    problems = check(cas, read_data=True, dry_run=True).problems or tuple(wrong_sha256(cas))
    if problems:
        raise IntegrityError("; ".join(map(str, problems)))


class _Check:
    def __init__(self, cas: EmbeddedCas, read: bool, objects: ObjectCheck, progress: StoreProgress | None) -> None:
        self._cas = cas
        self._read = read
        self.objects = objects
        self._progress = progress
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._xorbs = self._files = 0
        self._unread = False

    def report(self) -> CheckReport:
        return CheckReport(
            tuple(self._problems),
            (*self.objects.notes, *self._notes),
            self._xorbs,
            self._files,
            self.objects.bytes_read,
            renewed=self.objects.renewed,
            unread=self._unread,
        )

    def index(self) -> None:
        """The database itself."""
        self._problems.extend(Problem("index", finding) for finding in self._cas.index.damage())
        self._expect(self._cas.totals().stored_bytes)

    def xorbs(self, selection: Selection | None) -> None:
        """Each row has its object, and the object agrees with the row; those that are selected are read."""
        reads_all = self._read and selection is None
        for page in self._cas.index.pages(Reader.xorbs_after, attrgetter("id"), 0):
            for row in page:
                self._add(self.objects.xorb(row, read=reads_all))
                self._xorbs += 1
                self._advance(row.stored_bytes)
        if selection is None or not self._read:
            return
        deadline = selection.deadline()
        for rows in selection.pages(self._cas, self._xorbs):
            self._expect(sum(row.stored_bytes for row in rows))
            for row in rows:
                if time.monotonic() > deadline and self.objects.bytes_read:
                    self._unread = True
                    return
                if row.hash not in self.objects.broken:
                    self._add(self.objects.xorb(row, read=True))
                self._advance(row.stored_bytes)

    def files(self) -> None:
        """Each file is made of registered xorbs, whose footers give its size and its hash."""
        naming = NamingCheck(self._cas, reads=self._read)
        for problem in check_files(self._cas, self.objects.broken, naming):
            self._add(problem)
            self._files += 1
        self._notes.extend(naming.notes)

    def shards(self) -> None:
        """Each row has its object, of the right size; where data is read, it has the hash that is its name."""
        first: Hash | None = None
        for page in self._cas.index.pages(Reader.shards_after, attrgetter("hash"), first):
            for row in page:
                self._add(self.objects.shard(row, read=self._read))

    def quotas(self, *, mends: bool) -> None:
        """Each quota has noted what its files have."""
        differing = [*differences(self._cas)]
        for wrong in differing:
            (noted_bytes, noted_files), (nbytes, files) = wrong.noted, wrong.counted
            what = f"{noted_bytes} bytes of {noted_files} files are counted, and there are {nbytes} of {files}"
            self._add(Problem(f"quota {wrong.name}", what))
        if differing and mends and self._cas.index.is_writable:
            recount(self._cas)

    def unregistered(self) -> None:
        """Each object is named by a row; one that is not does no harm, and nothing takes it up."""
        for prefix in (XORBS, SHARDS):
            for batch in batches(self._cas.blobs.list(prefix), _BATCH):
                with self._cas.index.snapshot() as reader:
                    rows = object_rows(reader, [blob.key for blob in batch])
                for blob in batch:
                    row = rows.get(blob.key)
                    if blob.key not in rows:
                        self._notes.append(f"{blob.key} is not the name of an object")
                    elif row is None:
                        self._notes.append(
                            f"{blob.key} is stored but not registered: an upload was interrupted, or is under way"
                        )
                    elif row.key != blob.key:
                        self._notes.append(f"{blob.key} is not used: another object counts in place of it")

    def _add(self, problem: Problem | None) -> None:
        if problem is not None:
            self._problems.append(problem)

    def _expect(self, nbytes: int) -> None:
        if self._progress is not None:
            self._progress.total(nbytes)

    def _advance(self, nbytes: int) -> None:
        if self._progress is not None:
            self._progress.advance(logical=nbytes)
