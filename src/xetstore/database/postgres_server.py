"""Servers of PostgreSQL: connecting to one, by a URL whose password is not shown, and the errors of ours for theirs."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from xetstore.errors import (
    AccessDeniedError,
    ConflictError,
    DamagedError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UnreachableError,
    UsageError,
    XetError,
)
from xetstore.extras import install_hint
from xetstore.platform.sockets import ready as waited

try:
    import psycopg
    from psycopg import conninfo, generators
    from psycopg.pq import ConnStatus, TransactionStatus
    from psycopg.types.numeric import Int8BinaryDumper
    from psycopg.types.string import StrBinaryDumper
except ImportError as error:
    raise UsageError(
        "an index in PostgreSQL needs the driver psycopg, which is not installed",
        hint=install_hint("postgres"),
    ) from error

# The driver tells of each broken connection by a line of its own; here it is an error, which tells more.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

T = TypeVar("T")

LOWEST_VERSION: Final = 14

DriverError: Final = psycopg.Error
"""The error of the driver."""

_SCHEMES: Final = ("postgresql://", "postgres://")
_SECRETS: Final = re.compile(r"pass|secret|key|^options$")
"""The names of parameters that are not shown, also those of a later libpq."""
MARGIN_SECONDS: Final = 5.0
"""The server ends a statement that takes too long. Where it does not, it hangs, and is given up this time later."""

_PASSWORDS: Final = "PGPASSWORD, .pgpass or a service file"
# Without a number of theirs: an attempt to connect fails with a text only.
_REFUSALS: Final[tuple[tuple[str, type[XetError], str], ...]] = (
    ("password authentication failed", AccessDeniedError, f"the password is wrong: {_PASSWORDS}"),
    ("no password supplied", AccessDeniedError, f"it needs a password: {_PASSWORDS}"),
    ("authentication failed", AccessDeniedError, "see pg_hba.conf of the server"),
    ("no pg_hba.conf entry", AccessDeniedError, "see pg_hba.conf of the server"),
    ("pg_hba.conf rejects", AccessDeniedError, "see pg_hba.conf of the server"),
    ("is not permitted to log in", AccessDeniedError, "ALTER ROLE … LOGIN"),
    ("permission denied for database", AccessDeniedError, "GRANT CONNECT ON DATABASE …"),
    ("certificate", AccessDeniedError, "see sslmode, sslrootcert and the certificate of the server"),
    ("server does not support SSL", AccessDeniedError, "see sslmode"),
)
_MISSING: Final = (("database ", "create it: createdb"), ("role ", "create it: createuser"))


class ServerUrl:
    """The URL of a database: ``postgresql://ROLE@HOST:PORT/NAME``, or one with more of what libpq takes.

    A password in it is used, and never shown.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(_SCHEMES):
            raise UsageError("the URL of an index in PostgreSQL begins with postgresql://")
        self.parameters: dict[str, Any] = {}
        with contextlib.suppress(DriverError):  # which may have the password in it
            self.parameters = dict(conninfo.conninfo_to_dict(url))
        if not self.parameters and url not in _SCHEMES:
            raise UsageError(
                "the URL of the index is none that PostgreSQL takes",
                hint="postgresql://ROLE@HOST:PORT/DATABASE, with characters such as @ / : % in a name percent-encoded",
            )

    def __str__(self) -> str:
        known = {name: str(value) for name, value in self.parameters.items() if not _SECRETS.search(name)}
        role, host, port = (known.pop(name, "") for name in ("user", "host", "port"))
        name = known.pop("dbname", "")
        rest = "&".join(f"{key}={value}" for key, value in sorted(known.items()))
        shown = f"postgresql://{role}{'@' if role else ''}{host}{':' if port else ''}{port}/{name}"
        return f"{shown}?{rest}" if rest else shown

    __repr__ = __str__


