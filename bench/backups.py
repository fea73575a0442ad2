"""Figures beside restic and borg: versions, an unchanged tree, small versions, memory; written to BACKUPS.md.

Each saves the same folders into a store of its own, in turn, by its command and with the options that it comes with;
only what restic and borg would ask the user is answered (a password, no encryption for borg).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import corpora
from bench.pages import fill
from bench.table import README, processor

PAGE: Final = Path(__file__).parent / "BACKUPS.md"
INSTALL: Final = "apt-get install restic borgbackup"
VERSIONS: Final = 40
EDITS: Final = 4
EDIT_BYTES: Final = 4096
_SETTLED_SECONDS: Final = 4.0
"""A file that changed just now is remembered by none of them."""
# In a small process: the memory of the one that forks counts for what it runs.
_LAUNCHER: Final = """
import os, sys, time
began = time.perf_counter()
null = os.open(os.devnull, os.O_RDWR)
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)])
_, status, used = os.wait4(pid, 0)
print([time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024])
sys.exit(os.waitstatus_to_exitcode(status))
"""
_HEAD: Final = "| | xetstore | restic | borg |\n|---|---|---|---|\n"


@dataclass
class Run:
    """One command: its time, its processor time, its peak memory."""

    seconds: float
    cpu: float
    peak_mib: float


@dataclass
class Tool:
    """One of the three: how it makes a store, and how it saves a folder into it for the ``number``-th time."""

    name: str
    store: Path
    init: Sequence[str | Path] | None
    save: Callable[[Path, int], Sequence[str | Path]]
    environment: Mapping[str, str]
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def run(self, what: str, folder: Path, number: int = 0) -> Run:
        done = self._command(self.save(folder, number))
        self.runs.setdefault(what, []).append(done)
        return done

    def make(self) -> None:
        if self.init is not None:
            self._command(self.init)

    def clear(self) -> None:
        """Begin anew, with nothing saved and nothing remembered."""
        for place in (self.store, *map(Path, self.environment.values())):
            if place.is_absolute() and place.is_dir():
                shutil.rmtree(place)
        self.make()

    def stored_bytes(self) -> int:
        """Bytes of all files of the store."""
        return sum(path.stat().st_size for path in self.store.rglob("*") if path.is_file())

    def median(self, what: str, figure: str = "seconds") -> float:
        return float(statistics.median(getattr(run, figure) for run in self.runs[what]))

    def _command(self, arguments: Sequence[str | Path]) -> Run:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, arguments)],
            env={**environment, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(map(str, arguments))} failed:\n{done.stderr}")
        return Run(*json.loads(done.stdout))


def tools(work: Path) -> list[Tool]:
    """All three, or none where one is not there."""
    missing = [name for name in ("restic", "borg") if shutil.which(name) is None]
    if missing:
        print(f"beside backups: left out, for there is no {' and no '.join(missing)}: {INSTALL}", file=sys.stderr)
        return []
    xet = Path(sys.executable).with_name("xet")
    ours, restic, borg = (work / name for name in ("xet", "restic", "borg"))
    return [
        Tool(
            "xetstore",
            ours / "store",
            None,
            lambda folder, _: [xet, "put", folder],
            {"XET_STORE": str(ours / "store"), "XET_CACHE": str(ours / "cache")},
        ),
        Tool(
            "restic",
            restic / "store",
            ["restic", "init", "--quiet"],
            lambda folder, _: ["restic", "backup", "--quiet", folder],
            {
                "RESTIC_REPOSITORY": str(restic / "store"),
                "RESTIC_PASSWORD": "benchmark",
                "RESTIC_CACHE_DIR": str(restic / "cache"),
            },
        ),
        Tool(
            "borg",
            borg / "store",
            ["borg", "init", "--encryption", "none"],
            lambda folder, number: ["borg", "create", f"::{number}-{time.monotonic_ns()}", folder],
            {
                "BORG_REPO": str(borg / "store"),
                "BORG_BASE_DIR": str(borg / "base"),
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            },
        ),
    ]


def run(work: Path, chosen: Any) -> None:
    """All figures beside restic and borg."""
    folder = work / "backups"
    folder.mkdir()
    all_three = tools(folder)
    if not all_three:
        return
    for tool in all_three:
        tool.store.parent.mkdir()
    scale, rounds = chosen.backup_scale, chosen.rounds
    lines = [
        *_checkpoints(folder, all_three, scale),
        *_unchanged(folder, all_three, round(20_000 * scale), rounds),
        *_small_versions(folder, all_three, rounds),
        *_large(folder, all_three, int(chosen.gib * 2**30), rounds),
    ]
    shutil.rmtree(folder)
    where = (
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        f"{_version('restic', 'version')}, {_version('borg', '--version')}; stores and sources on tmpfs; the three in "
        f"turn, medians of {rounds} rounds; the load of the machine was {os.getloadavg()[0]:.1f} at the end. restic "
        "encrypts, and borg as it was told does not."
    )
    table = _HEAD + "".join(f"{line}\n" for line in lines)
    fill(PAGE, {"backups": f"{where}\n\n{table}"})
    if scale == 1:
        fill(README, {"backups": table})


def _version(*command: str) -> str:
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[:2])


def _line(what: str, figures: Sequence[str]) -> str:
    line = f"| {what} | {' | '.join(figures)} |"
    print(line, flush=True)
    return line


def _times(all_three: Sequence[Tool], what: str) -> list[str]:
    return [f"{tool.median(what):.2f} ({tool.median(what, 'cpu'):.2f})" for tool in all_three]


def _checkpoints(work: Path, all_three: Sequence[Tool], scale: float) -> list[str]:
    """Versions of one model's weights, of which a few places change each time."""
    rng = np.random.default_rng(3)
    source = work / "checkpoints"
    source.mkdir()
    path = source / "model.bin"
    corpora.make("bf16", path, int(scale * (16 << 20)), seed=3)
    weights = bytearray(path.read_bytes())
    for tool in all_three:
        tool.clear()
    for number in range(VERSIONS):
        if number:
            for _ in range(EDITS):
                at = int(rng.integers(len(weights) - EDIT_BYTES))
                weights[at : at + EDIT_BYTES] = rng.bytes(EDIT_BYTES)
            path.write_bytes(weights)
        for tool in all_three:
            tool.run("checkpoint", source, number)
    mib = len(weights) / 2**20
    made = f"{VERSIONS} checkpoints of {mib:g} MiB, in each {EDITS} edits of 4 KiB"
    shutil.rmtree(source)
    return [
        _line(f"{made}: MB stored", [f"**{tool.stored_bytes() / 1e6:.1f}**" for tool in all_three]),
        _line("the same: s a version (of the processor)", _times(all_three, "checkpoint")),
    ]


