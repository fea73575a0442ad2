"""Quotas: what the files of some namespaces may have together, and what they have, kept true by each change of grants.

A change of grants first locks the quotas in question, then looks at what it changes: so those of one quota take turns,
and no number is wrong. Most namespaces have none. A change that asks for files anyway learns it by the same statement
(:data:`IS_COUNTED`), which keeps rows of the table ``file``; any other asks for quotas, which keeps rows of that table.
What sets a quota keeps all others out of both tables (:data:`TABLES`), so what was learnt holds to the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.errors import QuotaExceededError

if TYPE_CHECKING:
    from xetstore.database.connection import Row

IS_COUNTED: Final = "EXISTS (SELECT 1 FROM quota_namespace WHERE quota_namespace.namespace = :namespace)"
"""True if a quota holds for a namespace."""
TABLES: Final = ("quota", "file")

_HINT: Final = "delete files there, or ask the operator of the store for more"
_QUOTA: Final = "quota.namespace, quota.max_bytes, quota.max_files, quota.used_bytes, quota.used_files"
_OF_NAMESPACE: Final = "quota.namespace IN (SELECT quota FROM quota_namespace WHERE namespace = :namespace)"
_FOR_NAMESPACE: Final = f"SELECT {_QUOTA} FROM quota WHERE {_OF_NAMESPACE} ORDER BY quota.namespace"
_LOCKED: Final = f"{_FOR_NAMESPACE} FOR UPDATE"
_BEHIND: Final = f"SELECT {_QUOTA} FROM quota WHERE namespace > :behind ORDER BY namespace LIMIT 100"
_NAMED: Final = f"SELECT {_QUOTA} FROM quota WHERE namespace = :name"
_FULL: Final = "(quota.used_bytes >= quota.max_bytes OR quota.used_files >= quota.max_files)"
IS_FULL: Final = f"EXISTS (SELECT 1 FROM quota WHERE {_OF_NAMESPACE} AND {_FULL})"
"""True if a namespace can take no file any more."""

_HAS: Final = """EXISTS (
    SELECT 1 FROM file_grant WHERE file_grant.namespace = :namespace AND file_grant.file_id = file.id
)"""
_SUM: Final = "SELECT count(*), coalesce(sum(file.size), 0) FROM file"
_SUM_NEW: Final = f"{_SUM} WHERE id IN (:values) AND NOT {_HAS}"
_SUM_HELD: Final = f"{_SUM} WHERE id IN (:values) AND {_HAS}"
_SUM_ALL: Final = f"{_SUM} JOIN file_grant ON file_grant.file_id = file.id WHERE file_grant.namespace = :namespace"
_SUM_DELETED: Final = f"""
{_SUM} JOIN deleted_grant ON deleted_grant.file_id = file.id
WHERE deleted_grant.namespace = :namespace AND NOT {_HAS}
"""
_SIZES_AMONG: Final = """
SELECT DISTINCT file.size FROM file_grant JOIN file ON file.id = file_grant.file_id
WHERE file_grant.namespace = :namespace AND file.size IN (:values)
"""
_SUM_OF_QUOTA: Final = f"""
{_SUM} JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace IN few(SELECT namespace FROM quota_namespace WHERE quota = :name)
"""
_USE: Final = """
UPDATE quota SET used_bytes = used_bytes + :bytes, used_files = used_files + :files WHERE {}
"""
_USE_ALL: Final = _USE.format(_OF_NAMESPACE)
_USE_ONE: Final = _USE.format("namespace = :name")

_SET: Final = """
INSERT INTO quota (namespace, max_bytes, max_files, used_bytes, used_files)
VALUES (:name, CAST(:max_bytes AS BIGINT), CAST(:max_files AS BIGINT), 0, 0)
ON CONFLICT (namespace) DO UPDATE SET max_bytes = excluded.max_bytes, max_files = excluded.max_files
"""
_NOTE_USED: Final = "UPDATE quota SET used_bytes = :bytes, used_files = :files WHERE namespace = :name"
_REMOVE: Final = "DELETE FROM quota WHERE namespace = :name"
_DROP_MEMBERS: Final = "DELETE FROM quota_namespace WHERE quota = :quota"
_DROP_MEMBER: Final = f"{_DROP_MEMBERS} AND namespace = :namespace"
_ADD_MEMBER: Final = "INSERT INTO quota_namespace (namespace, quota) VALUES (:namespace, :quota)"
_OF_OWNER: Final = f"""
SELECT {_QUOTA}, lower(quota.namespace) = :owner_key, {_OF_NAMESPACE} FROM quota
WHERE quota.namespace <> :namespace AND (lower(quota.namespace) = :owner_key OR {_OF_NAMESPACE})
"""


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota: the limits, None for no limit, and what is used, in bytes of files and in files."""

    name: str
    max_bytes: int | None
    max_files: int | None
    used_bytes: int
    used_files: int

    def require(self, nbytes: int, files: int) -> None:
        """Raise QuotaExceededError unless this fits in, too; with 0 files unless anything does."""
        for unit, used, limit, more in (
            ("bytes", self.used_bytes, self.max_bytes, nbytes),
            ("files", self.used_files, self.max_files, files),
        ):
            if limit is not None and used + max(more, files == 0) > limit:
                rest = f", and this needs {more:,} more" if more else ""
                raise QuotaExceededError(
                    f"the quota of {self.name} is exceeded: {used:,} of {limit:,} {unit} are used{rest}", hint=_HINT
                )


