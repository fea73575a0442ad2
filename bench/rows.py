"""Rows of a table: the runs of an operation, of both clients in turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

BOTH = ("ours", "theirs")


@dataclass(frozen=True)
class Run:
    """One operation of one client: seconds and peak memory of both processes, bytes of bodies at the server."""

    seconds: float
    cpu: float
    peak_mib: float
    server_cpu: float
    server_peak_mib: float
    received: float
    sent: float
    stored: int = 0
    """Bytes of all xorbs of the store after an upload."""


@dataclass
class Row:
    """Runs of one operation, ours and theirs in turn. ``nbytes`` are moved or read by it, in ``files`` files; it is to
    be ``goal`` times as fast as hf_xet.
    """

    what: str
    nbytes: int
    files: int = 1
    goal: float | None = None
    runs: dict[str, list[Run]] = field(default_factory=lambda: {who: [] for who in BOTH})

    def median(self, who: str, figure: str) -> float:
        figures: list[float] = [getattr(run, figure) for run in self.runs[who]]
        return statistics.median(figures)

    def ratio(self) -> float:
        """Time of hf_xet by ours, the median of the pairs."""
        pairs = zip(self.runs["ours"], self.runs["theirs"], strict=True)
        return statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)

    def rate(self, who: str) -> str:
        seconds = self.median(who, "seconds")
        return f"{self.files / seconds:,.0f} files/s" if self.files > 1 else f"{self.nbytes / seconds / 1e9:.2f} GB/s"

    def times(self) -> str:
        """A line of the table of times."""
        cpu, peak, server_cpu, server_peak = (
            " | ".join(f"{self.median(who, figure):{form}}" for who in BOTH)
            for figure, form in (("cpu", ".2f"), ("peak_mib", ".0f"), ("server_cpu", ".2f"), ("server_peak_mib", ".0f"))
        )
        rates = " | ".join(self.rate(who) for who in BOTH)
        return f"| {self.what} | {rates} | **{self.ratio():.2f}** | {peak} | {cpu} | {server_cpu} | {server_peak} |"

    def moved(self) -> str:
        """A line of the table of bytes."""
        counts = " | ".join(f"{self.median(who, what):,.0f}" for what in ("received", "sent") for who in BOTH)
        return f"| {self.what} | {counts} |"


TIMES = [
    "| operation | xetstore | hf_xet | ratio | peak MiB | hf_xet | CPU s | hf_xet | server CPU s | for hf_xet "
    "| server peak MiB | for hf_xet |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
]
MOVED = ["| operation | up: xetstore | hf_xet | down: xetstore | hf_xet |", "|---|---|---|---|---|"]
