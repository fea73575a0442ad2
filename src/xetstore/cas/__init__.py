"""The store itself: verified, durable, over any blob store and an index."""

from xetstore.cas.check import CheckReport, Problem, check, verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.records import FileRecord, Totals

__all__ = ["CheckReport", "EmbeddedCas", "FileRecord", "Problem", "Totals", "check", "verify_invariants"]