class _Pipeline(psycopg.Pipeline):
    """A pipeline that ends with Sync. The driver's own has a Flush behind it, upon which the server counts no idle time
    (``idle_in_transaction_session_timeout``) before the next statement: a client that hangs there would keep its locks.
    """

    def _exit_gen(self) -> Generator[Any, Any, None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            yield from self._fetch_gen(flush=False)


class ServerConnection(psycopg.Connection[Any]):
    """A connection of the driver, which gives the server up where it does not answer at all."""

    patience_seconds: float | None = None
    """The longest wait for one answer; None: as long as it takes."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._owner = os.getpid()

    @property
    def is_ours(self) -> bool:
        """True in the process that opened it; in a child it must not be touched."""
        return self._owner == os.getpid()

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **named: Any) -> T:
        """As the driver waits. OperationalError, and the connection is closed, where there is no answer in time."""
        if self.patience_seconds is None:
            return super().wait(gen, *args, **named)
        return super().wait(self._until(gen, time.monotonic() + self.patience_seconds), *args, **named)

    @contextlib.contextmanager
    def piped(self) -> Iterator[None]:
        """All statements in the block are sent together, and answered together."""
        self._pipeline = _Pipeline(self)
        try:
            with self._pipeline:
                yield
        finally:
            self._pipeline = None

    @property
    def is_failed(self) -> bool:
        """True if a statement of the transaction has failed."""
        return self.pgconn.transaction_status == TransactionStatus.INERROR

    def settle(self) -> None:
        """Take the answer to what :meth:`leave` sent without waiting."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            super().wait(self._until(generators.fetch_many(self.pgconn), time.monotonic() + MARGIN_SECONDS))

    def leave(self) -> None:
        """End a transaction in which nothing was changed. Nothing is waited for."""
        if not self.is_ours or self.closed or self.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        try:
            self.pgconn.send_query(b"ROLLBACK")
            self.pgconn.flush()
        except DriverError:  # in the middle of a statement that was given up
            self.close()

    def is_alive(self) -> bool:
        """True if nothing tells that the server has closed the connection. The server is not asked."""
        try:
            self.settle()
            if self.closed or self.pgconn.transaction_status != TransactionStatus.IDLE:
                return False
            if waited([self.pgconn.socket], [], 0):  # a farewell, or a notice
                self.pgconn.consume_input()
                self.pgconn.is_busy()
            return self.pgconn.status == ConnStatus.OK and not waited([self.pgconn.socket], [], 0)
        except DriverError:
            return False

    def _until(self, gen: Generator[Any, Any, T], deadline: float) -> Generator[Any, Any, T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer


def connect(
    url: ServerUrl, settings: Mapping[str, object], *, connect_seconds: float, answer_seconds: float
) -> ServerConnection:
    """A connection on which statements are transactions of their own. Raises XetError.

    ``settings`` are those of the session: whatever the server, the database or the role has by default.
    """
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    theirs = url.parameters.get("options") or ""
    parameters = {
        "application_name": "xetstore",
        "connect_timeout": max(2, round(connect_seconds)),  # libpq takes less as 2
        # A host that is gone without a word is found out, also while nothing is asked of it.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        **url.parameters,
        "client_encoding": "UTF8",
        "options": f"{theirs} {ours}".strip(),
    }
    refused: XetError | None = None
    try:
        connection = ServerConnection.connect(autocommit=True, **parameters)
    except DriverError as error:
        refused = refusal(error, url)
    if refused is not None:
        raise refused  # out here, because the error of the driver, with the password in it, would be its context
    if (version := connection.info.server_version // 10_000) < LOWEST_VERSION:
        connection.close()
        raise UsageError(f"{url} is PostgreSQL {version}; an index needs {LOWEST_VERSION} or newer")
    # Numbers are 64 bits wide in every statement, so that one text is one statement, and its plan is made once.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    connection.adapters.register_dumper(str, StrBinaryDumper)
    connection.patience_seconds = answer_seconds
    return connection


def refusal(error: psycopg.Error, url: ServerUrl) -> XetError:
    """The XetError for a failed attempt to connect."""
    text = str(error)
    for words, kind, hint in _REFUSALS:
        if words in text:
            return kind("the index of the store refuses access", hint=f"{hint} ({url})")
    if "does not exist" in text:
        for words, hint in _MISSING:
            if f'{words}"' in text:
                return NotFoundError(f"the index of the store: no such {words.strip()}", hint=f"{hint} ({url})")
    first = (text.strip() or "no answer").splitlines()[0]
    reason = first.rpartition("FATAL:")[2].rpartition("failed:")[2].strip()
    if "host name" in reason:
        reason = "the name of its host is not known"
    return UnreachableError(f"the index of the store cannot be reached: {reason}", hint=f"is PostgreSQL there: {url}")


_AWAY: Final = UnavailableError, "PostgreSQL is busy, restarting or shutting down: try again"
_BACKUP: Final = DamagedError, "put a backup of the database in its place"
_CONFLICT: Final = ConflictError, "another writer was first: try again"
_MEANINGS: Final[Mapping[str, tuple[type[XetError], str]]] = MappingProxyType(
    {
        # Serialization failure, deadlock; a row that a foreign key needs is gone, or one with the same key has come.
        **dict.fromkeys(("40001", "40P01", "23503", "23505"), _CONFLICT),
        "53100": (StorageFullError, "make room on the disk of PostgreSQL, then try again"),
        "55P03": (UnavailableError, "another process is writing to the store: try again"),
        "57014": (UnavailableError, "PostgreSQL took too long: try again"),
        # Text that is too long for its column, a number that is out of its range, a NUL: SQLite takes all of these.
        **dict.fromkeys(("22001", "22003", "22021"), (UsageError, "take a shorter text without NUL, a smaller number")),
        "25006": (UnavailableError, "this PostgreSQL takes no changes, such as a standby"),
        "42501": (AccessDeniedError, "give the role of the store the rights that docs/server.md lists"),
        # A table, a column or a schema is missing, for the statements themselves are all tested; damaged pages.
        **dict.fromkeys(("42P01", "42703", "3F000", "XX001", "XX002"), _BACKUP),
        **dict.fromkeys(("08", "25P", "53", "57P", "58"), _AWAY),
    }
)
"""By a SQLSTATE, or the beginning of one."""


def meaning(error: psycopg.Error) -> Exception:
    """The XetError that says what an error of a statement means; the error itself if it is a fault of ours."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return UnreachableError(f"the index of the store is out of reach: {_first_line(error)}")
        return error
    for known in (state, state[:3], state[:2]):
        if known in _MEANINGS:
            kind, hint = _MEANINGS[known]
            return kind(f"the index of the store: {_first_line(error)}", hint=hint)
    return error


def _first_line(error: psycopg.Error) -> str:
    """The message alone: details that follow may have values of rows."""
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]
