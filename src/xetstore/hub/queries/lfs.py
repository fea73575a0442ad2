"""Questions about parts of large files that come in parts, and changes to them; pointers by what they point at."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a large file, by its number from 1 on: a Xet file of ``size`` bytes."""

    number: int
    file: Hash
    size: int


class PartQueries(Questions):
    """Questions about parts."""

    def parts(self, repository_id: int, sha256: bytes) -> list[Part]:
        """The parts of a file that are there, by number."""
        rows = self.connection.rows(_PARTS, {"repository_id": repository_id, "sha256": sha256})
        return [Part(number, Hash(bytes(file)), size) for number, file, size in rows]

    def has_parts_before(self, repository_id: int, before: float) -> bool:
        """True if some part came before that time, in unix seconds."""
        return self.connection.row(_OLD, {"repository_id": repository_id, "before": before}) is not None


class PartChanges(PartQueries):
    """Changes to parts."""

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
