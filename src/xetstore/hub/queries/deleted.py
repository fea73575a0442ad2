"""Questions about names that were deleted and can be given back, and changes that delete and give back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.hub.names import RepositoryName
from xetstore.hub.queries.buckets import BucketFile, behind_prefix
from xetstore.hub.queries.repositories import REPOSITORY, RepositoryRow, name_values, repository_row
from xetstore.protocol.hashes import Hash

MOST: Final = 1000
"""The most that one question finds."""

# A time that is not above 0 is that of something which is collected, and cannot be given back.
_REPOSITORIES: Final = f"""
SELECT {REPOSITORY}, deleted_at FROM repository
WHERE owner_key = :owner AND kind = :kind AND deleted_at > 0 ORDER BY deleted_at DESC, id DESC
"""
_DELETED: Final = f"SELECT {REPOSITORY} FROM repository WHERE id = :id AND deleted_at IS NOT NULL"
_UNDELETE: Final = """
UPDATE repository SET deleted_at = NULL, owner = :owner, owner_key = :owner_key, name = :name, name_key = :name_key
WHERE id = :id AND deleted_at = :deleted_at
"""
_DROP_FORMER: Final = "DELETE FROM former_name WHERE name_key = :name_key"
_REFS: Final = """
SELECT id, name, oid, deleted_at FROM deleted_ref
WHERE repository_id = :repository_id AND deleted_at > 0 ORDER BY deleted_at DESC, id DESC LIMIT :most
"""
_REFS_NAMED: Final = """
SELECT id, name, oid, deleted_at FROM deleted_ref
WHERE repository_id = :repository_id AND deleted_at > 0 AND name IN (:values) ORDER BY deleted_at DESC, id DESC
"""
_KEEP_REF: Final = """
INSERT INTO deleted_ref (repository_id, name, oid, deleted_at) VALUES (:repository_id, :name, :oid, :deleted_at)
"""
_FORGET_REF: Final = "DELETE FROM deleted_ref WHERE repository_id = :repository_id AND id = :id"
_FILE: Final = "id, deleted_at, path, file, size, modified_ms, uploaded_at, content_type"
_FILES: Final = f"""
SELECT {_FILE} FROM deleted_bucket_file
WHERE repository_id = :repository_id AND (path = :path OR (path >= :start AND path < :end)) {{}}
ORDER BY path, deleted_at DESC, id DESC LIMIT :most
"""
_FREE: Final = """
AND NOT EXISTS (
    SELECT 1 FROM bucket_file
    WHERE bucket_file.repository_id = :repository_id AND bucket_file.path = deleted_bucket_file.path
)
"""
_KEEP_FILE: Final = """
INSERT INTO deleted_bucket_file
    (repository_id, path, file, size, modified_ms, uploaded_at, content_type, deleted_at)
VALUES (:repository_id, :path, :file, :size, :modified_ms, :uploaded_at, :content_type, :deleted_at)
"""
_FORGET_FILES: Final = "DELETE FROM deleted_bucket_file WHERE repository_id = :repository_id AND id IN (:values)"
_LACKS_GRANT: Final = tuple(
    f"""
