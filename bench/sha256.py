"""What it costs to check a SHA-256 before a pointer is committed with it; written to SHA256.md.

A commit that follows an upload waits for it, once for each file. The upload beside it is the fastest there is, that of
this process into a directory: over a network the share is smaller.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from bench import corpora
from xetstore.cas import EmbeddedCas
from xetstore.hub.sha256 import require_files
from xetstore.transfer.upload.session import put_files

ROOT = Path(__file__).parent
SMALL_BYTES: Final = 4096
_BLOCK_BYTES: Final = 4 << 20


def run(work: Path, chosen: Any) -> None:
    """Files of each corpus, and many small ones."""
    nbytes, rounds = int(chosen.gib * 2**30), chosen.rounds
    lines = [
        "| files | upload | check | SHA-256 alone | check by upload |",
        "|---|---|---|---|---|",
    ]
    for name in corpora.NAMES:
        source = work / name
        corpora.make(name, source, nbytes)
        lines.append(_line(f"{name}, {chosen.gib:g} GiB", [source], work, rounds))
        source.unlink()
    folder = work / "small"
    folder.mkdir()
    random = Random(1)
    for number in range(chosen.small_files):
        (folder / f"{number}").write_bytes(random.randbytes(SMALL_BYTES))
    what = f"{chosen.small_files:,} of {SMALL_BYTES} bytes"
    lines.append(_line(what, sorted(folder.iterdir()), work, rounds))
    shutil.rmtree(folder)
    (ROOT / "SHA256.md").write_text(
        "# The SHA-256 of pointers\n\n"
        f"`make bench` on {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}: a store in"
        f" a directory on tmpfs, {rounds} rounds, medians. *check* reads, verifies and hashes what is stored, as a"
        " commit behind an upload does; *SHA-256 alone* hashes the source, in one thread. *check by upload* is the wait"
        " as a part of the time of the upload, in this process.\n\n" + "\n".join(lines) + "\n"
    )


def _line(what: str, paths: Sequence[Path], work: Path, rounds: int) -> str:
    seconds: dict[str, list[float]] = {"upload": [], "check": [], "alone": []}
    for _ in range(rounds):
        with EmbeddedCas.open(work / "store") as cas:
            start = time.perf_counter()
            # As it comes over a network: what it claims is not believed.
            digests = [bytes.fromhex(report.info.sha256 or "") for report in put_files(cas, paths)]
            uploaded = time.perf_counter()
            require_files(cas, digests)
            checked = time.perf_counter()
            _hash(paths)
            hashed = time.perf_counter()
        for name, taken in zip(seconds, (uploaded - start, checked - uploaded, hashed - checked), strict=True):
            seconds[name].append(taken)
        shutil.rmtree(work / "store")
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    total = sum(path.stat().st_size for path in paths)

    def rate(taken: float) -> str:
        return f"{total / taken / 1e9:.2f} GB/s" if len(paths) == 1 else f"{len(paths) / taken:,.0f} files/s"

    ratio = statistics.median(check / up for check, up in zip(seconds["check"], seconds["upload"], strict=True))
    line = f"| {what} | {' | '.join(rate(taken) for taken in median.values())} | **{ratio:.2f}** |"
    print(line, flush=True)
    return line


def _hash(paths: Sequence[Path]) -> None:
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
