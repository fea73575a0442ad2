"""repair(): what a check found, made whole from what is left, here and in other stores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter, itemgetter

from xetstore.cas.check import CheckReport, check
from xetstore.cas.index import Reader, ShardRow, XorbRow
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.progress import StoreProgress
from xetstore.cas.quotas import recount
from xetstore.cas.repair.files import FileRepair
from xetstore.cas.repair.report import NamesOf, RepairReport
from xetstore.cas.repair.rescue import Rescue
from xetstore.cas.repair.run import Run
from xetstore.cas.repair.shards import ShardRepair
from xetstore.cas.repair.sources import Source
from xetstore.cas.repair.strays import Strays
from xetstore.cas.repair.xorbs import XorbRepair
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle
from xetstore.errors import UnavailableError
from xetstore.protocol.hashes import Hash


def repair(
    cas: EmbeddedCas,
    lease: Lease | None,
    *,
    sources: Sequence[Source] = (),
    read_data: bool = False,
    names_of: NamesOf = lambda _: {},
    throttle: Throttle | None = None,
    progress: StoreProgress | None = None,
) -> RepairReport:
    """Repair a store, also while it is in use. Without a ``lease``, by :func:`take_lease`, it tells what it would do.

    It goes by what a quick check finds, and by what was marked before; with ``read_data`` by a check of every byte. A
    xorb is made whole from its own chunks, from another object of it, from ``sources``, or from all of these together;
    what is left of one that cannot be is given to the files that need no more, in a xorb of its own. Rows are made anew
    from objects, and shards from rows. What is in the way is set aside, and nothing that a file needs is removed.

    Each thing is durable before the next begins: killed at any moment, the store is in order, and the same call goes
    on. Raises LeaseLostError, and what the store raises.
    """
    run = Run(cas, lease, sources, throttle or Throttle(), progress)
    found = check(cas, read_data=read_data, dry_run=run.is_dry, progress=run)
    xorbs, shards = _named(found, "xorb"), _named(found, "shard")
    strays = Strays(run)
    strays.name_anew(_lost(cas, xorbs, shards))
    xorb_repair, file_repair, shard_repair, rescue = XorbRepair(run), FileRepair(run), ShardRepair(run), Rescue(run)
    hurt: list[Hash] = []
    for name in _with_marked_xorbs(cas, xorbs):
        if xorb_repair.repair(name) is not None:
            hurt.append(name)
        run.keep()
    for name in _named(found, "file"):
        file_repair.repair(name)
    # Only now: files may be made of several, and the others are whole.
    for name in hurt:
        if (salvage := xorb_repair.repair(name)) is not None:
            rescue.rescue(salvage)
        run.keep()
    for name in _with_marked_shards(cas, shards):
        shard_repair.repair(name)
        run.keep()
    shard_repair.cover()
    strays.set_aside(read_data=read_data)
    for problem in found.problems:
        if problem.name == "index":
            run.left("index", f"{problem.what}; make it anew: xet repair --rebuild-index")
        elif problem.name.startswith("quota "):
            run.mended(problem.name, "what is used of it is counted anew")
    if not run.is_dry:
        recount(cas)  # sizes of files may be others now
    run.report.hurt = rescue.hurt_files(names_of)
    return run.report


def take_lease(cas: EmbeddedCas, *, patience_seconds: float = 0) -> Lease:
    """The lease for a repair, which is that of a collection: this must not delete what a repair is writing.

    Raises UnavailableError where another runner has it, and does not get done in time.
    """
    lease = Lease.take(cas.index, COLLECT, patience_seconds=patience_seconds)
    if lease is None:
        raise UnavailableError(
            "a collection, or another repair, is under way in this store", hint="try again when it is done"
        )
    return lease


def _named(found: CheckReport, kind: str) -> list[Hash]:
    """The names of all of a kind with a problem."""
    words = (problem.name.partition(" ") for problem in found.problems)
    return list(dict.fromkeys(Hash.parse(name) for word, _, name in words if word == kind))


def _lost(cas: EmbeddedCas, xorbs: Collection[Hash], shards: Collection[Hash]) -> list[XorbRow | ShardRow]:
    with cas.index.snapshot() as reader:
        return [*reader.xorbs(xorbs).values(), *reader.shards(shards).values()]


def _with_marked_xorbs(cas: EmbeddedCas, names: Sequence[Hash]) -> list[Hash]:
    marked = [row.hash for page in cas.index.pages(Reader.marked_xorbs, attrgetter("id"), 0) for row in page]
    return list(dict.fromkeys([*names, *marked]))


def _with_marked_shards(cas: EmbeddedCas, names: Sequence[Hash]) -> list[Hash]:
    marked = [row.hash for page in cas.index.pages(Reader.marked_shards, itemgetter(0), 0) for _, row in page]
    return list(dict.fromkeys([*names, *marked]))
