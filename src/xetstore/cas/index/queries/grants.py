"""The question who may read which part of a xorb, and grants that one namespace has of another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.quotas import IS_COUNTED, QuotaChanges
from xetstore.cas.index.queries.rows import TERM, XORB_ID, Questions, name_of

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

# Of each file that has the xorb, the segments from that on in which it is used first: the newest file first.
_SEGMENTS_OF_USERS: Final = """
SELECT edge.file_id, file_segment.terms
FROM edge
JOIN file_grant ON file_grant.file_id = edge.file_id
JOIN file_segment ON file_segment.file_id = edge.file_id
WHERE edge.xorb_id = :xorb_id AND file_grant.namespace = :namespace AND file_segment.first_byte >= (
    SELECT max(before.first_byte) FROM file_segment AS before
    WHERE before.file_id = edge.file_id AND before.first_byte <= edge.first_byte
)
ORDER BY edge.file_id DESC
"""
_GRANTED_FILES: Final = f"""
SELECT file.hash, file.id, {IS_COUNTED.replace(":namespace", ":target")}
FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace = :source AND file.hash IN (:values) FOR KEY SHARE
"""
_GRANT_AS: Final = """
INSERT INTO file_grant (namespace, file_id, created_at)
SELECT :target, file_id, :now FROM file_grant WHERE namespace = :source AND file_id IN (:values) ORDER BY file_id
ON CONFLICT (namespace, file_id) DO UPDATE SET created_at = excluded.created_at
"""
_CLAIM_AS: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT :target, file_id, sha256 FROM sha256_claim WHERE namespace = :source AND file_id IN (:values) ORDER BY file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""


class GrantQueries(Questions):
    """Questions about grants."""

    def granted_terms(self, xorb_id: int, namespace: str) -> Iterator[set[tuple[int, int]]]:
        """The chunk ranges of a xorb that the files of a namespace are made of: a set for each file."""
        used_bytes = XORB_ID.pack(xorb_id)
        rows = self.connection.rows_by_part(_SEGMENTS_OF_USERS, {"xorb_id": xorb_id, "namespace": namespace})
        for _, segments in groupby(rows, itemgetter(0)):
            # Most segments of a long file do not name the xorb, which is seen without taking them apart.
            terms = (term for _, payload in segments if used_bytes in payload for term in TERM.iter_unpack(payload))
            yield {(start, end) for used, start, end, _ in terms if used == xorb_id}


class GrantChanges(QuotaChanges):
    """Grants that come from other grants."""

    def copy_grants(self, source: str, target: str, files: Collection[Hash], *, now: float) -> set[Hash]:
        """Grant ``target`` those of these files that ``source`` may read, with what ``source`` claims of them.

        Returns those files. The others are as if they were not there.
        """
        digests = [file.digest for file in files]
        values = {"source": source, "target": target}
        found = [*self.connection.rows_in(_GRANTED_FILES, digests, values)]
        ids: dict[bytes, int] = {digest: file_id for digest, file_id, _ in found}
        if any(is_counted for *_, is_counted in found):
            self.charge(target, sorted(ids.values()))
        self.connection.change_in(_GRANT_AS, sorted(ids.values()), {**values, "now": now})
        self.connection.change_in(_CLAIM_AS, sorted(ids.values()), values)
        return {name_of(digest) for digest in ids}
