"""The index: answers about stored objects without reading them."""

from xetstore.cas.index.index import MIGRATIONS, Index
from xetstore.cas.index.queries import (
    NOWHERE,
    ObjectRow,
    Place,
    Reader,
    ShardRow,
    Soundness,
    TermCount,
    Writer,
    XorbRow,
)

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
