"""Files that are put again by their hashes: which of them a namespace has, their xorbs, the time of their grants."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.protocol.hashes import Hash

_HAD: Final = """
SELECT file.hash, file.id, file.xorb_count, file_grant.created_at
FROM file CROSS JOIN file_grant
WHERE file_grant.file_id = file.id AND file_grant.namespace = :namespace AND file.hash IN (:values)
"""
_KEPT: Final = f"{_HAD} ORDER BY file.id FOR UPDATE OF file_grant"
_XORBS: Final = "SELECT file_id, xorb_id FROM edge WHERE file_id IN (:values)"
_RENEW: Final = """
UPDATE file_grant SET created_at = :now WHERE namespace = :namespace AND file_id IN (:values)
"""


@dataclass(frozen=True, slots=True)
class HadFile:
    """A file that a namespace has, since ``granted_at`` (unix seconds); ``xorb_count`` xorbs have its chunks."""

    hash: Hash
    id: int
    xorb_count: int
    granted_at: float


class AgainQueries(Questions):
    """Questions about files that are put again."""

    def had_files(self, files: Collection[Hash], namespace: str) -> list[HadFile]:
        """Those of these files that a namespace has."""
        rows = self.connection.rows_in(_HAD, [file.digest for file in files], {"namespace": namespace})
        return [HadFile(name_of(digest), *rest) for digest, *rest in rows]

    def xorb_ids_of(self, file_ids: Iterable[int]) -> list[tuple[int, int]]:
        """The xorbs of files: (id of the file, id of the xorb)."""
        return [(file_id, xorb_id) for file_id, xorb_id in self.connection.rows_in(_XORBS, file_ids)]


class AgainChanges(AgainQueries):
    """The change of it."""

    def renew_grants(self, files: Collection[Hash], namespace: str, *, now: float) -> set[Hash]:
        """Give the grants of a namespace the time of new ones; those of these files that it still has."""
        found = self.connection.rows_in(_KEPT, [file.digest for file in files], {"namespace": namespace})
        ids = {file_id: name_of(digest) for digest, file_id, *_ in found}
        self.connection.change_in(_RENEW, sorted(ids), {"namespace": namespace, "now": now})
        return {*ids.values()}
