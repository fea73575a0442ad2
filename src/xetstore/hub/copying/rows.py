"""TwoStores: the tables of two stores side by side, row by row in the order of their keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xetstore.batches import batches
from xetstore.cas.check import Problem
from xetstore.cas.copying.run import Run
from xetstore.cas.lease import Lease
from xetstore.database.connection import Row, Values
from xetstore.hub.queries import HubReader, HubWriter
from xetstore.hub.queries.copying import PAGE_ROWS, Table

T = TypeVar("T")

RENEW_SECONDS: Final = 10.0

Admit = Callable[[HubWriter, Sequence[Row]], Sequence[Row]]
"""Those of some rows that the target can take; asked inside the transaction that writes them."""


@dataclass(slots=True)
class NamesTally:
    """Names that a copy has added to the target or changed there, or would; ``git_objects`` are those added."""

    accounts: int = 0
    tokens: int = 0
    repositories: int = 0
    git_objects: int = 0


@dataclass(slots=True)
class TwoStores:
    """The names of the two stores of a copy. ``source_id`` is empty for a source that has no id.

    ``has_target`` is False for a dry run into a store that has no tables for names. ``lease`` is the right to collect
    in the target, where none is to run: objects are there before the refs that lead to them.
    """

    run: Run
    source_id: str
    has_target: bool
    tally: NamesTally = field(default_factory=NamesTally)
    problems: dict[str, Problem] = field(default_factory=dict)
    lease: Lease | None = None
    _renewed_at: float = 0.0

    @contextmanager
    def source(self) -> Iterator[HubReader]:
        """A snapshot of the source."""
        self.run.cancellation.check()
        if self.lease is not None and time.monotonic() > self._renewed_at + RENEW_SECONDS:
            self.lease.renew()
            self._renewed_at = time.monotonic()
        with self.run.source.index.snapshot() as reader:
            yield HubReader(reader.connection)

    @contextmanager
    def target(self) -> Iterator[HubReader]:
        """A snapshot of the target."""
        with self.run.target.index.snapshot() as reader:
            yield HubReader(reader.connection)

    def change(self, work: Callable[[HubWriter], T]) -> T:
        """Write to the target."""
        self.run.cancellation.check()
        change = self.run.target.index.change if self.lease is None else self.lease.change
        return change(lambda writer: work(HubWriter(writer.connection)))

    def report(self, name: str, what: str) -> None:
        """Note something that cannot be copied, once for each name."""
        self.problems.setdefault(name, Problem(name, what))

    def is_in_source(self, repository_id: object, namespace: str | None = None) -> bool:
        """True if the source has a repository, of this namespace: then rows that were read are all that it had."""
        assert isinstance(repository_id, int)
        with self.source() as reader:
            row = reader.repository_by_id(repository_id)
        return row is not None and namespace in (None, row.namespace)

    def rows(self, table: Table, scope: Values) -> Iterator[Row]:
        """The rows of a table in the source, each page from a snapshot of its own."""
        behind: Row | None = None
        while True:
            with self.source() as reader:
                page = reader.page(table, scope, behind)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            behind = table.key_of(page[-1])

    def target_rows(self, table: Table, scope: Values) -> Iterator[Row]:
        """The rows of a table in the target."""
        behind: Row | None = None
        while self.has_target:
            with self.target() as reader:
                page = reader.page(table, scope, behind)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            behind = table.key_of(page[-1])

    def add(
        self, table: Table, scope: Values, to: Values, *, is_wanted: Callable[[Row], bool] = lambda _: True
    ) -> None:
        """Add rows that only grow, as far as the target lacks them."""
        for batch in batches(filter(is_wanted, self.rows(table, scope)), PAGE_ROWS):

            def write(writer: HubWriter, rows: Sequence[Row] = batch) -> None:
                if is_there(writer, table, to):
                    writer.put_rows(table, to, rows)

            self.change(write)

    def mirror(
        self,
        table: Table,
        scope: Values,
        to: Values,
        *,
        admit: Admit | None = None,
        may_go: Admit | None = None,
        prepare: Callable[[Sequence[Row]], None] | None = None,
    ) -> int:
        """Let the target have the rows of the source, and no others; how many were added or replaced.

        Rows that differ and are not admitted stay as they are. Of those that only the target has, those go that
        ``may_go`` gives, or all. ``prepare`` is called with rows before they are written, outside of a transaction.
        """
        written = 0
        pairs = merged(self.rows(table, scope), self.target_rows(table, to), table)
        for batch in batches(((one, other) for one, other in pairs if one != other), PAGE_ROWS):
            put = [one for one, _ in batch if one is not None]
            drop = [other for one, other in batch if one is None and other is not None]
            if self.run.is_dry:
                written += len(put)
                continue
            if drop and table.is_owned and not self.is_in_source(scope["repository_id"]):
                return written
            if prepare is not None and put:
                prepare(put)

            def write(writer: HubWriter, put: Sequence[Row] = put, drop: Sequence[Row] = drop) -> int:
                if not is_there(writer, table, to):
                    return 0
                admitted = put if admit is None or not put else admit(writer, put)
                gone = drop if may_go is None or not drop else may_go(writer, drop)
                writer.drop_rows(table, to, [table.key_of(row) for row in gone])
                writer.put_rows(table, to, admitted)
                return len(admitted)

            written += self.change(write)
        return written


def is_there(writer: HubWriter, table: Table, to: Values) -> bool:
    """True if the target has the repository whose rows these are, which stays until the transaction ends."""
    number = to.get("repository_id")
    return not table.is_owned or (isinstance(number, int) and writer.keep_repository(number) is not None)


def merged(source: Iterator[Row], target: Iterator[Row], table: Table) -> Iterator[tuple[Row | None, Row | None]]:
    """Rows of both, those of one key together, in the order of keys, which is the same on every engine."""
    one, other = next(source, None), next(target, None)
    while one is not None or other is not None:
        if other is None or (one is not None and table.key_of(one) < table.key_of(other)):
            yield one, None
            one = next(source, None)
        elif one is None or table.key_of(other) < table.key_of(one):
            yield None, other
            other = next(target, None)
        else:
            yield one, other
            one, other = next(source, None), next(target, None)
