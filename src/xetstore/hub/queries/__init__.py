"""Every query of the hub, a file for each kind of row: HubReader asks, HubWriter changes. One set for both engines."""

from __future__ import annotations

from xetstore.hub.queries.buckets import BucketChanges, BucketFile, BucketFolder, BucketQueries, BucketTotals
from xetstore.hub.queries.collecting import CollectingChanges, CollectingQueries
from xetstore.hub.queries.copying import CopyChanges, CopyQueries
from xetstore.hub.queries.deleted import DeletedBucketFile, DeletedChanges, DeletedQueries, DeletedRef
from xetstore.hub.queries.discussions import (
    Discussion,
    DiscussionChanges,
    DiscussionFilter,
    DiscussionQueries,
    Event,
)
from xetstore.hub.queries.duplicates import DuplicateChanges
from xetstore.hub.queries.history import HistoryChanges, HistoryQueries, Revision
from xetstore.hub.queries.lfs import LargeFileChanges, LargeFileQueries, Part, Pointed
from xetstore.hub.queries.named import NamedQueries
from xetstore.hub.queries.objects import BlobRow, ObjectChanges, ObjectQueries
from xetstore.hub.queries.refs import RefChanges, RefQueries
from xetstore.hub.queries.repositories import Listing, RepositoryChanges, RepositoryQueries, RepositoryRow

__all__ = [
    "BlobRow",
    "BucketFile",
    "BucketFolder",
    "BucketTotals",
    "DeletedBucketFile",
    "DeletedRef",
    "Discussion",
    "DiscussionFilter",
    "Event",
    "HubReader",
    "HubWriter",
    "Listing",
    "Part",
    "Pointed",
    "RepositoryRow",
    "Revision",
]


class HubReader(
    RepositoryQueries,
    ObjectQueries,
    RefQueries,
    HistoryQueries,
    BucketQueries,
    DiscussionQueries,
    LargeFileQueries,
    NamedQueries,
    DeletedQueries,
    CollectingQueries,
    CopyQueries,
):
    """All questions, in one snapshot of the index."""


class HubWriter(
    HubReader,
    RepositoryChanges,
    ObjectChanges,
    RefChanges,
    HistoryChanges,
    BucketChanges,
    DiscussionChanges,
    DuplicateChanges,
    LargeFileChanges,
    DeletedChanges,
    CollectingChanges,
    CopyChanges,
):
    """Changes in one transaction, beside all that a HubReader can ask."""
