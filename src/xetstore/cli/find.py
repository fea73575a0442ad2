"""``xet find``: the files of a store or of repositories that have a name, a size or a date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_where, store_options
from xetstore.cli.listing import Row, in_order, print_row, rows_of, sort_option
from xetstore.cli.network import access_options, parse_bytes
from xetstore.cli.output import count_text
from xetstore.cli.parsed import Parsed, parse_duration
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.hub.ignore import Ignore

ALL_REPOSITORIES = "xet://"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files that are looked for: all that is given holds. Sizes in bytes, ages in seconds."""

    names: Ignore | None
    larger: int | None
    smaller: int | None
    newer: int | None
    older: int | None

    def holds(self, row: Row, now: float) -> bool:
        """True of a file that is looked for. One whose date is not told is neither new nor old."""
        if row.entry is not None and row.entry.is_folder:
            return False
        if self.names is not None and not (row.entry and self.names.leaves_out(row.entry.path, is_folder=False)):
            return False
        if (self.larger is not None and row.size <= self.larger) or (
            self.smaller is not None and row.size >= self.smaller
        ):
            return False
        if self.newer is None and self.older is None:
            return True
        if row.date is None:
            return False
        age = now - row.date
        return (self.newer is None or age < self.newer) and (self.older is None or age > self.older)


@click.command(epilog="Example: xet find xet://alice/bert --name '*.safetensors' --larger 1G")
@click.argument("where", type=Parsed(parse_where), metavar="[WHERE]", required=False)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="PATTERN",
    help="In a repository: names like this, as a line of .gitignore would match them; may be repeated.",
)
@click.option("--larger", type=Parsed(parse_bytes), metavar="SIZE", help="Files of more bytes than this.")
@click.option("--smaller", type=Parsed(parse_bytes), metavar="SIZE", help="Files of fewer bytes.")
@click.option("--newer", type=Parsed(parse_duration), metavar="TIME", help="Files of the last 90m, 12h, 30d.")
@click.option("--older", type=Parsed(parse_duration), metavar="TIME", help="Files that are older than that.")
@sort_option
@access_options
@store_options
@click.pass_obj
def find(
    settings: Settings,
    where: Path | str | None,
    names: tuple[str, ...],
    larger: int | None,
    smaller: int | None,
    newer: int | None,
    older: int | None,
    order: str,
) -> None:
    """Find files by name, size and date.

    WHERE is a repository or a folder of one, with all that is below it: xet://OWNER/NAME@REVISION/FOLDER, or hf://…
    on the Hub; xet:// alone are all repositories of the store. A directory, a store file or a server has files without
    names, by their hashes; so has the store, which it is without WHERE.
    """
    from xetstore.hub.ignore import excluding

    if where is None:
        where = settings.where()
    if names and (isinstance(where, Path) or not where.startswith(("xet://", "hf://"))):
        raise UsageError(
            "--name is for repositories, and here files have hashes alone",
            hint="name a repository, xet://OWNER/NAME, or all of them: xet://",
        )
    wanted = Wanted(excluding(names) if names else None, larger, smaller, newer, older)
    dates = order == "date" or newer is not None or older is not None
    count = size = 0
    now = time.time()
    for row in in_order((row for row in _rows(settings, where, dates) if wanted.holds(row, now)), order):
        count += 1
        size += row.size
        print_row(settings.output, row, row.name, is_long=False, **({} if row.entry is None else {"name": row.name}))
    settings.output.note(f"{count_text(count, 'file')}, {size_text(size)}")


def _rows(settings: Settings, where: Path | str, dates: bool) -> Iterator[Row]:
    if where != ALL_REPOSITORIES:
        yield from rows_of(settings, where, recursive=True, dates=dates)
        return
    from xetstore.errors import RevisionNotFoundError

    with settings.open_store() as store:
        repositories = [repo.id.path for kind in ("models", "datasets", "spaces") for repo in store.repos(kind)]
    for name in repositories:
        try:
            yield from rows_of(settings, f"xet://{name}", recursive=True, dates=dates)
        except RevisionNotFoundError:  # it has no main
            continue
