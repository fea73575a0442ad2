"""Questions about revisions and the paths that they changed, and additions of both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.database.connection import Row

REVISION: Final = ", ".join(
    f"revision.{name}" for name in ("oid", "line", "number", "tree", "title", "message", "author", "created_at")
)
_BY_OID: Final = f"SELECT {REVISION} FROM revision WHERE repository_id = :repository_id AND oid = :oid"
_BY_OIDS: Final = f"SELECT {REVISION} FROM revision WHERE repository_id = :repository_id AND oid IN (:values)"
_BY_PREFIX: Final = f"""
SELECT {REVISION} FROM revision WHERE repository_id = :repository_id AND oid >= :low AND oid <= :high LIMIT 2
"""
_LINES: Final = """
WITH RECURSIVE lines (line, base, fork, last) AS (
    SELECT line, base, fork, CAST(:number AS INTEGER) FROM line
    WHERE repository_id = :repository_id AND line = :line
    UNION ALL
    SELECT line.line, line.base, line.fork, lines.fork
    FROM lines JOIN line ON line.repository_id = :repository_id AND line.line = lines.base
)
SELECT line, last FROM lines
"""
_PAGE: Final = f"""
SELECT {REVISION} FROM revision
WHERE repository_id = :repository_id AND line = :line AND number <= :last AND number > :first ORDER BY number DESC
"""
_CHILD: Final = """
SELECT 1 FROM revision WHERE repository_id = :repository_id AND line = :line AND number = :number
"""
_NEXT_LINE: Final = "UPDATE repository SET next_line = next_line + 1 WHERE id = :repository_id"
_LINE: Final = "SELECT next_line - 1 FROM repository WHERE id = :repository_id"
_ADD_LINE: Final = """
INSERT INTO line (repository_id, line, base, fork) VALUES (:repository_id, :line, :base, :fork)
"""
_ADD: Final = """
INSERT INTO revision (repository_id, line, number, oid, tree, title, message, author, created_at, digest)
VALUES (:repository_id, :line, :number, :oid, :tree, :title, :message, :author, :created_at, :digest)
"""
_ADD_CHANGE: Final = """
INSERT INTO changed_path (repository_id, path, line, number) VALUES (:repository_id, :path, :line, :number)
"""
_LAST_CHANGES: Final = """
SELECT path, max(number) FROM changed_path
WHERE repository_id = :repository_id AND path IN (:values) AND line = :line AND number <= :last GROUP BY path
"""
_AT: Final = f"""
SELECT {REVISION} FROM revision WHERE repository_id = :repository_id AND line = :line AND number IN (:values)
"""
_BY_DIGEST: Final = f"""
SELECT {REVISION} FROM revision
WHERE repository_id = :repository_id AND digest = :digest AND created_at >= :since ORDER BY created_at DESC LIMIT 1
"""
_FORKS: Final = "SELECT line, base, fork FROM line WHERE repository_id = :repository_id AND line IN (:values)"
TITLE_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit of a repository. ``oid`` and ``tree`` are 20 bytes, ``created_at`` unix seconds.

    ``number`` is how many commits its first parents are, with itself; ``line`` the run of commits that it is part of.
    ``title`` is the first line of ``message``; ``author`` the name of the account.
    """

    oid: bytes
    line: int
    number: int
    tree: bytes
    title: str
    message: str
    author: str
    created_at: float

    @property
    def id(self) -> str:
        """The id in 40 hexadecimal digits."""
        return self.oid.hex()


