"""One measured operation in a process of its own: `python -m bench.worker WHO VERB ARGS...` prints one JSON line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def ours_hash(path: str) -> str:
    import xetstore

    return str(xetstore.hash_file(path).hash)


def ours_put(path: str, store: str) -> str:
    import xetstore

    with xetstore.open(store) as opened:
        return str(opened.put(path).hash)


def ours_get(file_hash: str, _size: str, store: str, out: str) -> str:
    import xetstore

    with xetstore.open(store, create=False) as opened:
        report = opened.get(file_hash, out)
        assert report.verified
    return file_hash


def theirs_hash(path: str) -> str:
    import hf_xet

    return str(hf_xet.hash_files([path])[0].hash)


def theirs_put(path: str, store: str) -> str:
    """``store`` is an endpoint: local://DIRECTORY, or a server's URL."""
    import hf_xet

    return str(hf_xet.upload_files([path], store, None, None, None, None)[0].hash)


def theirs_get(file_hash: str, size: str, store: str, out: str) -> str:
    import hf_xet

    wanted = hf_xet.PyXetDownloadInfo(out, file_hash, int(size))
    hf_xet.download_files([wanted], store, None, None, None)
    return file_hash


_VERBS: dict[str, Callable[..., str]] = {
    "ours.hash": ours_hash,
    "ours.put": ours_put,
    "ours.get": ours_get,
    "theirs.hash": theirs_hash,
    "theirs.put": theirs_put,
    "theirs.get": theirs_get,
}


def run_worker(who: str, verb: str, *args: str | int | Path, cache: Path) -> dict[str, float]:
    """One operation in a fresh process; what it printed."""
    command = [sys.executable, "-m", "bench.worker", who, verb, *map(str, args)]
    environment = os.environ | {"HF_XET_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    who, verb, *args = sys.argv[1:]
    os.environ.setdefault("HF_XET_TELEMETRY_ENABLED", "0")
    # What an application has imported already is not what is measured.
    import_module("xetstore.store" if who == "ours" else "hf_xet")
    before = _cpu()
    start = time.perf_counter()
    result = _VERBS[f"{who}.{verb}"](*args)
    seconds = time.perf_counter() - start
    print(json.dumps({"result": result, "seconds": seconds, "cpu": _cpu() - before, "peak_mib": _peak_mib()}))


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
    name = path.name.removeprefix("default.")
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


if __name__ == "__main__":
    main()
