"""Figures of care: deleting, collecting, rewriting, checking, snapshots and rebuilds; written to CARE.md.

Each operation is a new process, whose peak is its own. What is measured fits into two minutes, and is extrapolated from
there to a million files and to 1 TB: the store is on tmpfs, so what a disk or a network adds is not in it.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

from bench import corpora
from bench.server import Server, fill, latencies, serving, small_requests
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.collecting import collect
from xetstore.cas.deleting import delete
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.parts import StoreParts
from xetstore.cas.repair.rebuild import rebuild_index
from xetstore.cas.rewriting import RewriteReport, rewrite
from xetstore.cas.snapshots.take import take_snapshot_now
from xetstore.cas.usage import usage_by_namespace, what_if_deleted
from xetstore.database import sqlite_file
from xetstore.protocol.hashes import Hash
from xetstore.store import Store

ROOT = Path(__file__).parent
NOW: Final = Grace(0, 0)
"""No grace: what is deleted can be collected at once."""
_DELETED_AT_ONCE: Final = 1000
_ROUNDS_BESIDE: Final = 40


@dataclass(frozen=True)
class Measured:
    """An operation in a process of its own: its time and processor time, its peak memory, the rows of the index that it
    changed, and what it returned.
    """

    seconds: float
    cpu: float
    peak_mib: float
    rows: int
    result: Any


def run(work: Path, chosen: Any) -> None:
    """All figures of care."""
    folder = work / "care"
    folder.mkdir()
    files, nbytes = chosen.care_files, int(chosen.gib * 2**30)
    sections = [
        f"# Care\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"a store in a directory on tmpfs. Measured with {files:,} files of one chunk each, a thousand to a xorb, and "
        f"with {nbytes / 2**30:g} GiB of random bytes; extrapolated from there to a million files and to 1 TB. Peaks "
        f"are those of the whole process. The load of the machine was {os.getloadavg()[0]:.1f} when it began: the "
        "processor time does not depend on that.",
        "## By files\n\n" + "\n".join(_by_files(folder, files)),
        "## By bytes\n\n" + "\n".join(_by_bytes(folder, nbytes)),
        "## Reads beside it\n\nReconstructions, one after another, from `xet serve` with one worker.\n\n"
        + "\n".join(_beside(folder, files, chosen.asked)),
    ]
    shutil.rmtree(folder)
    (ROOT / "CARE.md").write_text("\n\n".join(sections) + "\n")


def _by_files(folder: Path, files: int) -> list[str]:
    store = folder / "files"
    fill(store, files)
    lines = [
        "| | measured | s per million files | CPU s per million files | peak MiB |",
        "|---|---|---|---|---|",
    ]

    def note(what: str, done: Measured, count: int, more: str = "") -> None:
        told = f"{done.seconds:.2f} s for {count:,}{more}"
        each = " | ".join(f"{seconds / count * 1e6:,.0f}" for seconds in (done.seconds, done.cpu))
        lines.append(f"| {what} | {told} | {each} | {done.peak_mib:.0f} |")
        print(lines[-1], flush=True)

    note("check: the index against the objects", measured(_check, store), files)
    note("usage by namespace", measured(_usage, store), files)
    foretold = measured(_what_if, store, files * 3 // 4)
    note("what if these were deleted", foretold, files * 3 // 4)
    snapshot = measured(_snapshot, store)
    note("snapshot", snapshot, files, f", {snapshot.result / files:.0f} bytes a file")
    before = _xorb_bytes(store)
    deleted = measured(_delete, store, files * 3 // 4)
    gone = int(deleted.result)
    note("delete", deleted, gone, f", {deleted.rows / gone:.1f} rows of the index a file")
    first = measured(_collect, store)
    note("collect their rows", first, gone, f", {first.rows / gone:.1f} rows of the index a file")
    note("rewrite what is left in parts", rewritten := measured(_rewrite, store), gone)
    second = measured(_collect, store)
    note("collect the objects", second, gone, f", {second.rows / gone:.1f} rows of the index a file")
    freed = before - _xorb_bytes(store)
    note("check again", measured(_check, store), files - gone)
    parts = StoreParts.at(store)
    note("rebuild of the index", measured(_rebuild, parts), files - gone)
    lines += [
        "",
        f"Space: {freed:,} bytes were freed, and {foretold.result:,} foretold, which is the ideal: "
        f"**{freed / foretold.result:.4f}**. The rewrite copied {rewritten.result:,} bytes.",
    ]
    shutil.rmtree(store)
    return lines


def _by_bytes(folder: Path, nbytes: int) -> list[str]:
    store, source = folder / "bytes", folder / "source"
    corpora.make("random", source, nbytes)
    with Store(EmbeddedCas.open(store)) as opened:
        opened.put(source)
    source.unlink()
    lines = ["| | GB/s | hours per TB | CPU hours per TB | peak MiB |", "|---|---|---|---|---|"]

    def note(what: str, done: Measured, count: int) -> None:
        rate = count / done.seconds / 1e9
        hours = " | ".join(f"{seconds / count * 1e12 / 3600:.2f}" for seconds in (done.seconds, done.cpu))
        lines.append(f"| {what} | {rate:.2f} | {hours} | {done.peak_mib:.0f} |")
        print(lines[-1], flush=True)

    note("check --checksums", measured(_checksums, store), nbytes)
    note("check --read-data", measured(_read_data, store), nbytes)
    shutil.rmtree(store)
    _halves(store, nbytes // 2)
    foretold = measured(_what_if, store, 1).result
    before = _xorb_bytes(store)
    measured(_delete, store, 1)
    measured(_collect, store)
    done = measured(_rewrite, store)
    note("rewrite, by what it copies", done, int(done.result))
    measured(_collect, store)
    freed = before - _xorb_bytes(store)
    lines += ["", f"Space of the rewrite: {freed:,} of {foretold:,} bytes, which is the ideal: {freed / foretold:.4f}."]
    shutil.rmtree(store)
    _fragments(store, nbytes // 2)
    repacked = measured(_repack, store).result
    before, after = repacked.fetches_per_gib
    lines.append(
        f"Locality: a file with a piece of 128 KiB of another behind each MiB is read by {before:,.0f} fetches per "
        f"GiB, and by {after:,.0f} when it was repacked: {repacked.copied_bytes / repacked.repacked_file_bytes:.3f} "
        "of its bytes were copied."
    )
    shutil.rmtree(store)
    return lines


def _fragments(store: Path, nbytes: int) -> None:
    """A file, and one of which a ninth is pieces of that: one behind each MiB of its own."""
    random, piece, own = Random(2), 128 << 10, 1 << 20
    count = max(32, nbytes // (own + piece))
    old = random.randbytes(2 * count * piece)
    new = b"".join(random.randbytes(own) + old[2 * at * piece : (2 * at + 1) * piece] for at in range(count))
    folder = store.with_name("fragments")
    folder.mkdir()
    with Store(EmbeddedCas.open(store)) as opened:
        for name, data in (("old", old), ("new", new)):
            (folder / name).write_bytes(data)
            opened.put(folder / name)
    shutil.rmtree(folder)


def _halves(store: Path, nbytes: int) -> None:
    """Two files that share the xorbs: the first of all, and the second of every other part of it."""
    whole = Random(1).randbytes(nbytes)
    part = 8 << 20
    every_other = b"".join(whole[at : at + part] for at in range(0, nbytes, 2 * part))
    folder = store.with_name("halves")
    folder.mkdir()
    with Store(EmbeddedCas.open(store)) as opened:
        for name, data in (("whole", whole), ("part", every_other)):
            (folder / name).write_bytes(data)
            opened.put(folder / name)
    shutil.rmtree(folder)


def _beside(folder: Path, files: int, asked: int) -> list[str]:
    lines = ["| beside | p50 ms | p99 ms | server CPU ms |", "|---|---|---|---|"]
    store = folder / "beside"
    chunks = fill(store, files)
    kept = chunks[len(chunks) // 2 :]
    paths, expected = small_requests(kept)["reconstruction"]

    def note(what: str, server: Server) -> None:
        lines.append(f"| {what} | {latencies(server, paths, expected, asked * 4)} |")
        print(lines[-1], flush=True)

    quiet = {"XETSTORE_COLLECT_SECONDS": "0", "XETSTORE_SCRUB_DAYS": "0", "XETSTORE_SNAPSHOT_SECONDS": "0"}
    with serving(store, environment=quiet) as server:
        latencies(server, paths, expected, asked)
        note("nothing", server)
        with _Process(_collect_on_and_on, store, files // 2):
            note("deletions, collections and rewrites at full speed in another process", server)
    scrubbing = {**quiet, "XETSTORE_SCRUB_DAYS": "0.00001"}
    with serving(store, environment=scrubbing) as server:
        latencies(server, paths, expected, asked)
        note("a scrub that never ends, in the server, with a tenth of the time", server)
    shutil.rmtree(store)
    return lines


# Operations, each in a process of its own


def measured(work: Callable[..., Any], *arguments: object) -> Measured:
    """Run an operation in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        told = ours.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__} failed") from None
    process.join()
    return Measured(*told)


