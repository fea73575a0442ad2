"""``xet stat``: the totals of the store, or the record of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_file, store_options
from xetstore.cli.network import access_options
from xetstore.cli.output import Output, time_text
from xetstore.cli.parsed import Parsed
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.store import FileRecord, Totals


@click.command()
@click.argument("file", type=Parsed(parse_file), metavar="[FILE]", required=False)
@access_options
@store_options
@click.pass_obj
def stat(settings: Settings, file: Hash | str | None) -> None:
    """Print the totals of the store, or what is known of one file.

    FILE is a hash, or hf://models/NAMESPACE/NAME/PATH. Totals are those of a directory; of a file on a server its size
    is known.
    """
    if file is None:
        with settings.open_store() as store:
            _print_totals(settings.output, store.totals())
    else:
        with settings.store_of(file) as (store, name):
            _print_file(settings.output, store.stat(name))


def _print_totals(output: Output, totals: Totals) -> None:
    if output.json:
        output.record(
            files=totals.files,
            logical_bytes=totals.logical_bytes,
            unique_bytes=totals.unique_bytes,
            stored_bytes=totals.stored_bytes,
            xorbs=totals.xorbs,
            chunks=totals.chunks,
        )
        return
    output.lines(
        (
            f"files          {totals.files:,}",
            f"logical bytes  {_both(totals.logical_bytes)}",
            f"unique bytes   {_both(totals.unique_bytes)}{_saved(totals.unique_bytes, totals.logical_bytes)}",
            f"stored bytes   {_both(totals.stored_bytes)}{_saved(totals.stored_bytes, totals.logical_bytes)}",
            f"xorbs          {totals.xorbs:,}",
            f"chunks         {totals.chunks:,}",
        )
    )


def _print_file(output: Output, record: FileRecord) -> None:
    if output.json:
        output.record(
            hash=str(record.hash),
            size=record.size,
            sha256=record.sha256,
            created_at=record.created_at,
            terms=record.terms,
            xorbs=record.xorbs,
        )
        return
    output.line(f"hash     {record.hash}")
    output.line(f"size     {_both(record.size)}")
    if record.terms is None or record.xorbs is None or record.created_at is None:
        return  # a server tells no more
    output.lines(
        (
            f"sha256   {record.sha256 or 'unknown'}",
            f"created  {time_text(record.created_at)}",
            f"terms    {record.terms:,}",
            f"xorbs    {record.xorbs:,}",
        )
    )


def _both(nbytes: int) -> str:
    return f"{nbytes:,}" if nbytes < 1024 else f"{nbytes:,} ({size_text(nbytes)})"


def _saved(nbytes: int, logical_bytes: int) -> str:
    """The saving against the files' own bytes, as text; empty where there is none."""
    return f", {1 - nbytes / logical_bytes:.1%} saved" if nbytes < logical_bytes else ""
