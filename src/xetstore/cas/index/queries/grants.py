"""The question who may read which part of a xorb."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import (
    bindparam,
    func,
    select,
)

from xetstore.cas.index.queries.rows import TERM, XORB_ID, Questions
from xetstore.cas.index.schema import (
    edge,
    file_segment,
    grant,
)

USERS: Final = (
    select(edge.c.file_id, edge.c.first_byte)
    .join(grant, grant.c.file_id == edge.c.file_id)
    .where(edge.c.xorb_id == bindparam("xorb_id"), grant.c.namespace == bindparam("namespace"))
    .order_by(edge.c.file_id.desc())
)


class GrantQueries(Questions):
    """Questions about grants."""

    def granted_terms(self, xorb_id: int, namespace: str) -> Iterator[set[tuple[int, int]]]:
        """The chunk ranges of a xorb that the files of a namespace are made of: a set for each file."""
        used_bytes = XORB_ID.pack(xorb_id)
        for file_id, first_byte in self.connection.execute(USERS, {"xorb_id": xorb_id, "namespace": namespace}):
            before = select(func.max(file_segment.c.first_byte)).where(
                file_segment.c.file_id == file_id, file_segment.c.first_byte <= first_byte
            )
            segments = select(file_segment.c.terms).where(
                file_segment.c.file_id == file_id, file_segment.c.first_byte >= before.scalar_subquery()
            )
            packed = self.connection.execute(segments).scalars()
            # Most segments of a long file do not name the xorb, which is seen without taking them apart.
            terms = (term for payload in packed if used_bytes in payload for term in TERM.iter_unpack(payload))
            yield {(start, end) for used, start, end, _ in terms if used == xorb_id}
