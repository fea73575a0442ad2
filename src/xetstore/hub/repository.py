"""Repository: one repository, as an actor sees it that may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import (
    ConflictError,
    DamagedError,
    EntryNotFoundError,
    ExistsError,
    ForbiddenError,
    GatedError,
    RevisionNotFoundError,
    UnauthenticatedError,
)
from xetstore.hub.committing import Committer, NewCommit
from xetstore.hub.discussions import is_own_pull_request, open_pull_request
from xetstore.hub.names import MAIN, PULL_REQUESTS, TAGS, RepositoryName, branch_ref, check_ref
from xetstore.hub.objects import EMPTY_TREE, GitObject, ObjectKind, TreeItem, write_tag
from xetstore.hub.operations import AddFile, AddPointer, Operation
from xetstore.hub.queries import HubReader, HubWriter, RepositoryRow, Revision
from xetstore.hub.revisions import no_revision, peeled, ref_names, resolve
from xetstore.hub.rights import Actor, Right, require_proposer
from xetstore.hub.sha256 import require_files
from xetstore.hub.trees import Entry, TreeReader

if TYPE_CHECKING:
    from xetstore.hub.service import EmbeddedHub

FIRST_MESSAGE: Final = "initial commit"


@dataclass(frozen=True, slots=True)
class Ref:
    """A ref: ``name`` is whole, as ``refs/heads/main``; ``commit`` is the id of the commit that it leads to."""

    name: str
    commit: bytes


class Repository:
    """A repository with the ``right`` of an actor at it, which was checked; every change checks what it needs.

    Thread-safe. ``row`` is as it was when it was opened.
    """

    def __init__(self, hub: EmbeddedHub, row: RepositoryRow, actor: Actor, right: Right) -> None:
        self.hub = hub
        self.row = row
        self.actor = actor
        self.right = right

    @property
    def name(self) -> RepositoryName:
        """Its name."""
        return self.row.name

    @property
    def cas(self) -> EmbeddedCas:
        """The store as this repository sees it."""
        return self.hub.cas_of(self.row)

    def require(self, right: Right) -> None:
        """Raise as :meth:`EmbeddedHub.repository` does where the actor has not this right."""
        require(right, self.right, self.actor, self.row)

    def require_commit(self, branch: str, *, create_pull_request: bool = False) -> None:
        """Raise as :meth:`require` does unless the actor may commit to a branch, or open a pull request on it.

        A reader may do the latter, and go on committing to a pull request that it opened, until that is closed.
        """
        may_propose = create_pull_request or (self.right < Right.WRITE and self._is_own_proposal(branch))
        self.require(Right.READ if may_propose else Right.WRITE)
        require_proposer(self.actor)

    # Reading

    def revision(self, text: str = "main") -> Revision:
        """The revision that a branch, a tag, a ref in full or an id names. Raises RevisionNotFoundError."""
        with self.hub.snapshot() as reader:
            return resolve(reader, self.row.id, text)

    def entry(self, revision: Revision, path: str) -> Entry:
        """The file or folder at a path. Raises EntryNotFoundError."""
        with self._reading() as (_, trees):
            return _entry(trees, revision, path)

    def find(self, text: str, path: str) -> tuple[Revision, Entry]:
        """The revision that a text names, and the entry at a path of it: both from one snapshot of the index."""
        with self._reading() as (reader, trees):
            revision = resolve(reader, self.row.id, text)
            return revision, _entry(trees, revision, path)

    def entries(
        self,
        revision: Revision,
        folder: str = "",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        """The entries of a folder, or the one of a file, by path; with all that is below it if ``recursive``.

        A page has ``limit`` of them at most, those behind the path ``after``. Raises EntryNotFoundError for a folder
        that is not there.
        """
        with self._reading() as (_, trees):
            item = _item(trees, revision, folder)
            if not item.is_folder:
                return list(trees.described([(folder, item)]))
            listed = islice(trees.walk(item.oid, folder, recursive=recursive, after=after), limit)
            return list(trees.described(list(listed)))

    def entries_at(self, revision: Revision, paths: Collection[str]) -> list[Entry]:
        """The entries at those of these paths where there is one, in the order of ``paths``."""
        with self._reading() as (_, trees):
            found = trees.at_each(revision.tree, paths)
            return list(trees.described([(path, found[path]) for path in dict.fromkeys(paths) if path in found]))

    def last_changes(self, revision: Revision, paths: Collection[str]) -> Mapping[str, Revision]:
        """The last commit up to a revision that changed each of these paths; of a folder anything in it."""
        with self.hub.snapshot() as reader:
            return reader.last_changes(self.row.id, revision, paths)

    def log(self, revision: Revision, *, limit: int, offset: int = 0) -> Sequence[Revision]:
        """A revision and those before it, the newest first; ``revision.number`` is how many there are."""
        with self.hub.snapshot() as reader:
            return reader.log(self.row.id, revision, limit=limit, offset=offset)

    def blob(self, entry: Entry) -> bytes:
        """The bytes of a file that the repository itself keeps: of a large one its pointer."""
        with self.hub.snapshot() as reader:
            found = reader.object(self.row.id, entry.oid)
        if found is None:
            raise DamagedError(f"{self.name} lacks the file {entry.path[:200]!r}")
        return found[1]

    def refs(self) -> list[Ref]:
        """All refs by name; an annotated tag leads to its commit."""
        with self.hub.snapshot() as reader:
            named = reader.refs(self.row.id)
            known = reader.revisions(self.row.id, {oid for _, oid in named})
            return [
                Ref(name, oid if oid in known else peeled(reader, self.row.id, oid, name).oid) for name, oid in named
            ]

    def used_bytes(self) -> int:
        """Bytes of all large files of its history, each content once."""
        with self.hub.snapshot() as reader:
            return reader.used_bytes(self.row.id)

    # Writing

    def commit(
        self,
        branch: str,
        operations: Sequence[Operation],
        message: str,
        *,
        parent: str | None = None,
        create_pull_request: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Revision, int | None]:
        """Make one commit of all operations on a branch, or none of it; the number of its pull request, if it has one.

        A file by SHA-256 is one that was stored by this repository, and has it: see
        :func:`~xetstore.hub.sha256.require_files`, also for ``on_wait``. A pull request is opened on ``branch`` and
        needs no right to write.
        Raises RevisionNotFoundError without the branch, OutdatedError if it is not at ``parent``, EntryNotFoundError
        and UnprocessableError for operations that cannot be.
        """
        self.require_commit(branch, create_pull_request=create_pull_request)
        ref = self._branch(branch, is_new_pull_request=create_pull_request)
        new = NewCommit(ref, operations, message, self.actor.author, parent)
        pointers = [each for each in operations if isinstance(each, AddPointer)]
        sizes = {each.sha256: each.size for each in pointers if each.size is not None}
        named = {each.sha256 for each in pointers}
        found = require_files(self.cas, named, sizes=sizes, caller=self.actor.name, on_wait=on_wait) if pointers else {}
        files = {sha256: (record.size, record.hash) for sha256, record in found.items()}

        def work(writer: HubWriter, _: Writer) -> tuple[Revision, int | None]:
            writer.kept_repository(self.row.id)  # first, as a collection does, which then looks at grants
            granted = writer.keep_granted(self.row.namespace, {file for _, file in files.values()})
            still = {sha256: file for sha256, file in files.items() if file[1] in granted}
            committer = self._committer(writer)
            if not create_pull_request:
                return committer.commit(new, still), None
            if (proposed := committer.proposed_before(new)) is not None:
                return proposed
            title = message.partition("\n")[0]
            opened = open_pull_request(
                writer, self.row.id, title=title, author=new.author, base=ref, now=self.hub.now()
            )
            return committer.commit(new, still, to=f"{PULL_REQUESTS}{opened.number}"), opened.number

        return self.hub.change(work)

    def begin(self, writer: HubWriter, files: Mapping[str, bytes]) -> Revision:
        """Make the first commit, in the transaction that makes the repository."""
        operations = [AddFile(path, data) for path, data in files.items()]
        new = NewCommit(MAIN, operations, FIRST_MESSAGE, self.actor.author)
        return self._committer(writer).commit(new, {})

    def create_branch(
        self, name: str, start: str | None = None, *, is_empty: bool = False, overwrite: bool = False
    ) -> Revision:
        """Create a branch at a revision, ``main`` if none is named; with ``is_empty`` at a commit of an empty tree.

        Raises ExistsError for a name that is taken, unless it is to be moved by ``overwrite``.
        """
        self.require(Right.WRITE)
        ref = branch_ref(name)

        def work(writer: HubWriter, _: Writer) -> Revision:
            writer.kept_repository(self.row.id)
            if is_empty:
                writer.add_objects(self.row.id, [EMPTY_TREE])
                revision = self._committer(writer).add(None, EMPTY_TREE.oid, FIRST_MESSAGE, self.actor.author, ())
            else:
                revision = resolve(writer, self.row.id, start or "main")
            before = writer.ref(self.row.id, ref)
            if before is None:
                if not writer.add_ref(self.row.id, ref, revision.oid):
                    raise ConflictError("another writer made the branch")
            elif not overwrite:
                raise ExistsError(f"Reference {ref} already exists")
            else:
                self._move(writer, ref, revision.oid, before)
            return revision

        return self.hub.change(work)

    def delete_branch(self, name: str) -> None:
        """Delete a branch. Raises RevisionNotFoundError without one, ForbiddenError for ``main``."""
        self.require(Right.WRITE)
        ref = branch_ref(name)
        if ref == MAIN:
            raise ForbiddenError("Cannot delete refs/heads/main")
        self._drop(ref, name)

    def create_tag(self, name: str, revision: str = "main", message: str | None = None) -> None:
        """Create a tag; with a message an annotated one. Raises ExistsError for a name that is taken."""
        self.require(Right.WRITE)
        tagger = self.actor.author

        def work(writer: HubWriter, _: Writer) -> None:
            writer.kept_repository(self.row.id)
            oid = resolve(writer, self.row.id, revision).oid  # first: clients are told of an absent revision as such
            ref = TAGS + check_ref(name)
            if message:
                now = int(self.hub.now())
                tag = GitObject.of(ObjectKind.TAG, write_tag(name, oid, f"{tagger} <{tagger}@localhost>", message, now))
                writer.add_objects(self.row.id, [tag])
                oid = tag.oid
            if not writer.add_ref(self.row.id, ref, oid):
                raise ExistsError(f"Reference {ref} already exists")

        self.hub.change(work)

    def delete_tag(self, name: str) -> None:
        """Delete a tag. Raises RevisionNotFoundError without one."""
        self.require(Right.WRITE)
        self._drop(TAGS + name, name)

    def squash(self, branch: str, message: str) -> Revision:
        """Let a branch be one commit with the tree that it has, and no history. The one before is kept for a while."""
        self.require(Right.WRITE)
        ref = self._branch(branch)

        def work(writer: HubWriter, _: Writer) -> Revision:
            writer.kept_repository(self.row.id)
            before = writer.ref(self.row.id, ref)
            if before is None:
                raise no_revision(branch)
            tip = peeled(writer, self.row.id, before, branch)
            trees = TreeReader(writer, self.row.id, self.hub.trees)
            paths = [path for path, _ in trees.walk(tip.tree, recursive=True)]
            revision = self._committer(writer).add(None, tip.tree, message, self.actor.author, paths)
            self._move(writer, ref, revision.oid, before)
            writer.touch_repository(self.row.id, self.hub.now())
            return revision

        return self.hub.change(work)

    def _branch(self, text: str, *, is_new_pull_request: bool = False) -> str:
        """The ref of a branch, in full: a commit is made on nothing else. Raises RevisionNotFoundError."""
        if text == "HEAD":
            return MAIN
        names = [name for name in ref_names(text) if not name.startswith(TAGS)]
        with self.hub.snapshot() as reader:
            found = reader.refs_named(self.row.id, names)
        for name in names:
            if name in found:
                return name
        if text == "main" and not is_new_pull_request:
            return MAIN  # an empty repository begins with it
        raise no_revision(text)

    def _is_own_proposal(self, branch: str) -> bool:
        if self.actor.name is None or not branch.startswith(PULL_REQUESTS):
            return False
        with self.hub.snapshot() as reader:
            return is_own_pull_request(reader, self.row.id, branch, self.actor.name)

    def _move(self, writer: HubWriter, ref: str, oid: bytes, before: bytes) -> None:
        """Let a ref be at a commit that may not lead to where it was; that is kept for a while."""
        if not writer.move_ref(self.row.id, ref, oid, before=before):
            raise ConflictError("another writer moved the branch")
        if oid != before:
            writer.keep_refs(self.row.id, [(ref, before)], deleted_at=self.hub.now())

    def _drop(self, ref: str, name: str) -> None:
        def work(writer: HubWriter, _: Writer) -> None:
            writer.kept_repository(self.row.id)
            before = writer.ref(self.row.id, ref)
            if before is None:
                raise RevisionNotFoundError(f"Invalid rev id: {name[:200]}")
            if not writer.drop_ref(self.row.id, ref, before=before):
                raise ConflictError("another writer moved the ref")
            writer.keep_refs(self.row.id, [(ref, before)], deleted_at=self.hub.now())

        with self.hub.cas.index.for_care():
            self.hub.change(work)

    def _committer(self, writer: HubWriter) -> Committer:
        return Committer(writer, self.row.id, self.hub.trees, self.hub.now())

    @contextmanager
    def _reading(self) -> Iterator[tuple[HubReader, TreeReader]]:
        with self.hub.snapshot() as reader:
            yield reader, TreeReader(reader, self.row.id, self.hub.trees, self.row.shrunk_at)


def _item(trees: TreeReader, revision: Revision, path: str) -> TreeItem:
    item = trees.at(revision.tree, path)
    if item is None:
        raise EntryNotFoundError(f"Entry not found: {path[:200]}", commit=revision.id)
    return item


def _entry(trees: TreeReader, revision: Revision, path: str) -> Entry:
    [entry] = trees.described([(path, _item(trees, revision, path))])
    return entry


def require(right: Right, held: Right, actor: Actor, row: RepositoryRow) -> None:
    """Raise GatedError, UnauthenticatedError or ForbiddenError where an actor that sees it has not a right."""
    if held >= right:
        return
    if held is Right.SEE:
        raise GatedError(
            f"Access to {row.kind.word} {row.name.id} is restricted and you are not in the authorized list."
        )
    if not actor.is_known:
        raise UnauthenticatedError("this needs a token")
    raise ForbiddenError(f"this needs a token with the right to {_WORDS[right]} {row.name.id}")


_WORDS = {Right.SEE: "see", Right.READ: "read", Right.WRITE: "write to", Right.ADMIN: "administer"}
