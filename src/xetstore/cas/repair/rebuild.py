"""rebuild_index(): the index of a store made anew from its objects, its snapshots and its journal."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from xetstore.access.secrets import KEYS
from xetstore.cancellation import Cancellation
from xetstore.cas import quotas
from xetstore.cas.assembly import open_objects, secrets_file
from xetstore.cas.check import Problem
from xetstore.cas.index import Index, Writer
from xetstore.cas.index.queries.rebuilding import RebuildRows
from xetstore.cas.index.queries.snapshots import QUOTAS
from xetstore.cas.layout import SHARDS, XORBS
from xetstore.cas.lease import LEASE_SECONDS, Lease
from xetstore.cas.pairing import REBUILD, stored_id
from xetstore.cas.parts import StoreParts
from xetstore.cas.progress import StoreProgress
from xetstore.cas.repair.rebuilding import objects, restoring
from xetstore.cas.repair.rebuilding.places import is_finished, opened, put_in_place
from xetstore.cas.repair.rebuilding.run import MOST_LISTED, RebuildRun, RebuildTally
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.snapshots.take import Room
from xetstore.database.connection import Values
from xetstore.errors import NotFoundError, UnavailableError
from xetstore.interfaces import BlobStore
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash

DEFAULT_JOBS: Final = max(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """The outcome of a rebuild.

    ``snapshot`` is the key of the snapshot that was taken, ``snapshot_at`` the unix seconds of what it tells; None
    where there is none that is whole. ``found_in`` is the namespace of the ``counts.found`` files that came later.
    ``lost`` are xorbs that no object has, with the files that need them; ``problems`` all that could not be restored,
    at most 10,000 of ``counts.problems``. ``kept_index`` is the file of the old index. ``read_all`` is True if all
    bytes of all xorbs were read.
    """

    counts: RebuildTally
    snapshot: str | None
    snapshot_at: float | None
    found_in: str
    lost: dict[Hash, list[Hash]]
    problems: tuple[Problem, ...]
    kept_index: Path | None
    read_all: bool


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """The objects of which an index would be made anew, and the snapshot that would be taken, with the unix seconds of
    what it tells; None where there is none. ``refused`` are others, each with what is wrong.
    """

    xorbs: int
    shards: int
    stored_bytes: int
    snapshot: str | None
    snapshot_at: float | None
    refused: tuple[Problem, ...]


def plan_rebuild(parts: StoreParts, rooms: Sequence[Room] = ()) -> RebuildPlan:
    """Look at what :func:`rebuild_index` would do. Changes nothing. Raises NotFoundError where there are no objects."""
    blobs = open_objects(parts)
    _require_objects(blobs)
    sizes = [[blob.size for blob in blobs.list(prefix)] for prefix in (XORBS, SHARDS)]
    restored = restoring.newest_snapshot(blobs, stored_id(blobs), rooms, Cancellation())
    at = None if restored.head is None else restored.head.at
    return RebuildPlan(len(sizes[0]), len(sizes[1]), sum(map(sum, sizes)), restored.key, at, tuple(restored.refused))


def rebuild_index(
    parts: StoreParts,
    rooms: Sequence[Room] = (),
    *,
    checksums: bool = False,
    read_data: bool = False,
    found_in: str | None = None,
    jobs: int = DEFAULT_JOBS,
    progress: StoreProgress | None = None,
    cancellation: Cancellation | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> RebuildReport:
    """Make the index of a store anew, and put it in its place. No process must use the store meanwhile.

    Every xorb and shard is registered whose object is whole, as far as its footer tells; with ``checksums`` every
    stored byte is compared with its checksum, with ``read_data`` every chunk is decoded and hashed. Every claim of a
    shard is checked. Then grants and ``rooms`` get their rows from the newest snapshot of this store that is whole,
    and what was deleted since is deleted again. ``found_in`` is the namespace of files that came later; without it
    that is ``default`` where the store had no other, and else ``lost-found``.

    A SQLite index is made beside the old one, which is kept; in PostgreSQL the database must be empty. Where it is cut
    off, the same call goes on from there. Raises NotFoundError where there are no objects, UsageError for a database
    that has an index, UnavailableError where another process is at it.
    """
    if isinstance(parts.index, Path):  # of which a folder would be made
        _require_objects(open_objects(parts))
    with opened(parts) as (blobs, index):
        report = rebuild_into(
            blobs,
            index,
            rooms,
            checksums=checksums,
            read_data=read_data,
            found_in=found_in,
            was_served=_was_served(parts),
            jobs=jobs,
            progress=progress,
            cancellation=cancellation,
            lease_seconds=lease_seconds,
        )
    if isinstance(parts.index, Path):
        return replace(report, kept_index=put_in_place(parts.index))
    return report


def rebuild_into(
    blobs: BlobStore,
    index: Index,
    rooms: Sequence[Room] = (),
    *,
    checksums: bool = False,
    read_data: bool = False,
    found_in: str | None = None,
    was_served: bool = True,
    jobs: int = DEFAULT_JOBS,
    progress: StoreProgress | None = None,
    cancellation: Cancellation | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> RebuildReport:
    """:func:`rebuild_index` of objects into an index that is empty, or that a rebuild was cut off in.

    Without a snapshot, a store that ``was_served`` may have had namespaces beside ``default``.
    """
    if not is_finished(index):
        store_id = stored_id(blobs)
        lease = Lease.take(index, REBUILD, seconds=lease_seconds)
        if lease is None:
            raise UnavailableError(
                "another process makes this index anew, or was killed at it just now",
                hint=f"wait for it, or try again in {lease_seconds:.0f} seconds",
            )
        ending = Cancellation() if cancellation is None else cancellation.child()
        threads = Threads(jobs, "rebuild")
        try:
            with lease:
                cas = EmbeddedCas(blobs, index)
                run = RebuildRun(cas, lease, threads, ending, checksums, read_data, progress=progress)
                _rebuild(run, store_id, rooms, found_in, was_served=was_served)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return _report_of(index)


def _rebuild(
    run: RebuildRun, store_id: str | None, rooms: Sequence[Room], found_in: str | None, *, was_served: bool
) -> None:
    run.change(lambda _, rows: rows.begin())
    objects.list_objects(run)
    with run.cas.index.snapshot() as reader:
        counts = [RebuildRows(reader.connection).count(is_shard=is_shard) for is_shard in (False, True)]
    if not any(count for count, _ in counts) and store_id is None:
        raise _no_objects()
    if run.progress is not None:
        run.progress.total(sum(size for _, size in counts))
    restored = restoring.newest_snapshot(run.cas.blobs, store_id, rooms, run.cancellation)
    for problem in restored.refused:
        run.report(problem)
    if restored.key is not None:
        restoring.put_superseded_last(run, restored.key)
    objects.register_xorbs(run)
    objects.register_shards(run)
    quota_rows: list[Values] = []
    if restored.key is not None and restored.head is not None:
        quota_rows = restoring.import_snapshot(run, restored.key, restored.head, rooms)
    named = {entry.namespace for entry in restoring.journal_of(run, restored, store_id)}
    namespace = found_in or restoring.namespace_of_new_files(run, restored, named, was_served=was_served)
    restoring.find_new_files(run, namespace, restored)
    for entry in restoring.journal_of(run, restored, store_id):
        restoring.replay(run, entry, namespace, rooms)
    run.change(lambda writer, _: writer.import_rows(QUOTAS, quota_rows))
    quotas.recount(run.cas, lambda _, name: (name,))
    for room in rooms:
        room.end(run.cas)
    objects.set_damaged_aside(run)
    _finish(run, store_id, restored, namespace)


def _require_objects(blobs: BlobStore) -> None:
    if stored_id(blobs) is None and all(next(blobs.list(prefix), None) is None for prefix in (XORBS, SHARDS)):
        raise _no_objects()


def _no_objects() -> NotFoundError:
    return NotFoundError("there are no objects of a store", hint="name the directory of the store, or its store file")


def _finish(run: RebuildRun, store_id: str | None, restored: restoring.Restored, namespace: str) -> None:
    with run.cas.index.snapshot() as reader:
        rows = RebuildRows(reader.connection)
        lost = objects.lost_xorbs(rows.lost(MOST_LISTED))
        damaged = rows.damaged(MOST_LISTED)
        # Of all runs, if some were cut off.
        run.tally.xorbs, run.tally.shards = (rows.count_whole(is_shard=is_shard) for is_shard in (False, True))
        run.tally.files = reader.totals().files
    known = {problem.name for problem in run.problems}
    for key, name, why in damaged:  # of a run before this one, which was cut off
        if f"xorb {name}" not in known and f"shard {name}" not in known:
            run.report(Problem(f"{key.partition('/')[0].removesuffix('s')} {name}", f"{key}: {why}"))
    for xorb, files in lost.items():
        run.report(Problem(f"xorb {xorb}", "no object that is whole has it", tuple(files)))
    values = {
        "counts": asdict(run.tally),
        "snapshot": restored.key,
        "snapshot_at": None if restored.head is None else restored.head.at,
        "found_in": namespace,
        "lost": {str(xorb): [str(file) for file in files] for xorb, files in lost.items()},
        "problems": [[one.name, one.what, [str(file) for file in one.files]] for one in run.problems],
        "read_all": run.checksums or run.read_data,
    }

    def finish(writer: Writer, rows: RebuildRows) -> None:
        rows.end()
        if store_id is not None:
            writer.set_store_id(store_id)
        run.lease.end(writer, json.dumps(values))

    run.change(finish)


def _report_of(index: Index) -> RebuildReport:
    with index.snapshot() as reader:
        chore = reader.chore(REBUILD)
    assert chore is not None
    assert chore.report is not None
    values: dict[str, Any] = json.loads(chore.report)
    return RebuildReport(
        RebuildTally(**values["counts"]),
        values["snapshot"],
        values["snapshot_at"],
        values["found_in"],
        {Hash.parse(xorb): [*map(Hash.parse, files)] for xorb, files in values["lost"].items()},
        tuple(Problem(name, what, tuple(map(Hash.parse, files))) for name, what, files in values["problems"]),
        None,
        values["read_all"],
    )


def _was_served(parts: StoreParts) -> bool:
    """True if a server may have had this store, with tokens for any namespace."""
    file = secrets_file(parts, KEYS)
    return file is None or file.exists()
