"""``xet cp``: files and folders into a repository, out of it, and from one to another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xetstore.cli.context import Settings, events_option, store_options
from xetstore.cli.local_files import STDIN, exclude_option, excluded_text, open_stdin
from xetstore.cli.network import transfer_options
from xetstore.cli.output import count_text, files_text
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, is_locator, parse_locator, revision_of
from xetstore.errors import EntryNotFoundError, RepositoryNotFoundError, UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.remote.hub.locators import HubLocator
    from xetstore.repositories.planning import CommitReport
    from xetstore.repositories.repository import Repository
    from xetstore.repositories.restoring import Restored
    from xetstore.transfer.byte_source import Readable


@click.command(epilog='Example: xet cp ./ckpt xet://alice/bert@main/ -m "Step 1000"')
@click.argument("source", metavar="SOURCE", type=Parsed(str))
@click.argument("target", metavar="TARGET", type=Parsed(str))
@click.option("-m", "--message", metavar="TEXT", help="The message of the commit.")
@click.option("--delete", is_flag=True, help="Remove from TARGET what SOURCE does not have.")
@exclude_option
@click.option("--force", is_flag=True, help="Read large files too that are as they were when they were put before.")
@click.option("--private", "is_private", is_flag=True, help="Make a new repository private.")
@click.option("--any-links", is_flag=True, help="Make links too that lead out of the folder that is written.")
@click.option("--fsync", is_flag=True, help="Return when local files are on the disk.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@events_option
@transfer_options
@store_options
@click.pass_obj
def cp(
    settings: Settings,
    source: str,
    target: str,
    message: str | None,
    delete: bool,
    exclude: tuple[str, ...],
    force: bool,
    is_private: bool,
    any_links: bool,
    fsync: bool,
    dry_run: bool,
) -> int:
    """Copy a file or a folder into a repository, out of one, or between two.

    SOURCE and TARGET are local paths, or xet://OWNER/NAME@REVISION/PATH in the store, or hf://… on the Hub. The content
    of a folder goes to TARGET itself. Into a repository all of it is one commit; a repository that is not there is
    made. Out of it each file appears verified and whole, with its executable bit; empty folders and links come too.
    """
    upward = {"-m": message is not None, "--exclude": bool(exclude), "--force": force, "--private": is_private}
    downward = {"--any-links": any_links, "--fsync": fsync}
    with Places(settings) as places:
        if is_locator(target):
            _refuse(downward, "copying into a repository")
            to = parse_locator(target)
            if not is_locator(source):
                return upload(
                    settings,
                    places,
                    open_stdin(settings) if source == str(STDIN) else Path(source),
                    to,
                    is_folder=target.endswith("/"),
                    message=message,
                    delete=delete,
                    exclude=exclude,
                    force=force,
                    is_private=is_private or None,
                    dry_run=dry_run,
                )
            _refuse({"--exclude": bool(exclude), "--force": force}, "copying between repositories")
            return _between(
                settings,
                places,
                parse_locator(source),
                to,
                is_folder=target.endswith("/"),
                message=message,
                delete=delete,
                is_private=is_private or None,
                dry_run=dry_run,
            )
        if target == str(STDIN):
            raise UsageError(
                "cp writes files and folders, and - is stdout", hint="xet cat and xet get -o - write to it"
            )
        if not is_locator(source):
            raise UsageError(
                "neither SOURCE nor TARGET is in a repository", hint="for example xet cp DIR xet://alice/bert"
            )
        _refuse(upward, "copying out of a repository")
        return _download(
            settings,
            places,
            parse_locator(source),
            target,
            delete=delete,
            any_links=any_links,
            fsync=fsync,
            dry_run=dry_run,
        )


def upload(
    settings: Settings,
    places: Places,
    source: Path | Readable,
    to: HubLocator,
    *,
    is_folder: bool = False,
    message: str | None = None,
    delete: bool = False,
    exclude: tuple[str, ...] = (),
    force: bool = False,
    is_private: bool | None = None,
    dry_run: bool = False,
) -> int:
    """Commit a local file or folder, or stdin, at a path of a repository."""
    from xetstore.cli.hash import total_size
    from xetstore.repositories.sources import EXCLUDED

    output = settings.output
    settings.going_on("nothing is committed; run the same command again: what is stored already is not stored again")
    branch = revision_of(to)
    if isinstance(source, Path):
        source.stat()  # so that a name with a slip in it makes no store
    repository = places.repository(to, create=not dry_run)
    is_new = not repository.exists()
    path = to.path
    is_directory = isinstance(source, Path) and source.is_dir()
    if not is_directory:
        if delete:
            raise UsageError(
                "--delete is for folders",
                hint=f"{source if isinstance(source, Path) else 'stdin'} is none: leave it out",
            )
        # What comes through a pipe has no name of its own.
        name = source.name if isinstance(source, Path) else to.id.name.rpartition("/")[2]
        path = _file_target(repository, None if is_new else branch, path, name, is_folder=is_folder)
    expected: int | None = None  # of a stream
    if isinstance(source, Path):
        expected = 0 if is_directory else total_size([source])
    excluded = 0

    def note(local: Path, why: str) -> None:
        nonlocal excluded
        if why == EXCLUDED:
            excluded += 1
            output.detail(f"{local} {why}")
        else:
            output.warning(f"{local} {why}")

    with output.progress("cp", expected, dedup=True) as progress:
        report = repository.commit(
            {path: source},
            message=message,
            branch=branch,
            mirror=path if delete else None,
            exclude=exclude,
            create=True,
            is_private=is_private,
            dry_run=dry_run,
            unchanged="renew" if force else "skip",
            progress=progress,
            on_note=note,
            is_left_out=settings.is_store,
        )
    if is_new and not dry_run:
        output.note(f"{repository.name} is new")
    print_commit(settings, to, report, excluded=excluded, dry_run=dry_run)
    if not (isinstance(source, Path) or dry_run):
        output.note(f"xet get {to.at(path)} -o - brings it back")
    return settings.exit_code


def _between(
    settings: Settings,
    places: Places,
    source: HubLocator,
    to: HubLocator,
    *,
    is_folder: bool,
    message: str | None,
    delete: bool,
    is_private: bool | None,
    dry_run: bool,
) -> int:
    settings.going_on("nothing is committed; run the same command again")
    theirs, ours = places.repository(source), places.repository(to, create=not dry_run)
    path = to.path
    if source.path and not theirs.file(source.path, revision_of(source)).is_folder:
        if delete:
            raise UsageError("--delete is for folders", hint=f"{source} is none: leave it out")
        branch = revision_of(to) if ours.exists() else None
        path = _file_target(ours, branch, path, source.path.rpartition("/")[2], is_folder=is_folder)
    with settings.output.progress("cp") as progress:
        report = ours.copy_from(
            theirs,
            revision_of(source),
            path=source.path,
            to=path,
            message=message,
            branch=revision_of(to),
            mirror=delete,
            create=True,
            is_private=is_private,
            dry_run=dry_run,
            progress=progress,
        )
    print_commit(settings, to, report, dry_run=dry_run)
    return settings.exit_code


def _download(
    settings: Settings,
    places: Places,
    source: HubLocator,
    target: str,
    *,
    delete: bool,
    any_links: bool,
    fsync: bool,
    dry_run: bool,
) -> int:
    output = settings.output
    repository = places.repository(source)
    revision = revision_of(source)
    to = Path(target)
    if source.path and not repository.file(source.path, revision).is_folder:
        if delete:
            raise UsageError("--delete is for folders", hint=f"{source} is none: leave it out")
        if to.is_dir() or target.endswith(("/", os.sep)):
            if not dry_run:
                to.mkdir(parents=True, exist_ok=True)
            to /= source.path.rpartition("/")[2]
    settings.going_on("run the same command again: files that are there already stay")
    count = written = size = gone = 0
    with output.progress("cp") as progress:
        for restored in repository.iter_download(
            revision,
            to,
            path=source.path,
            delete=delete,
            dry_run=dry_run,
            any_links=any_links,
            fsync=fsync,
            progress=progress,
            on_error=lambda path, error: settings.failed(error, path),
        ):
            file = restored.file
            gone += file is None
            if file is not None and not file.is_folder:
                count += 1
                size += file.size
                written += restored.action != "unchanged"
            if output.json:
                output.record(**_restored_fields(restored))
            elif dry_run and restored.action != "unchanged":
                output.entry(f"{restored.action:8}", restored.path)
            else:
                output.detail(f"{restored.action}: {restored.path}")
    outcome = "nothing changed: a dry run" if dry_run else f"{written:,} written, verified"
    deleted = f", {count_text(gone, 'path')} deleted" if gone else ""
    output.note(f"{files_text(count, settings.failures)}, {size_text(size)}: {outcome}{deleted}")
    return settings.exit_code


def print_commit(
    settings: Settings, to: HubLocator, report: CommitReport, *, excluded: int = 0, dry_run: bool = False
) -> None:
    """Print a commit: its id; with ``--json`` each path that it changed before; of a dry run these paths alone."""
    output = settings.output
    if output.json:
        for path in report.deleted:
            output.record(path=path, action="deleted")
        for file in report.files:
            output.record(
                path=file.path,
                action="added",
                size=file.size,
                hash=None if file.hash is None else str(file.hash),
                sha256=file.sha256,
                mode=f"{file.mode:06o}",
            )
        output.record(
            commit=None if dry_run else report.commit.oid,
            repository=to.id.path,
            revision=to.revision,
            files=len(report.files),
            deleted=len(report.deleted),
            unchanged=report.unchanged,
            new_bytes=report.new_bytes,
        )
        return
    if dry_run:
        for path in report.deleted:
            output.entry("deleted ", Path(path))
        for file in report.files:
            output.entry("added   ", Path(file.path))
    else:
        output.line(f"{report.commit.oid}  {to.at('')}")
    if dry_run:
        outcome = ", nothing stored: a dry run"
    else:
        outcome = f", {size_text(report.new_bytes)} new" if report.is_new else ": nothing to commit"
    deleted = f", {count_text(len(report.deleted), 'path')} deleted" if report.deleted else ""
    unchanged = f", {report.unchanged:,} unchanged" if report.unchanged else ""
    left_out = excluded_text(excluded)
    output.note(f"{count_text(len(report.files), 'file')}{deleted}{unchanged}{left_out}{outcome}")


def _restored_fields(restored: Restored) -> dict[str, Any]:
    file = restored.file
    return {
        "path": str(restored.path),
        "action": str(restored.action),
        "size": None if file is None else file.size,
        "hash": None if file is None or file.hash is None else str(file.hash),
    }


def _file_target(repository: Repository, revision: str | None, path: str, name: str, *, is_folder: bool) -> str:
    """The path that a file goes to: into a folder under its own name, else under the one that is given."""
    if not path:
        return name
    if not is_folder and revision is not None:
        try:
            is_folder = repository.file(path, revision).is_folder
        except (EntryNotFoundError, RepositoryNotFoundError):
            is_folder = False
    return f"{path}/{name}" if is_folder else path


def _refuse(options: dict[str, bool], what: str) -> None:
    for option, is_given in options.items():
        if is_given:
            raise UsageError(f"{option} does not go with {what}", hint="leave it out")
