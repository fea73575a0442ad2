"""Figures of stores beyond one process: workers, and replicas over S3 and PostgreSQL; written to CLUSTER.md.

The servers beneath are real: SeaweedFS, PostgreSQL and nginx run beside all else on this machine, which they slow down.
"""

from __future__ import annotations

import http.client
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.support import cluster as clusters
from tests.support import postgres as postgres_server
from tests.support import seaweed as s3_server
from tests.support.postgres import PostgresServer
from tests.support.proxy import proxy
from tests.support.seaweed import Seaweed

from bench import corpora
from bench.server import fill, percentiles, serving, small_requests
from bench.worker import run_worker

ROOT = Path(__file__).parent
FILES: Final = 20_000
"""Registered files, in the store of which latencies are measured."""

DEPLOYMENTS: Final = {
    "directory, 1 worker": ("directory", 1, ()),
    "directory, 2 workers": ("directory", 2, ()),
    "S3 + PostgreSQL, 1 replica": ("cluster", 1, ()),
    "S3 + PostgreSQL, 2 replicas": ("cluster", 2, ()),
    "S3 + PostgreSQL, 2 replicas, direct": ("cluster", 2, ("--xorb-urls", "direct")),
}
_STATEMENT: Final = re.compile(r"LOG:  (?:execute [^:]*|statement):")
_PATIENCE_SECONDS: Final = 60


@contextmanager
def deployed(name: str, work: Path, seaweed: Seaweed, postgres: PostgresServer) -> Iterator[tuple[str, Path]]:
    """The URL of a fresh store that is deployed so, and the path that names it."""
    kind, count, options = DEPLOYMENTS[name]
    folder = work / re.sub(r"\W+", "-", name)
    folder.mkdir()
    try:
        if kind == "directory":
            with serving(folder / "store", workers=count) as server:
                yield server.url, folder / "store"
        else:
            with clusters.running(folder, seaweed, postgres, "--auth", "none", *options, replicas=count) as cluster:
                yield cluster.url, cluster.store_file
    finally:
        shutil.rmtree(folder)


def transfers(work: Path, seaweed: Seaweed, postgres: PostgresServer, nbytes: int, rounds: int) -> list[str]:
    """One random file up and down, by hf_xet and by xetstore, through each deployment in turn."""
    source, out, cache = work / "source", work / "out", work / "cache"
    corpora.make("random", source, nbytes)
    clients = {"theirs": "hf_xet", "ours": "xetstore"}
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for name in DEPLOYMENTS:
            for who in clients:
                with deployed(name, work, seaweed, postgres) as (url, _):
                    shutil.rmtree(cache, ignore_errors=True)
                    put = run_worker(who, "put", source, url, cache=cache)
                    shutil.rmtree(cache, ignore_errors=True)
                    get = run_worker(who, "get", str(put["result"]), nbytes, url, out, cache=cache)
                if subprocess.run(["cmp", "-s", source, out], check=False).returncode:
                    raise SystemExit(f"{name}: other bytes came back")
                out.unlink()
                seconds.setdefault((name, who, "put"), []).append(put["seconds"])
                seconds.setdefault((name, who, "get"), []).append(get["seconds"])
    lines = ["| store | hf_xet up GB/s | down | xetstore up GB/s | down |", "|---|---|---|---|---|"]
    for name in DEPLOYMENTS:
        rates = [
            nbytes / 1e9 / statistics.median(seconds[name, who, verb]) for who in clients for verb in ("put", "get")
        ]
        lines.append(f"| {name} | " + " | ".join(f"{rate:.2f}" for rate in rates) + " |")
    source.unlink()
    shutil.rmtree(cache, ignore_errors=True)
    return lines


def latencies(work: Path, seaweed: Seaweed, postgres: PostgresServer, asked: int, rounds: int) -> list[str]:
    """p50 and p99 of small requests, one after another, of each deployment in turn."""
    milliseconds: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        running = {}
        for name in DEPLOYMENTS:
            url, where = stack.enter_context(deployed(name, work, seaweed, postgres))
            running[name] = url, small_requests(fill(where, FILES))
        for round_ in range(rounds + 1):
            for name, (url, requests) in running.items():
                for what, (paths, expected) in requests.items():
                    measured = _ask(url, paths, expected, asked, Random(round_))
                    if round_:  # the first round warms up
                        milliseconds.setdefault((what, name), []).extend(measured)
    lines = ["| request | store | p50 ms | p99 ms |", "|---|---|---|---|"]
    lines += [f"| {what} | {name} | {percentiles(found)} |" for (what, name), found in sorted(milliseconds.items())]
    return lines


