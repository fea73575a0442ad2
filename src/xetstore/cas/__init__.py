"""The store itself: verified, durable, over any blob store and an index."""

from xetstore.cas.check import CheckReport, Problem, check, verify_invariants
from xetstore.cas.records import FileRecord, Totals
from xetstore.cas.service import EmbeddedCas

__all__ = ["CheckReport", "EmbeddedCas", "FileRecord", "Problem", "Totals", "check", "verify_invariants"]
