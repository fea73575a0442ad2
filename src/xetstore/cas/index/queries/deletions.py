"""Grants that are taken away, and given back: for a while a file stays that no namespace has any more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.cas.index.queries.rows import name_of
from xetstore.protocol.hashes import Hash

_GRANTED: Final = """
SELECT file.id, file.hash FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace = :namespace AND file.hash IN (:values) FOR KEY SHARE
"""
_DELETED: Final = """
SELECT file.id, file.hash FROM file JOIN deleted_grant ON deleted_grant.file_id = file.id
WHERE deleted_grant.namespace = :namespace AND file.hash IN (:values) FOR KEY SHARE
"""
_THESE: Final = "namespace = :namespace AND file_id IN (:values)"
_ALL: Final = "namespace = :namespace"
_NOTE: Final = """
INSERT INTO deleted_grant (namespace, file_id, created_at, deleted_at)
SELECT namespace, file_id, created_at, :now FROM file_grant WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id) DO UPDATE SET deleted_at = excluded.deleted_at, created_at = excluded.created_at
"""
_NOTE_CLAIMS: Final = """
INSERT INTO deleted_claim (namespace, file_id, sha256)
SELECT namespace, file_id, sha256 FROM sha256_claim WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""
_DROP: Final = "DELETE FROM file_grant WHERE {}"
_GIVE_BACK: Final = """
INSERT INTO file_grant (namespace, file_id, created_at)
SELECT namespace, file_id, created_at FROM deleted_grant WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id) DO NOTHING
"""
_GIVE_CLAIMS_BACK: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT namespace, file_id, sha256 FROM deleted_claim WHERE {} ORDER BY file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""
_FORGET: Final = "DELETE FROM deleted_grant WHERE {}"


class DeletionChanges(QuotaChanges):
    """Changes of grants that can be undone until they are collected."""

    def revoke(self, namespace: str, files: Collection[Hash], *, now: float) -> set[Hash]:
        """Take files out of a namespace, at once; those of these that it had. They can be given back for a while."""
        return self._move(_GRANTED, self.discharge, (_NOTE, _NOTE_CLAIMS, _DROP), namespace, files, now)

    def revoke_all(self, namespace: str, *, now: float) -> None:
        """Take all files out of a namespace."""
        self.discharge(namespace)
        self._move_all((_NOTE, _NOTE_CLAIMS, _DROP), namespace, now)

    def restore(self, namespace: str, files: Collection[Hash], *, now: float) -> set[Hash]:
        """Give back files that were taken out of a namespace; those of these that are still there.

        Raises QuotaExceededError.
        """
        return self._move(_DELETED, self.charge, (_GIVE_BACK, _GIVE_CLAIMS_BACK, _FORGET), namespace, files, now)

    def restore_all(self, namespace: str, *, now: float) -> None:
        """Give back all files that were taken out of a namespace, and are still there.

        Raises QuotaExceededError.
        """
        self.charge_deleted(namespace)
        self._move_all((_GIVE_BACK, _GIVE_CLAIMS_BACK, _FORGET), namespace, now)

    def _move(
        self,
        asked: str,
        count: Callable[[str, Collection[int]], None],
        steps: Collection[str],
        namespace: str,
        files: Collection[Hash],
        now: float,
    ) -> set[Hash]:
        digests = [file.digest for file in files]
        found: dict[int, bytes] = dict(self.connection.rows_in(asked, digests, {"namespace": namespace}))
        if found:
            count(namespace, sorted(found))
        for step in steps:
            values = {"namespace": namespace, "now": now}
            self.connection.change_in(step.format(_THESE), sorted(found), values)
        return {name_of(digest) for digest in found.values()}

    def _move_all(self, steps: Collection[str], namespace: str, now: float) -> None:
        for step in steps:
            self.connection.change(step.format(_ALL), {"namespace": namespace, "now": now})
