"""The collection: what nothing names any more is deleted, after a grace, while the store is in use."""

from xetstore.cas.collecting.collect import collect
from xetstore.cas.collecting.run import CollectReport
from xetstore.cas.collecting.together import Names, collect_all

__all__ = ["CollectReport", "Names", "collect", "collect_all"]
