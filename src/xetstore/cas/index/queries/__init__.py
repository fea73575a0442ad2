"""Every query of the index, a file for each kind of row; ``reader.py`` has them all."""

from typing import TYPE_CHECKING

from xetstore.loading import lazily

if TYPE_CHECKING:
    from xetstore.cas.index.queries.checks import NOWHERE, Place, Soundness
    from xetstore.cas.index.queries.chores import ChoreRow
    from xetstore.cas.index.queries.collecting import Due, FreeFile
    from xetstore.cas.index.queries.copying import Granted, Held, LastIds, NewRows
    from xetstore.cas.index.queries.dedup import any_holder
    from xetstore.cas.index.queries.deletions import GrantState
    from xetstore.cas.index.queries.quotas import Quota
    from xetstore.cas.index.queries.reader import Reader, Writer
    from xetstore.cas.index.queries.rewriting import LongFile, OutdatedError, StaleShard, StoredFile
    from xetstore.cas.index.queries.rows import SEGMENT_TERMS, ObjectRow, ShardRow, TermCount, XorbRow, chunk_key
    from xetstore.cas.index.queries.snapshots import SnapshotTable

__all__ = [
    "NOWHERE",
    "SEGMENT_TERMS",
    "ChoreRow",
    "Due",
    "FreeFile",
    "GrantState",
    "Granted",
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

__getattr__ = lazily(
    __name__,
    {
        "ChoreRow": "xetstore.cas.index.queries.chores",
        "Due": "xetstore.cas.index.queries.collecting",
        "FreeFile": "xetstore.cas.index.queries.collecting",
        "GrantState": "xetstore.cas.index.queries.deletions",
        "Granted": "xetstore.cas.index.queries.copying",
        "Held": "xetstore.cas.index.queries.copying",
        "LastIds": "xetstore.cas.index.queries.copying",
        "LongFile": "xetstore.cas.index.queries.rewriting",
        "NOWHERE": "xetstore.cas.index.queries.checks",
        "NewRows": "xetstore.cas.index.queries.copying",
        "ObjectRow": "xetstore.cas.index.queries.rows",
        "OutdatedError": "xetstore.cas.index.queries.rewriting",
        "Place": "xetstore.cas.index.queries.checks",
        "Quota": "xetstore.cas.index.queries.quotas",
        "Reader": "xetstore.cas.index.queries.reader",
        "SEGMENT_TERMS": "xetstore.cas.index.queries.rows",
        "ShardRow": "xetstore.cas.index.queries.rows",
        "SnapshotTable": "xetstore.cas.index.queries.snapshots",
        "Soundness": "xetstore.cas.index.queries.checks",
        "StaleShard": "xetstore.cas.index.queries.rewriting",
        "StoredFile": "xetstore.cas.index.queries.rewriting",
        "TermCount": "xetstore.cas.index.queries.rows",
        "Writer": "xetstore.cas.index.queries.reader",
        "XorbRow": "xetstore.cas.index.queries.rows",
        "any_holder": "xetstore.cas.index.queries.dedup",
        "chunk_key": "xetstore.cas.index.queries.rows",
    },
)
