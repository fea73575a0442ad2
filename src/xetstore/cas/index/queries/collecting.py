"""Questions of a collection, and its changes: which rows nothing needs any more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rewriting import RewriteChanges
from xetstore.cas.index.queries.rows import SEGMENT_TERMS, XORB, Questions, XorbRow, name_of, xorb_row

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

_OLD_GRANTS: Final = "FROM deleted_grant WHERE deleted_at < :deleted_before"
_EXPIRED: Final = f"SELECT namespace, file_id {_OLD_GRANTS} ORDER BY deleted_at LIMIT :most FOR UPDATE"
_COUNT_EXPIRED: Final = f"SELECT count(*) {_OLD_GRANTS}"
_DROP_EXPIRED: Final = "DELETE FROM deleted_grant WHERE namespace = :namespace AND file_id = :file_id"
_FILE_NAMES: Final = "SELECT id, hash FROM file WHERE id IN (:values)"
_PAGE_END: Final = "SELECT max(id) FROM (SELECT id FROM {} WHERE id > :behind ORDER BY id LIMIT :most) AS page"
_LAST_FILE: Final = _PAGE_END.format("file")
_LAST_XORB: Final = _PAGE_END.format("xorb")
_NO_GRANT: Final = """
NOT EXISTS (SELECT 1 FROM file_grant WHERE file_grant.file_id = file.id)
AND NOT EXISTS (
    SELECT 1 FROM deleted_grant
    WHERE deleted_grant.file_id = file.id AND deleted_grant.deleted_at >= :deleted_before
)
"""
_FREE_FILES: Final = f"""
SELECT id, hash, size, term_count, xorb_count FROM file WHERE id > :behind AND id <= :last AND {_NO_GRANT} ORDER BY id
"""
_LOCK_FILES: Final = "SELECT id FROM file WHERE id IN (:values) ORDER BY id FOR UPDATE"
_STILL_FREE: Final = f"""
SELECT id, hash, size, term_count, xorb_count FROM file WHERE id IN (:values) AND {_NO_GRANT}
"""
_XORBS_OF: Final = "SELECT DISTINCT xorb_id FROM edge WHERE file_id IN (:values)"
_DROP_FILES: Final = "DELETE FROM file WHERE id IN (:values)"
_USED: Final = "EXISTS (SELECT 1 FROM edge WHERE edge.xorb_id = xorb.id)"
_DOOM: Final = f"UPDATE xorb SET offered_at = :now, doomed_at = :now WHERE id IN (:values) AND NOT {_USED}"
_LOOSE: Final = f"doomed_at IS NULL AND (offered_at IS NULL OR offered_at < :offered_before) AND NOT {_USED}"
_FIND_LOOSE: Final = f"SELECT id FROM xorb WHERE id > :behind AND id <= :last AND {_LOOSE} ORDER BY id"
_DOOM_LOOSE: Final = f"""
UPDATE xorb SET doomed_at = :now, offered_at = coalesce(offered_at, :now) WHERE id IN (:values) AND {_LOOSE}
"""
_FIND_USED: Final = f"""
SELECT id FROM xorb WHERE id > :behind AND id <= :last AND doomed_at IS NOT NULL AND {_USED} ORDER BY id
"""
_KEEP_USED: Final = f"UPDATE xorb SET doomed_at = NULL WHERE id IN (:values) AND {_USED}"
_DUE: Final = "doomed_at < :doomed_before AND offered_at < :offered_before"
_FIND_DUE: Final = f"SELECT id FROM xorb WHERE {_DUE} ORDER BY doomed_at LIMIT :most"
_COUNT_DUE: Final = f"SELECT count(*) FROM xorb WHERE {_DUE} AND NOT {_USED}"
_LOCK_XORBS: Final = "SELECT id FROM xorb WHERE id IN (:values) ORDER BY id FOR UPDATE"
_STILL_DUE: Final = f"SELECT {XORB} FROM xorb WHERE id IN (:values) AND {_DUE} AND NOT {_USED}"
_DROP_XORBS: Final = "DELETE FROM xorb WHERE id IN (:values)"
_DOOMED: Final = """
SELECT count(*), sum(region_bytes), min(
    CASE WHEN doomed_at + :unused > offered_at + :offered THEN doomed_at + :unused ELSE offered_at + :offered END
) FROM xorb WHERE doomed_at IS NOT NULL
"""

_DELETED: Final = """
SELECT count(*), min(deleted_at) FROM deleted_grant WHERE NOT EXISTS (
    SELECT 1 FROM file_grant
    WHERE file_grant.namespace = deleted_grant.namespace AND file_grant.file_id = deleted_grant.file_id
)
"""


@dataclass(frozen=True, slots=True)
class FreeFile:
    """A file that no namespace has, and none can be given back; ``rows`` are those that go with it."""

    id: int
    hash: Hash
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Due:
    """Moments of a collection, in unix seconds: what was deleted, or doomed, or offered last, before them is due."""

    deleted_before: float
    doomed_before: float
    offered_before: float


class CollectQueries(Questions):
    """Questions of a collection."""

    def count_expired(self, due: Due) -> int:
        """Grants that can be given back no more."""
        return int(self.connection.value(_COUNT_EXPIRED, {"deleted_before": due.deleted_before}))

    def page_of_files(self, behind: int, most: int) -> int | None:
        """The last id of a page of files; None if none is behind ``behind``."""
        last: int | None = self.connection.value(_LAST_FILE, {"behind": behind, "most": most})
        return last

    def page_of_xorbs(self, behind: int, most: int) -> int | None:
        """The last id of a page of xorbs; None if none is behind ``behind``."""
        last: int | None = self.connection.value(_LAST_XORB, {"behind": behind, "most": most})
        return last

    def free_files(self, behind: int, last: int, due: Due) -> list[FreeFile]:
        """The files of a page that no namespace has, and none can be given back."""
        values = {"behind": behind, "last": last, "deleted_before": due.deleted_before}
        return [_free_file(*row) for row in self.connection.rows(_FREE_FILES, values)]

    def loose_xorbs(self, behind: int, last: int, *, offered_before: float) -> list[int]:
        """The xorbs of a page, by their ids, that no file is made of, and that no answer has offered since."""
        values = {"behind": behind, "last": last, "offered_before": offered_before}
        return [xorb_id for (xorb_id,) in self.connection.rows(_FIND_LOOSE, values)]

    def doomed_in_use(self, behind: int, last: int) -> list[int]:
        """The xorbs of a page, by their ids, that are doomed though a file is made of them."""
        return [xorb_id for (xorb_id,) in self.connection.rows(_FIND_USED, {"behind": behind, "last": last})]

    def due_xorbs(self, due: Due, most: int) -> list[int]:
        """Xorbs, by their ids, whose grace has passed."""
        values = {"doomed_before": due.doomed_before, "offered_before": due.offered_before, "most": most}
        return [xorb_id for (xorb_id,) in self.connection.rows(_FIND_DUE, values)]

    def count_due(self, due: Due) -> int:
        """Xorbs whose grace has passed, and that no file is made of."""
        values = {"doomed_before": due.doomed_before, "offered_before": due.offered_before}
        return int(self.connection.value(_COUNT_DUE, values))

    def doomed(self, *, unused: float, offered: float) -> tuple[int, int, float | None]:
        """The number of doomed xorbs, their bytes, and the moment when the first is due: ``unused`` seconds after it
        was doomed, and ``offered`` after it was last offered.
        """
        count, nbytes, first = self.connection.row(_DOOMED, {"unused": unused, "offered": offered}) or (0, 0, None)
        return int(count), int(nbytes or 0), first

    def deleted_grants(self) -> tuple[int, float | None]:
        """The number of deleted grants that can be given back, and the moment when the first of them was deleted."""
        count, first = self.connection.row(_DELETED) or (0, None)
        return int(count), first


class CollectChanges(RewriteChanges):
    """Changes of a collection. What they are told may have changed meanwhile: they look again."""

    def drop_expired(self, due: Due, most: int) -> list[tuple[str, Hash]]:
        """Forget grants that can be given back no more, at most ``most``; each namespace and file."""
        values = {"deleted_before": due.deleted_before, "most": most}
        found: list[tuple[str, int]] = list(self.connection.rows(_EXPIRED, values))
        each = [{"namespace": namespace, "file_id": file_id} for namespace, file_id in found]
        self.connection.change_many(_DROP_EXPIRED, each)
        names: dict[int, bytes] = dict(self.connection.rows_in(_FILE_NAMES, [file_id for _, file_id in found]))
        return [(namespace, name_of(names[file_id])) for namespace, file_id in found if file_id in names]

    def drop_files(self, files: Collection[int], due: Due, *, now: float) -> tuple[list[FreeFile], int]:
        """Delete those of these files that no namespace has got meanwhile, and doom the xorbs that were of no other.

        Returns those files, and how many xorbs are doomed.
        """
        ids = sorted(files)
        # A namespace that gets one now waits, or is waited for: then the next statement sees its grant.
        list(self.connection.rows_in(_LOCK_FILES, ids))
        values = {"deleted_before": due.deleted_before}
        free = [_free_file(*row) for row in self.connection.rows_in(_STILL_FREE, ids, values)]
        dropped = sorted(file.id for file in free)
        used = sorted(xorb_id for (xorb_id,) in self.connection.rows_in(_XORBS_OF, dropped))
        self.note_losses(dropped, now=now)
        self.connection.change_in(_DROP_FILES, dropped)
        return free, self.connection.change_in(_DOOM, used, {"now": now})

    def doom_loose(self, ids: Collection[int], *, now: float, offered_before: float) -> int:
        """Doom those of these xorbs that no file is made of still; how many."""
        return self.connection.change_in(_DOOM_LOOSE, ids, {"now": now, "offered_before": offered_before})

    def keep_used(self, ids: Collection[int]) -> None:
        """Let those of these xorbs that a file is made of be doomed no more."""
        self.connection.change_in(_KEEP_USED, ids)

    def drop_xorbs(self, ids: Collection[int], due: Due, *, now: float) -> list[XorbRow]:
        """Delete those of these xorbs that are due still, and that no file is made of; those. Their objects follow.

        Those that a file is made of by now are doomed no more.
        """
        ids = sorted(ids)
        # A file that is just being made of one waits, and finds it gone; or is waited for, and seen.
        list(self.connection.rows_in(_LOCK_XORBS, ids))
        values = {"doomed_before": due.doomed_before, "offered_before": due.offered_before}
        rows = [xorb_row(row) for row in self.connection.rows_in(_STILL_DUE, ids, values)]
        self.keep_used(ids)
        dropped = [row.id for row in rows]
        self.note_gone_xorbs(dropped, now=now)
        self.connection.change_in(_DROP_XORBS, dropped)
        for row in rows:
            self.supersede(row.key, now=now)
        return rows


def _free_file(file_id: int, digest: bytes, size: int, terms: int, xorbs: int) -> FreeFile:
    return FreeFile(file_id, name_of(digest), size, 1 + terms // SEGMENT_TERMS + xorbs)
