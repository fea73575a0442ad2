"""Questions about xorbs, and changes to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.quotas import IS_FULL
from xetstore.cas.index.queries.rows import (
    OFFERABLE,
    PAGE_ROWS,
    SOUND,
    VISIBLE,
    XORB,
    Questions,
    XorbRow,
    name_of,
    usable_by,
    xorb_row,
)
from xetstore.cas.index.queries.superseded import SupersededChanges
from xetstore.errors import MissingXorbError

if TYPE_CHECKING:
    from xetstore.access.tenant import Tenant
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.xorb import XorbInfo

_XORB_BY_HASH: Final = f"SELECT {XORB} FROM xorb WHERE hash = :hash"
_XORBS_BY_HASH: Final = f"SELECT {XORB} FROM xorb WHERE hash IN (:values)"
_XORBS_BY_ID: Final = f"SELECT {XORB} FROM xorb WHERE id IN (:values)"
_VISIBLE_XORB: Final = f"SELECT {XORB} FROM xorb WHERE hash = :hash AND {VISIBLE}"
_XORBS_BEHIND: Final = f"SELECT {XORB} FROM xorb WHERE id > :last_id ORDER BY id LIMIT :most"
# It always has a row, also for a xorb that is not there.
_RECEIVED: Final = f"""
SELECT room.is_full, {XORB} FROM (SELECT {IS_FULL} AS is_full) AS room LEFT JOIN xorb ON xorb.hash = :hash
"""
_HELD: Final = "SELECT 1 FROM xorb_holder WHERE xorb_id = :xorb_id AND namespace = :namespace"
_USERS: Final = """
SELECT file.hash FROM edge JOIN file ON file.id = edge.file_id WHERE edge.xorb_id = :xorb_id ORDER BY file.id
"""

_ADD_XORB: Final = """
INSERT INTO xorb (hash, region_bytes, raw_bytes, chunk_count, created_at, generation, offered_at, checked_at)
VALUES (:hash, :region_bytes, :raw_bytes, :chunk_count, :now, :generation, :now, :now)
ON CONFLICT (hash) DO UPDATE SET offered_at = excluded.offered_at, doomed_at = NULL
"""
_ADD_HOLDER: Final = """
INSERT INTO xorb_holder (xorb_id, namespace) SELECT id, :namespace FROM xorb WHERE hash = :hash
ON CONFLICT (xorb_id, namespace) DO NOTHING
"""
_THIS_OBJECT: Final = "id = :id AND generation = :counts"
"""Of a xorb: this object of it counts."""
_REPLACE_OBJECT: Final = f"""
UPDATE xorb SET generation = :generation, region_bytes = :region_bytes, raw_bytes = :raw_bytes,
    chunk_count = :chunk_count, damaged_at = NULL, checked_at = :now
WHERE {_THIS_OBJECT}
"""
_MARK: Final = f"UPDATE xorb SET damaged_at = :damaged_at WHERE {_THIS_OBJECT}"
# 1: no file is made of it, and since when that may be so, or who was told of it, was noted too long ago, or never.
_OFFERED: Final = """
SELECT id, generation, CASE WHEN (offered_at IS NULL OR offered_at < :old)
    AND NOT EXISTS (SELECT 1 FROM edge WHERE edge.xorb_id = xorb.id) THEN 1 ELSE 0 END
