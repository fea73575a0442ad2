"""Every query of the index, a file for each kind of row: Reader asks, Writer adds. One set for both engines."""

from __future__ import annotations

from xetstore.cas.index.queries.again import AgainChanges, AgainQueries, HadFile
from xetstore.cas.index.queries.checks import NOWHERE, CheckChanges, CheckQueries, Place, Soundness
from xetstore.cas.index.queries.chores import ChoreChanges, ChoreQueries, ChoreRow
from xetstore.cas.index.queries.collecting import CollectChanges, CollectQueries, Due, FreeFile
from xetstore.cas.index.queries.copying import CopyChanges, CopyQueries, Granted, Held, LastIds, NewRows
from xetstore.cas.index.queries.dedup import DedupChanges, DedupQueries, any_holder
from xetstore.cas.index.queries.deletions import DeletionChanges, DeletionQueries, GrantState
from xetstore.cas.index.queries.files import FileQueries
from xetstore.cas.index.queries.grants import GrantChanges, GrantQueries
from xetstore.cas.index.queries.quotas import Quota, QuotaQueries
from xetstore.cas.index.queries.repairs import RepairChanges, RepairQueries
from xetstore.cas.index.queries.rewriting import (
    LongFile,
    OutdatedError,
    RewriteQueries,
    StaleShard,
    StoredFile,
)
from xetstore.cas.index.queries.rows import SEGMENT_TERMS, ObjectRow, ShardRow, TermCount, XorbRow, chunk_key
from xetstore.cas.index.queries.sha256 import Sha256Queries
from xetstore.cas.index.queries.shards import ShardQueries
from xetstore.cas.index.queries.snapshots import SnapshotChanges, SnapshotQueries, SnapshotTable
from xetstore.cas.index.queries.store import StoreChanges, StoreQueries
from xetstore.cas.index.queries.superseded import SupersededQueries
from xetstore.cas.index.queries.usage import UsageQueries
from xetstore.cas.index.queries.xorbs import XorbChanges

__all__ = [
    "NOWHERE",
    "SEGMENT_TERMS",
    "ChoreRow",
    "Due",
    "FreeFile",
    "GrantState",
    "Granted",
    "HadFile",
    "Held",
    "LastIds",
    "LongFile",
    "NewRows",
    "ObjectRow",
    "OutdatedError",
    "Place",
    "Quota",
    "Reader",
    "ShardRow",
    "SnapshotTable",
    "Soundness",
    "StaleShard",
    "StoredFile",
    "TermCount",
    "Writer",
    "XorbRow",
    "any_holder",
    "chunk_key",
]


class Reader(
    FileQueries,
    Sha256Queries,
    DedupQueries,
    GrantQueries,
    DeletionQueries,
    ShardQueries,
    StoreQueries,
    SupersededQueries,
    CopyQueries,
    ChoreQueries,
    CollectQueries,
    CheckQueries,
    RepairQueries,
    UsageQueries,
    QuotaQueries,
    SnapshotQueries,
    RewriteQueries,
    AgainQueries,
):
    """All queries, in one snapshot of the index."""


class Writer(
    Reader,
    XorbChanges,
    CollectChanges,
    GrantChanges,
    DeletionChanges,
    DedupChanges,
    StoreChanges,
    CopyChanges,
    ChoreChanges,
    CheckChanges,
    RepairChanges,
    SnapshotChanges,
    AgainChanges,
):
    """Additions in one transaction, beside all that a Reader can ask."""
