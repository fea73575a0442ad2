"""The collection of names: what was deleted for good, and what no ref, path or upload leads to, goes."""

from xetstore.hub.collecting.collect import NamesReport, collect_names, names_to_collect

__all__ = ["NamesReport", "collect_names", "names_to_collect"]