FROM xorb WHERE id IN (:values) AND doomed_at IS NULL
"""
_GUARD: Final = "UPDATE xorb SET offered_at = :now, doomed_at = NULL WHERE id IN (:values)"

OFFER_SECONDS: Final = 24 * 3600
"""The time for which a note of an offer serves: what deletes must add it to the grace."""


class XorbQueries(Questions):
    """Questions about xorbs."""

    def xorb(self, name: Hash) -> XorbRow | None:
        """The row of a xorb, or None."""
        row = self.connection.row(_XORB_BY_HASH, {"hash": name.digest})
        return None if row is None else xorb_row(row)

    def received(self, name: Hash, namespace: str) -> tuple[XorbRow | None, bool]:
        """The row of a xorb, or None; and True if the namespace that sends it can take no file any more."""
        row = self.connection.row(_RECEIVED, {"hash": name.digest, "namespace": namespace})
        assert row is not None
        is_full, *columns = row
        return None if columns[0] is None else xorb_row(tuple(columns)), bool(is_full)

    def xorbs(self, names: Collection[Hash]) -> dict[Hash, XorbRow]:
        """The rows of those xorbs that are registered."""
        found = self.connection.rows_in(_XORBS_BY_HASH, [name.digest for name in names])
        return {row.hash: row for row in map(xorb_row, found)}

    def xorbs_with(self, ids: Iterable[int]) -> dict[int, XorbRow]:
        """The rows of the xorbs that have these ids."""
        return {row.id: row for row in map(xorb_row, self.connection.rows_in(_XORBS_BY_ID, ids))}

    def require_xorbs(self, names: Collection[Hash], tenant: Tenant) -> dict[Hash, XorbRow]:
        """The rows of all these xorbs. Raises MissingXorbError for the first that is not usable by ``tenant``, or was
        found damaged: to what is built anew it is not there.
        """
        return self._required(names, tenant, "")

    def _required(self, names: Collection[Hash], tenant: Tenant, ending: str) -> dict[Hash, XorbRow]:
        usable, others = usable_by(tenant)
        statement = f"{_XORBS_BY_HASH} AND {usable} AND {SOUND}{ending}"
        rows = self.connection.rows_in(statement, [name.digest for name in names], others)
        found = {row.hash: row for row in map(xorb_row, rows)}
        for name in names:
            if name not in found:
                raise MissingXorbError(str(name))
        return found

    def xorbs_after(self, last_id: int, limit: int = PAGE_ROWS) -> list[XorbRow]:
        """The next page of all xorbs by id; empty behind the last. Pages have all that were there when they began."""
        page = self.connection.rows(_XORBS_BEHIND, {"last_id": last_id, "most": limit})
        return [xorb_row(row) for row in page]

    def is_held(self, xorb_id: int, namespace: str) -> bool:
        """True if a namespace has uploaded a xorb."""
        return self.connection.row(_HELD, {"xorb_id": xorb_id, "namespace": namespace}) is not None

    def visible_xorb(self, name: Hash, namespace: str) -> XorbRow | None:
        """The row of a xorb that a namespace has uploaded or has a file of, or None."""
        row = self.connection.row(_VISIBLE_XORB, {"hash": name.digest, "namespace": namespace})
        return None if row is None else xorb_row(row)

    def users_of(self, xorb_id: int) -> list[Hash]:
        """Every file that a xorb is part of."""
        return [name_of(digest) for (digest,) in self.connection.rows(_USERS, {"xorb_id": xorb_id})]

    def guarded(self, rows: Iterable[XorbRow], *, now: float) -> dict[int, bool]:
        """Those of these xorbs that are there and not doomed, by their ids: True if none of what a collection may do
        deletes it before the grace has passed from now on; a note (:meth:`XorbChanges.guard`) makes it so.
        """
        # By the object, too: the id of a xorb that was deleted may be that of another one.
        generations = {row.id: row.generation for row in rows}
        found = self.connection.rows_in(_OFFERED, generations, {"old": now - OFFER_SECONDS})
        return {xorb_id: not is_loose for xorb_id, generation, is_loose in found if generations[xorb_id] == generation}

    def usable_xorbs(self, ids: Iterable[int], tenant: Tenant) -> dict[int, XorbRow]:
        """The rows of those of these xorbs that may be offered to ``tenant``."""
        usable, others = usable_by(tenant)
        rows = self.connection.rows_in(f"{_XORBS_BY_ID} AND {usable} AND {OFFERABLE}", ids, others)
        return {row.id: row for row in map(xorb_row, rows)}


class XorbChanges(XorbQueries, SupersededChanges):
    """Changes to xorbs."""

    def keep_xorbs(self, names: Collection[Hash], tenant: Tenant, *, now: float) -> dict[Hash, XorbRow]:
        """As :meth:`require_xorbs`, for what is made of them in this transaction: until it ends none is deleted. Those
        that are doomed are so no more.
        """
        rows = self._required(names, tenant, " ORDER BY xorb.id FOR KEY SHARE")
        self.revive(rows.values(), now=now)
        return rows

    def revive(self, rows: Iterable[XorbRow], *, now: float) -> None:
        """Let those of these xorbs that are doomed be so no more, as if they were offered now."""
        doomed = sorted(row.id for row in rows if row.is_doomed)
        self.connection.change_in(_GUARD, doomed, {"now": now})

    def add_xorb(self, info: XorbInfo, *, namespace: str, now: float, generation: str = "") -> bool:
        """Register a xorb that a namespace has uploaded. True if it is new to this namespace.

        One that is registered keeps the object it has.
        """
        self.connection.change(_ADD_XORB, _object(info, generation) | {"hash": info.hash.digest, "now": now})
        return self.add_holder(info.hash, namespace)

    def add_holder(self, name: Hash, namespace: str) -> bool:
        """Note that a namespace has uploaded a registered xorb. True if it had not."""
        return self.connection.change(_ADD_HOLDER, {"hash": name.digest, "namespace": namespace}) == 1

    def guard(self, ids: Collection[int], *, now: float) -> bool:
        """Let the grace of these xorbs begin now, also of doomed ones. False if some are not there any more."""
        return self.connection.change_in(_GUARD, sorted(ids), {"now": now}) == len(ids)

    def replace_object(self, old: XorbRow, info: XorbInfo, generation: str, *, now: float) -> bool:
        """Let another object of a xorb count, which is whole. False, and nothing changes, if the old one does not."""
        counts = {"id": old.id, "counts": old.generation, "now": now}
        is_replaced = self.connection.change(_REPLACE_OBJECT, _object(info, generation) | counts) == 1
        if is_replaced:
            self.supersede(old.key, now=now)
        return is_replaced

    def mark(self, row: XorbRow, *, damaged_at: float | None) -> None:
        """Note that the object of a xorb was found damaged, or whole (None); nothing if another one counts by now."""
        self.connection.change(_MARK, {"id": row.id, "counts": row.generation, "damaged_at": damaged_at})


def _object(info: XorbInfo, generation: str) -> dict[str, object]:
    return {
        "region_bytes": info.region_bytes,
        "raw_bytes": info.raw_bytes,
        "chunk_count": info.chunk_count,
        "generation": generation,
    }
