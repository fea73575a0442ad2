"""Migrations: the numbered steps from any released schema to the one of this code."""

from __future__ import annotations

from pathlib import Path

from xetstore.database.connection import Connection
from xetstore.database.database import Database
from xetstore.errors import AccessDeniedError, UsageError


class Migrations:
    """The steps in a folder of SQL files: ``0003_generations.sql`` leads from version 2 to 3; 0 is an empty database.

    A step, once released, is never changed. Its statements end with a semicolon at the end of a line, and have the
    words of a :class:`~xetstore.database.connection.Dialect` as ``{row_id}``. ``table`` keeps the version; ``what`` is
    the name of the database in errors.
    """

    def __init__(self, folder: Path, table: str, what: str) -> None:
        self._steps = sorted(folder.glob("[0-9]*.sql"))
        self._table, self._what = table, what

    @property
    def newest(self) -> int:
        """The version to which the steps lead."""
        return len(self._steps)

    def run(self, database: Database) -> None:
        """Bring a database to the newest version: all steps or, after an error, none.

        Raises UsageError for a version that newer code has written, AccessDeniedError for an older one that cannot be
        written to.
        """
        with database.snapshot() as connection:
            version = self.version(connection)
        if version == self.newest:
            return
        try:
            with database.transaction() as connection:
                self._run(connection)
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

    def _run(self, connection: Connection) -> None:
        version = self.version(connection)  # asked again: another process may have been first
        if version == self.newest:
            return
        for step in self._steps[version:]:
            for statement in _statements(step):
                connection.change(statement.format_map(connection.dialect.types))
        note = "UPDATE {} SET version = :version" if version else "INSERT INTO {} (version) VALUES (:version)"
        connection.change(note.format(self._table), {"version": self.newest})


def _statements(step: Path) -> list[str]:
    lines = (line for line in step.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    return [statement for part in "\n".join(lines).split(";\n") if (statement := part.strip().removesuffix(";"))]
