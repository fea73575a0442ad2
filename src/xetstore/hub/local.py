"""LocalNames: the names of a store in this process, as its opener sees them, who may do everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.cancellation import Cancellation
from xetstore.errors import EntryNotFoundError, HashMismatchError, RepositoryNotFoundError, UsageError
from xetstore.hub.attributes import FILE as ATTRIBUTES
from xetstore.hub.attributes import attributes_of
from xetstore.hub.buckets import Bucket
from xetstore.hub.committing import message_of
from xetstore.hub.copies import copy_files
from xetstore.hub.names import HEADS, TAGS, Kind, RepositoryName
from xetstore.hub.objects import ObjectKind, object_id
from xetstore.hub.operations import AddFile, AddFolder, AddPointer, Delete, Operation
from xetstore.hub.queries import Listing, RepositoryRow, Revision
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL, PRIVATE, PUBLIC, Right
from xetstore.hub.trees import Entry
from xetstore.hub.undeleting import deleted_names, undelete_files, undelete_ref, undelete_repository
from xetstore.records import (
    Change,
    Commit,
    DeletedName,
    NewBlob,
    NewFolder,
    NewPointer,
    Ref,
    Removal,
    RepoFile,
    RepositoryId,
    RepositoryRecord,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.cas.service import EmbeddedCas
    from xetstore.hub.service import EmbeddedHub

PAGE: Final = 500
LARGE_BINARY_BYTES: Final = 1 << 20
"""Longer files with a zero byte near their start are large ones, whatever .gitattributes says."""


class LocalNames:
    """The names of an :class:`EmbeddedHub` as a :class:`~xetstore.interfaces.Names`. Thread-safe."""

    keeps_modes = True

    def __init__(self, hub: EmbeddedHub, location: str, cancellation: Cancellation | None = None) -> None:
        self._hub = hub
        self._cancellation = cancellation or Cancellation()
        self.location = location

    def cas_of(self, repo: RepositoryId) -> EmbeddedCas:
        """The store as a repository sees it."""
        return self._open(repo).cas

    def repositories(
        self, kind: str, *, owner: str | None = None, search: str | None = None
    ) -> Iterator[RepositoryRecord]:
        """Those of one kind, the last changed ones first."""
        listing = Listing((Kind.of_word(kind),), owner, search, limit=PAGE)
        while True:
            rows = self._hub.repositories(LOCAL, listing)
            for row in rows:
                yield _record(row)
            if len(rows) < PAGE:
                return
            listing = replace(listing, before=(rows[-1].updated_at, rows[-1].id))

    def create(self, repo: RepositoryId, *, is_private: bool | None = None) -> RepositoryRecord:
        """Create a repository."""
        visibility = None if is_private is None else PRIVATE if is_private else PUBLIC
        name = RepositoryName.parse(repo.name, Kind.of_word(repo.kind))
        sdk = "static" if name.kind is Kind.SPACES else None
        return _record(self._hub.create(LOCAL, name, visibility=visibility, sdk=sdk).row)

    def info(self, repo: RepositoryId) -> RepositoryRecord:
        """The record of a repository."""
        repository = self._open(repo)
        record = _record(repository.row)
        if not repository.row.kind.is_git:
            return record
        revision = repository.revision("main")
        files = repository.entries(revision, recursive=True)
        return replace(record, head=revision.id, size=sum(entry.size for entry in files))

    def delete(self, repo: RepositoryId) -> None:
        """Delete a repository."""
        self._hub.delete(LOCAL, Kind.of_word(repo.kind), repo.name)

    def deleted(self, repo: RepositoryId, path: str = "") -> list[DeletedName]:
        """Deleted names that can be given back."""
        try:
            return deleted_names(self._hub, LOCAL, _name(repo), path)
        except RepositoryNotFoundError:
            raise RepositoryNotFoundError(f"there is no repository {repo.path} in {self.location}") from None

    def undelete(self, repo: RepositoryId, *, to: str | None = None) -> RepositoryRecord:
        """Give a repository back."""
        name = _name(repo)
        other = None if to is None else RepositoryName.parse(to, name.kind)
        try:
            return _record(undelete_repository(self._hub, LOCAL, name, to=other).row)
        except RepositoryNotFoundError:
            raise RepositoryNotFoundError(
                f"no repository {repo.path} was deleted in {self.location}, or it is collected"
            ) from None

    def undelete_ref(self, repo: RepositoryId, name: str, *, to: str | None = None) -> Ref:
        """Give a branch or a tag back."""
        given = undelete_ref(self._open(repo, Right.WRITE), name, to=to)
        return Ref(given.name.removeprefix(HEADS).removeprefix(TAGS), given.name, given.commit.hex())

    def undelete_files(self, repo: RepositoryId, path: str, *, to: str | None = None) -> list[str]:
        """Give files of a bucket back."""
        repository = self._open(repo, Right.WRITE)
        if repository.row.kind.is_git:
            raise UsageError(f"{repo.path} is no bucket", hint="earlier revisions of a repository have its files")
        paths, is_more = undelete_files(Bucket(repository), path, to=to)
        while is_more:
            self._cancellation.check()
            some, is_more = undelete_files(Bucket(repository), path)
            paths += some
        return paths

    def move(self, repo: RepositoryId, name: str) -> None:
        """Give a repository another name."""
        kind = Kind.of_word(repo.kind)
        self._hub.move(LOCAL, kind, repo.name, RepositoryName.parse(name, kind))

    def commit_at(self, repo: RepositoryId, revision: str) -> Commit:
        """The commit that a revision is at."""
        return _commit(self._open(repo).revision(revision))

    def log(self, repo: RepositoryId, revision: str) -> Iterator[Commit]:
        """The commits of a revision, from new to old."""
        repository = self._open(repo)
        start = repository.revision(revision)
        for offset in range(0, start.number, PAGE):
            for one in repository.log(start, limit=PAGE, offset=offset):
                yield _commit(one)

    def branches(self, repo: RepositoryId) -> list[Ref]:
        """The branches."""
        return self._refs(repo, HEADS)

    def tags(self, repo: RepositoryId) -> list[Ref]:
        """The tags."""
        return self._refs(repo, TAGS)

    def create_branch(self, repo: RepositoryId, name: str, revision: str) -> None:
        """Create a branch."""
        self._open(repo).create_branch(name, revision)

    def delete_branch(self, repo: RepositoryId, name: str) -> None:
        """Delete a branch."""
        self._open(repo).delete_branch(name)

    def create_tag(self, repo: RepositoryId, name: str, revision: str, message: str = "") -> None:
        """Create a tag."""
        self._open(repo).create_tag(name, revision, message or None)

    def delete_tag(self, repo: RepositoryId, name: str) -> None:
        """Delete a tag."""
        self._open(repo).delete_tag(name)

    def entries(
        self, repo: RepositoryId, revision: str, path: str = "", *, recursive: bool = False, dates: bool = False
    ) -> Iterator[RepoFile]:
        """The content of a folder, or the one file."""
        repository = self._open(repo)
        at = repository.revision(revision)
        for page in batches(repository.entries(at, path, recursive=recursive), PAGE):
            last = repository.last_changes(at, [entry.path for entry in page]) if dates else {}
            for entry in page:
                commit = last.get(entry.path)
                yield replace(_file(entry), changed_at=None if commit is None else commit.created_at)

    def entries_at(self, repo: RepositoryId, revision: str, paths: Sequence[str]) -> list[RepoFile]:
        """The entries at those of these paths where there is one."""
        repository = self._open(repo)
        return [_file(entry) for entry in repository.entries_at(repository.revision(revision), paths)]

    def read(self, repo: RepositoryId, revision: str, file: RepoFile) -> Iterator[Buffer]:
        """The bytes of a file that git keeps."""
        yield from self.read_many(repo, revision, [file])

    def read_many(self, repo: RepositoryId, revision: str, files: Sequence[RepoFile]) -> list[bytes]:  # noqa: ARG002
        """The bytes of files that git keeps, by one query."""
        row = self._open(repo).row
        with self._hub.snapshot() as reader:
            blobs = {
                oid.hex(): data for oid, _, data in reader.objects(row.id, {bytes.fromhex(one.oid) for one in files})
            }
        found = []
        for file in files:
            data = blobs.get(file.oid)
            if data is None:
                raise EntryNotFoundError(f"{repo.path} has no such content for {file.path[:200]!r}")
            actual = object_id(ObjectKind.BLOB, data).hex()
            if actual != file.oid:
                raise HashMismatchError(file.path, expected=file.oid, actual=actual)
            found.append(data)
        return found

    def large_files(self, repo: RepositoryId, branch: str, files: Sequence[tuple[str, int, bytes]]) -> set[str]:
        """Those that .gitattributes names, those of more than 10 MiB, and binary ones of more than 1 MiB."""
        rules = attributes_of(self._attributes(self._open(repo), branch))
        return {
            path
            for path, size, sample in files
            if rules.is_large(path, size) or (size > LARGE_BINARY_BYTES and b"\0" in sample)
        }

    def adopt(self, repo: RepositoryId, source: RepositoryId, files: Sequence[RepoFile]) -> bool:
        """Grant large files of one repository to another one."""
        ours, theirs = self._open(repo).row.namespace, self._open(source).row.namespace
        hashes = [file.hash for file in files if file.hash is not None]
        lacking = self._hub.change(lambda _, writer: copy_files(writer, theirs, ours, hashes, now=self._hub.now()))
        return len(hashes) == len(files) and not lacking

    def commit(
        self,
        repo: RepositoryId,
        branch: str,
        changes: Sequence[Change],
        *,
        message: str,
        description: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Commit changes to a branch."""
        self._cancellation.check()
        removals = [change for change in changes if isinstance(change, Removal)]
        others = [change for change in changes if not isinstance(change, Removal)]
        text = message_of(message, description)
        repository = self._open(repo, Right.WRITE)
        operations = [_operation(change) for change in (*removals, *others)]
        revision, _ = repository.commit(branch, operations, text, parent=parent)
        return _commit(revision)

    def under(self, cancellation: Cancellation) -> LocalNames:
        """The same names, for calls that are not begun once ``cancellation`` is cancelled."""
        return LocalNames(self._hub, self.location, cancellation)

    def close(self) -> None:
        """Nothing is held."""

    def _open(self, repo: RepositoryId, right: Right = Right.READ) -> Repository:
        self._cancellation.check()
        try:
            return self._hub.repository(LOCAL, Kind.of_word(repo.kind), repo.name, right)
        except RepositoryNotFoundError:
            raise RepositoryNotFoundError(f"there is no repository {repo.path} in {self.location}") from None

    def _attributes(self, repository: Repository, revision: str) -> str:
        try:
            return repository.blob(repository.entry(repository.revision(revision), ATTRIBUTES)).decode(
                "utf-8", "replace"
            )
        except EntryNotFoundError:
            return ""

    def _refs(self, repo: RepositoryId, prefix: str) -> list[Ref]:
        return [
            Ref(ref.name.removeprefix(prefix), ref.name, ref.commit.hex())
            for ref in self._open(repo).refs()
            if ref.name.startswith(prefix)
        ]


def _name(repo: RepositoryId) -> RepositoryName:
    return RepositoryName.parse(repo.name, Kind.of_word(repo.kind))


def _record(row: RepositoryRow) -> RepositoryRecord:
    return RepositoryRecord(
        RepositoryId(row.kind.value, row.name.id),
        row.is_private,
        gated=row.gated,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _commit(revision: Revision) -> Commit:
    return Commit(revision.id, revision.title, revision.message, revision.author, revision.created_at)


def _file(entry: Entry) -> RepoFile:
    sha256 = None if entry.sha256 is None else entry.sha256.hex()
    return RepoFile(entry.path, entry.size, entry.id, entry.file, sha256, entry.mode)


def _operation(change: Change) -> Operation:
    match change:
        case NewBlob(path, data, mode):
            return AddFile(path, data, mode)
        case NewPointer(path, sha256, size, mode):
            return AddPointer(path, bytes.fromhex(sha256), size, mode)
        case NewFolder(path):
            return AddFolder(path)
        case Removal(path):
            return Delete(path)
    raise UsageError(f"{change!r} is no change")