def _child(pipe: Any, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    rows = 0
    counts: dict[int, int] = {}
    commit = sqlite_file.commit

    def counting(driver: Any) -> None:
        nonlocal rows
        commit(driver)
        rows += driver.total_changes - counts.get(id(driver), 0)
        counts[id(driver)] = driver.total_changes

    sqlite_file.commit = counting  # type: ignore[assignment]
    start, begun = time.perf_counter(), time.process_time()
    result = work(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - begun
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    pipe.send((seconds, cpu, peak / 1024, rows, result))


class _Process:
    """A process that works on and on, until the block ends."""

    def __init__(self, work: Callable[..., Any], *arguments: object) -> None:
        self._process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)

    def __enter__(self) -> None:
        self._process.start()
        time.sleep(1)

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join()


def _check(store: Path) -> int:
    with EmbeddedCas.open(store) as cas:
        return _without_problems(check(cas).problems)


def _checksums(store: Path) -> int:
    with EmbeddedCas.open(store) as cas:
        return _without_problems(check(cas, checksums=True).problems)


def _read_data(store: Path) -> int:
    with EmbeddedCas.open(store) as cas:
        return _without_problems(check(cas, read_data=True).problems)


def _without_problems(problems: tuple[object, ...]) -> int:
    if problems:
        raise SystemExit(str(problems[0]))
    return 0


def _usage(store: Path) -> int:
    with EmbeddedCas.open(store) as cas:
        return len(usage_by_namespace(cas))


def _names(cas: EmbeddedCas, count: int) -> list[Hash]:
    """Files: all of some xorbs, and of the next as many each second one."""
    whole = count * 2 // 3
    names = (record.hash for record in cas.files())
    first = list(islice(names, whole))
    return first + list(islice(names, 0, 2 * (count - whole), 2))


def _what_if(store: Path, count: int) -> int:
    with EmbeddedCas.open(store) as cas:
        return what_if_deleted(cas, {cas.tenant.namespace: _names(cas, count)}).freed_bytes


def _delete(store: Path, count: int) -> int:
    with EmbeddedCas.open(store) as cas:
        names = _names(cas, count)
        for start in range(0, len(names), _DELETED_AT_ONCE):
            delete(cas, names[start : start + _DELETED_AT_ONCE])
        return len(names)


def _collect(store: Path) -> int:
    with EmbeddedCas.open(store) as cas, _lease(cas) as lease:
        return sum(collect(cas, lease, NOW).objects for _ in range(2))


def _rewrite(store: Path) -> int:
    with EmbeddedCas.open(store) as cas, _lease(cas) as lease:
        return rewrite(cas, lease, threshold=0, grace=NOW).copied_bytes


def _repack(store: Path) -> RewriteReport:
    with EmbeddedCas.open(store) as cas, _lease(cas) as lease:
        return rewrite(cas, lease, grace=NOW)


def _lease(cas: EmbeddedCas) -> Lease:
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    return lease


def _snapshot(store: Path) -> int:
    with EmbeddedCas.open(store) as cas:
        report = take_snapshot_now(cas)
        assert report is not None
        return report.stored_bytes


def _rebuild(parts: StoreParts) -> int:
    return len(rebuild_index(parts).problems)


def _collect_on_and_on(store: Path, count: int) -> None:
    with EmbeddedCas.open(store) as cas, _lease(cas) as lease:
        names = [record.hash for record in islice(cas.files(), count)]
        each = max(len(names) // _ROUNDS_BESIDE, 1)
        for start in range(0, len(names), each):
            delete(cas, names[start : start + each])
            collect(cas, lease, NOW)
            rewrite(cas, lease, threshold=0, grace=NOW)
        while True:
            collect(cas, lease, NOW)
            rewrite(cas, lease, threshold=0, grace=NOW)


def _xorb_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "xorbs").rglob("*") if path.is_file())
