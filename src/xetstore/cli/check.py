"""``xet check``: whether the store is whole."""

from __future__ import annotations

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.output import count_text, repositories_text
from xetstore.errors import IntegrityError
from xetstore.sizes import size_text


@click.command()
@click.option("--checksums", is_flag=True, help="Read every stored byte too, and compare checksums.")
@click.option("--read-data", is_flag=True, help="Read, decode and hash every stored byte too.")
@store_options
@click.pass_obj
def check(settings: Settings, checksums: bool, read_data: bool) -> None:
    """Look for damage, and note it in the index, so that files that are put again are stored anew.

    The index is compared with the stored objects, and names with what they lead to. No object is changed. Exit code 4
    if there is any problem.
    """
    output = settings.output
    with settings.open_store() as store, output.progress("check") as progress:
        report = store.check(read_data=read_data, checksums=checksums, progress=progress)
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
        )
    else:
        for note in report.notes:
            output.note(note)
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
            hint="put the files that are named again, and they are healed; the others can be read",
        )
