"""``xet put``: files and directories into the store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click

from xetstore.cli.context import PATH, Settings, events_option, null_option, store_options
from xetstore.cli.hash import total_size
from xetstore.cli.network import transfer_options
from xetstore.cli.output import count_text
from xetstore.errors import UsageError
from xetstore.sizes import size_text


@click.command(epilog="Example: xet put models/ > list")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=PATH)
@click.option("--dry-run", is_flag=True, help="Say what would be new, and store nothing.")
@click.option(
    "--compression",
    type=click.Choice(["auto", "none", "lz4", "bg4-lz4"]),
    default="auto",
    show_default=True,
    help="How new chunks are stored: auto keeps whatever is smallest.",
)
@click.option("--force", is_flag=True, help="Read files too that are as they were when they were put before.")
@click.option("--name", metavar="NAME", help="Commit the one PATH to this repository, OWNER/NAME, as xet cp does.")
@click.option("-m", "--message", metavar="TEXT", help="With --name: the message of the commit.")
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
    force: bool,
    name: str | None,
    message: str | None,
) -> int:
    """Store files and directories.

    The hash of a file is printed when the file is safe. A file that cannot be read, or changes while it is read, is
    reported, and the others are still stored. Links to directories are followed only where they are named on the
    command line.
    """
    output = settings.output
    settings.check_null()
    if name is not None:
        return _put_named(settings, paths, name, message, dry_run=dry_run, compression=compression, force=force)
    if message is not None:
        raise UsageError("-m goes with --name", hint="without a name there is no commit")
    files = [file for path in paths for file in files_of(path, settings)]
    count = unchanged = logical = new = deduped = stored = 0
    with (
        settings.open_or_empty() if dry_run else settings.open_store(create=True) as store,
        output.progress("put", total_size(files) if output.on_terminal else 0, dedup=True) as progress,
    ):
        for report in store.iter_put(
            files,
            policy=compression,
            progress=progress,
            on_error=lambda _, error: settings.failed(error),
            dry_run=dry_run,
            unchanged="renew" if force else "skip",
        ):
            count += 1
            unchanged += report.unchanged
            logical += report.info.size
            new += report.new_bytes
            deduped += report.deduped_bytes
            stored += report.stored_bytes
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
                    unchanged=report.unchanged,
                )
            else:
                output.entry(str(report.info.hash), report.path)
    outcome = "nothing stored: a dry run" if dry_run else f"{size_text(stored)} added to the store"
    output.note(
        f"{count_text(count, 'file')}{f' ({unchanged:,} unchanged)' if unchanged else ''}, "
        f"{size_text(logical)}: {size_text(new)} new, "
        f"{size_text(deduped)} deduplicated, {outcome}"
    )
    return settings.exit_code


def _put_named(
    settings: Settings,
    paths: tuple[Path, ...],
    name: str,
    message: str | None,
    *,
    dry_run: bool,
    compression: str,
    force: bool,
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
            paths[0],
            to,
            is_folder=name.endswith("/"),
            message=message,
            force=force,
            dry_run=dry_run,
        )


def files_of(path: Path, settings: Settings) -> Iterator[Path]:
    """The path itself, or all files below it in the order of their names.

    A folder that cannot be read is reported. Whatever is neither a directory nor found in one is handed on: the library
    says best what is wrong with it.
    """
    if not os.path.isdir(path):  # noqa: PTH112  # false too where it cannot be looked at
        yield path
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        if settings.is_store(folder):
            settings.output.warning(f"{folder} is left out: it is the store itself")
            continue
        subfolders = []
        for entry in _entries(folder, settings):
            file = folder / entry.name
            if not _is_folder(entry):
                if _can_be_stored(entry):
                    yield file
                else:
                    settings.output.warning(f"{file} is left out: it is not a regular file")
            elif entry.is_symlink():  # listed, but not entered
                settings.output.warning(f"{file} is left out: it is a link to a directory")
            else:
                subfolders.append(file)
        folders += reversed(subfolders)


def _entries(folder: Path, settings: Settings) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name; as many of them as can be read."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                entries.append(entry)  # what came before an error is kept
    except OSError as error:
        settings.failed(error)
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # the library says why, when it opens it
        return False


def _can_be_stored(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_symlink():
            return entry.is_file(follow_symlinks=False)  # which the folder says: nothing is looked up
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # gone, or a link to nothing: that is an error, and not left out silently
        return True
