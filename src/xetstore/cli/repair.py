"""``xet repair``: damage mended from what is left, here and in other stores."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xetstore.cli.context import Settings, parse_where, store_options
from xetstore.cli.interruption import watch
from xetstore.cli.network import access_options
from xetstore.cli.output import count_text
from xetstore.errors import IntegrityError, UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from xetstore.cas.lease import Lease
    from xetstore.cas.repair.report import NamesOf, RepairReport
    from xetstore.cas.repair.sources import Source
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

WAIT_SECONDS: Final = 10.0
"""The longest wait for a server that collects just now."""


@click.command(epilog="Example: xet repair --from https://xet.example")
@click.option("--yes", is_flag=True, help="Do it. Without it the command says what it would do.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, also with --yes.")
@click.option("--read-data", is_flag=True, help="Read, decode and hash every stored byte first, to find all damage.")
@click.option(
    "--from",
    "origins",
    multiple=True,
    metavar="STORE",
    help="Mend from this store too: a directory, a store file, the URL of a server, or hf://. May be repeated.",
)
@click.option("--list-quarantine", is_flag=True, help="List what was set aside, and do nothing else.")
@click.option("--empty-quarantine", is_flag=True, help="With --yes, remove what was set aside, and do nothing else.")
@click.option("--rebuild-index", is_flag=True, help="With --yes, make a lost index anew from the objects.")
@click.option("--checksums", is_flag=True, help="With --rebuild-index, compare every stored byte with its checksum.")
@click.option(
    "--found-in", metavar="NAMESPACE", help="With --rebuild-index, whose files of after the last snapshot are."
)
@click.option("--list-found", is_flag=True, help="List files that a rebuild found, and no namespace has yet.")
@click.option("--give-found", metavar="NAMESPACE", help="With --yes, grant these files to a namespace.")
@access_options
@store_options
@click.pass_obj
def repair(
    settings: Settings,
    yes: bool,
    dry_run: bool,
    read_data: bool,
    origins: tuple[str, ...],
    list_quarantine: bool,
    empty_quarantine: bool,
    rebuild_index: bool,
    checksums: bool,
    found_in: str | None,
    list_found: bool,
    give_found: str | None,
) -> None:
    """Mend what is damaged, from what is left of it here and in other stores.

    Without --yes nothing is changed, and the exit code is 4 if there is something to mend. What is in the way is set
    aside, never removed; files of which bytes are lost are listed, and the rest of them can still be read.
    """
    is_dry = dry_run or not yes
    watch()
    if rebuild_index:
        from xetstore.cli.rebuild import rebuild

        rebuild(settings, is_dry=is_dry, read_data=read_data, checksums=checksums, found_in=found_in)
        return
    if list_found or give_found is not None:
        from xetstore.cli.rebuild import found

        found(settings, None if list_found else give_found, is_dry=is_dry)
        return
    if checksums or found_in is not None:
        raise UsageError("--checksums and --found-in go with --rebuild-index")
    if list_quarantine or empty_quarantine:
        if list_quarantine and empty_quarantine:
            raise UsageError("--list-quarantine and --empty-quarantine are two things", hint="give one of them")
        _quarantine(settings, removes=empty_quarantine, is_dry=is_dry)
        return
    from xetstore.cas.parts import StoreParts
    from xetstore.cas.repair.marks import mend_marks
    from xetstore.cas.repair.repair import repair, take_lease
    from xetstore.cas.repair.report import RepairReport
    from xetstore.cas.service import EmbeddedCas

    where = settings.store_path()
    marks = mend_marks(StoreParts.at(where), is_dry=is_dry)
    if marks and is_dry:  # the store does not open until then
        _tell(settings, RepairReport(marks), is_dry=True)
        raise _to_be_done(settings)
    with ExitStack() as closing, settings.output.progress("repair") as progress:
        sources = [closing.enter_context(_source(settings, origin)) for origin in origins]
        cas = closing.enter_context(EmbeddedCas.open(where, create=False))
        runner: AbstractContextManager[Lease | None] = (
            nullcontext() if is_dry else take_lease(cas, patience_seconds=WAIT_SECONDS)
        )
        lease = closing.enter_context(runner)
        report = repair(cas, lease, sources=sources, read_data=read_data, names_of=_names(cas), progress=progress)
    report.repaired[:0] = marks
    _tell(settings, report, is_dry=is_dry)
    if is_dry and (report.repaired or report.quarantined):
        raise _to_be_done(settings)
    if not report.is_whole:
        raise IntegrityError(
            f"the store at {where} stays damaged",
            hint="name other stores that have the files with --from, or put the files that are named again",
        )


@contextmanager
def _source(settings: Settings, origin: str) -> Iterator[Source]:
    """A store to mend from, open."""
    from xetstore.cas.repair.sources import CasSource, ObjectSource

    where = parse_where(origin)
    if isinstance(where, Path):
        from xetstore.cas.assembly import open_to_read
        from xetstore.cas.parts import StoreParts

        with open_to_read(StoreParts.at(where)) as (blobs, index):
            yield ObjectSource(origin, blobs, index)
        return
    with settings.open_at(where) as store:
        yield CasSource(store.location, store.cas)


def _names(cas: EmbeddedCas) -> NamesOf:
    """The places of files in the repositories of a store; none if it has no repositories."""

    def names_of(files: Collection[Hash]) -> Mapping[Hash, Sequence[str]]:
        from xetstore.hub.tables import MIGRATIONS

        if not cas.index.is_writable or not cas.index.version_of(MIGRATIONS):
            return {}
        from xetstore.hub.named_files import names_of_files
        from xetstore.hub.service import EmbeddedHub

        return names_of_files(EmbeddedHub(cas), files)

    return names_of


def _quarantine(settings: Settings, *, removes: bool, is_dry: bool) -> None:
    from xetstore.cas.repair.quarantine import empty_quarantine, quarantined
    from xetstore.cas.service import EmbeddedCas

    output = settings.output
    with EmbeddedCas.open(settings.store_path(), create=False) as cas:
        if is_dry or not removes:
            listed = 0
            for blob in quarantined(cas.blobs):
                listed += 1
                if output.json:
                    output.record(object=blob.key, size=blob.size, modified_at=blob.modified_at)
                else:
                    output.line(f"{blob.key}  {size_text(blob.size)}")
            if not listed:
                output.note("the quarantine is empty")
            elif removes:
                output.note(f"{count_text(listed, 'object')} would be removed: the same command with --yes does it")
            return
        count, size = empty_quarantine(cas.blobs)
    if output.json:
        output.record(removed=count, bytes=size)
    else:
        output.line(f"removed: {count_text(count, 'object')}, {size_text(size)}")


def _tell(settings: Settings, report: RepairReport, *, is_dry: bool) -> None:
    output = settings.output
    if output.json:
        for one in report.repaired:
            output.record(object=one.name, repaired=one.how)
        for key in report.quarantined:
            output.record(quarantined=key)
        for left in report.unrepaired:
            output.record(object=left.name, left=left.why)
        for hurt in report.hurt:
            output.record(file=str(hurt.hash), size=hurt.size, lost=hurt.lost, names=hurt.names)
        output.record(
            repaired=len(report.repaired),
            quarantined=len(report.quarantined),
            left=len(report.unrepaired),
            hurt=len(report.hurt),
            notes=report.notes,
            dry_run=is_dry,
        )
        return
    for note in report.notes:
        output.note(note)
    for one in report.repaired:
        output.line(f"{'to repair' if is_dry else 'repaired'}: {one.name}: {one.how}")
    for key in report.quarantined:
        output.line(f"set aside: {key}")
    for left in report.unrepaired:
        output.line(f"left: {left.name}: {left.why}")
    for hurt in report.hurt:
        lost = ", ".join(f"{start}:{end}" for start, end in hurt.lost)
        named = "".join(f"  {name}" for name in hurt.names)
        output.line(f"hurt: file {hurt.hash} of {hurt.size} bytes, lost {lost}{named}")
    if report.found_nothing:
        output.line("nothing to repair")


def _to_be_done(settings: Settings) -> IntegrityError:
    return IntegrityError(
        f"the store at {settings.store_path()} is to be repaired", hint="the same command with --yes does it"
    )
