"""Care of a store in this process, as users call for it: what its files take, and whether they are whole.

Names, and git with them, are loaded only where there are some.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xetstore.cas.check import CheckReport, Selection
from xetstore.cas.check import check as check_store
from xetstore.cas.usage import NamespaceUsage, WhatIf, usage_by_namespace
from xetstore.cas.usage import what_if_deleted as what_if_these_are_deleted
from xetstore.errors import UsageError
from xetstore.hub.tables import MIGRATIONS
from xetstore.protocol.hashes import Hash
from xetstore.store.what import What, named

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.hub.service import EmbeddedHub
    from xetstore.transfer.progress import Progress


def what_if_deleted(cas: EmbeddedCas, names: Iterable[What]) -> WhatIf:
    """Tell what deleting these would free: files by their hashes, and what ``xet://`` names, with its history."""
    from xetstore.hub.usage import Doomed, files_behind
    from xetstore.remote.hub.locators import HubLocator

    doomed: list[Doomed] = []
    files: set[Hash] = set()
    for name in map(named, names):
        if isinstance(name, Hash):
            files.add(name)
            continue
        parsed = HubLocator.parse(name)
        doomed.append(Doomed(parsed.id, parsed.revision if parsed.path or "@" in name else None, parsed.path))
    named_files: dict[str, set[Hash]] = {cas.tenant.namespace: files} if files else {}
    namespaces: set[str] = set()
    if doomed:
        found, namespaces = files_behind(_hub(cas), doomed)
        for namespace, some in found.items():
            named_files.setdefault(namespace, set()).update(some)
    return what_if_these_are_deleted(cas, named_files, namespaces)


def usage(cas: EmbeddedCas, by: str) -> list[tuple[str, NamespaceUsage]]:
    """Tell what each ``namespace`` takes, or each ``repo``, by name."""
    if by not in ("namespace", "repo"):
        raise UsageError(f"usage is told by namespace or repo, not {by!r:.80}")
    usages = usage_by_namespace(cas)
    if by == "namespace":
        return [(usage.namespace, usage) for usage in usages]
    from xetstore.hub.usage import names_of_namespaces

    names = names_of_namespaces(_hub(cas), [usage.namespace for usage in usages])
    return [(names[usage.namespace].path, usage) for usage in usages if usage.namespace in names]


def check(
    cas: EmbeddedCas,
    *,
    read_data: bool,
    checksums: bool,
    selection: Selection | None,
    dry_run: bool,
    progress: Progress,
) -> CheckReport:
    """Look for damage in the store, and in the names of its repositories if it has any."""
    report = check_store(
        cas, read_data=read_data, checksums=checksums, selection=selection, dry_run=dry_run, progress=progress
    )
    if not cas.index.version_of(MIGRATIONS):
        return report
    cas.index.migrate(MIGRATIONS)
    from xetstore.hub.check import check_names

    return check_names(cas.index, report, read_data=read_data or checksums)


def _hub(cas: EmbeddedCas) -> EmbeddedHub:
    from xetstore.hub.service import EmbeddedHub

    return EmbeddedHub(cas)
