"""Questions of a collection of names, and its changes: all in parts that are short transactions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.queries.copying import Table
from xetstore.protocol.hashes import Hash

PAGE_ROWS: Final = 500

# Longer than an id is, and behind all of them: such a revision is none that any question finds, and keeps its place.
_LAST_OID: Final = b"\xff" * 20
_EXPIRE_REPOSITORIES: Final = """
UPDATE repository SET deleted_at = 0 WHERE deleted_at > 0 AND deleted_at < :before AND id IN (:values)
"""
_EXPIRED: Final = """
SELECT id, kind, owner, name, namespace FROM repository
WHERE deleted_at < :before AND id > :behind ORDER BY id LIMIT :limit
"""
_IS_ENDED: Final = "SELECT 1 FROM repository WHERE id = :id AND deleted_at = 0"
_DROP_REPOSITORY: Final = "DELETE FROM repository WHERE id = :id AND deleted_at = 0"
_END_NAMESPACE: Final = "UPDATE used_namespace SET ended_at = :now WHERE namespace = :namespace"
_FORGET_NAMESPACE: Final = "UPDATE used_namespace SET ended_at = NULL WHERE namespace = :namespace"
_ENDED: Final = """
SELECT namespace, ended_at FROM used_namespace
WHERE ended_at IS NOT NULL AND namespace > :behind ORDER BY namespace LIMIT :limit
"""
_DUE: Final = """
SELECT id, kind, owner, name, namespace FROM repository
WHERE deleted_at IS NULL AND (collected_at < :before OR id IN (
    SELECT repository_id FROM deleted_ref WHERE deleted_at < :kept
)) AND id > :behind ORDER BY id LIMIT :limit
"""
_COLLECTED: Final = "UPDATE repository SET collected_at = :at WHERE id = :id"
_EXPIRE_REFS: Final = """
UPDATE deleted_ref SET deleted_at = -deleted_at
WHERE repository_id = :id AND deleted_at > 0 AND deleted_at < :before
"""
_HAS_EXPIRED_REF: Final = """
SELECT 1 FROM deleted_ref WHERE repository_id = :id AND deleted_at < :before LIMIT 1
"""
_FORGET_REFS: Final = """
DELETE FROM deleted_ref WHERE repository_id = :id AND deleted_at <= 0 AND deleted_at >= :since
"""
_ROOTS: Final = (
    "SELECT oid FROM ref WHERE repository_id = :id",
    "SELECT oid FROM deleted_ref WHERE repository_id = :id AND deleted_at > 0 AND deleted_at >= :before",
    "SELECT fork FROM discussion WHERE repository_id = :id AND fork IS NOT NULL",
    "SELECT merge_oid FROM discussion WHERE repository_id = :id AND merge_oid IS NOT NULL",
)
_OIDS: Final = """
SELECT oid FROM git_object WHERE repository_id = :id AND oid > :behind ORDER BY oid LIMIT :limit
"""
_KINDS: Final = "SELECT oid, kind FROM git_object WHERE repository_id = :id AND oid IN (:values)"
_PLACES: Final = "SELECT oid, line, number FROM revision WHERE repository_id = :id AND oid IN (:values)"
_END_REVISION: Final = """
UPDATE revision SET oid = :ended, digest = NULL, title = '', message = '', author = ''
WHERE repository_id = :id AND oid = :oid
"""
_DROP_OBJECTS: Final = "DELETE FROM git_object WHERE repository_id = :id AND oid IN (:values)"
_ENDED_PLACES: Final = """
SELECT line, number, oid FROM revision WHERE repository_id = :id AND oid > :behind ORDER BY oid LIMIT :limit
"""
_LIVING_BEFORE: Final = """
SELECT 1 FROM revision WHERE repository_id = :id AND line = :line AND number = :number AND oid <= :last
"""
_DROP_PLACE: Final = "DELETE FROM revision WHERE repository_id = :id AND line = :line AND number = :number"
_EMPTY_LINES: Final = """
SELECT line FROM line WHERE repository_id = :id AND line > :behind AND NOT EXISTS (
    SELECT 1 FROM revision WHERE revision.repository_id = line.repository_id AND revision.line = line.line
) ORDER BY line LIMIT :limit
"""
_DROP_LINES: Final = "DELETE FROM line WHERE repository_id = :id AND line IN (:values)"
_GRANTS: Final = """
SELECT file_grant.file_id, file.hash, file_grant.created_at
FROM file_grant JOIN file ON file.id = file_grant.file_id
WHERE file_grant.namespace = :namespace AND file_grant.file_id > :behind ORDER BY file_grant.file_id LIMIT :limit
"""
_YOUNG: Final = """
SELECT file.hash FROM file CROSS JOIN file_grant
WHERE file_grant.file_id = file.id AND file_grant.namespace = :namespace AND file.hash IN (:values)
AND file_grant.created_at >= :before
"""
_EXPIRED_FILES: Final = """
SELECT id, repository_id FROM deleted_bucket_file WHERE deleted_at < :before ORDER BY deleted_at, id LIMIT :limit
"""
_DROP_FILES: Final = "DELETE FROM deleted_bucket_file WHERE id IN (:values) AND deleted_at < :before"
_DUE_AT_ONCE: Final = "UPDATE repository SET collected_at = 0 WHERE id IN (:values)"
_OLD_PARTS: Final = """
SELECT repository_id, sha256, number FROM lfs_part WHERE created_at < :before LIMIT :limit
"""
_DROP_PART: Final = """
DELETE FROM lfs_part
WHERE repository_id = :repository_id AND sha256 = :sha256 AND number = :number AND created_at < :before
"""
_POINTERS_OF: Final = """
SELECT oid, file FROM git_object WHERE repository_id = :id AND file IN (:values)
"""
_CONTENTS: Final = tuple(
    Table(name, key)
    for name, key in (
        ("changed_path", ("path", "line", "number")),
        ("revision", ("line", "number")),
        ("git_object", ("id",)),
        ("line", ("line",)),
        ("ref", ("name",)),
        ("deleted_ref", ("id",)),
        ("bucket_file", ("path",)),
        ("deleted_bucket_file", ("id",)),
        ("lfs_part", ("sha256", "number")),
        ("discussion_event", ("number", "position")),
        ("discussion", ("number",)),
        ("access_request", ("user_id",)),
    )
)


@dataclass(frozen=True, slots=True)
class CollectedRow:
    """A repository that is looked through, or whose end has come."""

    id: int
    name: RepositoryName
    namespace: str


class CollectingQueries(Questions):
    """Questions of a collection. Pages have at most :data:`PAGE_ROWS` rows; a shorter one is the last."""

    def expired_repositories(self, before: float, behind: int) -> list[CollectedRow]:
        """Repositories that were deleted before a time, by id."""
        return self._repositories(_EXPIRED, {"before": before, "behind": behind})

    def due_repositories(self, before: float, kept: float, behind: int) -> list[CollectedRow]:
        """Repositories that were last looked through before a time, or have refs that were deleted before ``kept``."""
        return self._repositories(_DUE, {"before": before, "kept": kept, "behind": behind})

    def ended_namespaces(self, behind: str) -> list[tuple[str, float]]:
        """Namespaces whose repositories are no more, by name, and since when."""
        return [*self.connection.rows(_ENDED, {"behind": behind, "limit": PAGE_ROWS})]

    def has_expired_refs(self, number: int, before: float) -> bool:
        """True if refs of a repository were deleted before a time."""
        return self.connection.row(_HAS_EXPIRED_REF, {"id": number, "before": before}) is not None

    def roots(self, number: int, before: float) -> set[bytes]:
        """All ids from which a history is kept: of refs, of those that were deleted since a time, of discussions."""
        values = {"id": number, "before": before}
        return {bytes(oid) for statement in _ROOTS for (oid,) in self.connection.rows(statement, values)}

    def oids(self, number: int, behind: bytes) -> list[bytes]:
        """A page of the ids of all objects of a repository, in their order."""
        values = {"id": number, "behind": behind, "limit": 10 * PAGE_ROWS}
        return [bytes(oid) for (oid,) in self.connection.rows(_OIDS, values)]

    def kinds(self, number: int, oids: Collection[bytes]) -> dict[bytes, int]:
        """The kinds of those of these objects that are there."""
        return {bytes(oid): kind for oid, kind in self.connection.rows_in(_KINDS, oids, {"id": number})}

    def pointers_at(self, number: int, files: Collection[Hash]) -> dict[bytes, Hash]:
        """All pointers at these Xet files, by their ids."""
        digests = [file.digest for file in files]
        return {
            bytes(oid): name_of(file) for oid, file in self.connection.rows_in(_POINTERS_OF, digests, {"id": number})
        }

    def ended_places(self, number: int, behind: bytes = _LAST_OID) -> list[tuple[int, int, bytes]]:
        """Places of revisions that were ended: line, number, and a value behind which the next page is."""
        values = {"id": number, "behind": behind, "limit": PAGE_ROWS}
        return [(line, place, bytes(oid)) for line, place, oid in self.connection.rows(_ENDED_PLACES, values)]

    def grants(self, namespace: str, behind: int) -> list[tuple[int, Hash, float]]:
        """A page of the grants of a namespace: the id of the file, its hash, and since when."""
        values = {"namespace": namespace, "behind": behind, "limit": PAGE_ROWS}
        return [(number, name_of(digest), at) for number, digest, at in self.connection.rows(_GRANTS, values)]

    def young_grants(self, namespace: str, files: Collection[Hash], *, since: float) -> set[Hash]:
        """Those of these files that were granted since a time."""
        values = {"namespace": namespace, "before": since}
        return {name_of(digest) for (digest,) in self.connection.rows_in(_YOUNG, [f.digest for f in files], values)}

    def expired_bucket_files(self, before: float) -> list[tuple[int, int]]:
        """Files of buckets that were deleted before a time: the ids of the rows and of the buckets."""
        return [*self.connection.rows(_EXPIRED_FILES, {"before": before, "limit": PAGE_ROWS})]

    def old_parts(self, before: float) -> list[tuple[int, bytes, int]]:
        """Parts of large files that came before a time."""
        rows = self.connection.rows(_OLD_PARTS, {"before": before, "limit": PAGE_ROWS})
        return [(number, bytes(sha256), part) for number, sha256, part in rows]

    def _repositories(self, statement: str, values: dict[str, object]) -> list[CollectedRow]:
        rows = self.connection.rows(statement, {**values, "limit": PAGE_ROWS})
        return [
            CollectedRow(number, RepositoryName(Kind(kind), owner, name), namespace)
            for number, kind, owner, name, namespace in rows
        ]


class CollectingChanges(CollectingQueries):
    """Changes of a collection."""

    def end_repositories(self, numbers: Sequence[int], before: float) -> None:
        """Let repositories that were deleted before a time be given back no more."""
        self.connection.change_in(_EXPIRE_REPOSITORIES, numbers, {"before": before})

    def drop_contents(self, number: int, most: int = PAGE_ROWS) -> int:
        """Remove at most some rows of a repository whose end has come; how many: fewer than ``most`` are the last."""
        if self.connection.row(_IS_ENDED, {"id": number}) is None:
            return 0
        left = most
        for table in _CONTENTS:
            key = ", ".join(table.key)
            chosen = f"SELECT {key} FROM {table.name} WHERE repository_id = :id LIMIT :most"
            key = f"({key})" if len(table.key) > 1 else key
            statement = f"DELETE FROM {table.name} WHERE repository_id = :id AND {key} IN ({chosen})"
            left -= self.connection.change(statement, {"id": number, "most": left})
            if left <= 0:
                break
        return most - left

    def drop_repository(self, number: int, namespace: str, now: float) -> bool:
        """Remove a repository whose end has come; its namespace is never given again."""
        if not self.connection.change(_DROP_REPOSITORY, {"id": number}):
            return False
        self.connection.change(_END_NAMESPACE, {"namespace": namespace, "now": now})
        return True

    def forget_namespace(self, namespace: str) -> None:
        """Look no more at a namespace whose repository is no more."""
        self.connection.change(_FORGET_NAMESPACE, {"namespace": namespace})

    def note_collected(self, number: int, at: float) -> None:
        """Note when a repository was looked through."""
        self.connection.change(_COLLECTED, {"id": number, "at": at})

    def expire_refs(self, number: int, before: float) -> None:
        """Let refs that were deleted before a time be given back no more."""
        self.connection.change(_EXPIRE_REFS, {"id": number, "before": before})

    def forget_expired_refs(self, number: int, until: float) -> int:
        """Forget refs that can be given back no more, of those that were deleted up to a time."""
        return self.connection.change(_FORGET_REFS, {"id": number, "since": -until})

    def end_revisions(self, number: int, oids: Collection[bytes]) -> int:
        """Let revisions be none that any question finds. Their places stay taken, until their paths are dropped."""
        found = [*self.connection.rows_in(_PLACES, oids, {"id": number})]
        self.connection.change_many(
            _END_REVISION,
            [
                {"id": number, "oid": oid, "ended": _LAST_OID + line.to_bytes(8, "big") + place.to_bytes(8, "big")}
                for oid, line, place in found
            ],
        )
        return len(found)

    def drop_objects(self, number: int, oids: Collection[bytes]) -> int:
        """Remove objects of a repository; how many there were."""
        return self.connection.change_in(_DROP_OBJECTS, oids, {"id": number})

    def drop_places(self, number: int, places: Iterable[tuple[int, int]]) -> None:
        """Remove ended revisions, but not the first behind one that lives: a copy of the store may have what was there,
        so no other commit comes in its place.
        """
        for line, place in places:
            at = {"id": number, "line": line, "number": place}
            before = {**at, "number": place - 1, "last": _LAST_OID}
            if self.connection.row(_LIVING_BEFORE, before) is None:
                self.connection.change(_DROP_PLACE, at)

    def drop_empty_lines(self, number: int, behind: int) -> list[int]:
        """Remove a page of the lines that have no revision; which they were."""
        values = {"id": number, "behind": behind, "limit": PAGE_ROWS}
        lines = [line for (line,) in self.connection.rows(_EMPTY_LINES, values)]
        self.connection.change_in(_DROP_LINES, lines, {"id": number})
        return lines

    def drop_expired_files(self, rows: Sequence[tuple[int, int]], before: float) -> int:
        """Forget files of buckets by the ids of their rows and buckets, which are looked through soon then."""
        self.connection.change_in(_DUE_AT_ONCE, sorted({bucket for _, bucket in rows}))
        return self.connection.change_in(_DROP_FILES, [number for number, _ in rows], {"before": before})

    def drop_old_parts(self, parts: Sequence[tuple[int, bytes, int]], before: float) -> int:
        """Forget parts of large files that came before a time; how many."""
        names = ("repository_id", "sha256", "number")
        each = [dict(zip(names, part, strict=True)) for part in parts]
        return sum(self.connection.change(_DROP_PART, {**values, "before": before}) for values in each)
