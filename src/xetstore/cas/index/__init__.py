"""The index: answers about stored objects without reading them."""

from xetstore.cas.index.index import MIGRATIONS, Index
from xetstore.cas.index.queries import Reader, TermCount, Writer, XorbRow

__all__ = ["MIGRATIONS", "Index", "Reader", "TermCount", "Writer", "XorbRow"]
