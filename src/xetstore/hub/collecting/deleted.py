"""Deleted names that can be given back no more: repositories, files of buckets, parts of uploads."""

from __future__ import annotations

from typing import Final

from xetstore.cas.audit import audit
from xetstore.cas.grace import DAY_SECONDS
from xetstore.cas.index import Writer
from xetstore.cas.snapshots.journal import note_deleted
from xetstore.hub.collecting.run import NamesRun
from xetstore.hub.lfs import PART_SECONDS
from xetstore.hub.queries import HubWriter
from xetstore.hub.queries.collecting import PAGE_ROWS, CollectedRow

TOKEN_SECONDS: Final = DAY_SECONDS
"""The time for which a namespace without its repository is looked at: no token for it lives longer."""


def end_repositories(run: NamesRun) -> None:
    """End the repositories that were deleted: all their rows go, a part at a time."""
    behind = 0
    while True:
        with run.hub.snapshot() as reader:
            page = reader.expired_repositories(run.before, behind)
        for row in page:
            if run.is_dry or _end(run, row):
                run.report.repositories += 1
        if len(page) < PAGE_ROWS:
            return
        behind = page[-1].id


def _end(run: NamesRun, row: CollectedRow) -> bool:
    def begin(writer: HubWriter, _: Writer) -> None:
        writer.alone_with_repository(row.id)
        writer.end_repositories([row.id], run.before)

    def finish(writer: HubWriter, cas: Writer) -> bool:
        is_dropped = writer.drop_repository(row.id, row.namespace, run.began_at)
        if is_dropped:  # and not given back since it was looked at
            cas.revoke_all(row.namespace, now=run.began_at)  # what came by tokens of before
        return is_dropped

    run.change(begin)
    while run.change(lambda writer, _: writer.drop_contents(row.id)) == PAGE_ROWS:
        pass
    if is_ended := run.change(finish):
        audit("repository", str(row.name))
    return is_ended


def end_namespaces(run: NamesRun) -> None:
    """Take away what late tokens have put into namespaces whose repositories are no more."""
    behind = ""
    while True:
        with run.hub.snapshot() as reader:
            page = reader.ended_namespaces(behind)
        for namespace, ended_at in page:
            _empty(run, namespace)
            if ended_at < run.began_at - TOKEN_SECONDS and not run.is_dry:
                run.change(lambda writer, _, namespace=namespace: writer.forget_namespace(namespace))  # type: ignore[misc]
        if len(page) < PAGE_ROWS:
            return
        behind = page[-1][0]


def _empty(run: NamesRun, namespace: str) -> None:
    behind = 0
    while True:
        with run.hub.snapshot() as reader:
            page = reader.grants(namespace, behind)
        files = [file for _, file, _ in page]
        run.report.grants += len(files)
        if files and not run.is_dry:
            now = run.hub.now()
            gone = run.change(lambda _, cas: cas.revoke(namespace, files, now=now))  # noqa: B023
            note_deleted(run.hub.cas, namespace, gone, at=now)
        if len(page) < PAGE_ROWS:
            return
        behind = page[-1][0]


def drop_bucket_files(run: NamesRun) -> None:
    """Forget files of buckets that were deleted or replaced; their buckets are looked through next."""
    while True:
        with run.hub.snapshot() as reader:
            rows = reader.expired_bucket_files(run.before)
        if run.is_dry or not rows:
            run.report.bucket_files += len(rows)
            return
        run.report.bucket_files += run.change(lambda writer, _: writer.drop_expired_files(rows, run.before))  # noqa: B023


def drop_parts(run: NamesRun) -> None:
    """Forget parts of large files whose uploads did not end."""
    before = run.began_at - PART_SECONDS
    while True:
        with run.hub.snapshot() as reader:
            parts = reader.old_parts(before)
        if run.is_dry or not parts:
            run.report.parts += len(parts)
            return
        run.report.parts += run.change(lambda writer, _: writer.drop_old_parts(parts, before))  # noqa: B023
