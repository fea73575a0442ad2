"""Rows that nothing needs any more: grants that were taken away long ago, files of no namespace, xorbs of no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cas.audit import audit
from xetstore.cas.collecting.run import Run
from xetstore.cas.index import Reader, Writer, XorbRow
from xetstore.cas.index.queries.collecting import FreeFile

PAGE: Final = 1000
"""Rows that are looked at together."""
BATCH: Final = 200
"""Rows of one kind that one transaction deletes."""
MOST_ROWS: Final = 2000
"""Rows that go with the files of one transaction, unless one has more."""


def expire_grants(run: Run, _behind: str) -> None:
    """Forget the grants that can be given back no more."""
    if run.is_dry:
        with run.cas.index.snapshot() as reader:
            run.report.grants += reader.count_expired(run.due)
        return
    while expired := run.change(lambda writer: writer.drop_expired(run.due, BATCH)):
        run.report.grants += len(expired)
        for namespace, file in expired:
            audit("grant", f"{namespace}/{file}")
        run.came_to("grants", "")


def delete_files(run: Run, behind: str) -> None:
    """Delete the files that no namespace has, and doom the xorbs that were of no other."""
    for first, last in _pages(run, behind, "files", Reader.page_of_files):
        with run.cas.index.snapshot() as reader:
            free = reader.free_files(first, last, run.due)
        if run.is_dry:
            run.report.files += len(free)
            continue
        for batch in sized_batches(free, lambda file: file.rows, MOST_ROWS, most=BATCH):
            _delete_files(run, batch)


def doom_xorbs(run: Run, behind: str) -> None:
    """Doom the xorbs that no file is made of, and that were last offered a day ago. One that is of a file is doomed no
    more: a shard came while it was looked at.
    """
    offered_before = run.began_at - run.grace.offer
    for first, last in _pages(run, behind, "xorbs", Reader.page_of_xorbs):
        with run.cas.index.snapshot() as reader:
            loose = reader.loose_xorbs(first, last, offered_before=offered_before)
            used = reader.doomed_in_use(first, last)
        if run.is_dry:
            run.report.doomed += len(loose)
            continue

        def doom(writer: Writer, loose: Sequence[int] = loose, used: Sequence[int] = used) -> int:
            writer.keep_used(used)
            return writer.doom_loose(loose, now=run.cas.now(), offered_before=offered_before)

        if loose or used:
            run.report.doomed += run.change(doom)


def delete_xorbs(run: Run, _behind: str) -> None:
    """Delete the doomed xorbs whose grace has passed. Their objects are kept for those who read them."""
    if run.is_dry:
        with run.cas.index.snapshot() as reader:
            run.report.xorbs += reader.count_due(run.due)
        return

    def drop(writer: Writer) -> tuple[int, list[XorbRow]]:
        ids = writer.due_xorbs(run.due, BATCH)
        return len(ids), writer.drop_xorbs(ids, run.due, now=run.cas.now())

    found = 1
    while found:
        found, dropped = run.change(drop)
        run.report.xorbs += len(dropped)
        for row in dropped:
            audit("xorb", str(row.hash), row.stored_bytes)
        run.came_to("due", "")


def _delete_files(run: Run, batch: Sequence[FreeFile]) -> None:
    ids = [file.id for file in batch]
    dropped, doomed = run.change(lambda writer: writer.drop_files(ids, run.due, now=run.cas.now()))
    run.report.files += len(dropped)
    run.report.doomed += doomed
    for file in dropped:
        audit("file", str(file.hash), file.size)
    run.throttle.rest()


def _pages(
    run: Run, behind: str, step: str, page: Callable[[Reader, int, int], int | None]
) -> Iterator[tuple[int, int]]:
    """Pages of a table, as the id before each and its last one, from a place on."""
    first = int(behind or 0)
    while True:
        with run.cas.index.snapshot() as reader:
            last = page(reader, first, PAGE)
        if last is None:
            return
        yield first, last
        first = last
        run.came_to(step, str(last))