def _unchanged(work: Path, all_three: Sequence[Tool], count: int, rounds: int) -> list[str]:
    """A tree that is saved again as it is."""
    rng = np.random.default_rng(4)
    source = work / "tree"
    for number in range(count):
        path = source / f"{number // 100:03}" / f"{number % 100:02}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(int(rng.integers(500, 8000))))
    time.sleep(_SETTLED_SECONDS)
    for tool in all_three:
        tool.clear()
        tool.run("tree", source)
    for number in range(rounds):
        for tool in all_three:
            tool.run("unchanged", source, number)
    shutil.rmtree(source)
    what = f"{count:,} files of 4 KB"
    return [
        _line(f"{what}, the first time: s (of the processor)", _times(all_three, "tree")),
        _line(f"{what}, unchanged: s (of the processor)", _times(all_three, "unchanged")),
    ]


def _small_versions(work: Path, all_three: Sequence[Tool], rounds: int) -> list[str]:
    """Three versions of a table of 1 MB to which lines are added: mostly what a command takes to begin and to end."""
    rng = np.random.default_rng(5)
    source = work / "small"
    source.mkdir()
    for _ in range(rounds):
        rows = [f"{number},{rng.integers(10**6)}\n" for number in range(80_000)]
        for tool in all_three:
            tool.clear()
        for number in range(3):
            rows += [f"more,{number},{rng.integers(10**6)}\n" for _ in range(100)]
            (source / "table.csv").write_text("".join(rows))
            for tool in all_three:
                tool.run("small", source, number)
    shutil.rmtree(source)
    return [_line("three versions of a table of 1 MB: s a version (of the processor)", _times(all_three, "small"))]


def _large(work: Path, all_three: Sequence[Tool], nbytes: int, rounds: int) -> list[str]:
    """One large file, the first time."""
    source = work / "large"
    source.mkdir()
    corpora.make("random", source / "random.bin", nbytes, seed=6)
    for number in range(rounds):
        for tool in all_three:
            tool.clear()
            tool.run("large", source, number)
    shutil.rmtree(source)
    what = f"a file of {nbytes / 2**30:g} GiB, random bytes"
    peaks = [max(run.peak_mib for run in tool.runs["large"]) for tool in all_three]
    return [
        _line(f"{what}: s (of the processor)", _times(all_three, "large")),
        _line("the same: peak MiB", [f"{peak:.0f}" for peak in peaks]),
    ]


def options(parser: Any) -> None:
    """The options of this part."""
    parser.add_argument("--backup-scale", type=float, default=1.0, help="of what is saved beside restic and borg")
