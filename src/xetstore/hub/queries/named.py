"""The question which Xet files something in a repository names: its pointers, paths of a bucket, uploads under way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.hub.queries.repositories import REPOSITORY, RepositoryRow, repository_row
from xetstore.protocol.hashes import Hash

_OF_NAMESPACE: Final = f"SELECT {REPOSITORY} FROM repository WHERE namespace = :namespace"
# A pointer is found by its SHA-256, which was computed before it was committed.
_NAMED: Final = (
    """
SELECT file.hash FROM file
JOIN git_object ON git_object.repository_id = :repository_id AND git_object.sha256 = file.checked_sha256
WHERE file.hash IN (:values) AND git_object.file = file.hash
""",
    "SELECT file FROM bucket_file WHERE repository_id = :repository_id AND file IN (:values)",
    "SELECT file FROM lfs_part WHERE repository_id = :repository_id AND file IN (:values)",
)
_KEPT: Final = "SELECT file FROM deleted_bucket_file WHERE repository_id = :repository_id AND file IN (:values)"


class NamedQueries(Questions):
    """Questions about what a repository names."""

    def repository_of_namespace(self, namespace: str) -> RepositoryRow | None:
        """The repository whose files are granted to a namespace, or None."""
        row = self.connection.row(_OF_NAMESPACE, {"namespace": namespace})
        return None if row is None else repository_row(row)

    def named_files(self, repository_id: int, files: Collection[Hash]) -> set[Hash]:
        """Those of these Xet files that anything in the repository names, in its history too."""
        digests = [file.digest for file in files]
        values = {"repository_id": repository_id}
        # A bare CAS takes no step of these tables: they may be those of an older release.
        kept = [_KEPT] if self.connection.has_table("deleted_bucket_file") else []
        rows = (row for statement in (*_NAMED, *kept) for row in self.connection.rows_in(statement, digests, values))
        return {name_of(digest) for (digest,) in rows}
