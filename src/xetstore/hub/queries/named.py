"""The question which Xet files something in a repository names: its pointers, paths of a bucket, uploads under way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.hub.names import Kind, RepositoryName
from xetstore.protocol.hashes import Hash

# Columns that the first release had: a bare CAS takes no step of these tables.
_OF_NAMESPACE: Final = "SELECT id, kind, owner, name FROM repository WHERE namespace = :namespace"
_KEPT_ALONE: Final = f"{_OF_NAMESPACE} FOR UPDATE"
_NAMED: Final = (
    "SELECT DISTINCT file FROM git_object WHERE repository_id = :repository_id AND file IN (:values)",
    "SELECT file FROM bucket_file WHERE repository_id = :repository_id AND file IN (:values)",
    "SELECT file FROM lfs_part WHERE repository_id = :repository_id AND file IN (:values)",
)
_IS_DELETED: Final = "SELECT 1 FROM repository WHERE namespace = :namespace AND deleted_at IS NOT NULL"
_KEPT: Final = "SELECT file FROM deleted_bucket_file WHERE repository_id = :repository_id AND file IN (:values)"


class NamedQueries(Questions):
    """Questions about what a repository names."""

    def repository_of_namespace(self, namespace: str, *, alone: bool = False) -> tuple[int, RepositoryName] | None:
        """The id and the name of the repository whose files are granted to a namespace, or None.

        ``alone``: what is being written to it has come to its end, and no other writer begins before this transaction
        has ended.
        """
        row = self.connection.row(_KEPT_ALONE if alone else _OF_NAMESPACE, {"namespace": namespace})
        return None if row is None else (row[0], RepositoryName(Kind(row[1]), row[2], row[3]))

    def is_deleted(self, namespace: str) -> bool:
        """True if a namespace is that of a repository which is deleted."""
        if not self.connection.has_table("deleted_ref"):  # of an older release
            return False
        return self.connection.row(_IS_DELETED, {"namespace": namespace}) is not None

    def named_files(self, repository_id: int, files: Collection[Hash]) -> set[Hash]:
        """Those of these Xet files that anything in the repository names, in its history too."""
        digests = [file.digest for file in files]
        values = {"repository_id": repository_id}
        kept = [_KEPT] if self.connection.has_table("deleted_bucket_file") else []
        rows = (row for statement in (*_NAMED, *kept) for row in self.connection.rows_in(statement, digests, values))
        return {name_of(digest) for (digest,) in rows}
