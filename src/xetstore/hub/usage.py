"""Names that may be deleted, as the files that would leave the store's namespaces; and the names of these."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from xetstore.errors import EntryNotFoundError, UsageError
from xetstore.hub.buckets import MAX_PAGE
from xetstore.hub.duplicates import reachable
from xetstore.hub.names import Kind
from xetstore.hub.queries import RepositoryRow
from xetstore.hub.queries.buckets import behind
from xetstore.hub.revisions import ref_names
from xetstore.hub.rights import LOCAL
from xetstore.protocol.hashes import Hash
from xetstore.records import RepositoryId

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository
    from xetstore.hub.service import EmbeddedHub


class Doomed(NamedTuple):
    """A name that may be deleted: a file or folder with its history, a branch or tag, or a whole repository.

    ``revision`` is None for a whole repository, and for all of a bucket.
    """

    repo: RepositoryId
    revision: str | None
    path: str


def files_behind(hub: EmbeddedHub, names: Iterable[Doomed]) -> tuple[dict[str, set[Hash]], set[str]]:
    """The files that no name of their repository would lead to any more, by namespace; and whole namespaces.

    Raises RepositoryNotFoundError, RevisionNotFoundError and EntryNotFoundError, UsageError for a commit that is no
    branch or tag, UnprocessableError for a repository that has too many objects.
    """
    files: dict[str, set[Hash]] = {}
    namespaces: set[str] = set()
    refs: dict[int, tuple[Repository, set[str]]] = {}
    paths: dict[int, tuple[Repository, set[str]]] = {}
    for name in names:
        repository = hub.repository(LOCAL, Kind.of_word(name.repo.kind), name.repo.name)
        row = repository.row
        if name.path and not row.kind.is_git:
            paths.setdefault(row.id, (repository, set()))[1].add(name.path)
        elif name.path:
            found = _large_files(repository, name.revision or "main", name.path)
            files.setdefault(row.namespace, set()).update(found)
        elif name.revision is None:
            namespaces.add(row.namespace)
        else:
            refs.setdefault(row.id, (repository, set()))[1].add(_ref(hub, row, name.revision))
    for repository, chosen in refs.values():
        found = _only_behind(hub, repository.row, chosen)
        files.setdefault(repository.row.namespace, set()).update(found)
    for repository, prefixes in paths.values():
        found = _only_at(hub, repository.row, prefixes)
        files.setdefault(repository.row.namespace, set()).update(found)
    with hub.snapshot() as reader:
        granted = {namespace: reader.granted(namespace, found) for namespace, found in files.items()}
    return granted, namespaces


def names_of_namespaces(hub: EmbeddedHub, namespaces: Collection[str]) -> dict[str, RepositoryId]:
    """The repositories that these namespaces belong to, by namespace."""
    with hub.snapshot() as reader:
        rows = reader.repositories_of(namespaces)
    return {row.namespace: RepositoryId(row.kind.value, row.name.id) for row in rows}


def _large_files(repository: Repository, revision: str, path: str) -> set[Hash]:
    """The large files at a path, and below it."""
    tip = repository.revision(revision)
    entries = repository.entries(tip, path, recursive=True)
    return {entry.file for entry in entries if entry.file is not None}


def _ref(hub: EmbeddedHub, row: RepositoryRow, text: str) -> str:
    with hub.snapshot() as reader:
        known = reader.refs_named(row.id, names := ref_names(text))
    for name in names:
        if name in known:
            return name
    raise UsageError(f"{text[:200]!r} is no branch or tag of {row.name}", hint="a commit is not deleted by itself")


def _only_behind(hub: EmbeddedHub, row: RepositoryRow, chosen: Collection[str]) -> set[Hash]:
    """The files of these refs and their history that no other ref leads to."""
    with hub.snapshot() as reader:
        refs = reader.refs(row.id)
    _, theirs = reachable(hub, row.id, {oid for name, oid in refs if name in chosen})
    _, others = reachable(hub, row.id, {oid for name, oid in refs if name not in chosen})
    with hub.snapshot() as reader:
        return reader.files_among(row.id, theirs - others) - reader.files_among(row.id, others)


def _only_at(hub: EmbeddedHub, row: RepositoryRow, chosen: Collection[str]) -> set[Hash]:
    """The files at these paths of a bucket, and below them, which are at no other path."""
    found: set[Hash] = set()
    reached = set()
    for is_asked in (True, False):
        start = ""
        while True:
            with hub.snapshot() as reader:
                page = reader.bucket_files(row.id, prefix="", start=start, limit=MAX_PAGE)
            for file in page:
                at = {path for path in chosen if file.path == path or file.path.startswith(f"{path}/")}
                reached |= at
                if bool(at) == is_asked:
                    (found.add if is_asked else found.discard)(file.file)
            if len(page) < MAX_PAGE:
                break
            start = behind(page[-1])
    for path in chosen:
        if path not in reached:
            raise EntryNotFoundError(f"there is no file {path[:200]!r} in this bucket")
    return found
