"""Files that are put again by their hashes: which of them a namespace has, their xorbs, the time of their grants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from xetstore.cas.index.queries.rows import Questions

# A commit finds files by their SHA-256: one without is to be read again, which tells it.
_HAD: Final = """
SELECT file.hash, file.id, file.xorb_count, file_grant.created_at
FROM file CROSS JOIN file_grant
WHERE file_grant.file_id = file.id AND file_grant.namespace = :namespace AND file.hash IN (:values)
AND EXISTS (
    SELECT 1 FROM sha256_claim WHERE sha256_claim.namespace = :namespace AND sha256_claim.file_id = file.id
)
"""
_KEPT: Final = f"{_HAD} ORDER BY file.id FOR UPDATE OF file_grant"
_XORBS: Final = "SELECT file_id, xorb_id FROM edge WHERE file_id IN (:values)"
_RENEW: Final = """
UPDATE file_grant SET created_at = :now WHERE namespace = :namespace AND file_id IN (:values)
"""


class HadFile(NamedTuple):
    """A file that a namespace has, since ``granted_at`` (unix seconds); ``xorb_count`` xorbs have its chunks."""

    digest: bytes
    id: int
    xorb_count: int
    granted_at: float


class AgainQueries(Questions):
    """Questions about files that are put again: there may be very many, so they are told by their digests."""

    def had_files(self, digests: Iterable[bytes], namespace: str) -> list[HadFile]:
        """Those of these files that a namespace has, and of which it claims the SHA-256."""
        return [*map(HadFile._make, self.connection.rows_in(_HAD, digests, {"namespace": namespace}))]

    def xorb_ids_of(self, file_ids: Iterable[int]) -> list[tuple[int, int]]:
        """The xorbs of files: (id of the file, id of the xorb)."""
        return [*self.connection.rows_in(_XORBS, file_ids)]


class AgainChanges(AgainQueries):
    """The change of it."""

    def renew_grants(self, digests: Iterable[bytes], namespace: str, *, now: float) -> list[bytes]:
        """Give the grants of a namespace the time of new ones; those of these files that it still has."""
        found = [*map(HadFile._make, self.connection.rows_in(_KEPT, digests, {"namespace": namespace}))]
        self.connection.change_in(_RENEW, sorted(file.id for file in found), {"namespace": namespace, "now": now})
        return [file.digest for file in found]
