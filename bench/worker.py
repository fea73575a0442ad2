"""One measured operation in a process of its own: `python -m bench.worker WHO VERB ARGS...` prints one JSON line."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.operations import OPERATIONS

PROFILE = "XETSTORE_BENCH_STAGES"
"""Set in the environment of a worker that is to say where its processor time goes; it has one core then."""
BEGIN = "XETSTORE_BENCH_BEGIN"
"""Set in the environment of workers that are to begin at one time: which, as `time.monotonic` tells it."""

_HASH = ("xetstore.transfer.scan",)
_STORE = (
    "xetstore.store.opened",
    "xetstore.store.content",
    "xetstore.store.sources",
    "xetstore.transfer.upload.session",
)
_EMBEDDED = (
    *_STORE,
    "xetstore.cas.service",
    "xetstore.cas.answers",
    "xetstore.cas.claims",
    "xetstore.cas.fetches",
    "xetstore.cas.index.queries.reader",
    "xetstore.cas.receive",
    "xetstore.cas.stored_xorb",
)
_REMOTE = (
    *_STORE,
    "xetstore.remote.http",
    "xetstore.transfer.download.reuse.chunk_cache",
    "xetstore.transfer.upload.known",
)


def run_worker(
    who: str, verb: str, *args: str | int | Path, cache: Path, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """One operation in a fresh process, which keeps what it remembers below ``cache``; what it printed."""
    command = [sys.executable, "-m", "bench.worker", who, verb, *map(str, args)]
    caches = {"HF_XET_CACHE": str(cache / "hf_xet"), "XET_CACHE": str(cache / "xetstore")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | caches | (environment or {})
    )
    if done.returncode:
        raise SystemExit(f"{who} {verb}: exit code {done.returncode}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    who, verb, *args = sys.argv[1:]
    os.environ.setdefault("HF_XET_TELEMETRY_ENABLED", "0")
    # What an application has imported already is not what is measured.
    is_remote = any(arg.startswith("http") for arg in args)
    ours = _HASH if verb == "hash" else _REMOTE if is_remote else _EMBEDDED
    needed = (
        ("fsspec.spec", "pyarrow.parquet", *(("xetstore.fs",) if who == "ours" else ())) if verb == "columns" else ()
    )
    for module in (*needed, *(("hf_xet",) if who == "theirs" else ours)):
        import_module(module)
    profile = None
    if PROFILE in os.environ:
        from bench.processor_time import Profile

        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        profile = Profile.installed()
    if BEGIN in os.environ:
        time.sleep(max(0.0, float(os.environ[BEGIN]) - time.monotonic()))
    before = _cpu()
    start = time.perf_counter()
    result = OPERATIONS[f"{who}.{verb}"](*args)
    seconds = time.perf_counter() - start
    answer = {"result": result, "start": start, "seconds": seconds, "cpu": _cpu() - before, "peak_mib": _peak_mib()}
    print(json.dumps(answer | ({} if profile is None else {"stages": profile.seconds})))


def _peak_mib() -> float:
    """Peak memory of this program. Not ru_maxrss, which knows that of the parent too."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def tree_bytes(root: Path) -> int:
    """Bytes of all xorbs below a store's directory, ours or theirs."""
    return sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and "xorbs" in p.parts and _is_xorb(p))


def _is_xorb(path: Path) -> bool:
    return re.fullmatch(r"(default\.)?[0-9a-f]{64}(-[0-9a-f]{16})?", path.name) is not None


if __name__ == "__main__":
    main()
