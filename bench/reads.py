"""Figures of random reads: xetstore and hf_xet against the same server of ours, in turn; written to READS.md.

The server is on this machine, then behind a proxy that makes each round trip take 20 ms, see bench.delay.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import corpora
from bench.delay import delayed
from bench.rows import BOTH
from bench.server import Server, serving
from bench.worker import run_worker

PAGE: Final = Path(__file__).parent / "READS.md"
MILLISECONDS: Final = (0, 20)
GOALS: Final = {0: 1.3, 20: 1.9}
COLUMNS: Final = 20
_ROWS: Final = 100_000
_GROUPS: Final = 4
_HEAD: Final = (
    "| read | round trip | xetstore ms | hf_xet ms | ratio | goal | requests | hf_xet | CPU ms | hf_xet "
    "| server CPU ms | for hf_xet |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass
class Reads:
    """Runs of one kind of read: for each client a list of seconds, and of other figures, of all reads of a run."""

    what: str
    milliseconds: int
    count: int
    runs: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {who: [] for who in BOTH})

    def ratio(self) -> float:
        """Time of hf_xet by ours, the median of the pairs."""
        pairs = zip(self.runs["ours"], self.runs["theirs"], strict=True)
        return statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)

    def line(self) -> str:
        """A line of the table; what one read takes."""

        def both(figure: str, scale: float, form: str) -> str:
            medians = [statistics.median(run[figure] for run in self.runs[who]) * scale / self.count for who in BOTH]
            return " | ".join(f"{median:{form}}" for median in medians)

        return (
            f"| {self.what} | {self.milliseconds} ms | {both('seconds', 1000, '.1f')} | **{self.ratio():.2f}** "
            f"| {GOALS[self.milliseconds]} | {both('requests', 1, '.2f')} | {both('cpu', 1000, '.1f')} "
            f"| {both('server_cpu', 1000, '.1f')} |"
        )


def requests(server: Server) -> float:
    """Requests that the server has answered, but for those that ask this."""
    connection = server.connect()
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    counted = (line for line in lines if line.startswith("xetstore_http_requests_total{") and "/metrics" not in line)
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def table(path: Path) -> None:
    """A Parquet file of numbers at random: 20 columns, in groups of 100,000 rows."""
    import numpy
    import pyarrow
    from pyarrow import parquet

    chance = numpy.random.default_rng(1)
    columns = {f"c{number}": chance.random(_ROWS * _GROUPS) for number in range(COLUMNS)}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=_ROWS, compression="none", use_dictionary=False)


@contextmanager
def reached(server: Server, milliseconds: int) -> Iterator[str]:
    """The URL of a server that is that far away."""
    if not milliseconds:
        yield server.url
        return
    with delayed(server.url, milliseconds) as url:
        yield url


def measure(work: Path, filled: Path, verb: str, args: list[str], one: Reads, rounds: int) -> None:
    """The runs of one kind of read, each client first in every second round. What they read has to be the same."""
    agreed = ""
    for number in range(rounds):
        for who in BOTH if number % 2 == 0 else BOTH[::-1]:
            cache = work / "cache"
            with serving(filled) as server, reached(server, one.milliseconds) as url:
                before, cpu = requests(server), server.cpu()
                answer = run_worker(who, verb, args[0], args[1], url, *args[2:], cache=cache)
                figures = {name: answer[name] for name in ("seconds", "cpu")}
                figures |= {"requests": requests(server) - before, "server_cpu": server.cpu() - cpu}
            shutil.rmtree(cache, ignore_errors=True)
            one.runs[who].append(figures)
            agreed = agreed or str(answer["result"])
            if str(answer["result"]) != agreed:
                raise SystemExit(f"{one.what}: the two do not agree")
    print(one.line(), flush=True)


def run(work: Path, chosen: Any) -> None:
    """All of it, and the page."""
    large, small, filled = work / "large", work / "table.parquet", work / "filled"
    nbytes = int(chosen.gib * 2e9)
    corpora.make("random", large, nbytes)
    table(small)
    sizes = {"large": nbytes, "table": small.stat().st_size}
    names = {}
    with serving(filled) as server:
        for name, path in (("large", large), ("table", small)):
            names[name] = str(run_worker("ours", "put", path, server.url, cache=work / "cache")["result"])
            path.unlink()
    shutil.rmtree(work / "cache", ignore_errors=True)
    kinds = (
        ("iter_range, 1 MiB", "ranges", ["large", "100"], 100),
        ("open().read, 1 MiB", "seeks", ["large", "100"], 100),
        (f"2 of {COLUMNS} columns, 6.4 MB", "columns", ["table", "3,11"], 1),
    )
    done = []
    for milliseconds in MILLISECONDS:
        for what, verb, (name, last), count in kinds:
            one = Reads(what, milliseconds, count)
            measure(work, filled, verb, [names[name], str(sizes[name]), last], one, chosen.rounds)
            done.append(one)
    PAGE.write_text(
        f"# Figures of random reads\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.0f} at its end, Python {platform.python_version()}, hf_xet 1.8.0; {chosen.rounds} "
        "rounds, the two in turn, medians of what one read takes; the ratio is hf_xet's time by ours, the median of "
        "the pairs. A new process and an empty cache for each run; ranges of a file of "
        f"{nbytes / 1e9:g} GB at random, the columns by `cat_ranges` after the footer. Ours are verified and put into "
        "the cache, those of hf_xet are not.\n\n" + _HEAD + "\n".join(one.line() for one in done) + "\n"
    )
