"""Grants that are taken away, and given back: for a while a file stays that no namespace has any more.

Where writers run side by side, rows may come between two statements of a transaction. So each step is about rows that
this transaction has locked, or that the step before has written: what came between stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.cas.index.queries.rows import Questions, name_of

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

_GRANTED: Final = """
SELECT file.id, file.hash FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace = :namespace AND file.hash IN (:values) ORDER BY file.id FOR UPDATE OF file_grant
"""
_DELETED: Final = """
SELECT file.id, file.hash FROM file JOIN deleted_grant ON deleted_grant.file_id = file.id
WHERE deleted_grant.namespace = :namespace AND file.hash IN (:values) ORDER BY file.id FOR UPDATE OF deleted_grant
"""
_THESE: Final = "namespace = :namespace AND file_id IN (:values)"
_ALL: Final = "namespace = :namespace"
_OF_THEN: Final = """namespace = :namespace AND file_id IN (
    SELECT gone.file_id FROM deleted_grant AS gone WHERE gone.namespace = :namespace AND gone.deleted_at = :now
)"""
_NOTED: Final = """EXISTS (
    SELECT 1 FROM deleted_grant AS noted
    WHERE noted.namespace = {0}.namespace AND noted.file_id = {0}.file_id AND noted.deleted_at = :now
)"""
_GIVEN: Final = """EXISTS (
    SELECT 1 FROM file_grant AS given WHERE given.namespace = {0}.namespace AND given.file_id = {0}.file_id
)"""

_NOTE: Final = """
INSERT INTO deleted_grant (namespace, file_id, created_at, deleted_at)
SELECT namespace, file_id, created_at, :now FROM file_grant WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id) DO UPDATE SET deleted_at = excluded.deleted_at, created_at = excluded.created_at
"""
_NOTE_CLAIMS: Final = f"""
INSERT INTO deleted_claim (namespace, file_id, sha256)
SELECT namespace, file_id, sha256 FROM sha256_claim WHERE {{}} AND {_NOTED.format("sha256_claim")} ORDER BY file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""
_DROP: Final = f"DELETE FROM file_grant WHERE {{}} AND {_NOTED.format('file_grant')}"
_REVOKE: Final = (_NOTE, _NOTE_CLAIMS, _DROP)

