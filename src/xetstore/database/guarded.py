"""GuardedDatabase: a database behind a circuit, so that callers do not wait one by one for one that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xetstore.errors import TimedOutError, UnavailableError, UnreachableError, XetError

if TYPE_CHECKING:
    from xetstore.database.connection import Connection, Values
    from xetstore.database.database import Database
    from xetstore.platform.circuit import Circuit


class GuardedDatabase:
    """The database ``inner``, whose calls fail at once while ``circuit`` is open. Thread-safe as it is.

    A snapshot waits for no writer, so each that is not answered counts. Of transactions those do that did not reach
    the database; one that waited in vain for another writer does not.
    """

    def __init__(self, inner: Database, circuit: Circuit) -> None:
        self.inner = inner
        self.circuit = circuit

    @property
    def read_only_because(self) -> XetError | None:
        """As ``inner`` says."""
        return self.inner.read_only_because

    @contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Connection]:
        """As that of ``inner``, or UnavailableError at once."""
        self.circuit.require()
        raised: BaseException | None = None
        try:
            with self.inner.transaction(patience_seconds=patience_seconds) as connection:
                try:
                    yield connection
                except BaseException as error:
                    raised = error
                    raise
        except (UnreachableError, TimedOutError) as error:
            if error is not raised:
                self.circuit.failed(error)
            raise
        self.circuit.answered()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As that of ``inner``, or UnavailableError at once."""
        self.circuit.require()
        raised: BaseException | None = None
        try:
            with self.inner.snapshot() as connection:
                try:
                    yield connection
                except BaseException as error:
                    raised = error
                    raise
        except UnavailableError as error:
            if error is not raised:  # by another than the database
                self.circuit.failed(error)
            raise
        except XetError:
            self.circuit.answered()
            raise
        self.circuit.answered()

    def finds_nothing(self, statement: str, values: Values) -> bool:
        """As ``inner`` says; False while the circuit is open."""
        return not self.circuit.is_open and self.inner.finds_nothing(statement, values)

    def require_in_place(self) -> None:
        """As that of ``inner``."""
        self.inner.require_in_place()

    def require_reserve(self) -> None:
        """As that of ``inner``."""
        self.inner.require_reserve()

    def give_up_reserve(self) -> bool:
        """As that of ``inner``."""
        return self.inner.give_up_reserve()

    def give_back_space(self) -> int:
        """As that of ``inner``."""
        return self.inner.give_back_space()

    def clock(self) -> float:
        """As that of ``inner``."""
        return self.inner.clock()

    def damage(self) -> tuple[str, ...]:
        """As that of ``inner``."""
        return self.inner.damage()

    def close(self) -> None:
        """Close ``inner``."""
        self.inner.close()
