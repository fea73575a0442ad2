"""Checks of objects: which is due, when each was last known to be well, and what is marked as damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.checksums import section_bytes
from xetstore.cas.index.queries.rows import XORB, Questions, ShardRow, XorbRow, xorb_row
from xetstore.cas.index.queries.shards import SHARD, shard_row
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

Place = tuple[float, int]
"""A place in the order of checks: when an object was checked, and the id of its row."""

NOWHERE: Final[Place] = (-1.0, 0)
"""The place before all."""
MANY: Final = 10_000
"""Marks are counted up to here."""

_DUE: Final = """
WHERE damaged_at IS NULL AND checked_at <= :until AND (checked_at > :at OR (checked_at = :at AND id > :behind))
ORDER BY checked_at, id LIMIT :most
"""
_XORBS: Final = f"SELECT checked_at, {XORB} FROM xorb {_DUE}"
_SHARDS: Final = f"SELECT checked_at, id, {SHARD} FROM shard {_DUE}"
_EDGES: Final = "SELECT file_id, first_byte, xorb_id FROM edge WHERE file_id IN (:values)"
_FIRST_SHARDS: Final = f"""
SELECT first.file_id, {SHARD}
FROM (SELECT file_id, min(shard_id) AS shard_id FROM shard_file WHERE file_id IN (:values) GROUP BY file_id) AS first
JOIN shard ON shard.id = first.shard_id
"""
_CHECKED_XORBS: Final = "UPDATE xorb SET checked_at = :now WHERE id IN (:values)"
_CHECKED_SHARDS: Final = "UPDATE shard SET checked_at = :now WHERE hash IN (:values)"
_OLDEST_XORB: Final = "SELECT checked_at FROM xorb ORDER BY checked_at, id LIMIT 1"
_OLDEST_SHARD: Final = "SELECT checked_at FROM shard ORDER BY checked_at, id LIMIT 1"
_DAMAGED: Final = "SELECT count(*) FROM (SELECT 1 FROM {} WHERE damaged_at IS NOT NULL LIMIT :many) AS marked"
_DAMAGED_XORBS: Final = _DAMAGED.format("xorb")
_DAMAGED_SHARDS: Final = _DAMAGED.format("shard")
_SIZES: Final = """
SELECT (SELECT sum(region_bytes) FROM xorb), (SELECT sum(chunk_count) FROM xorb), (SELECT count(*) FROM xorb),
    (SELECT sum(size) FROM shard)
"""


@dataclass(frozen=True, slots=True)
class Soundness:
    """The numbers of objects that are marked as damaged, up to :data:`MANY`, and the time of the least recent check.

    ``oldest_check`` is in unix seconds: 0 if an object was never checked, None if there is none.
    """

    damaged_xorbs: int = 0
    damaged_shards: int = 0
    oldest_check: float | None = None


class CheckQueries(Questions):
    """Questions of checks."""

    def xorbs_due(self, behind: Place, *, until: float, most: int) -> list[tuple[Place, XorbRow]]:
        """The xorbs behind a place in the order of their checks, the least recent first, up to those of ``until``.

        None of them is marked: what is known to be damaged need not be looked at.
        """
        values = {"at": behind[0], "behind": behind[1], "until": until, "most": most}
        return [((row[0], row[1]), xorb_row(row[1:])) for row in self.connection.rows(_XORBS, values)]

    def shards_due(self, behind: Place, *, until: float, most: int) -> list[tuple[Place, ShardRow]]:
        """The same for shards."""
        values = {"at": behind[0], "behind": behind[1], "until": until, "most": most}
        return [((row[0], row[1]), shard_row(row[2:])) for row in self.connection.rows(_SHARDS, values)]

    def edges_of(self, ids: Collection[int]) -> dict[int, dict[int, int]]:
        """Of files, by their ids, the ids of their xorbs, with the byte at which the file first uses each."""
        edges: dict[int, dict[int, int]] = {file_id: {} for file_id in ids}
        for file_id, first_byte, xorb_id in self.connection.rows_in(_EDGES, ids):
            edges[file_id][xorb_id] = first_byte
        return edges

    def first_shards(self, ids: Collection[int]) -> dict[int, ShardRow]:
        """The oldest shard that is known to name each of these files, by their ids, for those that have one."""
        return {row[0]: shard_row(row[1:]) for row in self.connection.rows_in(_FIRST_SHARDS, ids)}

    def object_bytes(self) -> int:
        """Bytes of all objects of xorbs and shards, with checksums; looks at each row."""
        region, chunks, xorbs, shards = (int(value or 0) for value in self.connection.row(_SIZES) or (0, 0, 0, 0))
        fixed = XorbInfo.footer_bytes(0) + section_bytes(0)
        each = XorbInfo.footer_bytes(1) + section_bytes(1) - fixed
        return region + each * chunks + fixed * xorbs + shards

    def soundness(self) -> Soundness:
        """The numbers of objects that are marked, and the time of the least recent check."""
        checks = [self.connection.value(statement) for statement in (_OLDEST_XORB, _OLDEST_SHARD)]
        return Soundness(
            self.connection.value(_DAMAGED_XORBS, {"many": MANY}),
            self.connection.value(_DAMAGED_SHARDS, {"many": MANY}),
            min((time for time in checks if time is not None), default=None),
        )


class CheckChanges(Questions):
    """Changes that a check makes."""

    def note_checked(self, xorbs: Iterable[int], shards: Iterable[Hash], *, now: float) -> None:
        """Note that these xorbs, by their ids, and these shards are well: all of their bytes were read.

        It is as true of an object that has come in place of the one that was read: that was verified as it came.
        """
        self.connection.change_in(_CHECKED_XORBS, xorbs, {"now": now})
        self.connection.change_in(_CHECKED_SHARDS, [shard.digest for shard in shards], {"now": now})
