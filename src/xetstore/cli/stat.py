"""``xet stat``: the totals of the store, or the record of one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, namespace_option, parse_file, store_options
from xetstore.cli.network import access_options
from xetstore.cli.output import Output, count_text, time_text
from xetstore.cli.parsed import Parsed
from xetstore.cli.prefixes import Prefix, whole
from xetstore.errors import NotFoundError, UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cas.usage import NamespaceUsage, WhatIf
    from xetstore.protocol.hashes import Hash
    from xetstore.store import FileRecord, Store, Totals


@click.command(epilog="Example: xet stat --by repo")
@click.argument("names", type=Parsed(parse_file), metavar="[NAME]...", nargs=-1)
@click.option("--what-if-deleted", is_flag=True, help="Tell what deleting these would free, and delete nothing.")
@click.option("--by", type=click.Choice(["namespace", "repo"]), help="Tell what each of them takes.")
@namespace_option
@access_options
@store_options
@click.pass_obj
def stat(settings: Settings, names: tuple[Hash | str, ...], what_if_deleted: bool, by: str | None) -> None:
    """Print the totals of the store, what is known of one file, or what files take.

    NAME is a hash, or hf://models/NAMESPACE/NAME/PATH. Totals are those of a directory; of a file on a server its size
    is known. With --what-if-deleted several hashes, and names in the store: xet://OWNER/NAME for a repository,
    xet://OWNER/NAME@BRANCH for a branch or tag, with /PATH behind it for a file or folder with its history.
    """
    if settings.namespace is not None and (by is not None or what_if_deleted):
        raise UsageError("--by and --what-if-deleted tell of all namespaces", hint="leave out --namespace")
    if by is not None and (names or what_if_deleted):
        raise UsageError("--by tells of the whole store", hint="leave out the names")
    if what_if_deleted:
        if not names:
            raise UsageError("no name is given", hint="for example xet stat --what-if-deleted HASH")
        with settings.open_store() as store:
            _print_what_if(
                settings.output,
                store.what_if_deleted([whole(store, each) if isinstance(each, Prefix) else each for each in names]),
            )
    elif by is not None:
        with settings.open_store() as store:
            _print_usage(settings.output, store.usage(by))
    elif not names and settings.namespace is not None:
        with settings.open_files() as store:
            _print_namespace(settings, store)
    elif not names:
        with settings.open_store() as store:
            _print_totals(settings, store.totals())
    elif len(names) > 1:
        raise UsageError("one file is told of at a time", hint="--what-if-deleted takes several")
    else:
        with settings.file_of(names[0]) as (store, name):
            _print_file(settings.output, store.stat(name))


def _print_namespace(settings: Settings, store: Store) -> None:
    from xetstore.cas.service import EmbeddedCas

    assert isinstance(store.cas, EmbeddedCas)
    name = store.cas.tenant.namespace
    usages = [(each, usage) for each, usage in store.usage() if each == name]
    if not usages:
        raise NotFoundError(
            f"no file is in the namespace {settings.namespace}", hint="xet stat --by namespace lists those with files"
        )
    _print_usage(settings.output, usages)


def _print_what_if(output: Output, answer: WhatIf) -> None:
    if output.json:
        output.record(freed_bytes=answer.freed_bytes, **asdict(answer))
        return
    output.lines(
        (
            f"files        {count_text(answer.files, 'file')} of {_both(answer.logical_bytes)}",
            f"kept         {answer.files - answer.gone:,} that other namespaces have, too",
            f"freed bytes  {_both(answer.freed_bytes)}",
            f"  whole      {_both(answer.object_bytes)} in {count_text(answer.objects, 'xorb')}",
            f"  in parts   {_both(answer.part_bytes)} in {count_text(answer.parts, 'xorb')}, by a rewrite",
            f"shared       {_both(answer.shared_bytes)} stay, used by {count_text(answer.other_files, 'other file')}"
            f" in {count_text(answer.other_namespaces, 'namespace')}",
        )
    )


def _print_usage(output: Output, usages: Sequence[tuple[str, NamespaceUsage]]) -> None:
    if output.json:
        for name, usage in usages:
            output.record(name=name, **asdict(usage))
        return
    rows = [("files", "logical", "unique", "shared", "name")]
    for name, usage in usages:
        logical, unique, shared = map(size_text, (usage.logical_bytes, usage.unique_bytes, usage.shared_bytes))
        rows.append((f"{usage.files:,}", logical, unique, shared, name))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    output.lines("  ".join([*(f"{row[at]:>{widths[at]}}" for at in range(4)), row[4]]) for row in rows)


def _print_totals(settings: Settings, totals: Totals) -> None:
    output = settings.output
    where, source = settings.where_and_why()
    if output.json:
        output.record(
            store=str(where),
            named_by=source or None,
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
            f"store          {where}{f' ({source})' if source else ' (no other is named)'}",
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
