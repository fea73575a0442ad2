"""``xet put``: files, directories, and what comes through a pipe, into the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from xetstore.cli.context import PATH, Settings, events_option, null_option, store_options
from xetstore.cli.hash import total_size
from xetstore.cli.local_files import STDIN, LocalFiles, exclude_option, open_stdin, takes_stdin
from xetstore.cli.network import transfer_options
from xetstore.cli.output import files_text
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.transfer.byte_source import ByteSource
    from xetstore.transfer.progress import FileProgress
    from xetstore.transfer.upload.pending import PutReport

T = TypeVar("T")


@click.command(epilog="Example: xet put models/ > list")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...|-", type=PATH)
@click.option("--dry-run", is_flag=True, help="Say what would be new, and store nothing.")
@click.option(
    "--compression",
    type=click.Choice(["auto", "none", "lz4", "bg4-lz4"]),
    default="auto",
    show_default=True,
    help="How new chunks are stored: auto keeps whatever is smallest.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Commit the one PATH to this repository, OWNER/NAME, or to a path in it, as xet cp does.",
)
@click.option("-m", "--message", metavar="TEXT", help="With --name: the message of the commit.")
@exclude_option
@null_option
@events_option
@transfer_options
@store_options
@click.pass_obj
def put(
    settings: Settings,
    paths: tuple[Path, ...],
    dry_run: bool,
    compression: str,
    name: str | None,
    message: str | None,
    exclude: tuple[str, ...],
) -> int:
    """Store files and directories; - is what comes through a pipe.

    The hash of a file is printed when the file is safe. A file that cannot be read, or changes while it is read, is
    reported, and the others are still stored. Links to directories are followed only where they are named on the
    command line.
    """
    output = settings.output
    settings.check_null()
    has_stdin = takes_stdin(paths)
    if exclude and has_stdin and len(paths) == 1:
        raise UsageError("--exclude is for directories", hint="leave it out: stdin is one file")
    if name is not None:
        return _put_named(
            settings, paths, name, message=message, exclude=exclude, dry_run=dry_run, compression=compression
        )
    if message is not None:
        raise UsageError("-m goes with --name", hint="without a name there is no commit")
    settings.going_on("run the same command again: what is stored already is not stored again")
    local = LocalFiles(settings, exclude)
    files: list[Path | ByteSource] = []
    for path in paths:
        files += [_stdin(settings)] if path == STDIN else local.of(path)
    count = logical = new = deduped = stored = 0
    expected = 0 if has_stdin else total_size(file for file in files if isinstance(file, Path))
    with (
        settings.open_or_empty() if dry_run else settings.open_store(create=True) as store,
        output.progress("put", expected, files=len(files), dedup=True) as progress,
    ):
        for report in store.iter_put(
            named(files, progress),
            policy=compression,
            progress=progress,
            on_error=lambda _, error: settings.failed(error),
            dry_run=dry_run,
        ):
            count += 1
            logical += report.info.size
            new += report.new_bytes
            deduped += report.deduped_bytes
            stored += report.stored_bytes
            _print(output, report)
    outcome = "nothing stored: a dry run" if dry_run else f"{size_text(stored)} added to the store"
    output.note(
        f"{files_text(count, settings.failures)}{local.excluded_text()}, {size_text(logical)}: {size_text(new)} new, "
        f"{size_text(deduped)} deduplicated, {outcome}"
    )
    return settings.exit_code


def named(files: Iterable[T], progress: FileProgress) -> Iterator[T]:
    """The files, each named to the progress when it is taken."""
    for file in files:
        progress.file(str(file))
        yield file


def _stdin(settings: Settings) -> ByteSource:
    from xetstore.transfer.byte_source import ByteSource

    return ByteSource(open_stdin(settings), name=str(STDIN))


def _print(output: Output, report: PutReport) -> None:
    if output.json:
        output.record(
            path=str(report.path),
            hash=str(report.info.hash),
            size=report.info.size,
            sha256=report.info.sha256,
            new_bytes=report.new_bytes,
            deduped_bytes=report.deduped_bytes,
            stored_bytes=report.stored_bytes,
            again_bytes=report.again_bytes,
        )
    else:
        output.entry(str(report.info.hash), report.path)
        new, known = size_text(report.new_bytes), size_text(report.deduped_bytes)
        output.detail(f"{report.path}: {new} new, {known} deduplicated, {size_text(report.stored_bytes)} stored")


def _put_named(
    settings: Settings,
    paths: tuple[Path, ...],
    name: str,
    *,
    message: str | None,
    exclude: tuple[str, ...],
    dry_run: bool,
    compression: str,
) -> int:
    from xetstore.cli.cp import upload
    from xetstore.cli.places import Places, is_locator, parse_locator

    if len(paths) != 1:
        raise UsageError("--name is for one file or directory", hint="put them into one directory, or use xet cp")
    if compression != "auto" or settings.output.null:
        raise UsageError("--name goes with neither --compression nor --null", hint="leave out one of the two")
    to = parse_locator(name if is_locator(name) else f"xet://{name}")
    with Places(settings) as places:
        return upload(
            settings,
            places,
            paths[0] if paths[0] != STDIN else open_stdin(settings),
            to,
            is_folder=name.endswith("/"),
            message=message,
            exclude=exclude,
            dry_run=dry_run,
        )
