"""Questions of deduplication: the xorbs that hold a chunk, and those that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import OFFERABLE, XORB, Questions, XorbRow, usable_by, xorb_row
from xetstore.cas.index.queries.xorbs import XorbQueries

if TYPE_CHECKING:
    from xetstore.access.tenant import Tenant

# Of each number that is asked for a limit of its own: one chunk that thousands of xorbs hold would be as many rows.
_NEWEST_USERS: Final = """
SELECT edge.xorb_id, edge.file_id
FROM numbers(:asked) AS asked
JOIN edge ON edge.xorb_id = asked.value
WHERE edge.file_id IN few(
    SELECT newest.file_id
    FROM edge AS newest JOIN file_grant ON file_grant.file_id = newest.file_id
    WHERE newest.xorb_id = asked.value AND file_grant.namespace = :namespace
    ORDER BY newest.file_id DESC LIMIT :most
)
"""
# Of each file that is asked for, the edges from that on by which it first uses one of some xorbs.
_FOLLOWING: Final = f"""
SELECT edge.file_id, edge.first_byte, {XORB}
FROM numbers(:asked) AS asked JOIN edge ON edge.file_id = asked.value JOIN xorb ON xorb.id = edge.xorb_id
WHERE {OFFERABLE} AND edge.first_byte IN few(
    SELECT following.first_byte FROM edge AS following
    WHERE following.file_id = asked.value AND following.first_byte >= (
        SELECT min(first.first_byte) FROM edge AS first
        WHERE first.file_id = asked.value AND first.xorb_id IN (:xorb_ids)
    )
    ORDER BY following.first_byte LIMIT :most
)
"""
_NEWEST_USER: Final = """
SELECT edge.file_id FROM edge JOIN file_grant ON file_grant.file_id = edge.file_id
WHERE edge.xorb_id = :xorb_id AND file_grant.namespace = :namespace
ORDER BY edge.file_id DESC LIMIT 1
"""
_NEWEST_FILE: Final = "SELECT file_id FROM file_grant WHERE namespace = :namespace ORDER BY file_id DESC LIMIT 1"
_USES: Final = """
SELECT edge.file_id, edge.first_byte, edge.xorb_id
FROM file_grant JOIN edge ON edge.file_id = file_grant.file_id
WHERE file_grant.namespace = :namespace AND
"""
_USES_BEFORE: Final = f"{_USES} file_grant.file_id <= :file_id ORDER BY file_grant.file_id DESC LIMIT :most"
_USES_BEHIND: Final = f"{_USES} file_grant.file_id > :file_id ORDER BY file_grant.file_id LIMIT :most"
_HELD: Final = f"""
SELECT {XORB} FROM xorb_holder JOIN xorb ON xorb.id = xorb_holder.xorb_id
WHERE xorb_holder.namespace = :namespace AND {OFFERABLE}
"""
_HELD_AFTER: Final = f"{_HELD} AND xorb_holder.xorb_id > :last_id ORDER BY xorb_holder.xorb_id LIMIT :most"
_NEWEST_HELD: Final = f"{_HELD} ORDER BY xorb_holder.xorb_id DESC LIMIT :most"
_DEDUP_KEY: Final = "SELECT key, created_at FROM dedup_key WHERE id = 1"
_ADD_DEDUP: Final = """
INSERT INTO dedup (chunk_key, xorb_id) VALUES (:chunk_key, :xorb_id) ON CONFLICT (chunk_key, xorb_id) DO NOTHING
"""
# One row for the store, and one statement for both halves of the question: of two writers at once, the second sees what
# the first wrote, and leaves it.
_RENEW_DEDUP_KEY: Final = """
INSERT INTO dedup_key (id, key, created_at) VALUES (1, :key, :now)
ON CONFLICT (id) DO UPDATE SET key = excluded.key, created_at = excluded.created_at
WHERE dedup_key.created_at <= :old
"""


def _holding(usable: str, chunk_key: str) -> str:
    """From xorbs that hold an eligible chunk, are usable, and may be offered."""
    return f"""
    FROM dedup JOIN xorb ON xorb.id = dedup.xorb_id
    WHERE dedup.chunk_key = {chunk_key} AND {usable} AND {OFFERABLE}
    """


@lru_cache(maxsize=256)
def _newest_holders(tenant: Tenant) -> tuple[str, dict[str, object]]:
    usable, values = usable_by(tenant)
    newest = f"SELECT dedup.xorb_id {_holding(usable, 'asked.value')} ORDER BY dedup.xorb_id DESC LIMIT :most"
    asked = "FROM numbers(:asked) AS asked JOIN xorb AS holding"
    return f"SELECT asked.value, holding.id {asked} ON holding.id IN few({newest})", values


def any_holder(tenant: Tenant) -> tuple[str, dict[str, object]]:
    """The question of :meth:`Reader.holders`, for one row and nothing in it. It has the parameter ``chunk_key``."""
    usable, values = usable_by(tenant)
    return f"SELECT 1 {_holding(usable, ':chunk_key')} LIMIT 1", values


class DedupQueries(XorbQueries):
    """Questions about chunks that can be found, and what goes with them."""

    def holders(self, chunk_keys: Iterable[int], tenant: Tenant, *, most: int) -> dict[int, list[int]]:
        """For each of these keys the ids of xorbs usable by ``tenant`` that hold an eligible chunk with it: the newest
        ``most`` of them. Keys that no such xorb holds are left out.
        """
        statement, values = _newest_holders(tenant)
        asked = values | {"asked": self.connection.numbers(set(chunk_keys)), "most": most}
        found: dict[int, list[int]] = {}
        for key, xorb_id in self.connection.rows(statement, asked):
            found.setdefault(key, []).append(xorb_id)
        return found

    def companions(self, xorb_ids: Sequence[int], namespace: str, *, files: int, xorbs: int) -> list[XorbRow]:
        """Xorbs that come with these in files of a namespace, at most ``files`` of them: the newest of each xorb first.
        Of a file those from the first of these xorbs on, in file order, at most ``xorbs`` of them.
        """
        asked = {"asked": self.connection.numbers(xorb_ids), "namespace": namespace, "most": files}
        users: dict[int, list[int]] = {xorb_id: [] for xorb_id in xorb_ids}
        for xorb_id, file_id in self.connection.rows(_NEWEST_USERS, asked):
            users[xorb_id].append(file_id)
        ranked = zip_longest(*(sorted(found, reverse=True) for found in users.values()))
        chosen = dict.fromkeys(file_id for rank in ranked for file_id in rank if file_id is not None)
        ranks = {file_id: rank for rank, file_id in enumerate(islice(chosen, files))}
        window = {"asked": self.connection.numbers(ranks), "xorb_ids": [*xorb_ids], "most": xorbs}
        rows = sorted(self.connection.rows(_FOLLOWING, window), key=lambda row: (ranks[row[0]], row[1]))
        return [xorb_row(row[2:]) for row in rows]

    def newest_user(self, xorb_id: int, namespace: str) -> int | None:
        """The newest file of a namespace that has a xorb, by its id."""
        newest: int | None = self.connection.value(_NEWEST_USER, {"xorb_id": xorb_id, "namespace": namespace})
        return newest

    def newest_file(self, namespace: str) -> int | None:
        """The newest file of a namespace, by its id."""
        newest: int | None = self.connection.value(_NEWEST_FILE, {"namespace": namespace})
        return newest

    def siblings(self, file_id: int, namespace: str, *, uses: int, xorbs: int) -> list[XorbRow]:
        """At most ``xorbs`` xorbs of a file of a namespace and of those that were registered next to it: the nearest
        files first, each in file order.

        Looked at are ``uses`` of a xorb in a file, in that file and before, and as many in those behind it.
        """
        around = {"namespace": namespace, "file_id": file_id, "most": uses}
        found = [use for side in (_USES_BEFORE, _USES_BEHIND) for use in self.connection.rows(side, around)]
        found.sort(key=lambda use: (abs(use[0] - file_id), use))
        ids = list(dict.fromkeys(used for _, _, used in found))[:xorbs]
        rows = self.xorbs_with(ids)
        return [row for used in ids if (row := rows[used]).is_offerable]

    def held_after(self, last_id: int, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded after one, in the order of registration."""
        page = self.connection.rows(_HELD_AFTER, {"last_id": last_id, "namespace": namespace, "most": limit})
        return [xorb_row(row) for row in page]

    def newest_held(self, namespace: str, limit: int) -> list[XorbRow]:
        """The xorbs that a namespace uploaded last, the newest first."""
        page = self.connection.rows(_NEWEST_HELD, {"namespace": namespace, "most": limit})
        return [xorb_row(row) for row in page]

    def dedup_key(self) -> tuple[bytes, float] | None:
        """The key for dedup answers and its age's beginning, or None."""
        row = self.connection.row(_DEDUP_KEY)
        return None if row is None else (row[0], row[1])


class DedupChanges(Questions):
    """Changes to chunks that can be found, and what goes with them."""

    def add_dedup(self, keys: Iterable[tuple[int, int]]) -> None:
        """Let eligible chunks be found: (chunk key, xorb id)."""
        self.connection.change_many(_ADD_DEDUP, [{"chunk_key": key, "xorb_id": xorb_id} for key, xorb_id in keys])

    def renew_dedup_key(self, fresh: bytes, *, now: float, old: float) -> bytes:
        """Use a new key for dedup answers if the one in use is from ``old`` or before; the one in use from now on."""
        self.connection.change(_RENEW_DEDUP_KEY, {"key": fresh, "now": now, "old": old})
        key: bytes = self.connection.value(_DEDUP_KEY)
        return key
