"""``xet snapshot``: what objects do not tell of the index, written among them now."""

from __future__ import annotations

from dataclasses import asdict

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.output import count_text
from xetstore.errors import UnavailableError
from xetstore.sizes import size_text


@click.command(epilog="Example: xet snapshot --store /srv/xet")
@store_options
@click.pass_obj
def snapshot(settings: Settings) -> None:
    """Write a snapshot of the names and grants of the store among its objects, as its server does every hour.

    An index that is lost gets them back from it: xet repair --rebuild-index. No secret is in it.
    """
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.snapshots.take import take_snapshot_now
    from xetstore.hub.snapshot import NAMES

    output = settings.output
    with EmbeddedCas.open(settings.store_path(), create=False) as cas:
        report = take_snapshot_now(cas, [NAMES])
    if report is None:
        raise UnavailableError("another process writes a snapshot of this store just now", hint="wait for it")
    if output.json:
        output.record(**asdict(report))
        return
    output.line(report.key)
    what = "written" if report.is_new else "there: nothing has changed since"
    output.note(f"{count_text(report.rows, 'row')}, {size_text(report.stored_bytes)}, {what}")
