"""Names that were deleted, given back: repositories, branches and tags, files of buckets. And lists of them.

What can be given back is kept from collection by its row. That is looked at again in the transaction that gives it
back, so it comes back whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.cas.snapshots.journal import note_restored
from xetstore.errors import EntryNotFoundError, ExistsError, RepositoryNotFoundError, UsageError
from xetstore.hub.names import HEADS, TAGS, RepositoryName, branch_ref, check_path, check_ref
from xetstore.hub.queries import BucketFile, DeletedBucketFile, HubReader, HubWriter, RepositoryRow
from xetstore.hub.queries.repositories import taken
from xetstore.hub.repository import Ref, Repository
from xetstore.hub.revisions import no_revision, peeled, ref_names
from xetstore.hub.rights import Actor, Right, right_of
from xetstore.hub.service import EmbeddedHub, of_account
from xetstore.records import DeletedName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xetstore.hub.buckets import Bucket

AT_ONCE: Final = 500
"""Files of a bucket that one transaction gives back."""
_OTHER_NAME: Final = "give it another name, with --to"


def undelete_repository(
    hub: EmbeddedHub, actor: Actor, name: RepositoryName, *, to: RepositoryName | None = None
) -> Repository:
    """Give back the repository that last had this name, with all that it had; ``to`` is another name for it.

    Raises RepositoryNotFoundError where there is none, it is collected, or the actor could not delete it; ExistsError
    where its name was taken meanwhile, QuotaExceededError where that is more than its owner may have.
    """
    with hub.snapshot() as reader:
        found = _deleted_repositories(reader, actor, name)
    if not found:
        raise RepositoryNotFoundError
    before, deleted_at = found[0]
    wanted = before.name if to is None else to
    if wanted.kind is not before.kind:
        raise UsageError(f"a {before.kind.word} stays a {before.kind.word}")
    hub.require_owner(actor, wanted)

    def give_back(writer: HubWriter, cas: Writer) -> tuple[RepositoryRow, float]:
        writer.alone_with_repository(before.id)
        there = writer.repository(wanted.key)
        if there is not None and there.name.key == wanted.key:
            raise taken(wanted, hint=_OTHER_NAME)
        named = of_account(writer, actor, wanted)
        if not writer.undelete_repository(before, named, deleted_at=deleted_at):
            raise RepositoryNotFoundError
        cas.restore_all(before.namespace, deleted_at=deleted_at)
        if writer.lacks_grant(before.id, before.namespace):  # some are collected: it is about to go
            raise RepositoryNotFoundError
        return writer.kept_repository(before.id), hub.now()

    row, now = hub.change(give_back)
    note_restored(hub.cas, row.namespace, None, at=now)
    return Repository(hub, row, actor, Right.ADMIN)


def undelete_ref(repository: Repository, name: str, *, to: str | None = None) -> Ref:
    """Give back the branch or tag that last had this name, or the state of a branch before a squash.

    ``to`` is another name for it. Raises RevisionNotFoundError where none was deleted or it is collected, ExistsError
    where there is one of its name. Needs WRITE.
    """
    repository.require(Right.WRITE)
    number = repository.row.id

    def give_back(writer: HubWriter, _: Writer) -> Ref:
        writer.kept_repository(number)
        found = writer.deleted_refs(number, ref_names(name))
        if not found:
            raise no_revision(name)
        ref = found[0].name
        if to is not None:
            ref = TAGS + check_ref(to) if ref.startswith(TAGS) else branch_ref(to)
        if not writer.add_ref(number, ref, found[0].oid):
            raise ExistsError(f"Reference {ref} already exists", hint=_OTHER_NAME)
        writer.forget_deleted_ref(number, found[0].id)
        return Ref(ref, peeled(writer, number, found[0].oid, ref).oid)

    return repository.hub.change(give_back)


def undelete_files(bucket: Bucket, path: str, *, to: str | None = None) -> tuple[list[str], bool]:
    """Give back the file that was last at a path; else those below the folder of this name, where nothing is now.

    Returns the paths at which they are, of a folder some of the first ones, and True if there are more. ``to`` is
    another path for a file. Raises EntryNotFoundError where none was deleted, ExistsError where there is a file. Needs
    WRITE.
    """
    bucket.repository.require(Right.WRITE)
    hub, number = bucket.repository.hub, bucket.row.id
    check_path(path)
    if to is not None:
        check_path(to)

    def give_back(writer: HubWriter, _: Writer) -> tuple[list[str], bool]:
        writer.kept_repository(number)
        one = next((each for each in writer.deleted_bucket_files(number, path, most=1) if each.file.path == path), None)
        if one is not None:
            found = {to or path: one}
        elif to is not None:
            raise _no_file(path)
        else:
            found = _newest(writer.deleted_bucket_files(number, path, most=AT_ONCE, where_free=True))
            if not found and not writer.deleted_bucket_files(number, path, most=1):
                raise _no_file(path)
        if there := writer.bucket_files_at(number, found):
            raise ExistsError(f"there is a file {min(there)[:200]!r}", hint=_OTHER_NAME)
        writer.put_bucket_files(number, [_at(place, each.file) for place, each in found.items()])
        writer.forget_deleted_files(number, [each.id for each in found.values()])
        writer.touch_repository(number, hub.now())
        is_more = one is None and bool(writer.deleted_bucket_files(number, path, most=1, where_free=True))
        return [*found], is_more

    return hub.change(give_back)


def deleted_names(hub: EmbeddedHub, actor: Actor, name: RepositoryName, path: str = "") -> list[DeletedName]:
    """All that can be given back of a name: repositories that had it, and of the one that has it now branches, tags and
    files of a bucket, these below ``path``; of each at most 1,000.

    Raises RepositoryNotFoundError unless the actor can delete there what is listed, ForbiddenError where it reads.
    """
    until = hub.cas.grace.undelete
    with hub.snapshot() as reader:
        repositories = _deleted_repositories(reader, actor, name)
        row = reader.repository(name.key)
    told = [DeletedName("repository", before.name.id, at, at + until) for before, at in repositories]
    if row is None and told:
        return told
    repository = hub.repository(actor, name.kind, name.id, Right.WRITE)
    with hub.snapshot() as reader:
        for ref in reader.deleted_refs(repository.row.id):
            kind = "tag" if ref.name.startswith(TAGS) else "branch"
            short = ref.name.removeprefix(TAGS).removeprefix(HEADS)
            told.append(DeletedName(kind, short, ref.deleted_at, ref.deleted_at + until, oid=ref.oid.hex()))
        if not name.kind.is_git:
            told += (
                DeletedName("file", each.file.path, each.deleted_at, each.deleted_at + until, size=each.file.size)
                for each in reader.deleted_bucket_files(repository.row.id, path)
            )
    return told


def _deleted_repositories(reader: HubReader, actor: Actor, name: RepositoryName) -> list[tuple[RepositoryRow, float]]:
    """Those that the actor may give back: nothing of the others is told to it."""
    found = reader.deleted_repositories(name)
    return [(row, at) for row, at in found if (right_of(actor, row) or 0) >= Right.ADMIN]


def _newest(found: Sequence[DeletedBucketFile]) -> dict[str, DeletedBucketFile]:
    """Of each path the file that was deleted last, which comes first."""
    newest: dict[str, DeletedBucketFile] = {}
    for each in found:
        newest.setdefault(each.file.path, each)
    return newest


def _at(path: str, file: BucketFile) -> BucketFile:
    return BucketFile(path, file.file, file.size, file.modified_ms, file.uploaded_at, file.content_type)


def _no_file(path: str) -> EntryNotFoundError:
    return EntryNotFoundError(f"no file {path[:200]!r} was deleted in this bucket, or it is collected")
