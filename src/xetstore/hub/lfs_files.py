"""The large files of a repository as those who pay for them see them: all that its history names, and their end.

What is deleted for good is gone from each ref, and its bytes from the repository: its grant ends in the transaction in
which the refs move. With its history rewritten no commit of a ref names it, and the commits before are not kept: no
name leads back to it. As long as its grant is not collected, a writer can give the file back by its hash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.cas.snapshots.journal import note_deleted
from xetstore.errors import ConflictError, DamagedError, UnprocessableError
from xetstore.hub.committing import Committer
from xetstore.hub.names import HEADS, MAIN, PULL_REQUESTS, TAGS, add_with_folders
from xetstore.hub.objects import EMPTY_TREE, FOLDER, CommitData, GitObject, ObjectKind, TreeItem, write_tree
from xetstore.hub.queries import HubReader, HubWriter, Pointed, Revision
from xetstore.hub.revisions import peeled
from xetstore.hub.rights import Right
from xetstore.hub.trees import TreeReader
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository

MAX_FILES: Final = 1000
"""Files of one page, and of one call that deletes some."""
MAX_REVISIONS: Final = 100_000
"""The longest history that is rewritten, or looked at to name a file that no ref has."""
_LOG_PAGE: Final = 500


_Place = tuple[str, str, Revision]


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A large file of a repository, and the newest place where it was found: a path, the ref, the commit that brought
    it there. They are empty where none was found.
    """

    pointed: Pointed
    path: str = ""
    ref: str = ""
    revision: Revision | None = None


def list_large_files(repository: Repository, *, after: bytes = b"", limit: int = MAX_FILES) -> list[LargeFile]:
    """A page of all large files that the history of any ref names, by SHA-256; those behind ``after``."""
    with repository.hub.snapshot() as reader:
        page = reader.large_files(repository.row.id, after=after, limit=limit)
        places = _Places(repository, reader, {each.oid for each in page}).find()
    return [LargeFile(each, *places.get(each.oid, ())) for each in page]


def delete_large_files(repository: Repository, digests: Collection[bytes], *, rewrite_history: bool = True) -> None:
    """Delete large files for good, by SHA-256; those that are not there are left out.

    They are taken out of each commit of each ref, or without ``rewrite_history`` by a new commit on each branch. Older
    commits that name one show its name and not its bytes. Needs the right to write.
    """
    repository.require(Right.WRITE)
    row, now = repository.row, repository.hub.now()

    def work(writer: HubWriter, cas: Writer) -> tuple[Collection[bytes], Collection[Hash]]:
        writer.kept_repository(row.id)
        gone = writer.pointers_of(row.id, digests)
        revoked: Collection[Hash] = ()
        if gone:
            left: list[tuple[str, bytes]] = []
            removal = _Removal(repository, writer, gone)
            for name, oid in sorted(writer.refs(row.id), key=_order, reverse=True):  # what was merged goes first
                tip = peeled(writer, row.id, oid, name)
                moved = removal.rewritten(tip) if rewrite_history else removal.committed(name, tip)
                if moved.oid == tip.oid:
                    continue
                if not writer.move_ref(row.id, name, moved.oid, before=oid):
                    raise ConflictError("another writer moved the ref")
                left.append((name, oid))
            writer.move_commits(row.id, removal.moved)
            writer.keep_refs(row.id, left, deleted_at=-now)
            writer.forget_large_files(row.id, digests)
            revoked = cas.revoke(row.namespace, {*gone.values()}, now=now)
            writer.touch_repository(row.id, now)
            writer.note_shrunk(row.id, now)
        return gone, revoked

    with repository.hub.cas.index.for_care():
        gone, revoked = repository.hub.change(work)
    repository.hub.trees.forget_blobs(row.id, row.shrunk_at, gone)
    if revoked:
        note_deleted(repository.hub.cas, row.namespace, revoked, at=now)


def _order(ref: tuple[str, bytes]) -> tuple[int, str]:
    """Refs in the order in which they are looked at: main, branches, pull requests, tags."""
    name = ref[0]
    kinds = (name == MAIN, name.startswith(HEADS), name.startswith(PULL_REQUESTS), True)
    return kinds.index(True), name


class _Places:
    """Looks for blobs in the trees of all refs, the newest commits first. Each tree is read once."""

    def __init__(self, repository: Repository, reader: HubReader, wanted: set[bytes]) -> None:
        self._id = repository.row.id
        self._reader = reader
        self._trees = TreeReader(reader, self._id, repository.hub.trees)
        self._wanted = wanted
        self._seen: set[bytes] = set()

    def find(self) -> dict[bytes, _Place]:
        found: dict[bytes, _Place] = {}
        tips: list[tuple[str, Revision]] = []
        for name, oid in sorted(self._reader.refs(self._id), key=_order):
            tips.append((name, peeled(self._reader, self._id, oid, name)))
            found |= self._in(name, tips[-1][1])
        for name, tip in tips:
            for offset in range(0, min(tip.number, MAX_REVISIONS), _LOG_PAGE):
                if not self._wanted:
                    return found
                for revision in self._reader.log(self._id, tip, limit=_LOG_PAGE, offset=offset):
                    found |= self._in(name, revision)
        return found

    def _in(self, ref: str, revision: Revision) -> dict[bytes, _Place]:
        """The blobs that a revision has and no one looked at before."""
        paths = {oid: path for path, oid in self._blobs(revision.tree) if oid in self._wanted}
        self._wanted -= paths.keys()
        if not paths:
            return {}
        changes = self._reader.last_changes(self._id, revision, set(paths.values()))
        return {oid: (path, ref, changes.get(path, revision)) for oid, path in paths.items()}

    def _blobs(self, root: bytes) -> Iterator[tuple[str, bytes]]:
        """Paths and blobs of trees that were not looked at, a level of them in one query."""
        level = {root: ""}
        while level := {oid: prefix for oid, prefix in level.items() if oid not in self._seen}:
            self._seen |= level.keys()
            below: dict[bytes, str] = {}
            for oid, tree in self._trees.trees(level.keys()).items():
                for name, item in tree.items():
                    if item.is_folder:
                        below[item.oid] = f"{level[oid]}{name}/"
                    else:
                        yield level[oid] + name, item.oid
            level = below


