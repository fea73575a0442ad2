"""Starting: `import xetstore`, an open, the first commands on small files, beside restic, borg and hf_xet; START.md.

Each operation is a process of its own, all of them in turn, on the disk of the temporary folder. The time is that of
the whole process, Python's own start included: the row "python" says how much that is.
"""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent
FILE_BYTES: Final = 1_000_000
EDITED_BYTES: Final = 1_000
VERSIONS: Final = 3
LEAST_ROUNDS: Final = 3
WHO: Final = ("xetstore", "restic", "borg", "hf_xet")

_HASH: Final = re.compile(r"\b[0-9a-f]{64}\b")
_THEIRS: Final = "import sys; from bench.operations import OPERATIONS; print(OPERATIONS[sys.argv[1]](*sys.argv[2:]))"
_OPENED: Final = """
import resource, sys, time, xetstore
def used():
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime
cpu, start = used(), time.perf_counter()
xetstore.open(sys.argv[1])
print(time.perf_counter() - start, used() - cpu)
"""

Taken = tuple[float, float]
"""Seconds by the clock, and of the processor."""


@dataclass
class Rows:
    """What was measured of each operation and of each who does it, in the order in which it came first."""

    runs: dict[str, dict[str, list[Taken]]] = field(default_factory=dict)

    def add(self, what: str, who: str, taken: Taken) -> None:
        self.runs.setdefault(what, {}).setdefault(who, []).append(taken)

    def table(self) -> str:
        head = f"| | {' | '.join(WHO)} |\n|---|{'---|' * len(WHO)}\n"
        return head + "".join(
            f"| {what} | {' | '.join(self._cell(what, who) for who in WHO)} |\n" for what in self.runs
        )

    def _cell(self, what: str, who: str) -> str:
        if who not in self.runs[what]:
            return ""
        seconds, cpu = (statistics.median(each) for each in zip(*self.runs[what][who], strict=True))
        return f"{seconds * 1000:.0f} ({cpu * 1000:.0f})"


