"""Questions about xorbs, and changes to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import (
    ColumnElement,
    bindparam,
    delete,
    select,
    update,
)

from xetstore.access.tenant import Tenant
from xetstore.cas.index.queries.rows import (
    PAGE_ROWS,
    SOUND,
    VALUES,
    XORBS_BY_ID,
    Changes,
    Questions,
    XorbRow,
    batches,
    name_of,
    usable_by,
    visible_to,
    xorb_row,
)
from xetstore.cas.index.schema import (
    edge,
    file,
    holder,
    superseded,
    xorb,
)
from xetstore.errors import MissingXorbError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo

_XORB_BY_HASH: Final = select(xorb).where(xorb.c.hash == bindparam("hash"))
_XORBS_BY_HASH: Final = select(xorb).where(xorb.c.hash.in_(VALUES))
_HELD: Final = select(holder.c.xorb_id).where(
    holder.c.xorb_id == bindparam("xorb_id"), holder.c.namespace == bindparam("namespace")
)
_SUPERSEDED: Final = select(superseded.c.key).where(superseded.c.created_at < bindparam("moment")).limit(PAGE_ROWS)


def _is_object(row: XorbRow) -> tuple[ColumnElement[bool], ...]:
    """Of a xorb: this object of it counts."""
    return xorb.c.id == row.id, xorb.c.generation == row.generation


class XorbQueries(Questions):
    """Questions about xorbs."""

    def xorb(self, name: Hash) -> XorbRow | None:
        """The row of a xorb, or None."""
        row = self.connection.execute(_XORB_BY_HASH, {"hash": name.digest}).first()
        return None if row is None else xorb_row(row)

    def xorbs(self, names: Collection[Hash]) -> dict[Hash, XorbRow]:
        """The rows of those xorbs that are registered."""
        found = self.rows_in(_XORBS_BY_HASH, [name.digest for name in names])
        return {row.hash: row for row in map(xorb_row, found)}

    def xorbs_with(self, ids: Iterable[int]) -> dict[int, XorbRow]:
        """The rows of the xorbs that have these ids."""
        return {row.id: xorb_row(row) for row in self.rows_in(XORBS_BY_ID, ids)}

    def require_xorbs(self, names: Collection[Hash], tenant: Tenant) -> dict[Hash, XorbRow]:
        """The rows of all these xorbs. Raises MissingXorbError for the first that is not usable by ``tenant``, or was
        found damaged: to what is built anew it is not there.
        """
        usable = self.rows_in(_XORBS_BY_HASH.where(usable_by(tenant), SOUND), [name.digest for name in names])
        found = {row.hash: row for row in map(xorb_row, usable)}
        for name in names:
            if name not in found:
                raise MissingXorbError(str(name))
        return found

    def xorbs_after(self, last_id: int, limit: int = PAGE_ROWS) -> list[XorbRow]:
        """The next page of all xorbs by id; empty behind the last."""
        page = select(xorb).where(xorb.c.id > last_id).order_by(xorb.c.id).limit(limit)
        return [xorb_row(row) for row in self.connection.execute(page)]

    def is_held(self, xorb_id: int, namespace: str) -> bool:
        """True if a namespace has uploaded a xorb."""
        return self.connection.execute(_HELD, {"xorb_id": xorb_id, "namespace": namespace}).first() is not None

    def visible_xorb(self, name: Hash, namespace: str) -> XorbRow | None:
        """The row of a xorb that a namespace has uploaded or has a file of, or None."""
        row = self.connection.execute(select(xorb).where(xorb.c.hash == name.digest, visible_to(namespace))).first()
        return None if row is None else xorb_row(row)

    def users_of(self, xorb_id: int) -> list[Hash]:
        """Every file that a xorb is part of."""
        users = select(file.c.hash).join(edge, edge.c.file_id == file.c.id).where(edge.c.xorb_id == xorb_id)
        return [name_of(digest) for digest in self.connection.execute(users.order_by(file.c.id)).scalars()]

    def superseded_before(self, moment: float) -> list[str]:
        """Keys of objects in whose place others have counted since before ``moment``."""
        return list(self.connection.execute(_SUPERSEDED, {"moment": moment}).scalars())


class XorbChanges(Changes):
    """Changes to xorbs."""

    def add_xorb(self, info: XorbInfo, *, namespace: str, now: float, generation: str = "") -> bool:
        """Register a xorb that a namespace has uploaded. True if it is new to this namespace.

        One that is registered keeps the object it has.
        """
        values = {
            "hash": info.hash.digest,
            "region_bytes": info.region_bytes,
            "raw_bytes": info.raw_bytes,
            "chunk_count": info.chunk_count,
            "created_at": now,
            "generation": generation,
        }
        self.add_new(xorb, [values])
        xorb_id = self.connection.execute(select(xorb.c.id).where(xorb.c.hash == info.hash.digest)).scalar_one()
        return self.add_new(holder, [{"xorb_id": xorb_id, "namespace": namespace}]) == 1

    def replace_object(self, old: XorbRow, info: XorbInfo, generation: str) -> bool:
        """Let another object of a xorb count, which is whole. False, and nothing changes, if the old one does not."""
        values = {
            "generation": generation,
            "region_bytes": info.region_bytes,
            "raw_bytes": info.raw_bytes,
            "chunk_count": info.chunk_count,
            "damaged_at": None,
        }
        return self.connection.execute(update(xorb).where(*_is_object(old)).values(values)).rowcount > 0

    def supersede(self, key: str, *, now: float) -> None:
        """An object in whose place another one counts: to be removed later."""
        self.add_new(superseded, [{"key": key, "created_at": now}])

    def mark(self, row: XorbRow, *, damaged_at: float | None) -> None:
        """Note that the object of a xorb was found damaged, or whole (None); nothing if another one counts by now."""
        self.connection.execute(update(xorb).where(*_is_object(row)).values(damaged_at=damaged_at))

    def forget_superseded(self, keys: Iterable[str]) -> None:
        """These objects are gone."""
        for batch in batches(keys):
            self.connection.execute(delete(superseded).where(superseded.c.key.in_(batch)))
