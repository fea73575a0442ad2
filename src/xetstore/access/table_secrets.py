"""TableSecrets: secrets in a table of a database that several servers share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.database.migrations import Migrations
from xetstore.errors import UnavailableError, XetError
from xetstore.platform import forks
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from xetstore.access.secrets import Version
    from xetstore.database.database import Database

FRESH_SECONDS: Final = 1.0
"""The time for which a version that was asked for serves: a change by another server is seen by then."""
LATE_SECONDS: Final = 3.0
"""The age of the last look at which documents that are followed do not count any more."""

_MIGRATIONS: Final = Migrations(Path(__file__).parent / "migrations", "access_version", "the table of secrets")
_VERSION: Final = "SELECT version FROM secret WHERE name = :name"
_VERSIONS: Final = "SELECT name, version FROM secret"
_DOCUMENTS: Final = "SELECT name, data, version FROM secret WHERE name IN (:values)"
_READ: Final = "SELECT data, version FROM secret WHERE name = :name"
_WRITE: Final = """
INSERT INTO secret (name, data, version) VALUES (:name, :data, 1)
ON CONFLICT (name) DO UPDATE SET data = excluded.data, version = secret.version + 1
"""

_log = logging.getLogger("xetstore.access")


class TableSecrets:
    """Secrets in the table ``secret`` of ``database``, which is made or migrated on opening. Thread-safe.

    The rights of the database keep them, as those of a folder keep the ones in files: who may read it reads them. A
    change of this process is seen by it at once, one of another process within :data:`FRESH_SECONDS`.
    """

    def __init__(self, database: Database, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._database = database
        self._fresh_seconds = fresh_seconds
        self._turn = forks.lock()
        self._versions: dict[str, tuple[float, Version | None]] = {}
        self._is_followed = False
        self._looked_at = 0.0
        self._documents: Mapping[str, tuple[bytes, Version]] = {}
        _MIGRATIONS.run(database)

    def version(self, name: str) -> Version | None:
        """The version of a document; None if there is none. The database is asked once a second."""
        if self._is_followed:
            document = self._followed_documents().get(name)
            return None if document is None else document[1]
        known = self._known(name)
        if known is None:
            with self._turn:  # one asks for all who wait
                known = self._known(name) or self._ask(name)
        return known[1]

    def read(self, name: str) -> tuple[bytes, Version] | None:
        """A document, and its version, as they are now; None if there is none."""
        if self._is_followed:
            return self._followed_documents().get(name)
        with self._database.snapshot() as connection:
            row = connection.row(_READ, {"name": name})
        return None if row is None else (bytes(row[0]), (row[1],))

    def change(self, name: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        """Replace a document by what ``edit`` makes of it. One change at a time, of any document."""
        with self._database.transaction() as connection:
            connection.alone_with("secret")
            row = connection.row(_READ, {"name": name})
            data = edit(None if row is None else bytes(row[0]))
            if data is not None:
                connection.change(_WRITE, {"name": name, "data": data})
        self._versions.pop(name, None)
        if self._is_followed:
            with suppress(XetError):  # the change is made; the next look sees it
                self._look()

    def clock(self) -> float:
        """That of the database."""
        return self._database.clock()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Keep up with the table in a thread, as long as the block runs: no question waits for the database then.

        The thread looks twice in :data:`FRESH_SECONDS`. While its last look is older than :data:`LATE_SECONDS`, because
        the database is away or hangs, every question is an UnavailableError at once.
        """
        self._look()
        over = threading.Event()
        self._is_followed = True
        try:
            start_thread(self._follow, over, name="secrets")
            yield
        finally:
            self._is_followed = False
            over.set()

    def label(self, name: str) -> str:
        """The name alone."""
        return f"the secret {name}"

    def __repr__(self) -> str:
        return f"TableSecrets({self._database!r})"

    def _known(self, name: str) -> tuple[float, Version | None] | None:
        """When a version was asked for, and that version, if it still serves."""
        known = self._versions.get(name)
        return known if known is not None and time.monotonic() - known[0] < self._fresh_seconds else None

    def _ask(self, name: str) -> tuple[float, Version | None]:
        begin = time.monotonic()
        with self._database.snapshot() as connection:
            number = connection.value(_VERSION, {"name": name})
        known = begin, None if number is None else (number,)
        self._versions[name] = known
        return known

    def _follow(self, over: threading.Event) -> None:
        while not over.wait(self._fresh_seconds / 2):
            try:
                self._look()
            except XetError:
                continue  # those who ask see it by the age of the last look
            except Exception:  # a defect; without this thread the server would refuse every token
                _log.exception("the secrets of the store could not be looked at")

    def _look(self) -> None:
        begin = time.monotonic()
        with self._turn, self._database.snapshot() as connection:
            versions = {name: (number,) for name, number in connection.rows(_VERSIONS)}
            same = {name: document for name, document in self._documents.items() if versions.get(name) == document[1]}
            rows = connection.rows_in(_DOCUMENTS, [name for name in versions if name not in same])
            self._documents = same | {name: (bytes(data), (number,)) for name, data, number in rows}
            self._looked_at = begin

    def _followed_documents(self) -> Mapping[str, tuple[bytes, Version]]:
        if time.monotonic() - self._looked_at > LATE_SECONDS:
            raise UnavailableError("the index, which has the keys of the store, does not answer", hint="try again soon")
        return self._documents
