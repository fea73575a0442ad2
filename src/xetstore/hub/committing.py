"""Commits: operations on the tip of a branch become objects, a revision and a moved ref, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from xetstore.errors import ConflictError, OutdatedError, UnprocessableError
from xetstore.hub.names import HEADS, MAIN
from xetstore.hub.new_tree import NewTree
from xetstore.hub.objects import CommitData, GitObject, ObjectKind, unique
from xetstore.hub.operations import AddFile, AddFolder, AddPointer, Copy, Delete, Operation
from xetstore.hub.queries import HubWriter, Revision
from xetstore.hub.queries.history import title_of
from xetstore.hub.revisions import no_revision, peeled, resolve
from xetstore.hub.trees import TreeCache, TreeReader
from xetstore.protocol.hashes import Hash

MAX_OPERATIONS: Final = 100_000
MAX_MESSAGE_BYTES: Final = 64 << 10
MIN_PARENT_DIGITS: Final = 7
OUTDATED: Final = "The branch was updated since you opened this page. Please refresh and try again."
REPEATED_WITHIN_SECONDS: Final = 3600.0
"""A commit that is no older than this may have been made by a call that comes again."""


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit to be made on ``branch``, a ref in full. ``message`` is whole, its first line the title; ``parent`` is
    the id, or its first digits, that the branch must have, or None. ``author`` is the name of an account.
    """

    branch: str
    operations: Sequence[Operation]
    message: str
    author: str
    parent: str | None = None
    blobs: Sequence[GitObject | None] = field(init=False, repr=False)
    """The blob that each operation brings, ready to be stored."""
    digest: bytes = field(init=False, repr=False)
    """A digest of all that it asks for, by which the same call is known when it comes again."""

    def __post_init__(self) -> None:
        if len(self.operations) > MAX_OPERATIONS:
            raise UnprocessableError(f"a commit has at most {MAX_OPERATIONS} operations, not {len(self.operations)}")
        if not self.message.strip():
            raise UnprocessableError("a commit needs a message")
        try:
            size = len(self.message.encode())
        except UnicodeEncodeError:
            size = MAX_MESSAGE_BYTES + 1
        if size > MAX_MESSAGE_BYTES or "\0" in self.message:
            raise UnprocessableError(f"the message of a commit is a text of at most {MAX_MESSAGE_BYTES} bytes")
        object.__setattr__(self, "blobs", tuple(map(_blob, self.operations)))
        digest = hashlib.sha256()
        asked = map(_told, self.operations, self.blobs)
        for part in (self.branch, self.message, self.author, self.parent or "", *asked):
            data = part.encode()
            digest.update(b"%d:%s" % (len(data), data))
        object.__setattr__(self, "digest", digest.digest())


def _blob(operation: Operation) -> GitObject | None:
    if not isinstance(operation, AddFile):
        return None
    # A text that looks like a pointer is a text: the store may not have, or not give, what it names.
    return replace(GitObject.of(ObjectKind.BLOB, operation.data), pointer=None).ready()


def _is_start_of(prefix: str, commit: str) -> bool:
    """True for the first digits of an id, as many as say which one it is: of one digit each 16th is right by chance."""
    return len(prefix) >= MIN_PARENT_DIGITS and commit.startswith(prefix)


def _told(operation: Operation, blob: GitObject | None) -> str:
    match operation:
        case AddFile(path, _, mode):
            assert blob is not None
            told = ("file", path, blob.oid.hex(), mode)
        case AddPointer(path, sha256, _, mode):
            told = ("pointer", path, sha256.hex(), mode)
        case AddFolder(path):
            told = ("folder", path, "", 0)
        case Delete(path):
            told = ("delete", path, "", 0)
        case Copy(path, source_path, source):
            told = ("copy", path, f"{source or ''}:{source_path}", 0)
    return repr(told)


def message_of(title: str, description: str) -> str:
    """The message of a commit that has a title and a description, which may be empty."""
    return f"{title}\n\n{description}" if description else title


