"""Changes that copy the rows of a repository to a new one: its objects, its history, its branches and tags."""

from __future__ import annotations

from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.protocol.hashes import Hash

_COPIED: Final = {
    "git_object": "oid, kind, size, sha256, file_size, file, data",
    "line": "line, base, fork",
    "revision": "line, number, oid, tree, title, message, author, created_at",
    "changed_path": "path, line, number",
}
_COPIES: Final = tuple(
    f"INSERT INTO {table} (repository_id, {columns}) SELECT CAST(:target AS BIGINT), {columns} FROM {table}"
    " WHERE repository_id = :source"
    for table, columns in _COPIED.items()
)
_COPY_REFS: Final = """
INSERT INTO ref (repository_id, name, oid) SELECT CAST(:target AS BIGINT), name, oid FROM ref
WHERE repository_id = :source AND (name LIKE 'refs/heads/%' OR name LIKE 'refs/tags/%')
"""
_COPY_COUNT: Final = """
UPDATE repository SET next_line = (SELECT next_line FROM repository WHERE id = :source) WHERE id = :target
"""
_FILES: Final = "SELECT DISTINCT file FROM git_object WHERE repository_id = :source AND file IS NOT NULL"


class DuplicateChanges(Questions):
    """Copies of rows."""

    def copy_rows(self, source: int, target: int) -> list[Hash]:
        """Copy all that git knows of a repository to another one that has nothing; the Xet files that it names.

        Pull requests stay where they are.
        """
        values = {"source": source, "target": target}
        for statement in (*_COPIES, _COPY_REFS, _COPY_COUNT):
            self.connection.change(statement, values)
        return [Hash(bytes(file)) for (file,) in self.connection.rows(_FILES, {"source": source})]