class QuotaQueries(Questions):
    """Questions about quotas."""

    def quotas_after(self, behind: str) -> list[Quota]:
        """The next page of all quotas, by name."""
        return [Quota(*row) for row in self.connection.rows(_BEHIND, {"behind": behind})]

    def quota(self, name: str) -> Quota | None:
        """The quota of a name."""
        row = self.connection.row(_NAMED, {"name": name})
        return None if row is None else Quota(*row)

    def quotas_of(self, namespace: str) -> list[Quota]:
        """The quotas that hold for a namespace."""
        return [Quota(*row) for row in self.connection.rows(_FOR_NAMESPACE, {"namespace": namespace})]

    def sizes_among(self, namespace: str, sizes: Collection[int]) -> set[int]:
        """Those of these sizes that a file of a namespace has. Looks at all of its files."""
        return {int(size) for (size,) in self.connection.rows_in(_SIZES_AMONG, sizes, {"namespace": namespace})}

    def counted(self, name: str) -> tuple[int, int]:
        """The bytes and the files that count towards a quota, by a look at all of its files."""
        return _sums([self.connection.row(_SUM_OF_QUOTA, {"name": name})])


class QuotaChanges(QuotaQueries):
    """Changes of what is used. Each is called before the grants are changed."""

    def is_counted(self, namespace: str) -> bool:
        """True if a quota holds for a namespace, to the end of the transaction."""
        return bool(self._lock_quotas(namespace))

    def charge(self, namespace: str, file_ids: Collection[int], *, refuses: bool = True) -> None:
        """A namespace is about to be granted files, some of which it may have. Raises QuotaExceededError."""
        if quotas := self._lock_quotas(namespace):
            rows = self.connection.rows_in(_SUM_NEW, file_ids, {"namespace": namespace})
            self._use_quotas(namespace, quotas, *_sums(rows), refuses=refuses)

    def charge_deleted(self, namespace: str, deleted_at: float | None = None) -> None:
        """A namespace is about to be given back all that was taken out of it, or what was at that time.

        Raises QuotaExceededError.
        """
        if quotas := self._lock_quotas(namespace):
            asked = _SUM_DELETED if deleted_at is None else f"{_SUM_DELETED} AND deleted_grant.deleted_at = :deleted_at"
            rows = [self.connection.row(asked, {"namespace": namespace, "deleted_at": deleted_at})]
            self._use_quotas(namespace, quotas, *_sums(rows), refuses=True)

    def discharge(self, namespace: str, file_ids: Collection[int] | None = None) -> None:
        """These files, or all, are about to be taken out of a namespace."""
        if quotas := self._lock_quotas(namespace):
            values = {"namespace": namespace}
            rows: Iterable[Row | None] = (
                [self.connection.row(_SUM_ALL, values)]
                if file_ids is None
                else self.connection.rows_in(_SUM_HELD, file_ids, values)
            )
            nbytes, files = _sums(rows)
            self._use_quotas(namespace, quotas, -nbytes, -files, refuses=False)

    def set_quota(
        self,
        name: str,
        *,
        max_bytes: int | None,
        max_files: int | None,
        namespaces: Collection[str],
    ) -> Quota:
        """Set the limits for what these namespaces have together, and count that."""
        self.connection.keep_out(*TABLES)
        values = {"name": name, "max_bytes": max_bytes, "max_files": max_files}
        self.connection.change(_SET, values)
        self.connection.change(_DROP_MEMBERS, {"quota": name})
        self.connection.change_many(_ADD_MEMBER, [{"namespace": each, "quota": name} for each in sorted(namespaces)])
        return self.recount(name)

    def recount(self, name: str) -> Quota:
        """Count what is used of a quota. Others are kept from changing grants."""
        self.connection.keep_out(*TABLES)
        nbytes, files = self.counted(name)
        self.connection.change(_NOTE_USED, {"name": name, "bytes": nbytes, "files": files})
        quota = self.quota(name)
        assert quota is not None
        return quota

    def remove_quota(self, name: str) -> bool:
        """Remove a quota; False if there was none."""
        return self.connection.change(_REMOVE, {"name": name}) > 0

    def place_namespace(self, namespace: str, owner_key: str, *, refuses: bool = True) -> None:
        """A namespace is that of a repository of this owner from now on. Raises QuotaExceededError."""
        values = {"namespace": namespace, "owner_key": owner_key}
        if all(of_owner == counts for *_, of_owner, counts in self.connection.rows(_OF_OWNER, values)):
            return
        self.connection.keep_out(*TABLES)
        nbytes, files = _sums([self.connection.row(_SUM_ALL, {"namespace": namespace})])
        for *quota, of_owner, counts in list(self.connection.rows(_OF_OWNER, values)):
            if of_owner == counts:
                continue
            name = quota[0]
            if of_owner and files and refuses:
                Quota(*quota).require(nbytes, files)
            sign = 1 if of_owner else -1
            self.connection.change(_ADD_MEMBER if of_owner else _DROP_MEMBER, {"namespace": namespace, "quota": name})
            self.connection.change(_USE_ONE, {"name": name, "bytes": sign * nbytes, "files": sign * files})

    def _lock_quotas(self, namespace: str) -> list[Quota]:
        return [Quota(*row) for row in self.connection.rows(_LOCKED, {"namespace": namespace})]

    def _use_quotas(self, namespace: str, quotas: Iterable[Quota], nbytes: int, files: int, *, refuses: bool) -> None:
        if not files:
            return
        for quota in quotas if refuses else ():
            quota.require(nbytes, files)
        self.connection.change(_USE_ALL, {"namespace": namespace, "bytes": nbytes, "files": files})


def _sums(rows: Iterable[Row | None]) -> tuple[int, int]:
    """Bytes and files, of rows that count them the other way round."""
    nbytes = files = 0
    for row in rows:
        if row is not None:
            files += int(row[0])
            nbytes += int(row[1])
    return nbytes, files
