"""Deleting by hash: files leave a namespace at once, and can be given back to it for a while.

Only the grant goes. What the file is made of stays until it is collected, and where another namespace has the file it
stays readable. A deletion is durable when it returns, as a put is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.errors import NotFoundError, RepositoryNotFoundError
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.index import Reader, Writer
    from xetstore.cas.index.queries.deletions import GrantState
    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import DeletedFile, FileRecord

AT_A_TIME: Final = 200
"""The most files of one transaction."""
PAGE_FILES: Final = 500

DeletionGuard = Callable[["Reader", str, Collection[Hash]], None]
"""Raises ForbiddenError if something in a repository, whose namespace it is, names one of these files: without the file
that would lead nowhere. With a Writer, nothing names one until the transaction ends.
"""


def unguarded(reader: Reader, namespace: str, files: Collection[Hash]) -> None:
    """Let all files be deleted: nothing has a name."""


def delete(cas: EmbeddedCas, files: Iterable[Hash], *, dry_run: bool = False) -> list[DeletedFile]:
    """Take files out of the namespace of ``cas``: the record of each, in order; with ``dry_run`` as it would be.

    One that is deleted already stays so. Raises NotFoundError for one that the namespace neither has nor had, and
    ForbiddenError for one that a repository names: then nothing is deleted. Of many files some hundred are deleted at
    a time, and where an error comes later those before it stay deleted.
    """
    namespace, wanted = cas.tenant.namespace, [*dict.fromkeys(files)]
    now = cas.now()
    would: list[DeletedFile] = []
    for part in batches(wanted, AT_A_TIME):
        with cas.index.snapshot() as reader:
            states = _states(reader, namespace, part)
            cas.deletion_guard(reader, namespace, [file for file in part if states[file].deleted_at is None])
        would += (_record(cas, states[file], now) for file in part)
    if dry_run:
        return would
    return [done for part in batches(wanted, AT_A_TIME) for done in _delete(cas, part)]


def _delete(cas: EmbeddedCas, files: list[Hash]) -> list[DeletedFile]:
    namespace = cas.tenant.namespace

    def revoke(writer: Writer) -> tuple[float, set[Hash], dict[Hash, GrantState]]:
        cas.deletion_guard(writer, namespace, files)
        writer.lock_grants(namespace, files)
        now = cas.now()  # only now: the times of what is deleted and given back are in the order of the transactions
        return now, writer.revoke(namespace, files, now=now), _states(writer, namespace, files)

    with cas.index.for_care():
        now, revoked, states = cas.index.change(revoke)
    if revoked:
        from xetstore.cas.snapshots.journal import note_deleted

        note_deleted(cas, namespace, revoked, at=now)
    return [_record(cas, states[file], now) for file in files]


def undelete(cas: EmbeddedCas, files: Iterable[Hash]) -> list[FileRecord]:
    """Give files back to the namespace of ``cas``, from which they were deleted: the record of each, in order.

    One that is there stays so. Raises NotFoundError for one that is not there and was not deleted, or was collected
    since: then nothing is given back, as far as that could be seen before.
    """
    namespace, wanted = cas.tenant.namespace, [*dict.fromkeys(files)]
    for part in batches(wanted, AT_A_TIME):
        with cas.index.snapshot() as reader:
            _require_living(cas, reader, part)
            _states(reader, namespace, part)
    return [record for part in batches(wanted, AT_A_TIME) for record in _undelete(cas, part)]


def _undelete(cas: EmbeddedCas, files: list[Hash]) -> list[FileRecord]:
    from xetstore.records import FileRecord

    namespace = cas.tenant.namespace

    def restore(writer: Writer) -> tuple[set[Hash], dict[Hash, GrantState], float]:
        _require_living(cas, writer, files)
        restored = writer.restore(namespace, files, now=cas.now())
        return restored, _states(writer, namespace, files), cas.now()

    with cas.index.for_care():
        restored, states, now = cas.index.change(restore)
    if restored:
        from xetstore.cas.snapshots.journal import note_restored

        note_restored(cas, namespace, restored, at=now)
    return [FileRecord(file, states[file].size) for file in files]


def deleted(cas: EmbeddedCas) -> Iterator[DeletedFile]:
    """The files that were deleted from the namespace of ``cas`` and can be given back, the last one first."""
    last: tuple[float, Hash] | None = None
    while page := deleted_page(cas, last, PAGE_FILES):
        yield from page
        last = page[-1].deleted_at, page[-1].hash


def deleted_page(cas: EmbeddedCas, last: tuple[float, Hash] | None, most: int) -> list[DeletedFile]:
    """At most ``most`` of them, behind ``last``: the time and the hash of one that was told of; empty at the end."""
    with cas.index.snapshot() as reader:
        try:
            cas.deletion_guard(reader, cas.tenant.namespace, ())
        except RepositoryNotFoundError:
            return []
        states = reader.deleted_before(cas.tenant.namespace, last, most=most)
    return [_record(cas, state, cas.now()) for state in states]


def _states(reader: Reader, namespace: str, files: Collection[Hash]) -> dict[Hash, GrantState]:
    states = reader.grant_states(namespace, files)
    for file in files:
        if file not in states:
            raise _no_file(file)
    return states


def _require_living(cas: EmbeddedCas, reader: Reader, files: Collection[Hash]) -> None:
    """Raise NotFoundError, as for a file that is not there, in the namespace of a deleted repository."""
    try:
        cas.deletion_guard(reader, cas.tenant.namespace, ())
    except RepositoryNotFoundError:
        raise _no_file(next(iter(files))) from None


def _no_file(file: Hash) -> NotFoundError:
    return NotFoundError(
        f"there is no file {file}", hint="the hash is that of `xet put`, `xet ls` or `xet undelete --list`"
    )


def _record(cas: EmbeddedCas, state: GrantState, now: float) -> DeletedFile:
    from xetstore.records import DeletedFile

    deleted_at = now if state.deleted_at is None else state.deleted_at
    return DeletedFile(state.hash, state.size, deleted_at=deleted_at, until=deleted_at + cas.grace.undelete)
