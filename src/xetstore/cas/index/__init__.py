"""The index: answers about stored objects without reading them."""

from xetstore.cas.index.index import MIGRATIONS, Index
from xetstore.cas.index.queries import ObjectRow, Reader, ShardRow, TermCount, Writer, XorbRow

__all__ = ["MIGRATIONS", "Index", "ObjectRow", "Reader", "ShardRow", "TermCount", "Writer", "XorbRow"]
