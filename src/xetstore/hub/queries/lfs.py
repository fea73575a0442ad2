"""Questions about large files: those that pointers of a repository name, and parts of some that are still to come."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.protocol.hashes import Hash

_PARTS: Final = """
SELECT number, file, size FROM lfs_part
WHERE repository_id = :repository_id AND sha256 = :sha256 ORDER BY number
"""
_OLD: Final = "SELECT number FROM lfs_part WHERE repository_id = :repository_id AND created_at < :before LIMIT 1"
_PUT: Final = """
INSERT INTO lfs_part (repository_id, sha256, number, file, size, created_at)
VALUES (:repository_id, :sha256, :number, :file, :size, :now)
ON CONFLICT (repository_id, sha256, number) DO UPDATE
SET file = excluded.file, size = excluded.size, created_at = excluded.created_at
"""
_DROP: Final = "DELETE FROM lfs_part WHERE repository_id = :repository_id AND sha256 = :sha256"
_DROP_OLD: Final = "DELETE FROM lfs_part WHERE repository_id = :repository_id AND created_at < :before"
_NAMED: Final = """
SELECT sha256, oid, file_size, file FROM git_object
WHERE repository_id = :repository_id AND sha256 > :after AND file IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM git_object AS other
    WHERE other.repository_id = :repository_id AND other.sha256 = git_object.sha256
    AND other.file IS NOT NULL AND other.oid < git_object.oid
)
ORDER BY sha256 LIMIT :limit
"""
_NAMES: Final = """
SELECT oid, file FROM git_object WHERE repository_id = :repository_id AND sha256 IN (:values) AND file IS NOT NULL
"""
_FORGET: Final = "UPDATE git_object SET file = NULL WHERE repository_id = :repository_id AND sha256 IN (:values)"
_CHANGED: Final = """
SELECT line, number, path FROM changed_path WHERE repository_id = :repository_id AND line IN (:values)
"""


@dataclass(frozen=True, slots=True)
class Pointed:
    """A file that pointers of a repository name: its SHA-256, its bytes, its Xet file; ``oid`` is that of a pointer."""

    sha256: bytes
    oid: bytes
    size: int
    file: Hash


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a large file, by its number from 1 on: a Xet file of ``size`` bytes."""

    number: int
    file: Hash
    size: int


class LargeFileQueries(Questions):
    """Questions about large files."""

    def large_files(self, repository_id: int, *, after: bytes, limit: int) -> list[Pointed]:
        """Files that pointers of the repository name, by their SHA-256, which is more than ``after``: each once."""
        rows = self.connection.rows(_NAMED, {"repository_id": repository_id, "after": after, "limit": limit})
        return [Pointed(bytes(sha256), bytes(oid), size, Hash(bytes(file))) for sha256, oid, size, file in rows]

    def pointers_of(self, repository_id: int, digests: Collection[bytes]) -> dict[bytes, Hash]:
        """The pointers that name files of these SHA-256, by their ids: the Xet file of each."""
        rows = self.connection.rows_in(_NAMES, digests, {"repository_id": repository_id})
        return {bytes(oid): Hash(bytes(file)) for oid, file in rows}

    def changed_paths(self, repository_id: int, lines: Collection[int]) -> Iterator[tuple[tuple[int, int], list[str]]]:
        """The paths that each revision of these lines changed, by line and number."""
        rows = self.connection.rows_in(_CHANGED, lines, {"repository_id": repository_id})
        for place, each in groupby(sorted(rows, key=itemgetter(0, 1)), key=itemgetter(0, 1)):
            yield place, [path for _, _, path in each]

    def parts(self, repository_id: int, sha256: bytes) -> list[Part]:
        """The parts of a file that are there, by number."""
        rows = self.connection.rows(_PARTS, {"repository_id": repository_id, "sha256": sha256})
        return [Part(number, Hash(bytes(file)), size) for number, file, size in rows]

    def has_parts_before(self, repository_id: int, before: float) -> bool:
        """True if some part came before that time, in unix seconds."""
        return self.connection.row(_OLD, {"repository_id": repository_id, "before": before}) is not None


class LargeFileChanges(LargeFileQueries):
    """Changes to large files."""

    def forget_large_files(self, repository_id: int, digests: Collection[bytes]) -> None:
        """Let no pointer of the repository name a file of these SHA-256."""
        self.connection.change_in(_FORGET, digests, {"repository_id": repository_id})

    def put_part(self, repository_id: int, sha256: bytes, part: Part, now: float) -> None:
        """Note a part, in place of one of its number."""
        values = {"repository_id": repository_id, "sha256": sha256, "number": part.number, "now": now}
        self.connection.change(_PUT, {**values, "file": part.file.digest, "size": part.size})

    def drop_parts(self, repository_id: int, sha256: bytes) -> None:
        """Forget the parts of a file."""
        self.connection.change(_DROP, {"repository_id": repository_id, "sha256": sha256})

    def drop_parts_before(self, repository_id: int, before: float) -> None:
        """Forget parts that came before that time."""
        self.connection.change(_DROP_OLD, {"repository_id": repository_id, "before": before})
