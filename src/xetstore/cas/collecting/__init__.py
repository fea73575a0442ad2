"""The collection: what nothing names any more is deleted, after a grace, while the store is in use."""

from xetstore.cas.collecting.collect import CollectReport, collect

__all__ = ["CollectReport", "collect"]
