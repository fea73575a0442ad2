"""Copies of a repository, or of some of its large files, into another one: rows and grants, and no bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.cas.index import Writer
from xetstore.errors import ConflictError, UnprocessableError
from xetstore.hub.copies import copy_files
from xetstore.hub.names import HEADS, TAGS, RepositoryName
from xetstore.hub.objects import SUBMODULE, CommitData, ObjectKind, read_tree, tagged
from xetstore.hub.queries import HubWriter, RepositoryRow
from xetstore.hub.rights import Right, require_proposer
from xetstore.hub.service import check_visibility, of_account
from xetstore.protocol.hashes import Hash
from xetstore.records import FileRecord

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository
    from xetstore.hub.service import EmbeddedHub

MAX_FILES: Final = 1000
"""Large files that are given by one call."""
MAX_OBJECTS: Final = 1_000_000
"""Objects of a repository that is copied: 100 MB of ids."""

_READ_AT_A_TIME: Final = 500


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A large file by its Xet hash and its SHA-256, 32 bytes."""

    file: Hash
    sha256: bytes


def duplicate(source: Repository, name: RepositoryName, *, visibility: str | None = None) -> Repository:
    """Make another repository of the branches and tags of one, with all their history. The actor reads the source.

    It is as visible as the source if nothing else is said, and gated as that. Files of pull requests and of commits
    that no branch or tag leads to are not in it. Raises ExistsError for a name that is taken, ForbiddenError where the
    actor may not create.
    """
    hub, actor = source.hub, source.actor
    source.require(Right.READ)
    hub.require_owner(actor, name)
    chosen = source.row.visibility if visibility is None else check_visibility(visibility)
    with hub.snapshot() as reader:
        refs = [(ref, oid) for ref, oid in reader.refs(source.row.id) if ref.startswith((HEADS, TAGS))]
    commits, objects = reachable(hub, source.row.id, {oid for _, oid in refs})

    def work(writer: HubWriter, cas: Writer) -> RepositoryRow:
        writer.kept_repository(source.row.id)
        row = writer.add_repository(
            of_account(writer, actor, name),
            visibility=chosen,
            sdk=source.row.sdk,
            creator=actor.author,
            now=hub.now(),
        )
        if source.row.gated is not None:
            writer.set_repository(row.id, visibility=row.visibility, gated=source.row.gated)
        if writer.copy_objects(source.row.id, row.id, objects) != len(objects):
            raise ConflictError("the repository was changed while it was copied")
        writer.copy_history(source.row.id, row.id, commits)
        for ref, oid in refs:
            writer.add_ref(row.id, ref, oid)
        copy_files(cas, source.row.namespace, row.namespace, writer.pointed_at(row.id), now=hub.now())
        return writer.repository_by_id(row.id) or row

    return type(source)(hub, hub.change(work), actor, Right.ADMIN)


def give_files(source: Repository, target: Repository, files: Sequence[GivenFile]) -> list[GivenFile]:
    """Give large files of one repository to another one, for pointers of later commits; those that it has not come
    back.

    The actor reads the source, and writes to the target or may propose changes to it. Raises UnprocessableError for
    too many.
    """
    source.require(Right.READ)
    target.require(Right.READ)
    if target.right < Right.WRITE:
        require_proposer(target.actor)
    if len(files) > MAX_FILES:
        raise UnprocessableError(f"at most {MAX_FILES} files are given at once")
    hub = source.hub

    def work(writer: HubWriter, cas: Writer) -> list[GivenFile]:
        writer.kept_repository(target.row.id)
        claimed = cas.claimed(source.row.namespace, dict.fromkeys(given.sha256 for given in files))
        right = [given for given in files if _is_among(given, claimed.get(given.sha256, ()))]
        missing = copy_files(
            cas, source.row.namespace, target.row.namespace, [given.file for given in right], now=hub.now()
        )
        return [given for given in files if given not in right or given.file in missing]

    return hub.change(work)


def _is_among(given: GivenFile, claimed: Iterable[tuple[FileRecord, bool]]) -> bool:
    return any(record.hash == given.file for record, _ in claimed)


def reachable(hub: EmbeddedHub, repository_id: int, tips: Collection[bytes]) -> tuple[set[bytes], set[bytes]]:
    """The commits and all objects that these commits and tags lead to. Raises UnprocessableError for too many."""
    commits: set[bytes] = set()
    found: set[bytes] = set()
    level = set(tips)
    while level:
        found |= level
        if len(found) > MAX_OBJECTS:
            raise UnprocessableError(f"a repository of more than {MAX_OBJECTS} objects is not copied")
        deeper: set[bytes] = set()
        for oid, kind, data in _objects(hub, repository_id, level):
            match kind:
                case ObjectKind.COMMIT:
                    commits.add(oid)
                    commit = CommitData.parse(data)
                    deeper |= {commit.tree, *commit.parents}
                case ObjectKind.TREE:
                    items = read_tree(data).values()
                    deeper |= {item.oid for item in items if item.is_folder}
                    found |= {item.oid for item in items if not item.is_folder and item.mode != SUBMODULE}
                case ObjectKind.TAG:
                    deeper.add(tagged(data)[0])
                case ObjectKind.BLOB:  # that a tag names
                    pass
        level = deeper - found
    return commits, found


def _objects(
    hub: EmbeddedHub, repository_id: int, oids: Collection[bytes]
) -> Iterator[tuple[bytes, ObjectKind, bytes]]:
    """These objects, some at a time, each time from a snapshot of its own: they never change."""
    for some in batches(oids, _READ_AT_A_TIME):
        with hub.snapshot() as reader:
            yield from list(reader.objects(repository_id, some))