class Committer:
    """Commits to one repository, in the transaction of ``writer``. ``now`` is unix seconds."""

    def __init__(self, writer: HubWriter, repository_id: int, cache: TreeCache, now: float) -> None:
        self._writer = writer
        self._id = repository_id
        self._cache = cache
        self._now = now

    def commit(self, new: NewCommit, files: Mapping[bytes, tuple[int, Hash]], *, to: str | None = None) -> Revision:
        """Make a commit, and let its branch move there; with ``to`` that ref is made, and the branch stays. ``files``
        are bytes and Xet file of each SHA-256 that may be named.

        The same call once more, after its answer was lost, gets the commit that it has made. Raises OutdatedError if
        the branch is not at ``new.parent``, RevisionNotFoundError where there is no branch, and what
        :meth:`NewTree.apply` raises.
        """
        writer, branch = self._writer, new.branch
        writer.kept_repository(self._id)
        tip = writer.ref(self._id, branch)
        if tip is None and branch != MAIN:
            raise no_revision(branch.removeprefix(HEADS))
        parent = None if tip is None else peeled(writer, self._id, tip, branch)
        if to is None and parent is not None and (made := self._made_before(parent, new)) is not None:
            return made
        if new.parent is not None and (parent is None or not _is_start_of(new.parent.lower(), parent.id)):
            raise OutdatedError(OUTDATED)
        tree = self._tree(parent, new, files)
        root = tree.write()
        writer.add_objects(self._id, unique(tree.objects), {sha256: file for sha256, (_, file) in files.items()})
        revision = self.add(parent, root, new.message, new.author, tree.changed, new.digest)
        if to is not None:
            moved = writer.add_ref(self._id, to, revision.oid)
        elif tip is None:
            moved = writer.add_ref(self._id, branch, revision.oid)
        else:
            moved = writer.move_ref(self._id, branch, revision.oid, before=tip)
        if not moved:
            raise ConflictError("another commit came first")
        writer.touch_repository(self._id, self._now)
        return revision

    def add(
        self,
        parent: Revision | None,
        root: bytes,
        message: str,
        author: str,
        changed: Collection[str],
        digest: bytes | None = None,
    ) -> Revision:
        """Add the commit of a tree, without a ref."""
        signature = f"{author} <{author}@localhost>"
        parents = () if parent is None else (parent.oid,)
        created_at = int(self._now)
        made = GitObject.of(ObjectKind.COMMIT, CommitData(root, parents, signature, message, created_at).serialize())
        known = self._writer.revision(self._id, made.oid)
        if known is not None:  # the same tree, parent, message and second
            return known
        line, number = self._writer.place_after(self._id, parent)
        revision = Revision(made.oid, line, number, root, title_of(message), message, author, float(created_at))
        self._writer.add_objects(self._id, [made])
        self._writer.add_revision(self._id, revision, changed, digest)
        return revision

    def _tree(self, parent: Revision | None, new: NewCommit, files: Mapping[bytes, tuple[int, Hash]]) -> NewTree:
        tree = NewTree(TreeReader(self._writer, self._id, self._cache), None if parent is None else parent.tree)
        tree.read_ahead([operation.path for operation in new.operations])
        sizes = {sha256: size for sha256, (size, _) in files.items()}
        for operation, blob in zip(new.operations, new.blobs, strict=True):
            source = None
            if isinstance(operation, Copy):
                named = parent if operation.source is None else resolve(self._writer, self._id, operation.source)
                source = None if named is None else named.tree
            tree.apply(operation, sizes, source, blob)
        if pointers := [each.path for each in new.operations if isinstance(each, AddPointer)]:
            tree.track(pointers)
        return tree

    def proposed_before(self, new: NewCommit) -> tuple[Revision, int] | None:
        """The commit that this very call has made as a pull request, and its number, if it has."""
        self._writer.kept_repository(self._id)
        made = self._made_by(new)
        number = None if made is None else self._writer.pull_request_at(self._id, made.oid)
        return None if made is None or number is None else (made, number)

    def _made_by(self, new: NewCommit) -> Revision | None:
        """The last commit that the same call has made, not long ago."""
        return self._writer.made_by(self._id, new.digest, since=self._now - REPEATED_WITHIN_SECONDS)

    def _made_before(self, tip: Revision, new: NewCommit) -> Revision | None:
        """The commit that this very call has made, if it came before.

        It is the tip; or, where the call names its parent, one since: without that, the same words may mean to go back
        to an earlier state.
        """
        made = self._made_by(new)
        if made is None or made.oid == tip.oid:
            return made
        if new.parent is None:
            return None
        is_before = any(line == made.line and made.number <= last for line, last in self._writer.lines(self._id, tip))
        return made if is_before else None
