"""`make bench`: xetstore beside hf_xet, in turn, each operation in a new process; medians, written to RESULTS.md.

Then the figures of the server, see bench.server, those of the client, see bench.client, those of replicas over S3
and PostgreSQL, see bench.cluster, those of repositories, see bench.hub, those of a SHA-256 that is checked, see
bench.sha256, those of care, see bench.care, those beside restic and borg, see bench.backups, and those of a start, see
bench.start. `make bench-growth`: how they grow, see bench.growth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import backups, care, client, cluster, corpora, growth, hub, reads, server, sha256, start
from bench.worker import run_worker, tree_bytes

ROOT = Path(__file__).parent


@dataclass
class Series:
    """Runs of one operation, ours and theirs in turn."""

    ours: list[dict[str, float]] = field(default_factory=list)
    theirs: list[dict[str, float]] = field(default_factory=list)

    def median(self, who: str, what: str) -> float:
        return statistics.median(run[what] for run in (self.ours if who == "ours" else self.theirs))

    def ratio(self) -> float:
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)


def compare(work: Path, nbytes: int, rounds: int) -> list[str]:
    """The table of hash, put and get on each corpus, and the stored bytes."""
    lines = [
        "| corpus | operation | xetstore GB/s | hf_xet GB/s | ratio | cpu s/GB | hf_xet | peak MiB | hf_xet |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    stored = ["| corpus | xetstore | hf_xet |", "|---|---|---|"]
    for name in corpora.NAMES:
        source, out, cache = work / name, work / "out", work / "cache"
        stores = {"ours": work / "ours", "theirs": work / "theirs"}
        corpora.make(name, source, nbytes)
        series = {verb: Series() for verb in ("hash", "put", "get")}
        sizes: dict[str, int] = {}
        endpoint = {"ours": str(stores["ours"]), "theirs": f"local://{stores['theirs']}"}.__getitem__
        for _ in range(rounds):
            for who in ("ours", "theirs"):
                getattr(series["hash"], who).append(run_worker(who, "hash", source, cache=cache))
            for who in ("ours", "theirs"):
                for stale in (stores[who], cache):
                    shutil.rmtree(stale, ignore_errors=True)
                getattr(series["put"], who).append(run_worker(who, "put", source, endpoint(who), cache=cache))
                sizes[who] = tree_bytes(stores[who])
            file_hash = str(series["put"].ours[-1]["result"])
            if (
                len(
                    {
                        str(answers[-1]["result"])
                        for s in (series["hash"], series["put"])
                        for answers in (s.ours, s.theirs)
                    }
                )
                != 1
            ):
                raise SystemExit(f"{name}: the hashes differ")
            for who in ("ours", "theirs"):
                out.unlink(missing_ok=True)
                getattr(series["get"], who).append(
                    run_worker(who, "get", file_hash, nbytes, endpoint(who), out, cache=cache)
                )
                if subprocess.run(["cmp", "-s", source, out], check=False).returncode:
                    raise SystemExit(f"{name}: {who} gave back other bytes")
        for verb, runs in series.items():
            gb = nbytes / 1e9
            both = ("ours", "theirs")
            rates = " | ".join(f"{gb / runs.median(who, 'seconds'):.2f}" for who in both)
            cpu = " | ".join(f"{runs.median(who, 'cpu') / gb:.2f}" for who in both)
            peaks = " | ".join(f"{runs.median(who, 'peak_mib'):.0f}" for who in both)
            lines.append(f"| {name} | {verb} | {rates} | **{runs.ratio():.2f}** | {cpu} | {peaks} |")
        stored.append(f"| {name} | {sizes['ours']:,} | {sizes['theirs']:,} |")
        print("\n".join(lines[-3:]), stored[-1], sep="\n", flush=True)
        for used in (source, out):
            used.unlink()
        for used in stores.values():
            shutil.rmtree(used)
    return [*lines, "", "Bytes of all xorbs, footers included:", "", *stored]


def kernel_rates() -> str:
    """The rates of the kernel's loops, beside the bare libraries."""
    done = subprocess.run([sys.executable, "-m", "bench.kernel"], capture_output=True, text=True, check=True)
    print(done.stdout, flush=True)
    return done.stdout


