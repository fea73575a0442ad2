"""Reader asks, Writer adds: every query of the index in one class each. One set for both engines."""

from __future__ import annotations

from xetstore.cas.index.queries.checks import CheckChanges, CheckQueries
from xetstore.cas.index.queries.chores import ChoreChanges, ChoreQueries
from xetstore.cas.index.queries.collecting import CollectChanges, CollectQueries
from xetstore.cas.index.queries.copying import CopyChanges, CopyQueries
from xetstore.cas.index.queries.dedup import DedupChanges, DedupQueries
from xetstore.cas.index.queries.deletions import DeletionChanges, DeletionQueries
from xetstore.cas.index.queries.files import FileQueries
from xetstore.cas.index.queries.grants import GrantChanges, GrantQueries
from xetstore.cas.index.queries.quotas import QuotaQueries
from xetstore.cas.index.queries.repairs import RepairChanges, RepairQueries
from xetstore.cas.index.queries.rewriting import RewriteQueries
from xetstore.cas.index.queries.sha256 import Sha256Queries
from xetstore.cas.index.queries.shards import ShardQueries
from xetstore.cas.index.queries.snapshots import SnapshotChanges, SnapshotQueries
from xetstore.cas.index.queries.store import StoreChanges, StoreQueries
from xetstore.cas.index.queries.superseded import SupersededQueries
from xetstore.cas.index.queries.usage import UsageQueries
from xetstore.cas.index.queries.xorbs import XorbChanges


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
):
    """Additions in one transaction, beside all that a Reader can ask."""
