"""``xet get``: a file, or a part of it, out of the store and into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xetstore.cli.cat import copy_to_stdout
from xetstore.cli.context import PATH, Settings, parse_hash, range_option, store_options
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash


@click.command()
@click.argument("file", type=parse_hash, metavar="HASH")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=PATH,
    metavar="OUT",
    help="The file to write; - is stdout.",
)
@range_option
@store_options
@click.pass_obj
def get(settings: Settings, file: Hash, out: Path, span: tuple[int, int | None]) -> None:
    """Write a stored file to OUT, verified.

    An existing OUT is replaced, and only when all of the file is there.
    """
    output = settings.output
    start, end = span
    if str(out) == "-":
        if output.json:
            raise UsageError("--json and -o - both want stdout", hint="give -o a file, or leave out --json")
        copy_to_stdout(settings, file, span)
        return
    with settings.open_store() as store, output.progress("get") as progress:
        report = store.get(file, out, start=start, end=end, progress=progress)
    if output.json:
        output.record(path=str(out), hash=str(report.hash), size=report.size, verified=report.verified)
    else:
        verified = "verified" if report.verified else "not verified: the store gave no hashes for this part"
        output.note(f"{out}: {size_text(report.size)}, {verified}")