def memory(work: Path, nbytes: int) -> list[str]:
    """Peak memory on a file far larger than memory limits allow to hold."""
    source, out, store, cache = work / "sparse", work / "sparse-out", work / "sparse-store", work / "cache"
    corpora.sparse(source, nbytes)
    put = run_worker("ours", "put", source, store, cache=cache)
    get = run_worker("ours", "get", str(put["result"]), str(nbytes), store, out, cache=cache)
    same = out.stat().st_size == nbytes
    hashed = run_worker("ours", "hash", out, cache=cache)
    for used in (source, out):
        used.unlink()
    shutil.rmtree(store)
    if not same or hashed["result"] != put["result"]:
        raise SystemExit("the sparse file came back different")
    lines = [f"A sparse file of {nbytes / 1e9:.0f} GB:", "", "| operation | seconds | peak MiB |", "|---|---|---|"]
    for verb, answer in (("put", put), ("get", get), ("hash", hashed)):
        lines.append(f"| {verb} | {answer['seconds']:.1f} | {answer['peak_mib']:.0f} |")
    print("\n".join(lines[2:]), flush=True)
    return lines


def embedded(work: Path, chosen: Any) -> None:
    """Hash, put and get with a store in a directory; the kernel's loops; memory."""
    sections = [
        f"# Figures\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, hf_xet 1.8.0. {chosen.gib:g} GiB a corpus on tmpfs, {chosen.rounds} "
        "rounds, the two in turn; medians, and the ratio is the median of the pairs. Our downloads are verified, "
        "those of hf_xet are not."
    ]
    if not chosen.no_kernel:
        sections.append("## Kernel, GB/s\n\n```\n" + kernel_rates() + "```")
    sections.append("## Beside hf_xet\n\n" + "\n".join(compare(work, int(chosen.gib * 2**30), chosen.rounds)))
    if chosen.sparse_gb:
        sections.append("## Memory\n\n" + "\n".join(memory(work, int(chosen.sparse_gb * 1e9))))
    (ROOT / "RESULTS.md").write_text("\n\n".join(sections) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of each corpus")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sparse-gb", type=float, default=50.0, help="0 leaves the memory run out")
    parser.add_argument("--no-kernel", action="store_true", help="leave the kernel's single-thread rates out")
    server.options(parser)
    growth.options(parser)
    backups.options(parser)
    parser.add_argument("--small-files", type=int, default=10_000, help="files of 4 KB")
    parser.add_argument("--care-files", type=int, default=50_000, help="files that are deleted, collected and checked")
    parser.add_argument(
        "--only",
        choices=[
            *("embedded", "server", "client", "cluster", "hub", "sha256", "care", "backups", "reads", "start", "growth")
        ],
        help="one part alone",
    )
    parser.add_argument("--quick", action="store_true", help="the table alone, on small files; no page is written")
    parser.add_argument("--json", action="store_true", help="print that table as JSON on stdout, all else on stderr")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.only, chosen.gib, chosen.rounds, chosen.small_files = "client", 0.25, 2, 1_000
    with contextlib.redirect_stdout(sys.stderr) if chosen.json else contextlib.nullcontext():
        told = measure(chosen)
    if chosen.json:
        print(json.dumps(told, indent=1))


def measure(chosen: Any) -> dict[str, Any]:
    """The parts that are chosen; the figures beside hf_xet, if they are among them."""
    told: dict[str, Any] = {}
    shared_memory = Path("/dev/shm")
    where = shared_memory if shared_memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="xetstore-bench-", dir=where) as folder:
        work = Path(folder)
        parts = {
            "embedded": embedded,
            "server": server.run,
            "client": client.run,
            "cluster": cluster.run,
            "hub": hub.run,
            "sha256": sha256.run,
            "care": care.run,
            "backups": backups.run,
            "reads": reads.run,
            "start": start.run,
            "growth": growth.run,
        }
        for name, part in parts.items():
            # How figures grow takes as long as all the others together, and few changes change it.
            if chosen.only == name or (chosen.only is None and name != "growth"):
                told |= part(work, chosen) or {}
    return told


if __name__ == "__main__":
    main()
