"""Rows of one repository that are written once more for another: its objects, and its history."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.protocol.hashes import Hash

_OBJECTS: Final = """
INSERT INTO git_object (repository_id, oid, kind, size, sha256, file_size, file, data)
SELECT CAST(:target AS BIGINT), oid, kind, size, sha256, file_size, file, data
FROM git_object WHERE repository_id = :source AND oid IN (:values)
"""
_REVISIONS: Final = """
INSERT INTO revision (repository_id, line, number, oid, tree, title, message, author, created_at)
SELECT CAST(:target AS BIGINT), line, number, oid, tree, title, message, author, created_at
FROM revision WHERE repository_id = :source AND oid IN (:values)
"""
_LINES: Final = """
INSERT INTO line (repository_id, line, base, fork)
SELECT CAST(:target AS BIGINT), line, base, fork FROM line
WHERE repository_id = :source AND line IN (SELECT revision.line FROM revision WHERE revision.repository_id = :target)
"""
_CHANGED_PATHS: Final = """
INSERT INTO changed_path (repository_id, path, line, number)
SELECT CAST(:target AS BIGINT), changed_path.path, changed_path.line, changed_path.number
FROM revision JOIN changed_path ON changed_path.repository_id = :source
    AND changed_path.line = revision.line AND changed_path.number = revision.number
WHERE revision.repository_id = :target
"""
_NEXT_LINE: Final = """
UPDATE repository SET next_line = (SELECT source.next_line FROM repository AS source WHERE source.id = :source)
WHERE id = :target
"""
_FILES: Final = "SELECT DISTINCT file FROM git_object WHERE repository_id = :repository_id AND file IS NOT NULL"


class DuplicateChanges(Questions):
    """Copies of rows."""

    def copy_objects(self, source: int, target: int, oids: Collection[bytes]) -> int:
        """Give a new repository these objects of another one; how many of them that has."""
        return self.connection.change_in(_OBJECTS, sorted(oids), {"source": source, "target": target})

    def copy_history(self, source: int, target: int, commits: Collection[bytes]) -> None:
        """Give a new repository these revisions of another one, which are all that their histories have."""
        values = {"source": source, "target": target}
        self.connection.change_in(_REVISIONS, sorted(commits), values)
        for statement in (_LINES, _CHANGED_PATHS, _NEXT_LINE):
            self.connection.change(statement, values)

    def pointed_at(self, repository_id: int) -> list[Hash]:
        """The Xet files that pointers of a repository point at."""
        rows = self.connection.rows(_FILES, {"repository_id": repository_id})
        return [name_of(bytes(digest)) for (digest,) in rows]
