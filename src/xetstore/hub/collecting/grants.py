"""Grants of a repository's namespace that nothing in it names: of what was deleted by its name, or never committed."""

from __future__ import annotations

from collections.abc import Collection

from xetstore.cas.index import Writer
from xetstore.cas.snapshots.journal import note_deleted
from xetstore.hub.collecting.history import HistoryCollector
from xetstore.hub.collecting.run import NamesRun
from xetstore.hub.queries import HubReader, HubWriter
from xetstore.hub.queries.collecting import PAGE_ROWS, CollectedRow
from xetstore.protocol.hashes import Hash


def collect_grants(run: NamesRun, row: CollectedRow, history: HistoryCollector | None = None) -> None:
    """Take files out of the namespace of a repository that nothing in it names, if it was given them long enough ago.

    An upload has that time to be committed. ``history`` is that of a run which only tells what would go.
    """
    behind = 0
    while True:
        with run.hub.snapshot() as reader:
            page = reader.grants(row.namespace, behind)
            old = [file for _, file, at in page if at < run.before]
            unnamed = {*old} - _named(reader, row, old, history if run.is_dry else None)
        if run.is_dry:
            run.report.grants += len(unnamed)
        elif unnamed:
            run.report.grants += len(_revoke(run, row, sorted(unnamed, key=lambda file: file.digest)))
        run.throttle.rest()
        if len(page) < PAGE_ROWS:
            return
        behind = page[-1][0]


def _revoke(run: NamesRun, row: CollectedRow, files: Collection[Hash]) -> Collection[Hash]:
    def revoke(writer: HubWriter, cas: Writer) -> tuple[float, Collection[Hash]]:
        if writer.keep_repository(row.id) is None:
            return 0.0, ()
        cas.lock_grants(row.namespace, files)
        now = run.hub.now()
        # Uploaded, or named, since they were looked at: by one who waits for nothing here any more.
        kept = writer.young_grants(row.namespace, files, since=run.before) | writer.named_files(row.id, files)
        return now, cas.revoke(row.namespace, [file for file in files if file not in kept], now=now)

    now, gone = run.change(revoke)
    if gone:
        note_deleted(run.hub.cas, row.namespace, gone, at=now)
    return gone


def _named(
    reader: HubReader, row: CollectedRow, files: Collection[Hash], history: HistoryCollector | None
) -> set[Hash]:
    """Those of these files that something names; with ``history`` something that stays."""
    named = reader.named_files(row.id, files)
    if history is None:
        return named
    pointers = reader.pointers_at(row.id, named)
    kept = {file for oid, file in pointers.items() if history.leads_to(oid)}
    return named - ({*pointers.values()} - kept)
