"""Questions about git objects of a repository, and additions of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.hub.objects import GitObject, ObjectKind, Pointer, inflated
from xetstore.protocol.hashes import Hash

_OBJECTS: Final = """
SELECT oid, kind, size, data FROM git_object WHERE repository_id = :repository_id AND oid IN (:values)
"""
_DESCRIBED: Final = """
SELECT oid, size, sha256, file_size, file FROM git_object WHERE repository_id = :repository_id AND oid IN (:values)
"""
_THERE: Final = "SELECT oid FROM git_object WHERE repository_id = :repository_id AND oid IN (:values)"
_ADD: Final = """
INSERT INTO git_object (repository_id, oid, kind, size, sha256, file_size, file, data)
VALUES (:repository_id, :oid, :kind, :size, :sha256, :file_size, :file, :data)
ON CONFLICT (repository_id, oid) DO UPDATE
SET sha256 = excluded.sha256, file_size = excluded.file_size, file = excluded.file
WHERE git_object.file IS NULL AND excluded.file IS NOT NULL
"""
_POINTED_AT: Final = "SELECT sum(size) FROM (SELECT DISTINCT file, file_size AS size FROM git_object" + (
    " WHERE repository_id = :repository_id AND file IS NOT NULL) AS files"
)
_GRANTED: Final = """
SELECT file.hash FROM file CROSS JOIN file_grant
WHERE file_grant.file_id = file.id AND file_grant.namespace = :namespace AND file.hash IN (:values)
"""
_KEEP_GRANTED: Final = f"{_GRANTED} FOR KEY SHARE"
_FILES_AMONG: Final = """
SELECT DISTINCT file FROM git_object
WHERE repository_id = :repository_id AND oid IN (:values) AND file IS NOT NULL
"""
_ADDED_AT_A_TIME: Final = 500


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob as far as a listing shows it; ``size`` is bytes of the blob. ``pointer`` is None for an ordinary one;
    ``file``, the Xet file that it points at, also where that was deleted.
    """

    size: int
    pointer: Pointer | None
    file: Hash | None


class ObjectQueries(Questions):
    """Questions about objects."""

    def objects(self, repository_id: int, oids: Iterable[bytes]) -> Iterator[tuple[bytes, ObjectKind, bytes]]:
        """Id, kind and data of those of these objects that are there; all data of a batch is in memory."""
        rows = self.connection.rows_in(_OBJECTS, oids, {"repository_id": repository_id})
        for oid, kind, size, data in rows:
            yield bytes(oid), ObjectKind(kind), inflated(bytes(data), size)

    def object(self, repository_id: int, oid: bytes) -> tuple[ObjectKind, bytes] | None:
        """Kind and data of an object; None if it is not there."""
        return next(((kind, data) for _, kind, data in self.objects(repository_id, [oid])), None)

    def blobs(self, repository_id: int, oids: Iterable[bytes]) -> dict[bytes, BlobRow]:
        """Those of these blobs that are there, by their ids; none of their data is read."""
        found = {}
        for oid, size, sha256, file_size, file in self.connection.rows_in(
            _DESCRIBED, oids, {"repository_id": repository_id}
        ):
            pointer = None if sha256 is None else Pointer(bytes(sha256), file_size)
            found[bytes(oid)] = BlobRow(size, pointer, None if file is None else Hash(bytes(file)))
        return found

    def known_objects(self, repository_id: int, oids: Iterable[bytes]) -> set[bytes]:
        """Those of these ids that the repository has."""
        return {bytes(oid) for (oid,) in self.connection.rows_in(_THERE, oids, {"repository_id": repository_id})}

    def granted(self, namespace: str, files: Collection[Hash]) -> set[Hash]:
        """Those of these Xet files that a namespace may read."""
        return self._granted(_GRANTED, namespace, files)

    def files_among(self, repository_id: int, oids: Collection[bytes]) -> set[Hash]:
        """The Xet files that those of these objects name that are pointers."""
        rows = self.connection.rows_in(_FILES_AMONG, oids, {"repository_id": repository_id})
        return {Hash(bytes(digest)) for (digest,) in rows}

    def used_bytes(self, repository_id: int) -> int:
        """Bytes of all files that pointers of the repository point at, each content once."""
        return int(self.connection.value(_POINTED_AT, {"repository_id": repository_id}) or 0)

    def _granted(self, statement: str, namespace: str, files: Collection[Hash]) -> set[Hash]:
        rows = self.connection.rows_in(statement, [file.digest for file in files], {"namespace": namespace})
        return {Hash(bytes(digest)) for (digest,) in rows}


class ObjectChanges(ObjectQueries):
    """Additions of objects."""

    def keep_granted(self, namespace: str, files: Collection[Hash]) -> set[Hash]:
        """Those of these Xet files that a namespace may read; they stay until the transaction ends."""
        return self._granted(_KEEP_GRANTED, namespace, files)

    def add_objects(
        self, repository_id: int, objects: Collection[GitObject], files: Mapping[bytes, Hash] | None = None
    ) -> None:
        """Add objects, those that are there already too. ``files`` are the Xet files by the SHA-256 of pointers."""
        files = files or {}
        known = self.known_objects(repository_id, [each.oid for each in objects if each.pointer is None])
        each = [
            {
                "repository_id": repository_id,
                "oid": item.oid,
                "kind": int(item.kind),
                "size": len(item.data),
                "data": item.deflated(),
                **_pointed_at(item, files),
            }
            for item in objects
            if item.oid not in known
        ]
        for start in range(0, len(each), _ADDED_AT_A_TIME):
            self.connection.change_many(_ADD, each[start : start + _ADDED_AT_A_TIME])


def _pointed_at(item: GitObject, files: Mapping[bytes, Hash]) -> dict[str, object]:
    file = None if item.pointer is None else files.get(item.pointer.sha256)
    if item.pointer is None or file is None:
        return {"sha256": None, "file_size": None, "file": None}
    return {"sha256": item.pointer.sha256, "file_size": item.pointer.size, "file": file.digest}
