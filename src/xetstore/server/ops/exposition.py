"""Exposition: metrics of several workers as one text of Prometheus, each number the sum of theirs.

Why not the multiprocess mode of `prometheus_client`: it knows no gauge that is a function, as most of ours are; it is
switched on by an environment variable before the first import; and it keeps every count in a file, which costs more
than a count does. What a scrape shows is text, and text can be added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_ONE_OF_THE_SERVER: Final = frozenset(
    {
        *("xetstore_build_info", "xetstore_connections_max"),
        *("xetstore_chore_last_end_seconds", "xetstore_chore_duration_seconds"),
        *("xetstore_damaged_xorbs", "xetstore_damaged_shards", "xetstore_scrub_oldest_check_seconds"),
        *("xetstore_files", "xetstore_logical_bytes", "xetstore_unique_bytes", "xetstore_stored_bytes"),
        *("xetstore_xorbs", "xetstore_totals_timestamp_seconds"),
        *("xetstore_disk_free_bytes", "xetstore_disk_size_bytes"),
        *("xetstore_doomed_xorbs", "xetstore_doomed_bytes", "xetstore_abandoned_objects"),
    }
)
"""The same number in each worker, which is the server's."""
_OF_A_PROCESS: Final = ("process_", "python_")


@dataclass(slots=True)
class _Family:
    head: list[str] = field(default_factory=list)
    kind: str = "untyped"
    values: dict[str, float] = field(default_factory=dict)


class Exposition:
    """A text that others are added to. It reads what ``generate_latest`` writes."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def add(self, text: bytes, worker: int) -> None:
        """Add what a worker shows. What is said of its process alone gets a label with its number."""
        for name, family, lines in _families(text):
            for line in lines:
                key, _, number = line.rpartition(" ")
                if name.startswith(_OF_A_PROCESS):
                    key = f'{key}{{worker="{worker}"}}'
                family.values[key] = float(number)
            self._add(name, family)

    def include(self, other: Exposition) -> None:
        """Add all of another."""
        for name, family in other._families.items():
            self._add(name, _Family(family.head, family.kind, dict(family.values)))

    def _add(self, name: str, family: _Family) -> None:
        kept = self._families.setdefault(name, family)
        if kept is family:
            return
        for key, value in family.values.items():
            before = kept.values.get(key)
            if before is None:
                kept.values[key] = value
            elif name in _ONE_OF_THE_SERVER:
                kept.values[key] = max(before, value)
            elif name.endswith("_created"):
                kept.values[key] = min(before, value)
            else:
                kept.values[key] = before + value

    def keep_counts(self) -> None:
        """Forget what is true only while a worker lives: all but counters and histograms."""
        for name in list(self._families):
            is_count = self._families[name].kind in ("counter", "histogram") or name.endswith("_created")
            if name.startswith(_OF_A_PROCESS) or not is_count:
                del self._families[name]

    def text(self) -> bytes:
        """All of it."""
        lines: list[str] = []
        for family in self._families.values():
            lines += family.head
            lines += [f"{key} {value!r}" for key, value in family.values.items()]
        return "".join(f"{line}\n" for line in lines).encode()


def _families(text: bytes) -> Iterable[tuple[str, _Family, list[str]]]:
    """Each family, without values, and the lines of its samples."""
    name, family, lines = "", _Family(), list[str]()
    for line in text.decode().splitlines():
        if line.startswith("# HELP "):
            if name:
                yield name, family, lines
            name, family, lines = line.split(" ", 3)[2], _Family(), []
        if line.startswith("#"):
            family.head.append(line)
            if line.startswith("# TYPE "):
                family.kind = line.split(" ")[3]
        else:
            lines.append(line)
    if name:
        yield name, family, lines