@dataclass
class Tool:
    """A program that keeps versions of a file: its commands, each of which is a process."""

    name: str
    version: Sequence[str] | None
    create: Sequence[str] | None
    put: Sequence[str]
    get: Sequence[str]
    """In both `FILE` and `NUMBER` stand for the file and its number, and `NAME` for the hash that a put printed."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], folder: Path, **words: str) -> tuple[Taken, str]:
        """Run a command in a folder: how long that took, and what it printed."""
        for name, value in words.items():
            command = [word.replace(name, value) for word in command]
        return timed(command, folder, self.environment)


def run(_: Path, chosen: Any) -> None:
    """All rows, `--rounds` times."""
    missing = [name for name in ("restic", "borg") if shutil.which(name) is None]
    for name in missing:
        print(f"{name} is not installed: its column stays empty", flush=True)
    rows = Rows()
    rounds = max(chosen.rounds, LEAST_ROUNDS)
    for _round in range(rounds):
        with tempfile.TemporaryDirectory(prefix="xetstore-start-") as folder:
            measure(Path(folder), rows, missing)
    print(rows.table(), flush=True)
    load = os.getloadavg()[0]
    (ROOT / "START.md").write_text(
        "# Starting\n\n"
        f"`make bench` on {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}:"
        f" milliseconds by the clock and, in brackets, of the processor; medians of {rounds} rounds, all in"
        f" turn, each operation a process of its own, on a disk. The file has {FILE_BYTES:,} random bytes, and of each"
        f" next version {EDITED_BYTES:,} bytes in the middle are others. A put and a get are those of the command; of"
        " hf_xet those of a program that imports it, into a folder that it neither flushes nor indexes. The load of the"
        f" machine was {load:.1f}: more than its cores draws out times, those of the processor by up to a half."
        "\n\n" + rows.table()
    )


def measure(here: Path, rows: Rows, missing: Sequence[str]) -> None:
    """One round of all rows, in an empty folder."""
    python = sys.executable
    tools = [tool for tool in tools_in(here) if tool.name not in missing]
    files = versions(here)
    rows.add("python", "xetstore", timed([python, "-c", "pass"], here)[0])
    for who in ("xetstore", "hf_xet"):
        rows.add("import", who, timed([python, "-c", f"import {who}"], here)[0])
    for tool in tools:
        if tool.version is not None:
            rows.add("version", tool.name, tool.run(tool.version, here)[0])
        if tool.create is not None:
            tool.run(tool.create, here)
    for number, file in enumerate(files):
        for tool in tools:
            taken, printed = tool.run(tool.put, here, FILE=str(file), NUMBER=f"v{number}")
            rows.add("put a next version" if number else "put the first version", tool.name, taken)
            if file is files[-1]:
                name = found[0] if (found := _HASH.search(printed)) else ""
                out = here / f"{tool.name}.out"
                out.mkdir()
                rows.add("get", tool.name, tool.run(tool.get, out, NAME=name, NUMBER=f"v{number}", FILE=str(file))[0])
    store = str(here / "xetstore")
    rows.add(
        "import and open", "xetstore", timed([python, "-c", f"import xetstore; xetstore.open({store!r})"], here)[0]
    )
    seconds, cpu = map(float, timed([python, "-c", _OPENED, store], here)[1].split())
    rows.add("open, once imported", "xetstore", (seconds, cpu))


def tools_in(here: Path) -> list[Tool]:
    """The programs, with their stores in a folder."""
    python, xet = sys.executable, str(Path(sys.executable).with_name("xet"))
    ours, restic, borg, theirs = (str(here / who) for who in WHO)
    password = {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(here / "restic-cache")}
    open_repository = {"BORG_BASE_DIR": str(here / "borg-base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    local, caches = f"local://{theirs}", {"HF_XET_CACHE": str(here / "hf-cache"), "PYTHONPATH": str(ROOT.parent)}
    return [
        Tool(
            "xetstore",
            [xet, "--version"],
            None,
            [xet, "--store", ours, "put", "--json", "FILE"],
            [xet, "--store", ours, "get", "NAME", "-o", "file"],
            {"XET_CACHE": str(here / "cache")},
        ),
        Tool(
            "restic",
            ["restic", "version"],
            ["restic", "-q", "-r", restic, "init"],
            ["restic", "-q", "-r", restic, "backup", "FILE"],
            ["restic", "-q", "-r", restic, "restore", "latest", "--target", "."],
            password,
        ),
        Tool(
            "borg",
            ["borg", "--version"],
            ["borg", "init", "-e", "none", borg],
            ["borg", "create", f"{borg}::NUMBER", "FILE"],
            ["borg", "extract", f"{borg}::NUMBER"],
            open_repository,
        ),
        Tool(
            "hf_xet",
            None,
            None,
            [python, "-c", _THEIRS, "theirs.put", "FILE", local],
            [python, "-c", _THEIRS, "theirs.get", "NAME", str(FILE_BYTES), local, "file"],
            caches,
        ),
    ]


def versions(here: Path) -> list[Path]:
    """A file, and next versions of it."""
    source = random.Random(18)
    data = bytearray(source.randbytes(FILE_BYTES))
    files = []
    for number in range(VERSIONS):
        files.append(here / f"version-{number}")
        files[-1].write_bytes(data)
        middle = FILE_BYTES // 2
        data[middle : middle + EDITED_BYTES] = source.randbytes(EDITED_BYTES)
    return files


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> tuple[Taken, str]:
    """Run a process to its end: how long that took, and what it printed."""
    told = {**os.environ, "HF_XET_TELEMETRY_ENABLED": "0", **(environment or {})}
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=told, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)  # of this child alone, to the microsecond
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{printed}")
    return (seconds, used.ru_utime + used.ru_stime), printed
