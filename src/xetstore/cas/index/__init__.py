"""The index: answers about stored objects without reading them. SQLAlchemy stays in this folder."""

from xetstore.cas.index.database import Index
from xetstore.cas.index.queries import Reader, TermCount, Writer, XorbRow

__all__ = ["Index", "Reader", "TermCount", "Writer", "XorbRow"]
