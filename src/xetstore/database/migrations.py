"""Migrations: the numbered steps from any released schema to the one of this code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xetstore.errors import AccessDeniedError, UsageError

if TYPE_CHECKING:
    from xetstore.database.connection import Connection
    from xetstore.database.database import Database


class Migrations:
    """The steps in a folder of SQL files: ``0003_generations.sql`` leads from version 2 to 3; 0 is an empty database.

    A step, once released, is never changed. Its statements end with a semicolon at the end of a line, and have the
    words of a :class:`~xetstore.database.connection.Dialect` as ``{row_id}``. ``table`` keeps the version; ``what`` is
    the name of the database in errors.

    Each step is a transaction, with the version to which it leads: where one is cut off, the next start goes on from
    there. One process runs a step, others wait for it. An empty database takes all steps in one transaction: to make it
    durable takes longer than the steps do.
    """

    def __init__(self, folder: Path, table: str, what: str) -> None:
        self._steps = sorted(folder.glob("[0-9]*.sql"))
        self._table, self._what = table, what

    @property
    def newest(self) -> int:
        """The version to which the steps lead."""
        return len(self._steps)

    def run(self, database: Database) -> None:
        """Bring a database to the newest version.

        Raises UsageError for a version that newer code has written, AccessDeniedError for an older one that cannot be
        written to.
        """
        with database.snapshot() as connection:
            version = self.version(connection)
        try:
            while version < self.newest:
                is_new = not version
                with database.transaction() as connection:
                    version = self._take_step(connection)
                    while is_new and version < self.newest:
                        version = self._take_step(connection)
        except AccessDeniedError as error:
            raise AccessDeniedError(
                f"{self._what} has schema version {version} and must first become version {self.newest}",
                hint="open the store once with permission to write to it",
            ) from error

    def version(self, connection: Connection) -> int:
        """The version of a database. Raises UsageError for one that newer code has written."""
        version: int = 0
        if connection.has_table(self._table):
            version = connection.value(f"SELECT version FROM {self._table}") or 0
        if version > self.newest:
            raise UsageError(
                f"{self._what} has schema version {version}; this xetstore knows up to {self.newest}",
                hint="open the store with the xetstore that wrote it, or a newer one",
            )
        return version

    def _take_step(self, connection: Connection) -> int:
        """Take the next step, if there is one; the version that it has led to."""
        connection.alone_with(self._table, for_long=True)
        version = self.version(connection)  # asked again: another process may have been first
        if version == self.newest:
            return version
        for statement in _statements(self._steps[version]):
            connection.change(statement.format_map(connection.dialect.types))
        note = "UPDATE {} SET version = :version" if version else "INSERT INTO {} (version) VALUES (:version)"
        connection.change(note.format(self._table), {"version": version + 1})
        return version + 1


def _statements(step: Path) -> list[str]:
    lines = (line for line in step.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    return [statement for part in "\n".join(lines).split(";\n") if (statement := part.strip().removesuffix(";"))]
