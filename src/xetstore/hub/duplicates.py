"""Duplicates: a repository with all of its history under another name, of which not a byte is copied."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from xetstore.errors import ExistsError, RepositoryNotFoundError
from xetstore.hub.copies import copy_files
from xetstore.hub.repository import Repository
from xetstore.hub.rights import Right
from xetstore.hub.service import check_visibility

if TYPE_CHECKING:
    from xetstore.cas.index import Writer
    from xetstore.hub.names import RepositoryName
    from xetstore.hub.queries import HubWriter, RepositoryRow


def duplicate(source: Repository, name: RepositoryName, *, visibility: str | None = None) -> Repository:
    """Create a repository with the branches, tags, history and files of another one, which its actor may read.

    Without a ``visibility`` it has that of the source. Raises ExistsError where the name is taken, ForbiddenError where
    the actor may not create there, GatedError where it may not read.
    """
    hub, actor = source.hub, source.actor
    source.require(Right.READ)
    hub.require_owner(actor, name)
    visibility = check_visibility(visibility or source.row.visibility)

    def work(writer: HubWriter, index: Writer) -> RepositoryRow:
        if not writer.keep_repository(source.row.id):
            raise RepositoryNotFoundError
        row = writer.add_repository(
            name,
            visibility=visibility,
            sdk=source.row.sdk,
            creator=actor.name or "admin",
            now=hub.now(),
            suffix=secrets.token_hex(8),
        )
        if row is None:
            raise ExistsError(f"A {name.kind.word} repository called {name.id} already exists")
        files = writer.copy_rows(source.row.id, row.id)
        copy_files(index, source.row.namespace, row.namespace, files, now=hub.now())
        return row

    return Repository(hub, hub.change(work), actor, Right.ADMIN)
