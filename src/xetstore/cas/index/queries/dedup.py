"""Questions of deduplication: the xorbs that hold a chunk, and those that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, zip_longest
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    bindparam,
    column,
    delete,
    func,
    insert,
    select,
    true,
)

from xetstore.access.tenant import Tenant
from xetstore.cas.index.queries.grants import USERS
from xetstore.cas.index.queries.rows import (
    SOUND,
    XORBS_BY_ID,
    Changes,
    Questions,
    XorbRow,
    usable_by,
    xorb_row,
)
from xetstore.cas.index.schema import (
    dedup,
    dedup_key,
    edge,
    grant,
    holder,
    xorb,
)

# Numbers that are asked for, a JSON list of them, as a table: what is asked of each can have a limit of its own. In an
# IN (...) it could not, and one chunk that thousands of xorbs hold would be as many rows.
_ASKED: Final = func.json_each(bindparam("asked", type_=String)).table_valued(column("value", BigInteger), name="asked")
_NUMBER: Final[ColumnElement[int]] = _ASKED.c.value
_USER: Final = edge.alias("user")
_NEWEST_USERS: Final = select(edge.c.xorb_id, edge.c.file_id, edge.c.first_byte).where(
    edge.c.xorb_id == _NUMBER,
    edge.c.file_id.in_(
        select(_USER.c.file_id)
        .join(grant, grant.c.file_id == _USER.c.file_id)
        .where(_USER.c.xorb_id == _NUMBER, grant.c.namespace == bindparam("namespace"))
        .order_by(_USER.c.file_id.desc())
        .limit(bindparam("most"))
        .correlate(_ASKED)
    ),
)
_FOLLOWING: Final = (
    select(xorb)
    .join(edge, edge.c.xorb_id == xorb.c.id)
    .where(edge.c.file_id == bindparam("file_id"), edge.c.first_byte >= bindparam("first_byte"), SOUND)
    .order_by(edge.c.first_byte)
    .limit(bindparam("most"))
)
_NEWEST_USER: Final = USERS.with_only_columns(edge.c.file_id).limit(1)
_NEWEST_FILE: Final = (
    select(grant.c.file_id).where(grant.c.namespace == bindparam("namespace")).order_by(grant.c.file_id.desc()).limit(1)
)
_USES: Final = (
    select(edge.c.file_id, edge.c.first_byte, edge.c.xorb_id)
    .join(grant, grant.c.file_id == edge.c.file_id)
    .where(grant.c.namespace == bindparam("namespace"))
    .limit(bindparam("most"))
)
_USES_BEFORE: Final = _USES.where(grant.c.file_id <= bindparam("file_id")).order_by(grant.c.file_id.desc())
_USES_BEHIND: Final = _USES.where(grant.c.file_id > bindparam("file_id")).order_by(grant.c.file_id)
_HELD_AFTER: Final = (
    select(xorb)
    .join(holder, holder.c.xorb_id == xorb.c.id)
    .where(holder.c.namespace == bindparam("namespace"), holder.c.xorb_id > bindparam("last_id"), SOUND)
    .order_by(holder.c.xorb_id)
    .limit(bindparam("most"))
)
_NEWEST_HELD: Final = (
    select(xorb)
    .join(holder, holder.c.xorb_id == xorb.c.id)
    .where(holder.c.namespace == bindparam("namespace"), SOUND)
    .order_by(holder.c.xorb_id.desc())
    .limit(bindparam("most"))
)
_NEWEST_DEDUP_KEY: Final = select(dedup_key.c.key, dedup_key.c.created_at).order_by(dedup_key.c.id.desc()).limit(1)


def _holding(tenant: Tenant, chunk_key: ColumnElement[int]) -> Select[Any]:
    """Ids of the sound xorbs usable by a tenant that hold an eligible chunk."""
    holding = select(dedup.c.xorb_id).join(xorb, xorb.c.id == dedup.c.xorb_id)
    return holding.where(dedup.c.chunk_key == chunk_key, usable_by(tenant), SOUND)


@lru_cache(maxsize=256)
def _newest_holders(tenant: Tenant) -> Select[Any]:
    newest = _holding(tenant, _NUMBER).order_by(dedup.c.xorb_id.desc()).limit(bindparam("most")).correlate(_ASKED)
    holding = xorb.alias("holding")
    return select(_NUMBER, holding.c.id).select_from(_ASKED.join(holding, holding.c.id.in_(newest)))


def any_holder(tenant: Tenant) -> Select[Any]:
    """The question of :meth:`Reader.holders`, for one row and nothing in it. It has the parameter ``chunk_key``."""
    return _holding(tenant, bindparam("chunk_key")).with_only_columns(true()).limit(1)


class DedupQueries(Questions):
    """Questions about chunks that can be found, and what goes with them."""

    def holders(self, chunk_keys: Iterable[int], tenant: Tenant, *, most: int) -> dict[int, list[int]]:
        """For each of these keys the ids of xorbs usable by ``tenant`` that hold an eligible chunk with it: the newest
        ``most`` of them. Keys that no such xorb holds are left out.
        """
        asked = {"asked": json.dumps([*set(chunk_keys)]), "most": most}
        found: dict[int, list[int]] = {}
        for key, xorb_id in self.connection.execute(_newest_holders(tenant), asked):
            found.setdefault(key, []).append(xorb_id)
        return found

    def companions(self, xorb_ids: Sequence[int], namespace: str, *, files: int, xorbs: int) -> Iterator[XorbRow]:
        """Xorbs that come with these in files of a namespace, at most ``files`` of them: the newest of each xorb first.
        Of a file those from the first of these xorbs on, in file order, at most ``xorbs`` of them.
        """
        asked = {"asked": json.dumps([*xorb_ids]), "namespace": namespace, "most": files}
        users: dict[int, list[int]] = {xorb_id: [] for xorb_id in xorb_ids}
        begin: dict[int, int] = {}
        for xorb_id, file_id, first_byte in self.connection.execute(_NEWEST_USERS, asked):
            users[xorb_id].append(file_id)
            begin[file_id] = min(first_byte, begin.get(file_id, first_byte))
        ranked = zip_longest(*(sorted(found, reverse=True) for found in users.values()))
        chosen = dict.fromkeys(file_id for rank in ranked for file_id in rank if file_id is not None)
        for file_id in islice(chosen, files):
            window = {"file_id": file_id, "first_byte": begin[file_id], "most": xorbs}
            yield from map(xorb_row, self.connection.execute(_FOLLOWING, window))

    def newest_user(self, xorb_id: int, namespace: str) -> int | None:
        """The newest file of a namespace that has a xorb, by its id."""
        return self.connection.execute(_NEWEST_USER, {"xorb_id": xorb_id, "namespace": namespace}).scalar()

    def newest_file(self, namespace: str) -> int | None:
        """The newest file of a namespace, by its id."""
        return self.connection.execute(_NEWEST_FILE, {"namespace": namespace}).scalar()

    def siblings(self, file_id: int, namespace: str, *, uses: int, xorbs: int) -> list[XorbRow]:
        """At most ``xorbs`` xorbs of a file of a namespace and of those that were registered next to it: the nearest
        files first, each in file order.

        Looked at are ``uses`` of a xorb in a file, in that file and before, and as many in those behind it.
        """
        around = {"namespace": namespace, "file_id": file_id, "most": uses}
        found = [tuple(use) for side in (_USES_BEFORE, _USES_BEHIND) for use in self.connection.execute(side, around)]
        found.sort(key=lambda use: (abs(use[0] - file_id), use))
        ids = list(dict.fromkeys(used for _, _, used in found))[:xorbs]
        rows = {row.id: xorb_row(row) for row in self.rows_in(XORBS_BY_ID, ids)}
        return [row for used in ids if not (row := rows[used]).is_damaged]

    def held_after(self, last_id: int, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded after one, in the order of registration."""
        page = self.connection.execute(_HELD_AFTER, {"last_id": last_id, "namespace": namespace, "most": limit})
        return [xorb_row(row) for row in page]

    def newest_held(self, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded last, the newest first."""
        page = self.connection.execute(_NEWEST_HELD, {"namespace": namespace, "most": limit})
        return [xorb_row(row) for row in page]

    def dedup_key(self) -> tuple[bytes, float] | None:
        """The newest key for dedup answers and its age's beginning, or None."""
        row = self.connection.execute(_NEWEST_DEDUP_KEY).first()
        return None if row is None else (row[0], row[1])


class DedupChanges(Changes):
    """Changes to chunks that can be found, and what goes with them."""

    def add_dedup(self, keys: Iterable[tuple[int, int]]) -> None:
        """Let eligible chunks be found: (chunk key, xorb id)."""
        self.add_new(dedup, [{"chunk_key": key, "xorb_id": xorb_id} for key, xorb_id in keys])

    def replace_dedup_key(self, key: bytes, *, now: float) -> None:
        """Use a new key for dedup answers from now on."""
        self.connection.execute(delete(dedup_key))
        self.connection.execute(insert(dedup_key).values(key=key, created_at=now))
