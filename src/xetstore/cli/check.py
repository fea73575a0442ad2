"""``xet check``: whether the store is whole."""

from __future__ import annotations

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.output import count_text, repositories_text
from xetstore.cli.parsed import Parsed, parse_duration
from xetstore.errors import IntegrityError, UsageError
from xetstore.sizes import size_text


@click.command(epilog="Example: xet check --checksums --max-duration 2h")
@click.option("--checksums", is_flag=True, help="Read every stored byte too, and compare checksums.")
@click.option("--read-data", is_flag=True, help="Read, decode and hash every stored byte too.")
@click.option("--subset", metavar="N/T|X%", help="Read the Nth of T parts, or the least recently checked X % only.")
@click.option(
    "--max-duration",
    type=Parsed(parse_duration),
    metavar="TIME",
    help="Read the least recently checked xorbs first, and no more after this time: 10m, 2h.",
)
@click.option("--dry-run", is_flag=True, help="Note nothing, and change no object.")
@store_options
@click.pass_obj
def check(
    settings: Settings,
    checksums: bool,
    read_data: bool,
    subset: str | None,
    max_duration: int | None,
    dry_run: bool,
) -> None:
    """Look for damage, and note it in the index, so that files that are put again are stored anew.

    The index is compared with the stored objects, and names with what they lead to. Objects of older releases that are
    read are stored anew with checksums; no other is changed. Exit code 4 if there is any problem.
    """
    from xetstore.cas.checking.selection import Selection

    selection = Selection.parse(subset, max_duration)
    if selection is not None and not (checksums or read_data):
        raise UsageError("a part of the data is read with --checksums or --read-data only")
    output = settings.output
    if selection is not None:
        settings.going_on("run the same command again: what was not read yet is read first")
    elif read_data or checksums:
        settings.going_on("what was read is noted: with --subset 100% the next check reads first what was not")
    else:
        settings.going_on("nothing is changed: run the same command again")
    with settings.open_store() as store, output.progress("check") as progress:
        report = store.check(
            read_data=read_data, checksums=checksums, selection=selection, dry_run=dry_run, progress=progress
        )
    problems = report.problems
    if output.json:
        for problem in problems:
            output.record(object=problem.name, problem=problem.what, files=[str(file) for file in problem.files])
        output.record(
            problems=len(problems),
            notes=list(report.notes),
            files=report.files,
            xorbs=report.xorbs,
            bytes_read=report.bytes_read,
            repositories=report.repositories,
            renewed=report.renewed,
            unread=report.unread,
        )
    else:
        for note in report.notes:
            output.note(note)
        if report.unread:
            output.note("the time was over before all was read that was chosen; the next check goes on from there")
        if report.renewed:
            will = "would be" if dry_run else "were"
            output.note(f"{count_text(report.renewed, 'object')} without checksums {will} stored anew with them")
        for problem in problems:
            output.line(str(problem))
        if not problems:
            read = f", {size_text(report.bytes_read)} read" if read_data or checksums else "; stored data not read"
            counts = f"{count_text(report.files, 'file')}, {count_text(report.xorbs, 'xorb')}"
            if report.repositories:
                counts += f", {repositories_text(report.repositories)}"
            output.line(f"no problem: {counts}{read}")
    if problems:
        raise IntegrityError(
            f"the store at {settings.store_path()} has {count_text(len(problems), 'problem')}",
            hint="xet repair mends what it can; put the files that are named again, and they are healed",
        )
