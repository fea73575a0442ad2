"""Holdings: the sums over a store, its largest namespaces, and the room on its disks."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.server.ops.look import Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from xetstore.cas.service import EmbeddedCas

PATIENCE_SECONDS: Final = 1.0
"""The longest wait of a scrape for new sums. The old ones are told then, with their time."""
LISTED_NAMESPACES: Final = 20

SUMS: Final = (
    ("files", "Files that are registered."),
    ("logical_bytes", "Bytes of all files as they are."),
    ("unique_bytes", "Bytes of all chunks, each once: after deduplication."),
    ("stored_bytes", "Bytes of all xorbs as they are stored: after compression."),
    ("xorbs", "Xorbs that are registered."),
)
"""The metrics of the sums, each a field of the totals, and their texts."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of a file system, and those of them that the server may still write."""

    free_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NamespaceSize:
    """The files of a namespace, and their bytes as they are."""

    name: str
    files: int
    logical_bytes: int


class Holdings:
    """The contents of a store, as its monitor and its status page see them. Thread-safe."""

    def __init__(self, cas: EmbeddedCas, clock: Callable[[], float]) -> None:
        self._cas = cas
        self.totals = Look(cas.totals, clock)
        self.namespaces = Look(self._namespaces, clock)

    def disks(self) -> dict[str, Disk]:
        """The disks of ``objects`` and ``index``, where these are in folders of this machine."""
        disks = {}
        for part, folder in self._cas.folders.items():
            with suppress(OSError):
                usage = shutil.disk_usage(folder)
                disks[part] = Disk(usage.free, usage.total)
        return disks

    def collect(self) -> Iterator[Metric]:
        """The numbers that are known, for `prometheus_client`: no namespaces, of which there is no end."""
        from prometheus_client.core import GaugeMetricFamily

        if (latest := self.totals.latest(PATIENCE_SECONDS)) is not None:
            totals, made_at = latest
            for name, text in SUMS:
                yield GaugeMetricFamily(f"xetstore_{name}", text, getattr(totals, name))
            text = "When these sums were made, in unix seconds."
            yield GaugeMetricFamily("xetstore_totals_timestamp_seconds", text, made_at)
        disks = self.disks()
        for name, text in (("free", "Bytes that may still be written there."), ("size", "Bytes of the file system.")):
            family = GaugeMetricFamily(f"xetstore_disk_{name}_bytes", text, labels=["part"])
            for part, disk in disks.items():
                family.add_metric([part], getattr(disk, f"{name}_bytes"))
            yield family

    def _namespaces(self) -> list[NamespaceSize]:
        with self._cas.index.snapshot() as reader:
            return [NamespaceSize(*row) for row in reader.largest_namespaces(LISTED_NAMESPACES)]
