"""``xet get``: a file, or a part of it, out of the store and into a file; or the files of a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xetstore.cli.cat import copy_to_stdout
from xetstore.cli.context import (
    PATH,
    Settings,
    events_option,
    namespace_option,
    null_option,
    parse_file,
    range_option,
    store_options,
)
from xetstore.cli.listed import get_listed, report_fields
from xetstore.cli.network import transfer_options
from xetstore.cli.output import count_text
from xetstore.cli.parsed import Parsed
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

STDOUT: Final = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


@click.command(epilog="Example: xet get HASH -o model.safetensors")
@click.argument("file", type=Parsed(parse_file), metavar="FILE", required=False)
@click.option(
    "-o",
    "--output",
    "out",
    type=PATH,
    metavar="OUT",
    help="The file to write; - is stdout. With --list, the directory to write to.",
)
@click.option("--list", "listed", type=PATH, metavar="LIST", help="Get the files of this list instead; - is stdin.")
@range_option
@click.option("--base", type=PATH, metavar="OLD", help="Take from this older version what it holds already.")
@click.option("--keep-partial", is_flag=True, help="After Ctrl-C too, keep what there is for the next attempt.")
@click.option("--fsync", is_flag=True, help="Return when OUT is on the disk.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing.")
@null_option
@events_option
@namespace_option
@transfer_options
@store_options
@click.pass_obj
def get(
    settings: Settings,
    file: Hash | str | None,
    out: Path | None,
    listed: Path | None,
    span: tuple[int, int | None],
    base: Path | None,
    keep_partial: bool,
    fsync: bool,
    dry_run: bool,
) -> int | None:
    """Write a stored file to OUT, verified.

    FILE is a hash, or hf://models/NAMESPACE/NAME/PATH. An existing OUT is replaced, and only when all of the file is
    there; of a link the file that it leads to, while a pipe or a device is written to. After an error, what has arrived
    waits beside OUT for the next attempt.

    LIST has what `xet put` and `xet hash` print, HASH  PATH, or JSON: each file is written to PATH in the directory
    OUT. One that fails is reported, and the others go on.
    """
    output = settings.output
    start, end = span
    if file is None and listed is None:
        raise click.UsageError("Missing argument 'FILE', or option '--list'.", click.get_current_context())
    if dry_run and file is not None and listed is None:
        _forecast(settings, file, span)
        return None
    if out is None:
        raise click.UsageError("Missing option '-o' / '--output'.", click.get_current_context())
    if listed is not None:
        options = {"FILE": file, "--range": span != (0, None), "--base": base, "--keep-partial": keep_partial}
        for option, given in {**options, "--dry-run": dry_run, "-o -": str(out) == "-"}.items():
            if given:
                raise UsageError(f"{option} does not go with --list", hint="leave out one of the two")
        return get_listed(settings, listed, out, fsync=fsync)
    assert file is not None
    if output.null:
        raise UsageError("--null is for a list", hint="leave it out, or give --list")
    if output.json and str(out) in STDOUT:
        raise UsageError(f"--json and -o {out} both want stdout", hint="give -o a file, or leave out --json")
    if str(out) == "-":
        copy_to_stdout(settings, file, span)
        return None
    settings.going_on(
        "run the same command again: it goes on from what has arrived"
        if keep_partial
        else "nothing is left of it; with --keep-partial the same command goes on from what has arrived"
    )
    with settings.file_of(file) as (store, name), output.progress("get", files=1) as progress:
        progress.file(str(out))
        report = store.get(
            name,
            out,
            start=start,
            end=end,
            progress=progress,
            base=base,
            fsync=fsync,
            keep_partial=keep_partial,
        )
    if output.json:
        output.record(**report_fields(out, report))
    else:
        verified = "verified" if report.verified else "not verified: the store gave no hashes for this part"
        reused = f", {size_text(report.reused_bytes)} of it from here" if report.reused_bytes else ""
        output.note(f"{out}: {size_text(report.size)}{reused}, {verified}")
        output.detail(f"{size_text(report.fetched_bytes)} fetched")
    return None


def _forecast(settings: Settings, file: Hash | str, span: tuple[int, int | None]) -> None:
    with settings.file_of(file) as (store, name):
        told = store.forecast(name, *span)
    if settings.output.json:
        settings.output.record(
            hash=str(told.hash),
            size=told.size,
            fetched_bytes=told.fetched_bytes,
            fetches=told.fetches,
            xorbs=told.xorbs,
        )
    else:
        settings.output.line(
            f"{size_text(told.size)}: {size_text(told.fetched_bytes)} to fetch, "
            f"{count_text(told.fetches, 'range')} of {count_text(told.xorbs, 'xorb')}"
        )
