"""``xet repair --rebuild-index``: the index of a store made anew from its objects."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xetstore.cli.output import count_text
from xetstore.errors import IntegrityError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cas.repair.rebuild import RebuildPlan, RebuildReport
    from xetstore.cli.context import Settings

NO_SNAPSHOT = "no snapshot of the index is whole"


def rebuild(settings: Settings, *, is_dry: bool, read_data: bool, checksums: bool, found_in: str | None) -> None:
    """Make the index anew, or say of what it would be made."""
    from xetstore.cas.parts import StoreParts
    from xetstore.cas.repair.rebuild import plan_rebuild, rebuild_index
    from xetstore.hub.snapshot import NAMES

    where = settings.store_path()
    parts = StoreParts.at(where)
    if is_dry:
        _tell_plan(settings, plan_rebuild(parts, [NAMES]))
        raise IntegrityError(f"the index of {where} is to be made anew", hint="the same command with --yes does it")
    with settings.output.progress("rebuild") as progress:
        report = rebuild_index(
            parts, [NAMES], checksums=checksums, read_data=read_data, found_in=found_in, progress=progress
        )
    _tell(settings, report)
    if report.counts.problems:
        raise IntegrityError(
            f"not all of {where} could be restored: {count_text(report.counts.problems, 'problem')}",
            hint="the store can be used; put the files again that are named, or xet repair --from STORE --yes",
        )


def found(settings: Settings, namespace: str | None, *, is_dry: bool) -> None:
    """List the files that a rebuild has found and set aside, or grant them to a namespace."""
    from xetstore.cas.repair.found import found_files, give_found
    from xetstore.cas.service import EmbeddedCas

    output = settings.output
    with EmbeddedCas.open(settings.store_path(), create=False) as cas:
        if namespace is None or is_dry:
            listed = 0
            for file in found_files(cas):
                listed += 1
                if output.json:
                    output.record(hash=str(file.hash), size=file.size, created_at=file.created_at)
                else:
                    output.line(f"{file.hash}  {file.size:>15,}")
            if not listed:
                output.note("no file is set aside")
            elif namespace is not None:
                output.note(f"{count_text(listed, 'file')} would be granted: the same command with --yes does it")
            return
        given = give_found(cas, namespace)
    if output.json:
        output.record(granted=given, namespace=namespace)
    else:
        output.line(f"granted to {namespace}: {count_text(given, 'file')}")


def _tell_plan(settings: Settings, plan: RebuildPlan) -> None:
    output = settings.output
    if output.json:
        refused = [{"object": one.name, "problem": one.what} for one in plan.refused]
        output.record(**{**asdict(plan), "refused": refused, "dry_run": True})
        return
    for one in plan.refused:
        output.line(str(one))
    output.line(f"contents: {_objects(plan.xorbs, plan.shards)}, {size_text(plan.stored_bytes)}")
    output.line(f"names and grants: {_snapshot(plan.snapshot, plan.snapshot_at)}")


def _tell(settings: Settings, report: RebuildReport) -> None:
    output, counts = settings.output, report.counts
    if output.json:
        for one in report.problems:
            output.record(object=one.name, problem=one.what, files=[str(file) for file in one.files])
        output.record(
            **asdict(counts),
            snapshot=report.snapshot,
            snapshot_at=report.snapshot_at,
            found_in=report.found_in,
            lost_xorbs=len(report.lost),
            kept_index=None if report.kept_index is None else str(report.kept_index),
            read_all=report.read_all,
        )
        return
    for one in report.problems:
        output.line(str(one))
    read = "" if report.read_all else "; stored data not read"
    output.line(f"contents: {_objects(counts.xorbs, counts.shards)}, {count_text(counts.files, 'file')}{read}")
    output.line(f"names and grants: {_snapshot(report.snapshot, report.snapshot_at)}")
    if counts.found:
        output.line(f"later: {count_text(counts.found, 'file')}, granted to the namespace {report.found_in}")
    if counts.deleted:
        output.line(f"deleted since, and deleted again: {count_text(counts.deleted, 'file')}")
    if counts.lost_files:
        output.line(f"lost: {count_text(counts.lost_files, 'file')}")
    if report.kept_index is not None:
        output.line(f"the old index is kept: {report.kept_index}")
    lost = (
        "repositories, accounts and grants"
        if report.snapshot is None
        else "refs, accounts and grants since the snapshot"
    )
    output.note(f"not restored: {lost}, and tokens of users, which are issued anew")


def _objects(xorbs: int, shards: int) -> str:
    return f"{count_text(xorbs, 'xorb')}, {count_text(shards, 'shard')}"


def _snapshot(key: str | None, at: float | None) -> str:
    if key is None or at is None:
        return NO_SNAPSHOT
    return f"as of {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC ({key})"
