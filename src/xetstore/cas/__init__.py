"""The store itself: verified, durable, over any blob store and an index."""

from typing import TYPE_CHECKING

from xetstore.loading import lazily

if TYPE_CHECKING:
    from xetstore.cas.check import CheckReport, Problem, verify_invariants
    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import FileRecord, Totals

__all__ = ["CheckReport", "EmbeddedCas", "FileRecord", "Problem", "Totals", "verify_invariants"]

__getattr__ = lazily(
    __name__,
    {
        "CheckReport": "xetstore.cas.check",
        "EmbeddedCas": "xetstore.cas.service",
        "FileRecord": "xetstore.records",
        "Problem": "xetstore.cas.check",
        "Totals": "xetstore.records",
        "verify_invariants": "xetstore.cas.check",
    },
)
