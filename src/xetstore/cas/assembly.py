"""Assembly: the parts of a store opened, and checked that they belong together.

A part is loaded where a store has it: obstore for objects in a bucket, psycopg for an index in PostgreSQL, guards in a
server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.access.secrets import FileSecrets, Secrets
from xetstore.blobs.keys import ACCESS_FOLDER
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas.folder import check_index_file, is_new_file, open_directory, open_objects_folder, require_locks_in
from xetstore.cas.index.index import MIGRATIONS, Index
from xetstore.cas.pairing import pair, refuse_strangers
from xetstore.cas.parts import PartUrl, StoreParts
from xetstore.database.sqlite import BUSY_TIMEOUT_SECONDS, SqliteDatabase
from xetstore.errors import NotFoundError, UsageError
from xetstore.extras import install_hint
from xetstore.platform.files import make_durable_folder, storage_error

if TYPE_CHECKING:
    from xetstore.database.database import Database
    from xetstore.interfaces import BlobStore

ACCESS_SUFFIX: Final = "-access"
"""Behind the name of a SQLite file: the folder of the secrets of a store whose objects are in a bucket."""

LEAST_PATIENCE_SECONDS: Final = 5.0
"""The shortest patience with a database: writers of a SQLite file take turns."""

_NOTHING: Final = "put a file into it to create one"


@dataclass(frozen=True, slots=True)
class OpenParts:
    """The parts of an open store. The index closes the database."""

    parts: StoreParts
    blobs: BlobStore
    index: Index
    database: Database

    def secrets(self) -> Secrets:
        """The secrets of the store: in private files, whose folder is made, or in the database."""
        return _secrets(self.parts, self.database, create=True)


def open_parts(parts: StoreParts, *, create: bool, patience_seconds: float | None = None) -> OpenParts:
    """Open the parts of a store. With ``create``, they are made where nothing is.

    With ``patience_seconds``, as a server opens them, no call waits much longer for a part, and none waits at all for
    one that did not answer others.

    Raises NotFoundError without; UsageError for a place that holds something else, for what newer code wrote, and for a
    driver that is not installed; DamagedError for parts that are not those of one store; UnavailableError for a part
    that does not answer.
    """
    if isinstance(parts.objects, Path) and not parts.is_directory:
        open_objects_folder(parts.objects, create=create)
    if isinstance(parts.index, Path):
        if parts.is_directory:
            open_directory(parts.objects, create=create)  # type: ignore[arg-type]  # a path, then
        blobs = open_objects(parts, is_guarded=patience_seconds is not None)
        database = _open_file(parts, parts.index, blobs, create=create, patience_seconds=patience_seconds)
    else:
        blobs = open_objects(parts, is_guarded=patience_seconds is not None)
        database = _open_url(parts, parts.index, blobs, create=create, patience_seconds=patience_seconds)
    if patience_seconds is not None:
        from xetstore.database.guarded import GuardedDatabase
        from xetstore.platform.circuit import Circuit

        database = GuardedDatabase(database, Circuit("the index does not answer"))
    index = Index(database)
    try:
        pair(parts, index, blobs)
    except BaseException:
        index.close()
        raise
    return OpenParts(parts, blobs, index, database)


@contextmanager
def open_to_read(parts: StoreParts) -> Iterator[tuple[BlobStore, Index | None]]:
    """The objects of a store that is only read from; and its index, if there is one that this code knows as it is."""
    if isinstance(parts.objects, Path) and not parts.objects.is_dir():
        raise _missing(parts)
    blobs = open_objects(parts)
    if isinstance(parts.index, Path) and is_new_file(parts.index):
        yield blobs, None
        return
    database = open_database(parts.index)
    try:
        with database.snapshot() as connection:
            is_known = MIGRATIONS.version(connection) == MIGRATIONS.newest
        yield blobs, Index(database) if is_known else None
    finally:
        database.close()


@contextmanager
def open_secrets(parts: StoreParts, *, create: bool) -> Iterator[Secrets]:
    """The secrets of a store that is there, without opening the rest of it; with ``create``, a place for them."""
    if isinstance(parts.index, PartUrl):
        database = _database(parts.index)
        try:
            with database.snapshot() as connection:
                if MIGRATIONS.version(connection) == 0:  # nothing is made in a database that another name was meant for
                    raise _missing(parts)
            yield _secrets(parts, database, create=create)
        finally:
            database.close()
        return
    if isinstance(parts.objects, Path):
        open_objects_folder(parts.objects, create=False)
    elif is_new_file(parts.index):
        raise _missing(parts)
    yield FileSecrets.open(_secrets_folder(parts), create=create)


def open_database(index: Path | PartUrl) -> Database:
    """The database of an index, as it is: no table is made in it. Raises as :func:`open_parts`."""
    if isinstance(index, PartUrl):
        return _database(index)
    try:
        make_durable_folder(index.parent)
    except OSError as error:
        raise storage_error(error, f"the index {index} cannot be opened") from error
    require_locks_in(index.parent, f"the index {index}")
    return SqliteDatabase(index)


def secrets_file(parts: StoreParts, name: str) -> Path | None:
    """The file of a secret document; None if it is in the database."""
    return None if isinstance(parts.index, PartUrl) else _secrets_folder(parts) / name


def open_objects(parts: StoreParts, *, is_guarded: bool = False) -> BlobStore:
    """The objects of a store, whatever marks they have. Nothing is asked of them yet."""
    if isinstance(parts.objects, Path):
        blobs: BlobStore = LocalBlobStore(parts.objects)
    else:
        with _driver("obstore", f"objects in {parts.objects.scheme}://", "s3"):
            bucket = import_module("xetstore.blobs.bucket").BucketBlobStore
            blobs = bucket.open(parts.objects.reveal(), parts.options)
        if is_guarded:  # below the cache, which goes on without it
            from xetstore.blobs.guarded import GuardedBlobStore
            from xetstore.platform.circuit import Circuit

            blobs = GuardedBlobStore(blobs, Circuit("the objects do not answer"))
    if parts.cache is None:
        return blobs
    cached: BlobStore = import_module("xetstore.blobs.cached").CachedBlobStore(
        blobs, parts.cache.folder, parts.cache.max_bytes, place=f"{parts.options.get('endpoint', '')} {parts.objects}"
    )
    return cached


def _open_file(
    parts: StoreParts, index: Path, blobs: BlobStore, *, create: bool, patience_seconds: float | None
) -> Database:
    if not parts.is_directory:
        check_index_file(index, parts.objects if isinstance(parts.objects, Path) else None)
        _check_new(parts, blobs, lambda: is_new_file(index), create=create)
        try:
            make_durable_folder(index.parent)
        except OSError as error:
            raise storage_error(error, f"the index {index} cannot be opened") from error
        require_locks_in(index.parent, f"the index {index}")
    if patience_seconds is None:
        return SqliteDatabase(index)
    patience_seconds = min(max(patience_seconds, LEAST_PATIENCE_SECONDS), BUSY_TIMEOUT_SECONDS)
    return SqliteDatabase(index, busy_timeout_seconds=patience_seconds)


def _open_url(
    parts: StoreParts, index: PartUrl, blobs: BlobStore, *, create: bool, patience_seconds: float | None
) -> Database:
    database = _database(index)

    def is_new() -> bool:
        with database.snapshot() as connection:
            return MIGRATIONS.version(connection) == 0

    try:
        _check_new(parts, blobs, is_new, create=create)
    except BaseException:
        database.close()
        raise
    if patience_seconds is None:
        return database
    with closing(database):
        MIGRATIONS.run(database)  # a step may take longer than the statements of requests
    patience_seconds = max(patience_seconds, LEAST_PATIENCE_SECONDS)
    return _database(index, statement_seconds=patience_seconds)


def _check_new(parts: StoreParts, blobs: BlobStore, is_new: Callable[[], bool], *, create: bool) -> None:
    """Before an index is made: raise NotFoundError unless it may be, and DamagedError if it is lost."""
    if not is_new():
        return
    try:
        refuse_strangers(parts, blobs)
    except Exception:
        if is_new():  # or another process has made it meanwhile
            raise
    if not create:
        raise _missing(parts)


def _database(url: PartUrl, **patience: float) -> Database:
    with _driver("psycopg", "an index in PostgreSQL", "postgres"):
        database: Database = import_module("xetstore.database.postgres").PostgresDatabase(url.reveal(), **patience)
    return database


def _secrets(parts: StoreParts, database: Database, *, create: bool) -> Secrets:
    if isinstance(parts.index, PartUrl):
        secrets: Secrets = import_module("xetstore.access.table_secrets").TableSecrets(database)
        return secrets
    return FileSecrets.open(_secrets_folder(parts), create=create)


def _secrets_folder(parts: StoreParts) -> Path:
    if isinstance(parts.objects, Path):
        return parts.objects / ACCESS_FOLDER
    assert isinstance(parts.index, Path)
    # Not simply "access": two stores may have their indexes in one folder, and must not share keys.
    return parts.index.with_name(parts.index.name + ACCESS_SUFFIX)


@contextmanager
def _driver(driver: str, what: str, extra: str) -> Iterator[None]:
    """Turn the error of a driver that is not installed into one with the extra to install."""
    try:
        yield
    except ImportError as error:
        if not (error.name or "").startswith(driver):
            raise
        raise UsageError(f"{what}: {error.name} is not installed", hint=install_hint(extra)) from error


def _missing(parts: StoreParts) -> NotFoundError:
    return NotFoundError(f"there is no store in {parts}", hint=_NOTHING)
