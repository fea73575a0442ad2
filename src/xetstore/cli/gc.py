"""``xet gc``: delete for good what nothing names any more."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.interruption import watch
from xetstore.cli.output import Output, count_text
from xetstore.cli.parsed import Parsed
from xetstore.errors import UnavailableError, UsageError
from xetstore.sizes import parse_span, size_text

if TYPE_CHECKING:
    from xetstore.cas.index import Index
    from xetstore.cas.lease import Lease

WAIT_SECONDS: Final = 10.0
"""The longest wait for a server that collects just now."""
_LAST: Final = 253_402_300_799.0
"""The last moment that a date can tell."""


def span(text: str) -> float:
    """A time on the command line, in seconds. It has a unit, because 7 that was meant in days would be 7 seconds."""
    hint = "for example 22d, 12h or 30s"
    try:
        seconds = parse_span(text)
    except ValueError as error:
        raise UsageError(str(error), hint=hint) from None
    if seconds and text.strip()[-1].isdigit():
        raise UsageError(f"{text[:80]!r} has no unit", hint=hint)
    return seconds


@click.command(epilog="Example: xet gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Say what would go now, and delete nothing.")
@click.option(
    "--grace", type=Parsed(span), metavar="SPAN", default="22d", help="The time for which a xorb of no file is kept."
)
@click.option(
    "--undelete",
    type=Parsed(span),
    metavar="SPAN",
    default="7d",
    help="The time for which a deleted file can be given back.",
)
@store_options
@click.pass_obj
def gc(settings: Settings, dry_run: bool, grace: float, undelete: float) -> None:
    """Delete for good what nothing names any more, and give its space back.

    The store may be in use. What is deleted waits for the end of its time, so that it can be given back, and that no
    client loses what it relies on. Each thing that goes is a line on stderr.
    """
    from xetstore.cas.collecting import collect, collect_all
    from xetstore.cas.grace import Grace
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.snapshots.take import take_snapshot_now
    from xetstore.cas.throttle import Throttle
    from xetstore.hub.collecting import names_to_collect
    from xetstore.hub.snapshot import NAMES
    from xetstore.server.ops.logs import logging_to

    watch()
    times = Grace(unused=grace, undelete=undelete)
    with (
        EmbeddedCas.open(settings.store_path(), create=False) as cas,
        logging_to(log_format="json" if settings.output.json else "text", level="warning"),
    ):
        if dry_run:
            names = names_to_collect(cas)
            named = {} if names is None else names(None, times, Throttle())
            report = {**asdict(collect(cas, None, times, dry_run=True)), "names": named}
            now = cas.now()
        else:
            with _lease(cas.index) as lease:
                report = collect_all(cas, lease, times, names=names_to_collect(cas))
                lease.finish(json.dumps(report))
            now = cas.now()
            take_snapshot_now(cas, [NAMES])  # as a server does
    _tell(settings.output, report, dry_run, freed_at=now + times.unused + times.offer)


def _lease(index: Index) -> Lease:
    """The lease of a collection, for which a server that has it is waited for. Raises UnavailableError."""
    from xetstore.cas.lease import COLLECT, Lease

    lease = Lease.take(index, COLLECT, patience_seconds=WAIT_SECONDS)
    if lease is None:
        raise UnavailableError(
            "another runner, a server perhaps, collects just now",
            hint="it does the same work; --dry-run tells what would go now",
        )
    return lease


def _tell(output: Output, report: dict[str, Any], dry_run: bool, *, freed_at: float) -> None:
    if output.json:
        output.record(**report, dry_run=dry_run)
        return
    counts = f"{count_text(report['files'], 'file')}, {count_text(report['xorbs'], 'xorb')}"
    objects = f"{count_text(report['objects'], 'object')} ({size_text(report['bytes'])})"
    output.line(f"{'to delete' if dry_run else 'deleted'}: {counts}, {objects}")
    if report["deleted_grants"]:
        waiting = count_text(report["deleted_grants"], "deleted file")
        output.line(f"waiting: {waiting} to be given back, the first until {_moment(report['first_expiry'])}")
    if report["doomed_xorbs"]:
        waiting = f"{count_text(report['doomed_xorbs'], 'xorb')} ({size_text(report['doomed_bytes'])})"
        output.line(f"waiting: {waiting}, the first until {_moment(report['first_due'])}")
    named = report["names"]
    if named and (named["repositories"] or named["git_objects"]):
        objects = count_text(named["git_objects"], "object")
        output.line(f"names: {count_text(named['repositories'], 'deleted one')}, {objects} of git")
    rewritten = report.get("rewrite", {})
    if rewritten.get("xorbs_rewritten"):
        xorbs, freed = count_text(rewritten["xorbs_rewritten"], "xorb"), size_text(rewritten["freed_bytes"])
        output.line(f"rewritten: {xorbs}, of which {freed} come back after {_moment(freed_at)}")
    if rewritten.get("files_repacked"):
        output.line(f"repacked: {count_text(rewritten['files_repacked'], 'file')}, to be read by fewer fetches")
    if report["abandoned_objects"]:
        output.note(
            f"{count_text(report['abandoned_objects'], 'object')} of uploads that were cut off, kept for a week"
        )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(min(at, _LAST), UTC):%Y-%m-%d %H:%M} UTC"
