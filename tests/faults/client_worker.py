"""The client's processes of the fault tests: as ``worker``, with calls that go to a server by its URL.

``process.Worker(module=…)`` starts it and talks to it.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import xetstore
import xetstore.transfer.download.reuse.chunk_cache
from tests.faults import worker
from tests.faults.worker import Says, Wait
from xetstore.limits import Limits
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import upload_sizes

assert xetstore.transfer.download.reuse.chunk_cache  # imported when a client opens: here before one is forked

PATIENCE = Patience(answer=20, attempts=4, base_delay=0.05)


def announce(pid_file: str | None) -> None:
    """Let it be known whom to kill."""
    if pid_file is not None:
        Path(pid_file).write_text(str(os.getpid()))


def upload_files(
    _: Wait,
    *,
    url: str,
    token: str,
    paths: list[str],
    known: str,
    xorb_bytes: int,
    files_a_shard: int,
    jobs: int | None = None,
    pid_file: str | None = None,
) -> Says:
    """Store files in small xorbs and shards over HTTP; tell of each one that is acknowledged."""
    limits = Limits(jobs=jobs)
    sizes = replace(upload_sizes(limits, remote=True), xorb_bytes=xorb_bytes, files=files_a_shard)
    events: list[Any] = []
    announce(pid_file)
    known_xorbs = KnownXorbs(Path(known))
    with Transport(patience=PATIENCE) as transport:
        cas = HttpCas(url, tokens=FixedToken(token), transport=transport)
        reports = put_files(
            cas,
            map(Path, paths),
            UploadOptions(limits=limits, sizes=sizes),
            known=known_xorbs,
            emit=events.append,
        )
        for report in reports:
            yield {"path": str(report.path), "hash": str(report.info.hash), "new_bytes": report.new_bytes}
        cas.close()
    known_xorbs.close()
    yield {"events": sorted({type(event).__name__ for event in events})}


def download(
    _: Wait,
    *,
    url: str,
    token: str,
    file: str,
    out: str,
    cache: str,
    jobs: int | None = None,
    pid_file: str | None = None,
    size: int | None = None,
) -> Says:
    """Write a stored file to ``out``; how much had to be fetched, and what was there."""
    announce(pid_file)
    with xetstore.open(url, token=token, limits=Limits(jobs=jobs), cache=Path(cache)) as store:
        report = store.get(file, out, size=size)
        yield {"verified": report.verified, "fetched": report.fetched_bytes, "reused": report.reused_bytes}


def read(_: Wait, *, url: str, token: str, file: str, cache: str, start: int, end: int | None, like: str) -> Says:
    """Read a range through the chunk cache; whether it is that of the file ``like``."""
    events: list[Any] = []
    with xetstore.open(url, token=token, cache=Path(cache), on_event=events.append) as store:
        found = b"".join(store.iter_range(file, start, end))
    disabled = [event.reason for event in events if type(event).__name__ == "CacheDisabled"]
    yield {"right": found == Path(like).read_bytes()[start:end], "disabled": disabled}


def high_water() -> int:
    """The most memory that this process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


worker.CALLS.update(upload=upload_files, download=download, read=read)


if __name__ == "__main__":
    worker.main()
