"""``xet copy-store``: all of one store into another one; a backup, and the way back."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, common_options, parse_where
from xetstore.cli.interruption import watch
from xetstore.cli.output import count_text, repositories_text
from xetstore.errors import IntegrityError, NotFoundError, UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.access.secrets import Secrets
    from xetstore.cas.parts import PartUrl
    from xetstore.cas.service import EmbeddedCas
    from xetstore.hub.copying.copy_store import FullReport


@click.command("copy-store", epilog="Example: xet copy-store /srv/xet /backup/xet --since-last")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--since-last", is_flag=True, help="Read only the rows that are new since the last copy to TO.")
@click.option("--secrets", is_flag=True, help="Copy keys, revocations and all tokens, too.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Copy no more than N xorbs at a time.")
@common_options
@click.pass_obj
def copy_store(
    settings: Settings, source: str, target: str, since_last: bool, secrets: bool, dry_run: bool, jobs: int | None
) -> None:
    """Copy everything in store FROM into store TO, which keeps all that it has.

    Every chunk is decoded and hashed on the way in, and every file's hash recomputed. Repositories and accounts follow
    the files. Run again, also after it was interrupted, the command copies what is missing. Both stores may be in use.
    Exit code 4 if anything cannot be copied; the rest is.
    """
    output = settings.output
    watch()
    settings.going_on("nothing is lost: run the same command again, and it goes on from here")
    places = _place(source), _place(target)
    if _is_same(*places):
        raise UsageError(f"{source} and {target} are one store", hint="name two stores")
    from xetstore.cas.copying.copy_store import DEFAULT_JOBS
    from xetstore.hub.copying.copy_store import copy_store

    with ExitStack() as closing, output.progress("copy") as progress:
        stores = closing.enter_context(_open(places[0])), closing.enter_context(_open_target(places[1], dry_run))
        of_both = None
        if secrets and not dry_run:
            source_secrets = closing.enter_context(_secrets(places[0], create=False))
            of_both = source_secrets, closing.enter_context(_secrets(places[1], create=True))
        report = copy_store(
            *stores,
            since_last=since_last,
            dry_run=dry_run,
            jobs=jobs or DEFAULT_JOBS,
            tokens=secrets,
            secrets=of_both,
            progress=progress,
        )
    _tell(settings, report, dry_run)
    problems = count_text(len(report.problems), "problem")
    if report.objects.problems:
        raise IntegrityError(
            f"{problems} in {source}: what needs the damaged objects was not copied",
            hint="put the files that are named again, into either store, and run the same command again",
        )
    if report.problems:
        raise IntegrityError(
            f"{problems} with names: these were not copied, or not all that they have",
            hint=f"delete or move what {target} has in their place, and run the same command again",
        )


def _tell(settings: Settings, report: FullReport, dry_run: bool) -> None:
    output, objects, names = settings.output, report.objects, report.names
    added = objects.added
    if output.json:
        for problem in report.problems:
            output.record(object=problem.name, problem=problem.what, files=[str(file) for file in problem.files])
        output.record(
            **asdict(added),
            **asdict(names),
            problems=len(report.problems),
            compared=objects.compared,
            compared_all=objects.compared_all,
            dry_run=dry_run,
        )
        return
    for problem in report.problems:
        output.line(str(problem))
    counts = f"{count_text(added.xorbs, 'xorb')} ({size_text(added.bytes)}), {count_text(added.files, 'file')}"
    others = f"{count_text(added.grants, 'grant')}, {count_text(added.shards, 'shard')}"
    output.line(f"{'to copy' if dry_run else 'copied'}: {counts}, {others}")
    if any(asdict(names).values()):
        counts = f"{count_text(names.accounts, 'account')}, {count_text(names.tokens, 'token')}"
        others = f"{repositories_text(names.repositories)}, {count_text(names.git_objects, 'git object')}"
        output.line(f"names: {counts}, {others}")
    rows = "" if objects.compared_all else " that are new since the last copy"
    output.note(f"{count_text(objects.compared, 'row')}{rows} compared")


def _place(text: str) -> Path:
    where = parse_where(text)
    if isinstance(where, Path):
        return where
    raise UsageError(
        f"{text[:200]} is a server, and copy-store takes stores that this machine opens itself",
        hint="run it where the store is",
    )


def _is_same(one: Path, other: Path) -> bool:
    """True if two names lead to the same index or the same objects."""
    from xetstore.cas.parts import StoreParts

    parts, others = StoreParts.at(one), StoreParts.at(other)
    is_same_bucket = parts.options == others.options and _is_same_place(parts.objects, others.objects)
    return is_same_bucket or _is_same_place(parts.index, others.index)


def _is_same_place(one: Path | PartUrl, other: Path | PartUrl) -> bool:
    if not (isinstance(one, Path) and isinstance(other, Path)):
        return one == other
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return False


def _open(place: Path, *, create: bool = False) -> EmbeddedCas:
    from xetstore.cas.service import EmbeddedCas

    return EmbeddedCas.open(place, create=create)


def _open_target(place: Path, dry_run: bool) -> EmbeddedCas:
    """The target, which is made if nothing is there; for a dry run an empty one in memory instead."""
    from xetstore.cas.parts import is_store_file

    if not dry_run:
        return _open(place, create=True)
    try:
        return _open(place)
    except NotFoundError:
        if place.exists() and not is_store_file(place):
            raise
    from xetstore.cas.service import EmbeddedCas

    return EmbeddedCas.in_memory()


def _secrets(place: Path, *, create: bool) -> AbstractContextManager[Secrets]:
    from xetstore.cas.assembly import open_secrets
    from xetstore.cas.parts import StoreParts

    return open_secrets(StoreParts.at(place), create=create)