_GIVE_BACK: Final = """
INSERT INTO file_grant (namespace, file_id, created_at)
SELECT namespace, file_id, created_at FROM deleted_grant WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id) DO NOTHING
"""
# With the time of a new grant: a copy of what is new goes by it, and so does what ends grants of files without a name.
_GIVE_BACK_NOW: Final = _GIVE_BACK.replace("file_id, created_at FROM", "file_id, :now FROM")
_GIVE_CLAIMS_BACK: Final = f"""
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT namespace, file_id, sha256 FROM deleted_claim WHERE {{}} AND {_GIVEN.format("deleted_claim")} ORDER BY file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""
_FORGET: Final = f"DELETE FROM deleted_grant WHERE {{}} AND {_GIVEN.format('deleted_grant')}"
_RESTORE: Final = (_GIVE_BACK_NOW, _GIVE_CLAIMS_BACK, _FORGET)
_RESTORE_ALL: Final = (_GIVE_BACK, _GIVE_CLAIMS_BACK, _FORGET)

# A file that was put again is no deleted one, though its row in deleted_grant stays until it is collected.
_STATES: Final = """
SELECT file.hash, file.size, CASE WHEN file_grant.file_id IS NULL THEN deleted_grant.deleted_at END
FROM file
LEFT JOIN file_grant ON file_grant.file_id = file.id AND file_grant.namespace = :namespace
LEFT JOIN deleted_grant ON deleted_grant.file_id = file.id AND deleted_grant.namespace = :namespace
WHERE file.hash IN (:values) AND (file_grant.file_id IS NOT NULL OR deleted_grant.file_id IS NOT NULL)
"""
_BEFORE: Final = """
SELECT file.hash, file.size, deleted_grant.deleted_at
FROM deleted_grant JOIN file ON file.id = deleted_grant.file_id
WHERE deleted_grant.namespace = :namespace
AND (deleted_grant.deleted_at, deleted_grant.file_id) < (:deleted_at, :file_id)
AND NOT EXISTS (
    SELECT 1 FROM file_grant
    WHERE file_grant.namespace = deleted_grant.namespace AND file_grant.file_id = deleted_grant.file_id
)
ORDER BY deleted_grant.deleted_at DESC, deleted_grant.file_id DESC LIMIT :most
"""
_ID: Final = """
SELECT id FROM file WHERE hash = :hash AND (
    EXISTS (SELECT 1 FROM file_grant AS given WHERE given.namespace = :namespace AND given.file_id = file.id)
    OR EXISTS (SELECT 1 FROM deleted_grant AS gone WHERE gone.namespace = :namespace AND gone.file_id = file.id)
)
"""


@dataclass(frozen=True, slots=True)
class GrantState:
    """A file that a namespace has (``deleted_at`` None), or has deleted, at a time in unix seconds."""

    hash: Hash
    size: int
    deleted_at: float | None


class DeletionQueries(Questions):
    """Questions about files that were deleted."""

    def grant_states(self, namespace: str, files: Collection[Hash]) -> dict[Hash, GrantState]:
        """Those of these files that a namespace has, or has deleted and can have back."""
        rows = self.connection.rows_in(_STATES, [file.digest for file in files], {"namespace": namespace})
        return {name: GrantState(name, size, at) for name, size, at in ((name_of(row[0]), *row[1:]) for row in rows)}

    def deleted_before(self, namespace: str, last: tuple[float, Hash] | None, *, most: int) -> list[GrantState]:
        """The next page of the files that a namespace has deleted, the last one first: those behind ``last``, which is
        time and hash of one that was told of.
        """
        values = {"namespace": namespace, "deleted_at": math.inf, "file_id": 0, "most": most}
        if last is not None:
            # One that was collected since takes all others of its time with it.
            file_id = self.connection.value(_ID, {"namespace": namespace, "hash": last[1].digest})
            values |= {"deleted_at": last[0], "file_id": file_id or 0}
        return [GrantState(name_of(row[0]), *row[1:]) for row in self.connection.rows(_BEFORE, values)]


class DeletionChanges(DeletionQueries, QuotaChanges):
    """Changes of grants that can be undone until they are collected."""

    def revoke(self, namespace: str, files: Collection[Hash], *, now: float) -> set[Hash]:
        """Take files out of a namespace, at once; those of these that it had. They can be given back for a while."""
        is_counted = self.is_counted(namespace)
        found = self._locked(_GRANTED, namespace, files)
        if is_counted:
            self.discharge(namespace, found)
        self._run(_REVOKE, namespace, found, now)
        return {name_of(digest) for digest in found.values()}

    def revoke_all(self, namespace: str, *, now: float) -> None:
        """Take all files out of a namespace."""
        self.discharge(namespace)
        self._run_all(_REVOKE, namespace, now)

    def restore(self, namespace: str, files: Collection[Hash], *, now: float) -> set[Hash]:
        """Give back files that were taken out of a namespace; those of these that are still there.

        Raises QuotaExceededError.
        """
        is_counted = self.is_counted(namespace)
        found = self._locked(_DELETED, namespace, files)
        if is_counted:
            self.charge(namespace, found)
        self._run(_RESTORE, namespace, found, now)
        return {name_of(digest) for digest in found.values()}

    def restore_all(self, namespace: str, *, deleted_at: float | None = None) -> None:
        """Give back all files that were taken out of a namespace, and are still there; with ``deleted_at`` those that
        :meth:`revoke_all` took out at that time.

        Raises QuotaExceededError.
        """
        self.charge_deleted(namespace, deleted_at)
        if deleted_at is None:
            self._run_all(_RESTORE_ALL, namespace, 0.0)
        else:
            self._run_all(_RESTORE_ALL, namespace, deleted_at, _OF_THEN)

    def lock_grants(self, namespace: str, files: Collection[Hash]) -> None:
        """Let no other writer lean on these grants, or renew them, until the transaction ends; for :meth:`revoke`."""
        self.is_counted(namespace)  # locks in the order of that
        self._locked(_GRANTED, namespace, files)

    def _locked(self, asked: str, namespace: str, files: Collection[Hash]) -> dict[int, bytes]:
        """Those of these files of which there is such a row, by their ids: no other writer takes it meanwhile."""
        return dict(self.connection.rows_in(asked, [file.digest for file in files], {"namespace": namespace}))

    def _run(self, steps: Collection[str], namespace: str, found: Collection[int], now: float) -> None:
        for step in steps:
            self.connection.change_in(step.format(_THESE), sorted(found), {"namespace": namespace, "now": now})

    def _run_all(self, steps: Collection[str], namespace: str, now: float, which: str = _ALL) -> None:
        for step in steps:
            self.connection.change(step.format(which), {"namespace": namespace, "now": now})
