"""Quotas of owners and repositories: which namespaces count towards one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from xetstore.cas import quotas
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.quotas import Quota
from xetstore.cas.quotas import Difference, Members
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UsageError
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.tables import MIGRATIONS

_NAMESPACES: Final = "SELECT namespace FROM repository WHERE owner_key = :owner_key"
_NAMESPACE: Final = "SELECT namespace FROM repository WHERE name_key = :key"


def set_quota(cas: EmbeddedCas, name: str, *, max_bytes: int | None, max_files: int | None) -> Quota:
    """Set the limits of an owner (``alice``), a repository (``alice/bert``), or a namespace of any name."""
    chosen = quota_name(cas, name)
    return quotas.set_quota(cas, chosen, max_bytes=max_bytes, max_files=max_files, members=_members(cas))


def remove_quota(cas: EmbeddedCas, name: str) -> None:
    """Remove the limits of what :func:`set_quota` takes. Raises NotFoundError."""
    quotas.remove_quota(cas, quota_name(cas, name))


def recount(cas: EmbeddedCas) -> list[Difference]:
    """As :func:`xetstore.cas.quotas.recount`, with the repositories that owners have now."""
    return quotas.recount(cas, _members(cas))


def quota_name(cas: EmbeddedCas, name: str) -> str:
    """The name of a quota: a repository goes by its namespace, anything else by itself."""
    if "/" not in name or not cas.index.version_of(MIGRATIONS):
        return name
    try:
        kind, _, rest = name.partition("/")
        known = rest and kind in [*Kind]
        key = RepositoryName.parse(rest if known else name, Kind(kind) if known else Kind.MODELS).key
    except UsageError:
        return name
    with cas.index.snapshot() as reader:
        namespace: str | None = reader.connection.value(_NAMESPACE, {"key": key})
    return namespace or name


def _members(cas: EmbeddedCas) -> Members | None:
    if not cas.index.version_of(MIGRATIONS):
        return None

    def members(writer: Writer, name: str) -> Collection[str]:
        if "/" in name:
            return ()
        writer.connection.keep_out("repository")  # one that is added meanwhile sees the quota
        rows = writer.connection.rows(_NAMESPACES, {"owner_key": name.lower()})
        return [namespace for (namespace,) in rows]

    return members
