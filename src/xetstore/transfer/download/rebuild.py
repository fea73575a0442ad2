"""Rebuilding a window of a file: chunks that are there already, the fetches that are left, a second look if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.errors import IntegrityError
from xetstore.events import Damaged, Emit, Resumed
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import HASH_BYTES
from xetstore.transfer.download import present
from xetstore.transfer.download.fetching import Destination, Fetcher, Tally
from xetstore.transfer.download.parts import Part, Run, Span, Window, check_hashes, in_file_order, leave_out
from xetstore.transfer.download.verify import FileCheck
from xetstore.transfer.download.windows import Reconstructions
from xetstore.transfer.download.workers import Workers
from xetstore.transfer.progress import NoProgress

if TYPE_CHECKING:
    from xetstore.transfer.download.basis import OldVersion

LARGE_SPAN_BYTES: Final = 8 << 20
"""Larger missing spans are asked for before the fetches begin, so that several workers share them."""

GROUP_BYTES: Final = 64 << 20
"""Bytes that a second look asks for at a time."""


class Rebuilder:
    """Rebuilds windows of one file. Its methods are called from one thread at a time."""

    def __init__(
        self,
        file: Hash,
        reconstructions: Reconstructions,
        fetcher: Fetcher,
        workers: Workers,
        tally: Tally,
        *,
        emit: Emit,
    ) -> None:
        self._file = file
        self._reconstructions = reconstructions
        self._fetcher = fetcher
        self._workers = workers
        self._tally = tally
        self._emit = emit

    def rebuild(
        self,
        window: Window,
        destination_of: Callable[[Window], Destination],
        base: OldVersion | None,
        ask_again: Callable[[], Window | None],
    ) -> tuple[Window, list[Run]]:
        """Deliver a window; its chunks in order, as the Cas told them, and the window that was believed in the end.

        If they are not, all of it is asked for and fetched once more, and nothing that was there is taken for granted.
        """
        try:
            destination = destination_of(window)
            destination.progress.total(window.length)
            return window, self._rebuild(window, destination, base)
        except _NotAsToldError as error:
            self._emit(Damaged(str(error.reason), refetching=True))
        fresh = ask_again()
        if fresh is None:
            raise IntegrityError(f"file {self._file} is said to end where it did not end before")
        try:
            destination = replace(destination_of(fresh), progress=NoProgress(), resumes=False)
            return fresh, self._rebuild(fresh, destination, None)
        except _NotAsToldError as error:
            raise error.reason from None

    def look_again(self, check: FileCheck, destination: Destination) -> None:
        """Fetch what was not checked on its own once more, after a file came out wrong. HashMismatchError if it does so
        again, with a hint that says what may be wrong.
        """
        doubtful = check.doubtful
        if doubtful is None:
            raise check.mismatch()
        self._emit(Damaged(f"file {self._file}", refetching=True))
        destination = replace(destination, progress=NoProgress(), resumes=False)
        check.start_again()
        differ: list[str] = []
        suspects: dict[Hash, None] = {}
        group: list[Run] = []

        def flush() -> None:
            if group:
                window = self._reconstructions.ask_exactly(group[0].position, group[-1].end)
                again = in_file_order(self._fetch(window.parts, destination), window.position, window.end)
                differ.extend(_difference(group, again))
                for run in again:
                    check.add_run(run)
                    if run.xorb is not None:
                        suspects.setdefault(run.xorb)
                group.clear()

        for run in doubtful:
            if run.verified:
                flush()
                check.add_run(run)
                continue
            group.append(run)
            if run.end - group[0].position >= GROUP_BYTES:
                flush()
        flush()
        if check.is_right:
            return
        self._emit(Damaged(f"file {self._file}", refetching=False))
        for xorb in suspects:
            self._fetcher.suspect(xorb)
        named = differ or [f"xorb {xorb}" for xorb in suspects]
        listed = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        if differ:
            raise check.mismatch(f"it was fetched twice and differed in {listed}")
        if not listed:
            raise check.mismatch()
        raise check.mismatch(f"it was fetched twice and came out the same: look at {listed}")

    def _rebuild(self, window: Window, destination: Destination, base: OldVersion | None) -> list[Run]:
        known: list[Run] = []
        parts: Sequence[Part] = window.parts
        missing: list[Span] = []
        journal = destination.journal
        if journal is not None and destination.resumes:
            found = present.of_journal(journal, window.position, window.end, self._workers.cores)
            kept = self._known(found, destination)
            if kept:
                self._emit(Resumed(journal.path, sum(run.chunks.total_bytes for run in kept)))
                known += kept
                parts, missing = leave_out(parts, _spans(kept))
        if base is not None and window.reconstruction.term_hashes is not None:
            parts = [*parts, *(part for span in missing for part in self._reconstructions.ask_exactly(*span).parts)]
            found = present.of_old_version(
                base,
                parts,
                lambda start, end: self._reconstructions.ask(start, end, limit=end),
                destination.put,
                self._workers.cores,
            )
            kept = self._known(found, destination, records=True)
            known += kept
            parts, missing = leave_out(parts, _spans(kept))
        fetched = self._fetch(parts, destination, missing)
        try:
            runs = in_file_order([*known, *fetched], window.position, window.end)
            check_hashes(window, runs)
        except IntegrityError as error:
            raise _NotAsToldError(error) from None
        self._tally.add(reused=sum(run.chunks.total_bytes for run in known))
        return runs

    def _known(self, found: Iterable[Run], destination: Destination, *, records: bool = False) -> list[Run]:
        runs = []
        for run in found:
            self._workers.check()
            if records and destination.journal is not None:
                destination.journal.record(run.position, run.chunks)
            destination.progress.advance(logical=run.chunks.total_bytes)
            runs.append(run)
        return runs

    def _fetch(self, parts: Sequence[Part], destination: Destination, missing: Sequence[Span] = ()) -> list[Run]:
        items: list[tuple[int, Part | Span]] = [(part.span[0], part) for part in parts]
        for span in missing:
            if span[1] - span[0] > LARGE_SPAN_BYTES:
                items += [(part.span[0], part) for part in self._reconstructions.ask_exactly(*span).parts]
            else:
                items.append((span[0], span))
        items.sort(key=lambda item: item[0])

        def work(item: tuple[int, Part | Span], threads: int) -> list[Run]:
            wanted = item[1]
            if isinstance(wanted, Part):
                return self._fetcher.fetch(wanted, destination, threads)
            window = self._reconstructions.ask_exactly(*wanted)
            return [run for part in window.parts for run in self._fetcher.fetch(part, destination, threads)]

        return [run for runs in self._workers.map(work, items) for run in runs]


class _NotAsToldError(Exception):
    """All parts of a window came, and yet it is not what it was said to be, for this reason."""

    def __init__(self, reason: IntegrityError) -> None:
        super().__init__()
        self.reason = reason


def _spans(runs: Iterable[Run]) -> list[Span]:
    return [(run.position, run.end) for run in runs]


def _difference(first: Sequence[Run], second: Sequence[Run]) -> list[str]:
    """The chunks of ``first`` that came out differently when they were fetched again."""
    old = b"".join(run.chunks.hashes for run in first)
    new = ChunkList.concat(run.chunks for run in second).hashes
    if old == new:
        return []
    differ: list[str] = []
    at = 0
    for run in first:
        for index in range(len(run.chunks)):
            if new[at : at + HASH_BYTES] != run.chunks.digest(index):
                differ.append(run.name(index))
            at += HASH_BYTES
    return differ
