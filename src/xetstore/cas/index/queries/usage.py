"""Questions about what files take: who is made of which xorbs, and who may read which files. All in pages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from xetstore.cas.index.queries.rows import TERM, Questions

_GRANTED_IDS: Final = """
SELECT file_id FROM file_grant WHERE namespace = :namespace AND file_id > :behind ORDER BY file_id LIMIT :most
"""
_GRANTED_AMONG: Final = """
SELECT file.id, file.hash FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace = :namespace AND file.hash IN (:values)
"""
_SIZES: Final = "SELECT sum(size) FROM file WHERE id IN (:values)"
_NAMESPACES: Final = "SELECT file_id, namespace FROM file_grant WHERE file_id IN (:values)"
_XORBS: Final = "SELECT DISTINCT xorb_id FROM edge WHERE file_id IN (:values)"
_USERS: Final = "SELECT xorb_id, count(*) FROM edge WHERE xorb_id IN (:values) GROUP BY xorb_id"
_USERS_OF_ONE: Final = """
SELECT file_id FROM edge WHERE xorb_id = :xorb_id AND file_id > :behind ORDER BY file_id LIMIT :most
"""
_USERS_OF_SOME: Final = """
SELECT DISTINCT file_id FROM edge WHERE xorb_id IN (:values) AND file_id > :behind ORDER BY file_id LIMIT :most
"""
_SEGMENTS: Final = "SELECT file_id, terms FROM file_segment WHERE file_id IN (:values)"
_GRANTS: Final = """
SELECT file_grant.namespace, file_grant.file_id, file.size
FROM file_grant JOIN file ON file.id = file_grant.file_id
WHERE (file_grant.namespace, file_grant.file_id) > (:namespace, :behind)
ORDER BY file_grant.namespace, file_grant.file_id LIMIT :most
"""
_LARGEST: Final = """
SELECT file_grant.namespace, count(*), sum(file.size) AS bytes
FROM file_grant JOIN file ON file.id = file_grant.file_id
GROUP BY file_grant.namespace ORDER BY bytes DESC, file_grant.namespace LIMIT :most
"""


class UsageQueries(Questions):
    """Questions about what files take."""

    def granted_ids(self, namespace: str, behind: int, most: int) -> list[int]:
        """The next ids of the files of a namespace."""
        values = {"namespace": namespace, "behind": behind, "most": most}
        return [file_id for (file_id,) in self.connection.rows(_GRANTED_IDS, values)]

    def granted_among(self, namespace: str, digests: Collection[bytes]) -> dict[bytes, int]:
        """The ids of those of these files that a namespace has."""
        rows = self.connection.rows_in(_GRANTED_AMONG, digests, {"namespace": namespace})
        return {bytes(digest): file_id for file_id, digest in rows}

    def size_of(self, file_ids: Sequence[int]) -> int:
        """Bytes of these files together."""
        return sum(int(size or 0) for (size,) in self.connection.rows_in(_SIZES, file_ids))

    def namespaces_of(self, file_ids: Sequence[int]) -> Iterator[tuple[int, str]]:
        """The grants of these files: file and namespace."""
        return self.connection.rows_in(_NAMESPACES, file_ids)

    def xorbs_in(self, file_ids: Sequence[int]) -> set[int]:
        """The ids of the xorbs that these files are made of."""
        return {xorb_id for (xorb_id,) in self.connection.rows_in(_XORBS, file_ids)}

    def user_counts(self, xorb_ids: Sequence[int]) -> dict[int, int]:
        """The number of files that are made of each of these xorbs, but for those with none."""
        return dict(self.connection.rows_in(_USERS, xorb_ids))

    def users_behind(self, xorb_ids: Sequence[int], behind: int, most: int) -> list[int]:
        """The next ids of the files that are made of any of these xorbs, which are few."""
        values = {"behind": behind, "most": most}
        if len(xorb_ids) == 1:
            rows = self.connection.rows(_USERS_OF_ONE, {"xorb_id": xorb_ids[0], **values})
        else:
            rows = self.connection.rows(_USERS_OF_SOME, {"values": [*xorb_ids], **values})
        return [file_id for (file_id,) in rows]

    def uses(self, file_ids: Sequence[int], xorb_ids: Collection[int]) -> Iterator[tuple[int, int, int, int]]:
        """The chunks ``[start, end)`` of these xorbs that these files are made of: ``(file, xorb, start, end)``."""
        for file_id, payload in self.connection.rows_in(_SEGMENTS, file_ids):
            for xorb_id, start, end, _ in TERM.iter_unpack(payload):
                if xorb_id in xorb_ids:
                    yield file_id, xorb_id, start, end

    def grants_behind(self, namespace: str, file_id: int, most: int) -> list[tuple[str, int, int]]:
        """The next grants, by namespace and file: these, and the size of the file."""
        values = {"namespace": namespace, "behind": file_id, "most": most}
        return list(self.connection.rows(_GRANTS, values))

    def largest_namespaces(self, most: int) -> list[tuple[str, int, int]]:
        """The namespaces with the most bytes of files: name, files and bytes. Looks at every grant."""
        rows = self.connection.rows(_LARGEST, {"most": most})
        return [(namespace, int(files), int(nbytes or 0)) for namespace, files, nbytes in rows]
