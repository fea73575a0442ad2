"""RepositoryCopier: repositories of one store into another one: which they are, what they are called, who sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Final

from xetstore.cas.copying.files import FileCopier
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.database.connection import Row
from xetstore.hub.copying.contents import ContentCopier, Head
from xetstore.hub.copying.rows import TwoStores
from xetstore.hub.names import SET_ASIDE
from xetstore.hub.queries import HubReader, HubWriter
from xetstore.hub.queries.copying import NAMESPACES, PAGE_ROWS, REPOSITORIES, Copied

_SETTINGS: Final = tuple(name for name in REPOSITORIES.others if name != "updated_at")
_IDENTITY: Final = ("namespace", "created_at", "creator")


class RepositoryCopier:
    """Copies repositories. One is known by its namespace, which no other one ever has, and keeps its random id.

    To be called by one thread.
    """

    def __init__(self, stores: TwoStores, files: FileCopier, *, since_last: bool) -> None:
        self._stores = stores
        self._contents = ContentCopier(stores, files, since_last=since_last)

    def set_aside_gone(self) -> None:
        """Set those repositories of the target aside that came from the source, and are not there any more.

        Nothing is lost: each is private then, and belongs to an owner that no account can be. One that is given back in
        the source has its name again by the next copy.
        """
        stores, behind = self._stores, 0
        while stores.source_id and stores.has_target and not stores.run.is_dry:
            with stores.target() as reader:
                page = reader.copied_namespaces(stores.source_id, behind)
            with stores.source() as reader:
                there = reader.with_values(REPOSITORIES, "namespace", [namespace for _, namespace in page])
                kept = {_columns(row)["namespace"] for row in there if _is_living(_columns(row))}
            for number, namespace in page:
                if namespace not in kept:
                    stores.change(lambda writer, gone=number: self._set_aside(writer, gone))  # type: ignore[misc]
            if len(page) < PAGE_ROWS:
                return
            behind = page[-1][0]

    def copy_all(self, refused: Collection[str]) -> None:
        """Copy all repositories but those whose owners, in lower case, are ``refused``."""
        stores = self._stores
        if not stores.run.is_dry:
            stores.add(NAMESPACES, {}, {})
        for row in stores.rows(REPOSITORIES, {}):
            if _is_living(columns := _columns(row)) and columns["owner_key"] not in refused:
                self._copy(row[0])

    def _copy(self, source_number: int) -> None:
        stores = self._stores
        with stores.source() as reader:
            head = _head(reader, source_number)
        if head is None:  # deleted meanwhile
            return
        with stores.target() as reader:
            there = _of_namespace(reader, head.columns["namespace"]) if stores.has_target else None
        if there is not None and any(there[name] != head.columns[name] for name in _IDENTITY):
            stores.report(head.name, "the target has another repository in its place, which stays as it is")
            return
        if there is not None and there["deleted_at"] == 0:
            stores.report(head.name, "the one that the target had is being collected: copy again once it is gone")
            return
        number: int | None = None if there is None else there["id"]
        if number is not None and (fault := self._contents.fault(head, number)) is not None:
            stores.report(head.name, fault)
            return
        is_new = there is None or any(there[name] != head.columns[name] for name in _SETTINGS)
        if not stores.run.is_dry:
            number = stores.change(lambda writer: self._name(writer, head))
            if number is None:
                stores.report(head.name, "its name belongs to a repository of the target's own, which stays as it is")
                return
        is_changed = self._contents.copy(head, number)
        stores.tally.repositories += is_new or is_changed

    def _name(self, writer: HubWriter, head: Head) -> int | None:
        """Let the target have a repository, by its name and settings; its id, or None if another one has the name."""
        columns, source = head.columns, self._stores.source_id
        holder = next(iter(writer.with_values(REPOSITORIES, "name_key", [columns["name_key"]])), None)
        if holder is not None and _columns(holder)["namespace"] != columns["namespace"]:
            # One that came along has another name by now, and gets it when its turn comes.
            if not source or writer.copied(source, holder[0]) is None:
                return None
            self._set_aside(writer, holder[0])
        there = _of_namespace(writer, columns["namespace"])
        if there is None:
            values = {**columns, "updated_at": 0.0}  # until all of it is there
            if not writer.add_copied(values):
                return None
            there = _of_namespace(writer, columns["namespace"])
            assert there is not None
        elif any(there[name] != columns[name] for name in _SETTINGS):
            if not _is_living(there):  # it was deleted here alone
                Writer(writer.connection).restore_all(there["namespace"], deleted_at=there["deleted_at"])
            writer.set_copied(there["id"], columns)
        number: int = there["id"]
        QuotaChanges(writer.connection).place_namespace(columns["namespace"], columns["owner_key"], refuses=False)
        writer.set_former_names(number, head.former_names)
        if source and writer.copied(source, number) is None:
            writer.note_copied(source, number, columns["namespace"], Copied())
        return number

    def _set_aside(self, writer: HubWriter, number: int) -> None:
        [row] = writer.with_values(REPOSITORIES, "id", [number])
        columns = _columns(row)
        told = hashlib.sha256(columns["namespace"].encode()).hexdigest()[:8]
        shown = f"{columns['owner']}.{columns['name']}"[:80].rstrip(".-")
        is_aside = columns["owner"] == SET_ASIDE and columns["name"].endswith(told)
        if _is_living(columns) and not is_aside:
            writer.set_aside(number, kind=columns["kind"], owner=SET_ASIDE, name=f"{shown}.{told}")
        QuotaChanges(writer.connection).place_namespace(columns["namespace"], SET_ASIDE.lower())
        writer.forget_repository(self._stores.source_id, number)


def _columns(row: Row) -> dict[str, Any]:
    return dict(zip(REPOSITORIES.columns, row, strict=True))


def _is_living(columns: dict[str, Any]) -> bool:
    """True if a repository is not deleted: one that is comes to no copy, until it is given back."""
    return columns["deleted_at"] is None


def _of_namespace(reader: HubReader, namespace: str) -> dict[str, Any] | None:
    rows = reader.with_values(REPOSITORIES, "namespace", [namespace])
    return _columns(rows[0]) if rows else None


def _head(reader: HubReader, number: int) -> Head | None:
    rows = reader.with_values(REPOSITORIES, "id", [number])
    row = reader.repository_by_id(number)
    if not rows or row is None:
        return None
    return Head(
        number,
        _columns(rows[0]),
        tuple(reader.former_names(number)),
        dict(reader.refs(number)),
        reader.last_object(number),
        row.shrunk_at,
    )
