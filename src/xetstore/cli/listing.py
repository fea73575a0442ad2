"""Listings, of ``xet ls`` and ``xet find``: files of a store by their hashes, those of repositories by their paths."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final

import click

from xetstore.batches import batches
from xetstore.cli.log import date_text
from xetstore.cli.names import escaped

if TYPE_CHECKING:
    from xetstore.cli.context import Settings
    from xetstore.cli.output import Output
    from xetstore.records import FileRecord, RepoFile
    from xetstore.remote.hub.client import Hub

ORDERS: Final = ("name", "size", "date")
ROWS_AT_ONCE: Final = 100_000
"""Rows that are sorted in memory; more of them wait on the disk."""

_NO_HASH: Final = "-" * 64


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a listing: a file with its ``hash`` alone, or ``entry``, a file or folder of a repository. ``name`` is
    how the command line names that. ``date`` is in unix seconds, if it was asked for and is told.
    """

    hash: str | None
    size: int
    date: float | None
    sha256: str | None
    name: str = ""
    entry: RepoFile | None = None

    @classmethod
    def of_record(cls, record: FileRecord) -> Row:
        """The row of a file that has a hash alone."""
        return cls(str(record.hash), record.size, record.created_at, record.sha256)

    @classmethod
    def of_entry(cls, entry: RepoFile, name: str) -> Row:
        """The row of an entry of a repository."""
        found = None if entry.hash is None else str(entry.hash)
        return cls(found, entry.size, entry.changed_at, entry.sha256, name, entry)

    def fields(self) -> dict[str, Any]:
        """The JSON record."""
        if self.entry is None:
            return {"hash": self.hash, "size": self.size, "sha256": self.sha256, "created_at": self.date}
        return {
            "path": self.entry.path,
            "size": self.size,
            "hash": self.hash,
            "is_folder": self.entry.is_folder,
            "sha256": self.sha256,
            "oid": self.entry.oid,
            "mode": f"{self.entry.mode:06o}",
            "changed_at": self.date,
        }

    def line(self, path: str, *, is_long: bool) -> str:
        """The line for people, with ``path`` at its end."""
        date = f"  {date_text(self.date)}" if is_long else ""
        if self.entry is None:
            return f"{self.hash}  {self.size:>15,}{date}"
        long = f"{self.entry.mode:06o}  {self.entry.oid:40}  " if is_long else ""
        if self.entry.is_folder:
            return f"{long}{'':64}  {'':>15}{date}  {escaped(path)}/"
        return f"{long}{self.hash or _NO_HASH}  {self.size:>15,}{date}  {escaped(path)}"


def sort_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--sort``, given to the command as ``order``."""
    return click.option(
        "--sort",
        "order",
        type=click.Choice(ORDERS),
        default="name",
        show_default=True,
        help="By name, or hash; or the largest first, or the newest.",
    )(command)


def rows_of(settings: Settings, where: Path | str, *, recursive: bool, dates: bool) -> Iterator[Row]:
    """The files of a store that is a directory or a server, or those of a folder of a repository."""
    if isinstance(where, Path) or not where.startswith(("hf://", "xet://")):
        with settings.open_files(where) as store:
            yield from map(Row.of_record, store.files())
        return
    from xetstore.cli.places import Places, parse_locator, revision_of, shown

    locator = parse_locator(where)
    if where.startswith("hf://"):
        with _hub(settings) as hub:
            for entry in hub.tree(locator, recursive=recursive, dates=dates):
                yield Row.of_entry(entry, shown(locator, entry.path))
        return
    with Places(settings) as places:
        files = places.repository(locator).files(revision_of(locator), locator.path, recursive=recursive, dates=dates)
        for entry in files:
            yield Row.of_entry(entry, shown(locator, entry.path))


def in_order(rows: Iterable[Row], order: str, *, at_once: int = ROWS_AT_ONCE) -> Iterator[Row]:
    """The rows sorted, however many there are: runs of ``at_once`` of them wait in files until they are merged."""
    key = _KEYS[order]
    with ExitStack() as opened:
        runs: list[Iterator[Row]] = []
        for run in batches(rows, at_once):
            run.sort(key=key)
            if not runs and len(run) < at_once:
                yield from run
                return
            file = opened.enter_context(TemporaryFile(prefix="xet-"))
            for row in run:
                pickle.dump(row, file)
            file.seek(0)
            runs.append(_read(file, len(run)))
        yield from heapq.merge(*runs, key=key)


def print_row(output: Output, row: Row, path: str, *, is_long: bool, **more: Any) -> None:
    """Print a row, as a line with ``path`` at its end or as JSON with ``more``."""
    if output.json:
        output.record(**row.fields(), **more)
    else:
        output.line(row.line(path, is_long=is_long))


def _by_name(row: Row) -> tuple[str, ...]:
    return tuple((row.name or row.hash or "").split("/"))  # what is in a folder comes right behind it


_KEYS: Final[dict[str, Callable[[Row], Any]]] = {
    "name": _by_name,
    "size": lambda row: (-row.size, _by_name(row)),
    "date": lambda row: (-(row.date or 0), _by_name(row)),
}


def _read(file: IO[bytes], count: int) -> Iterator[Row]:
    for _ in range(count):
        row: Row = pickle.load(file)
        yield row


@contextmanager
def _hub(settings: Settings) -> Iterator[Hub]:
    from xetstore.opening import open_hub

    opening = settings.opening("hf://")
    hub = open_hub(token=opening["token"], allow_http=opening["allow_http"], emit=opening["on_event"])
    try:
        yield hub
    finally:
        hub.close()
