"""Index: a Reader on a snapshot of the database, a Writer on a transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.database.migrations import Migrations
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import AccessDeniedError, ConflictError, StorageFullError, UnavailableError

if TYPE_CHECKING:
    from xetstore.access.tenant import Tenant
    from xetstore.cas.index.queries.reader import Reader, Writer
    from xetstore.cas.index.queries.rows import XorbRow
    from xetstore.database.database import Database

MIGRATIONS: Final = Migrations(Path(__file__).parent / "migrations", "schema_version", "the index of this store")
STORE_ID: Final = "SELECT id FROM store"
ATTEMPTS: Final = 5
"""Times that one change is tried, as long as another writer is first."""
_PAUSE_SECONDS: Final = 0.02

_ROOMS: Final = 2
"""Times that care is given room that was kept for it: then its change is too large."""
_CARE: Final = ContextVar("xetstore_care", default=False)

K = TypeVar("K")
R = TypeVar("R")
T = TypeVar("T")


class Index:
    """The index in ``database``, which it closes. Thread-safe, and safe between processes.

    The schema is made or migrated on opening; opening takes constant time otherwise.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Most looks are for whom the last one was for, and a tenant takes longer to hash than to tell from another.
        self._last_look: tuple[Tenant | None, str, dict[str, object]] = None, "", {}
        try:
            MIGRATIONS.run(database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def in_memory(cls) -> Index:
        """An index that lives as long as this object."""
        return cls(SqliteDatabase.in_memory())

    def migrate(self, migrations: Migrations) -> None:
        """Run the steps of another room, whose tables lie beside those of the index."""
        migrations.run(self._database)

    def version_of(self, migrations: Migrations) -> int:
        """The version of the tables of another room; 0 if they are not there. Changes nothing."""
        with self._database.snapshot() as connection:
            return migrations.version(connection)

    def store_id(self) -> str | None:
        """The id of the store, or None if it has none yet."""
        with self._database.snapshot() as connection:
            store_id: str | None = connection.value(STORE_ID)
        return store_id

    @property
    def is_writable(self) -> bool:
        """True if ``transaction()`` can succeed."""
        return self._database.read_only_because is None

    def require_in_place(self) -> None:
        """Raises UnavailableError if the database is not the one any more that was opened."""
        self._database.require_in_place()

    def clock(self) -> float:
        """Unix seconds by the clock of the database. Asks nothing."""
        return self._database.clock()

    def change(self, work: Callable[[Writer], T], *, patience_seconds: float | None = None) -> T:
        """Write: what ``work`` returns, once all that it did is durable. It runs in a :meth:`transaction`.

        After a conflict with another writer, of which nothing is left, it runs again, at most :data:`ATTEMPTS` times in
        all: so ``work`` does nothing but ask and change by its Writer, and waits for no network and no file. Then, and
        at once where ``patience_seconds`` is 0, UnavailableError. What ``work`` raises leaves nothing changed.
        """
        attempt = 1
        is_care = _CARE.get()
        rooms = 0
        if not is_care:
            self.require_reserve()
        while True:
            try:
                with self.transaction(patience_seconds=patience_seconds) as writer:
                    if attempt > 1:  # those that met here take turns from now on
                        writer.connection.alone_with("conflict")
                    return work(writer)
            except ConflictError as conflict:
                if attempt == ATTEMPTS or patience_seconds == 0:
                    error = UnavailableError(f"too many writers at once: {conflict}", hint="try again")
                    error.retry_after = 1.0
                    raise error from conflict
            except StorageFullError:
                if not is_care or rooms == _ROOMS or not self._database.give_up_reserve():
                    raise
                rooms += 1
                continue
            import random

            # The longer, the more of them met here; and not all at the same moment again.
            time.sleep(_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1))
            attempt += 1

    @staticmethod
    @contextlib.contextmanager
    def for_care() -> Iterator[None]:
        """Changes of this thread in the block are of care: a deletion, a collection, a repair. Where the disk is full
        they have the reserve.
        """
        before = _CARE.set(True)
        try:
            yield
        finally:
            _CARE.reset(before)

    def with_reserve(self, work: Callable[[], T]) -> T:
        """Do care that writes an object, and return what ``work`` returns; where there is no room, once more with the
        reserve.
        """
        try:
            return work()
        except StorageFullError:
            if not self._database.give_up_reserve():
                raise
            return work()

    def require_reserve(self) -> None:
        """Raises StorageFullError where the disk has no room but for care."""
        self._database.require_reserve()

    @contextlib.contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Writer]:
        """Write, as :meth:`Database.transaction <xetstore.database.database.Database.transaction>` says."""
        from xetstore.cas.index.queries.reader import Writer

        with self._database.transaction(patience_seconds=patience_seconds) as connection:
            yield Writer(connection)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Read: all queries in the block see one state of the index. Keep it short."""
        from xetstore.cas.index.queries.reader import Reader

        with self._database.snapshot() as connection:
            yield Reader(connection)

    def pages(
        self, ask: Callable[[Reader, K], Sequence[R]], number: Callable[[R], K], first: K
    ) -> Iterator[Sequence[R]]:
        """Rows in pages: ``ask`` gives those behind a number, in a snapshot of its own. ``first`` is before all."""
        behind = first
        while True:
            with self.snapshot() as reader:
                page = ask(reader, behind)
            if not page:
                return
            yield page
            behind = number(page[-1])

    def lacks_chunk(self, key: int, tenant: Tenant) -> bool:
        """True if :meth:`Reader.holders` would find nothing now; False also where that cannot be seen at once.

        For an event loop: it takes some microseconds, and waits for no lock.
        """
        asked_for, statement, values = self._last_look
        if tenant is not asked_for:
            from xetstore.cas.index.queries.dedup import any_holder

            statement, values = any_holder(tenant)
            self._last_look = tenant, statement, values
        return self._database.finds_nothing(statement, {**values, "chunk_key": key})

    def offerable(self, rows: Sequence[XorbRow], *, now: float) -> list[XorbRow]:
        """Those of these xorbs that a client may be told of: none is deleted before the grace has passed from now on.

        Most are part of files, and nothing is written. Of the others a note is made, once a day, without waiting for
        writers; those that cannot be noted now are left out, and so are those that are doomed, or not there any more.
        """
        with self.snapshot() as reader:
            guarded = reader.guarded(rows, now=now)
        unguarded = [xorb_id for xorb_id, is_guarded in guarded.items() if not is_guarded]
        if unguarded:
            refusals = UnavailableError, StorageFullError, AccessDeniedError
            with contextlib.suppress(*refusals):
                if self.change(lambda writer: writer.guard(unguarded, now=now), patience_seconds=0):
                    return [row for row in rows if row.id in guarded]
        return [row for row in rows if guarded.get(row.id, False)]

    def give_back_space(self) -> int:
        """Give back what the database has no use for any more, as far as that can be done now; bytes."""
        with contextlib.suppress(UnavailableError, AccessDeniedError):
            return self._database.give_back_space()
        return 0

    def damage(self) -> tuple[str, ...]:
        """The faults that the database itself finds; empty if there are none. Reads the whole index."""
        return self._database.damage()

    def close(self) -> None:
        """Close the database."""
        self._database.close()
