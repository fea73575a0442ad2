"""The guard of a repository's files: one that the repository names is deleted by its name, not by its hash."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from xetstore.cas.index import Writer
from xetstore.errors import ForbiddenError, RepositoryNotFoundError
from xetstore.hub.queries.named import NamedQueries
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.index import Reader


def guard_named(reader: Reader, namespace: str, files: Collection[Hash]) -> None:
    """Raise ForbiddenError if the namespace is that of a repository which names one of these files, and
    RepositoryNotFoundError if that is deleted.

    Of a store without repositories nothing is asked but that.
    """
    if not reader.connection.has_table("repository"):
        return
    names = NamedQueries(reader.connection)
    if names.is_deleted(namespace):
        raise RepositoryNotFoundError
    if not files:
        return
    # In a transaction: of two writers side by side one could name a file while the other deletes it.
    found = names.repository_of_namespace(namespace, alone=isinstance(reader, Writer))
    if found is not None and (named := names.named_files(found[0], files)):
        file = next(file for file in files if file in named)
        raise ForbiddenError(
            f"file {file} is part of {found[1]}",
            hint="delete it by its name, as `xet rm xet://OWNER/NAME@REVISION/PATH`, and its history",
        )
