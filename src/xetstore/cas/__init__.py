"""The store itself: verified, durable, over any blob store and an index."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xetstore.cas.check import CheckReport, Problem, verify_invariants
    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import FileRecord, Totals

__all__ = ["CheckReport", "EmbeddedCas", "FileRecord", "Problem", "Totals", "verify_invariants"]

_HOMES = {
    "CheckReport": "xetstore.cas.check",
    "EmbeddedCas": "xetstore.cas.service",
    "FileRecord": "xetstore.records",
    "Problem": "xetstore.cas.check",
    "Totals": "xetstore.records",
    "verify_invariants": "xetstore.cas.check",
}


def __getattr__(name: str) -> object:
    """A public name, loaded when it is first asked for: opening a store loads no check."""
    if name not in _HOMES:
        raise AttributeError(f"module 'xetstore.cas' has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)
