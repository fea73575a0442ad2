"""The place of an index that is made anew: beside the old one until it is whole, or an empty database of a server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.cas.assembly import open_database, open_objects
from xetstore.cas.index import Index
from xetstore.cas.index.index import MIGRATIONS
from xetstore.cas.index.queries.chores import ChoreRow
from xetstore.cas.pairing import REBUILD
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import UsageError, XetError
from xetstore.platform.files import replace, storage_error, sync_folder

if TYPE_CHECKING:
    from xetstore.cas.parts import StoreParts
    from xetstore.interfaces import BlobStore

REBUILDING: Final = ".rebuilding"
"""Behind the name of a SQLite index: the one that is made anew."""
_LOGS: Final = ("", "-wal", "-shm")


@contextmanager
def opened(parts: StoreParts) -> Iterator[tuple[BlobStore, Index]]:
    """The objects of a store, and an index to be filled: a new one, or that of a rebuild that was cut off.

    Raises UsageError for a database that has an index in it.
    """
    blobs = open_objects(parts)
    with ExitStack() as stack:
        if isinstance(parts.index, Path):
            stack.enter_context(_writers_kept_out(parts.index))
            index = stack.enter_context(closing(Index(open_database(beside(parts.index)))))
            if is_finished(index) and parts.index.exists():
                # It was not put in place, and the store was used with another index since.
                index.close()
                _drop(beside(parts.index))
                index = stack.enter_context(closing(Index(open_database(beside(parts.index)))))
        else:
            database = open_database(parts.index)
            stack.callback(database.close)
            with database.snapshot() as connection:
                is_empty = MIGRATIONS.version(connection) == 0
            index = Index(database)
            if not is_empty and not is_unfinished(index):
                raise UsageError(
                    f"there is an index in {parts.index}",
                    hint="create an empty database, and name it in the store file: the one that is there is kept",
                )
        yield blobs, index


def beside(index: Path) -> Path:
    """The file of the new index while it is made."""
    return index.with_name(index.name + REBUILDING)


def is_unfinished(index: Index) -> bool:
    """True if an index is that of a rebuild that has not come to its end."""
    chore = _chore(index)
    return chore is not None and chore.ended_at is None


def is_finished(index: Index) -> bool:
    """True if an index was made anew, and has only to be put in its place."""
    chore = _chore(index)
    return chore is not None and chore.ended_at is not None


def put_in_place(index: Path) -> Path | None:
    """Put the new index in the place of the old one, which is kept beside it: its new name, None if there was none."""
    kept: Path | None = None
    try:
        if any(_exists(index, log) for log in _LOGS):
            kept = index.with_name(f"{index.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
            while kept.exists():
                kept = kept.with_name(kept.name + "x")
            # A crash between leaves a store without an index, which is refused; the same call puts this one in place.
            for log in _LOGS:
                if _exists(index, log):
                    replace(index.with_name(index.name + log), kept.with_name(kept.name + log))
        replace(beside(index), index)
        sync_folder(index.parent)
    except OSError as error:
        raise storage_error(error, f"the index {index} cannot be put in its place") from error
    return kept


def _chore(index: Index) -> ChoreRow | None:
    with index.snapshot() as reader:
        return reader.chore(REBUILD)


def _exists(index: Path, log: str) -> bool:
    return os.path.lexists(index.with_name(index.name + log))


def _drop(index: Path) -> None:
    for log in _LOGS:
        index.with_name(index.name + log).unlink(missing_ok=True)


@contextmanager
def _writers_kept_out(index: Path) -> Iterator[None]:
    """While this is open, no other process writes to the old index, as far as that can still be opened."""
    with ExitStack() as stack:
        if index.is_file() and index.stat().st_size:
            with suppress(XetError, OSError):
                database = SqliteDatabase(index, busy_timeout_seconds=1.0)
                stack.callback(database.close)
                stack.enter_context(database.transaction())
        yield