class HistoryQueries(Questions):
    """Questions about revisions."""

    def revision(self, repository_id: int, oid: bytes) -> Revision | None:
        """The revision with this id."""
        row = self.connection.row(_BY_OID, {"repository_id": repository_id, "oid": oid})
        return None if row is None else revision_row(row)

    def revision_at(self, repository_id: int, line: int, number: int) -> Revision | None:
        """The revision at a place of a line."""
        values = {"repository_id": repository_id, "line": line, "values": [number]}
        row = self.connection.row(_AT, values)
        return None if row is None else revision_row(row)

    def forks_of(self, repository_id: int, lines: Iterable[int]) -> dict[int, tuple[int | None, int | None]]:
        """The line, and the number of the commit on it, from which each of these lines goes on."""
        rows = self.connection.rows_in(_FORKS, lines, {"repository_id": repository_id})
        return {line: (base, fork) for line, base, fork in rows}

    def revisions(self, repository_id: int, oids: Iterable[bytes]) -> dict[bytes, Revision]:
        """Those of these revisions that are there."""
        rows = map(revision_row, self.connection.rows_in(_BY_OIDS, oids, {"repository_id": repository_id}))
        return {row.oid: row for row in rows}

    def revisions_from(self, repository_id: int, prefix: str) -> list[Revision]:
        """Revisions whose id begins with these hexadecimal digits, at most two."""
        low, high = (bytes.fromhex(prefix.ljust(40, digit)) for digit in "0f")
        rows = self.connection.rows(_BY_PREFIX, {"repository_id": repository_id, "low": low, "high": high})
        return [revision_row(row) for row in rows]

    def made_by(self, repository_id: int, digest: bytes, *, since: float) -> Revision | None:
        """The last revision that a call with this digest made."""
        values = {"repository_id": repository_id, "digest": digest, "since": since}
        row = self.connection.row(_BY_DIGEST, values)
        return None if row is None else revision_row(row)

    def lines(self, repository_id: int, revision: Revision) -> list[tuple[int, int]]:
        """The lines that the first parents of a revision lie on, and the last number on each, the newest first."""
        values = {"repository_id": repository_id, "line": revision.line, "number": revision.number}
        return [(line, last) for line, last in self.connection.rows(_LINES, values)]

    def log(self, repository_id: int, revision: Revision, *, limit: int, offset: int = 0) -> list[Revision]:
        """A revision and its first parents, the newest first: ``limit`` of them behind ``offset``."""
        newest = revision.number - offset
        first = max(0, newest - limit)
        found: list[Revision] = []
        for line, last in self.lines(repository_id, revision):
            if len(found) == newest - first or newest <= 0:
                break
            values = {"repository_id": repository_id, "line": line, "last": min(last, newest), "first": first}
            found += map(revision_row, self.connection.rows(_PAGE, values))
        return found

    def last_changes(self, repository_id: int, revision: Revision, paths: Collection[str]) -> dict[str, Revision]:
        """The last of a revision and its first parents that changed each of these paths; of a folder: all below it."""
        left = set(paths)
        found: dict[str, Revision] = {}
        for line, last in self.lines(repository_id, revision):
            if not left:
                break
            values = {"repository_id": repository_id, "line": line, "last": last}
            numbers: dict[str, int] = dict(self.connection.rows_in(_LAST_CHANGES, sorted(left), values))
            changed = map(revision_row, self.connection.rows_in(_AT, {*numbers.values()}, values))
            by_number = {each.number: each for each in changed}
            found |= {path: by_number[number] for path, number in numbers.items()}
            left -= numbers.keys()
        return found


class HistoryChanges(HistoryQueries):
    """Additions of revisions."""

    def place_after(self, repository_id: int, parent: Revision | None) -> tuple[int, int]:
        """The line and the number of a revision whose first parent this is. A line is begun where one is needed."""
        if parent is not None:
            child = {"repository_id": repository_id, "line": parent.line, "number": parent.number + 1}
            if self.connection.row(_CHILD, child) is None:
                return parent.line, parent.number + 1
        self.connection.change(_NEXT_LINE, {"repository_id": repository_id})
        line: int = self.connection.value(_LINE, {"repository_id": repository_id})
        base, fork = (None, None) if parent is None else (parent.line, parent.number)
        self.connection.change(_ADD_LINE, {"repository_id": repository_id, "line": line, "base": base, "fork": fork})
        return line, 1 if parent is None else parent.number + 1

    def add_revision(
        self, repository_id: int, revision: Revision, changed: Collection[str], digest: bytes | None
    ) -> None:
        """Add a revision and the paths that it changed, with the folders above. ``digest`` is that of its call."""
        values: dict[str, object] = {name: getattr(revision, name) for name in revision.__slots__} | {"digest": digest}
        self.connection.change(_ADD, {"repository_id": repository_id, **values})
        place = {"repository_id": repository_id, "line": revision.line, "number": revision.number}
        self.connection.change_many(_ADD_CHANGE, [{**place, "path": path} for path in sorted(changed)])


def title_of(message: str) -> str:
    """The first line of a message."""
    return message.strip().partition("\n")[0].strip()[:TITLE_CHARS]


def revision_row(row: Row | Sequence[object]) -> Revision:
    """The row as a value."""
    oid, line, number, tree, *rest = row
    return Revision(bytes(oid), line, number, bytes(tree), *rest)  # type: ignore[arg-type]