SELECT 1 FROM {table} WHERE {table}.repository_id = :repository_id AND {table}.file IS NOT NULL {but} AND NOT EXISTS (
    SELECT 1 FROM file JOIN file_grant ON file_grant.file_id = file.id
    WHERE file.hash = {table}.file AND file_grant.namespace = :namespace
) LIMIT 1
"""
    for table, but in (("git_object", ""), ("bucket_file", "AND bucket_file.size > 0"))
)


@dataclass(frozen=True, slots=True)
class DeletedRef:
    """A ref that was deleted, or moved away from ``oid``, at a time in unix seconds. ``id`` is that of its row."""

    id: int
    name: str
    oid: bytes
    deleted_at: float


@dataclass(frozen=True, slots=True)
class DeletedBucketFile:
    """A file of a bucket that was deleted, or replaced, at a time in unix seconds. ``id`` is that of its row."""

    id: int
    deleted_at: float
    file: BucketFile


class DeletedQueries(Questions):
    """Questions about deleted names."""

    def deleted_repositories(self, name: RepositoryName) -> list[tuple[RepositoryRow, float]]:
        """The repositories that had this name when they were deleted, with the time of that; the last one first."""
        values = {"owner": name.owner.lower(), "kind": name.kind.value}
        found = ((repository_row(row[:-1]), row[-1]) for row in self.connection.rows(_REPOSITORIES, values))
        return [(row, at) for row, at in found if row.name.key == name.key]

    def deleted_repository(self, number: int) -> RepositoryRow | None:
        """A deleted repository, by its id."""
        row = self.connection.row(_DELETED, {"id": number})
        return None if row is None else repository_row(row)

    def deleted_refs(self, repository_id: int, names: Collection[str] | None = None) -> list[DeletedRef]:
        """Places of deleted refs, the last deleted one first; those of these names, or of all at most :data:`MOST`."""
        scope = {"repository_id": repository_id}
        if names is None:
            rows = self.connection.rows(_REFS, {**scope, "most": MOST})
        else:
            rows = self.connection.rows(_REFS_NAMED, {**scope, "values": [*names]})
        return [DeletedRef(number, name, bytes(oid), at) for number, name, oid, at in rows]

    def deleted_bucket_files(
        self, repository_id: int, path: str = "", *, most: int = MOST, where_free: bool = False
    ) -> list[DeletedBucketFile]:
        """Files that were deleted at a path or in the folder of that name, by path, of one path the last one first.

        At most ``most``; with ``where_free`` those alone in whose place nothing is now.
        """
        folder = f"{path}/" if path else ""
        values = {"path": path, "start": folder, "end": behind_prefix(folder), "most": most}
        statement = _FILES.format(_FREE if where_free else "")
        rows = self.connection.rows(statement, {**values, "repository_id": repository_id})
        return [
            DeletedBucketFile(number, at, BucketFile(place, name_of(digest), *rest))
            for number, at, place, digest, *rest in rows
        ]

    def lacks_grant(self, repository_id: int, namespace: str) -> bool:
        """True if something in a repository names a file that its namespace may not read."""
        values = {"repository_id": repository_id, "namespace": namespace}
        return any(self.connection.row(statement, values) is not None for statement in _LACKS_GRANT)


class DeletedChanges(DeletedQueries):
    """Changes that delete, or give back."""

    def undelete_repository(self, before: RepositoryRow, name: RepositoryName, *, deleted_at: float) -> bool:
        """Give a repository that was deleted then back, by a name that no other one has; False if it is not there."""
        self.connection.change(_DROP_FORMER, {"name_key": name.key})
        values = {"id": before.id, "deleted_at": deleted_at, **name_values(name)}
        if not self.connection.change(_UNDELETE, values):
            return False
        QuotaChanges(self.connection).place_namespace(before.namespace, name.owner.lower())
        return True

    def keep_refs(self, repository_id: int, refs: Iterable[tuple[str, bytes]], *, deleted_at: float) -> None:
        """Note where refs were that are deleted or moved: their histories are kept for a while.

        With a minus before the time it is not kept, and the next collection looks for what nothing leads to.
        """
        scope = {"repository_id": repository_id, "deleted_at": deleted_at}
        self.connection.change_many(_KEEP_REF, [{**scope, "name": name, "oid": oid} for name, oid in refs])

    def forget_deleted_ref(self, repository_id: int, number: int) -> None:
        """Forget where a ref was."""
        self.connection.change(_FORGET_REF, {"repository_id": repository_id, "id": number})

    def keep_bucket_files(self, repository_id: int, files: Iterable[BucketFile], *, now: float) -> None:
        """Note files that are taken away or replaced."""
        scope = {"repository_id": repository_id, "deleted_at": now}
        self.connection.change_many(_KEEP_FILE, [{**scope, **_columns(file)} for file in files])

    def forget_deleted_files(self, repository_id: int, numbers: Sequence[int]) -> None:
        """Forget files that were deleted, by the ids of their rows."""
        self.connection.change_in(_FORGET_FILES, numbers, {"repository_id": repository_id})


def replaced(before: Mapping[str, BucketFile], after: Mapping[str, Hash | None]) -> list[BucketFile]:
    """The files that are to be kept when at these paths come others, or none.

    >>> replaced({}, {"a": None})
    []
    """
    return [file for path, file in sorted(before.items()) if after[path] != file.file]


def _columns(file: BucketFile) -> dict[str, object]:
    return {name: getattr(file, name) for name in file.__slots__} | {"file": file.file.digest}