class _Removal:
    """Takes blobs out of trees and commits, each of which is looked at once."""

    def __init__(self, repository: Repository, writer: HubWriter, gone: Mapping[bytes, object]) -> None:
        self._id = repository.row.id
        self._writer = writer
        self._trees = TreeReader(writer, self._id, repository.hub.trees)
        self._committer = Committer(writer, self._id, repository.hub.trees, repository.hub.now())
        self._author = repository.actor.author
        self._gone = gone
        self._filtered: dict[bytes, bytes | None] = {}
        self._rewritten: dict[bytes, Revision] = {}
        self._made: list[GitObject] = []

    @property
    def moved(self) -> dict[bytes, bytes]:
        """The ids of commits that were rewritten, and those of the ones that stand for them now."""
        return {oid: revision.oid for oid, revision in self._rewritten.items()}

    def committed(self, ref: str, tip: Revision) -> Revision:
        """A commit without the blobs on a branch; the tip itself where it has none of them, and of a tag."""
        root = self._root(tip.tree)
        if root == tip.tree or ref.startswith(TAGS):
            return tip
        paths = [path for path, item in self._trees.walk(tip.tree, recursive=True) if item.oid in self._gone]
        self._add_trees()
        title = f"Delete {len(paths)} large files" if len(paths) > 1 else f"Delete {paths[0][:200]}"
        return self._committer.add(tip, root, title, self._author, _with_folders(paths))

    def rewritten(self, tip: Revision) -> Revision:
        """The history of a revision without the blobs: the revision that stands for it now."""
        if tip.number > MAX_REVISIONS:
            raise UnprocessableError(f"a history of more than {MAX_REVISIONS} commits is not rewritten")
        history = self._writer.log(self._id, tip, limit=tip.number)
        changed: dict[tuple[int, int], list[str]] | None = None
        before: Revision | None = None
        parent: Revision | None = None
        for revision in reversed(history):
            stand_in = self._rewritten.get(revision.oid)
            if stand_in is None:
                root = self._root(revision.tree)
                if root == revision.tree and parent is before:
                    stand_in = revision
                else:
                    if changed is None:
                        changed = dict(self._writer.changed_paths(self._id, {each.line for each in history}))
                    told = changed.get((revision.line, revision.number), [])
                    stand_in = self._rewrite(revision, parent, root, told)
            before, parent = revision, stand_in
        assert parent is not None
        return parent

    def _rewrite(self, revision: Revision, parent: Revision | None, root: bytes, changed: Iterable[str]) -> Revision:
        found = self._writer.object(self._id, revision.oid)
        if found is None:
            raise DamagedError(f"a repository lacks the commit {revision.id}")
        before = CommitData.parse(found[1])
        others = tuple(self._rewritten[oid].oid if oid in self._rewritten else oid for oid in before.parents[1:])
        parents = () if parent is None else (parent.oid, *others)
        made = GitObject.of(ObjectKind.COMMIT, replace(before, tree=root, parents=parents).serialize())
        self._made.append(made)
        self._add_trees()
        known = self._writer.revision(self._id, made.oid)
        if known is None:
            line, number = self._writer.place_after(self._id, parent)
            known = replace(revision, oid=made.oid, tree=root, line=line, number=number)
            self._writer.add_revision(self._id, known, [*changed], None)
        self._rewritten[revision.oid] = known
        return known

    def _root(self, oid: bytes) -> bytes:
        root = self._tree(oid)
        if root is not None:
            return root
        self._made.append(EMPTY_TREE)
        return EMPTY_TREE.oid

    def _tree(self, oid: bytes) -> bytes | None:
        """The id of a tree without the blobs; None if it is empty then, and was not before."""
        if oid in self._filtered:
            return self._filtered[oid]
        tree = self._trees.tree(oid)
        self._trees.trees({item.oid for item in tree.values() if item.is_folder})
        kept: dict[str, TreeItem] = {}
        for name, item in tree.items():
            if item.is_folder:
                if (below := self._tree(item.oid)) is not None:
                    kept[name] = TreeItem(FOLDER, below)
            elif item.oid not in self._gone:
                kept[name] = item
        filtered: bytes | None = oid
        if kept != tree:
            made = GitObject.of(ObjectKind.TREE, write_tree(kept))
            filtered = made.oid if kept else None
            self._made += [made] if kept else []
        self._filtered[oid] = filtered
        return filtered

    def _add_trees(self) -> None:
        made, self._made = self._made, []
        self._writer.add_objects(self._id, made)


def _with_folders(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        add_with_folders(found, path)
    return found