def _ask(url: str, paths: list[str], expected: int, asked: int, chance: Random) -> list[float]:
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE_SECONDS)
    found = []
    for _ in range(asked):
        path = chance.choice(paths)
        start = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        found.append((time.perf_counter() - start) * 1000)
        if answer.status != expected:
            raise SystemExit(f"{path}: {answer.status}")
    connection.close()
    return found


def requests_of(work: Path, seaweed: Seaweed, postgres: PostgresServer, nbytes: int, files: int) -> list[str]:
    """The requests of S3 and the statements of SQL of a replica, for transfers by hf_xet."""
    source, small, out, cache = work / "source", work / "small", work / "out", work / "cache"
    corpora.make("random", source, nbytes)
    small.mkdir()
    chance = Random(7)
    for number in range(files):
        (small / f"{number:06}").write_bytes(chance.randbytes(4096))
    postgres.query("ALTER SYSTEM SET log_statement = 'all'")
    postgres.query("SELECT pg_reload_conf()")
    lines = ["| by hf_xet | S3 requests | SQL statements |", "|---|---|---|"]
    folder = work / "counted"
    folder.mkdir()
    with proxy(seaweed.endpoint) as front:
        options = {**seaweed.options, "endpoint": front.endpoint}
        with clusters.running(folder, seaweed, postgres, "--auth", "none", replicas=1, s3=options) as cluster:

            def count(what: str, who: str, verb: str, *arguments: Any) -> dict[str, Any]:
                shutil.rmtree(cache, ignore_errors=True)
                time.sleep(2)  # in which all that was begun before is over
                seen, said = len(front.seen), len(postgres.log())
                answer = run_worker(who, verb, *arguments, cache=cache)
                time.sleep(2)
                methods = Counter(each.method for each in front.seen[seen:])
                named = ", ".join(f"{number} {method}" for method, number in sorted(methods.items()))
                statements = len(_STATEMENT.findall(postgres.log()[said:]))
                lines.append(f"| {what} | {named or 'none'} | {statements:,} |")
                print(lines[-1], flush=True)
                return answer

            size = f"{nbytes / 2**30:g} GiB"
            put = count(f"upload of {size}", "theirs", "put", source, cluster.url)
            count("the same again, from a fresh machine", "theirs", "put", source, cluster.url)
            for what in (f"download of {size}", "the same again"):
                count(what, "theirs", "get", str(put["result"]), nbytes, cluster.url, out)
            count(f"upload of {files:,} files of 4 KiB", "theirs", "put_many", small, cluster.url, work / "hashes")
    shutil.rmtree(folder)
    for used in (small, cache):
        shutil.rmtree(used)
    for used in (source, out):
        used.unlink()
    return lines


def run(work: Path, chosen: Any) -> None:
    """All of it."""
    with s3_server.running() as seaweed, postgres_server.running() as postgres:
        nbytes, rounds = int(min(chosen.gib, 0.25) * 2**30), min(chosen.rounds, 5)  # SeaweedFS keeps all of it
        sections = [
            f"# Figures of workers and replicas\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, hf_xet 1.8.0; medians. SeaweedFS, PostgreSQL, nginx, the servers and the "
            "client share the cores.",
            f"## Transfers\n\nOne random file of {nbytes / 2**30:g} GiB into an empty store, and back; "
            f"{rounds} rounds, the stores in turn.\n\n" + "\n".join(transfers(work, seaweed, postgres, nbytes, rounds)),
            f"## Latency\n\n{FILES:,} files of one chunk, a thousand to a xorb; requests one after another on one "
            f"connection.\n\n" + "\n".join(latencies(work, seaweed, postgres, 200, 5)),
            "## Requests and statements\n\n"
            "Of one replica. A BEGIN and the end of a transaction are statements, too.\n\n"
            + "\n".join(requests_of(work, seaweed, postgres, int(chosen.gib * 2**30), chosen.small_files)),
        ]
    (ROOT / "CLUSTER.md").write_text("\n\n".join(sections) + "\n")
