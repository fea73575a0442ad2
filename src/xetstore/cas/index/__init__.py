"""The index: answers about stored objects without reading them."""

from typing import TYPE_CHECKING

from xetstore.loading import lazily

if TYPE_CHECKING:
    from xetstore.cas.index.index import MIGRATIONS, Index
    from xetstore.cas.index.queries.checks import NOWHERE, Place, Soundness
    from xetstore.cas.index.queries.reader import Reader, Writer
    from xetstore.cas.index.queries.rows import ObjectRow, ShardRow, TermCount, XorbRow

__all__ = [
    "MIGRATIONS",
    "NOWHERE",
    "Index",
    "ObjectRow",
    "Place",
    "Reader",
    "ShardRow",
    "Soundness",
    "TermCount",
    "Writer",
    "XorbRow",
]

__getattr__ = lazily(
    __name__,
    {
        "Index": "xetstore.cas.index.index",
        "MIGRATIONS": "xetstore.cas.index.index",
        "NOWHERE": "xetstore.cas.index.queries.checks",
        "ObjectRow": "xetstore.cas.index.queries.rows",
        "Place": "xetstore.cas.index.queries.checks",
        "Reader": "xetstore.cas.index.queries.reader",
        "ShardRow": "xetstore.cas.index.queries.rows",
        "Soundness": "xetstore.cas.index.queries.checks",
        "TermCount": "xetstore.cas.index.queries.rows",
        "Writer": "xetstore.cas.index.queries.reader",
        "XorbRow": "xetstore.cas.index.queries.rows",
    },
)
