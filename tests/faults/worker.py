"""The other processes of the fault tests: a script that forks one for each call, so that it can be killed, starved of
space, or run as somebody else. ``process.Worker`` starts it and talks to it.

Requests come as lines of JSON, each a list of calls that run at the same time. Every call runs in a process of its own,
writes what it has to tell as lines of JSON, and ends with the exit code of its error. Any call may be given a
``file_limit`` in bytes, as of ``ulimit -f``, or be killed when it has used ``kill_after`` seconds of the processor: at
the same place, however busy the machine is.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import xetstore
from tests.support import rights
from xetstore.cas.check import check
from xetstore.cas.collecting import collect, collect_all
from xetstore.cas.grace import Grace
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.rewriting import rewrite as rewrite_store
from xetstore.cas.service import EmbeddedCas
from xetstore.cli.main import run
from xetstore.errors import XetError
from xetstore.hub.arrivals import arrive
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile, AddPointer, Operation
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.protocol.hashes import Hash

Says = Iterator[dict[str, Any]]
Wait = Callable[[], None]


class PunctualCas(EmbeddedCas):
    """Waits for the other calls of a request before it stores its first xorb: everything was planned by then."""

    wait: Wait | None = None

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        if self.wait is not None:
            wait, self.wait = self.wait, None
            wait()
        return super().put_xorb(xorb, body)


def put(
    wait: Wait,
    *,
    store: str,
    paths: list[str],
    together: bool = False,
    xorb_bytes: int | None = None,
    files_a_shard: int = 0,
) -> Says:
    """Store files, in smaller xorbs and shards than usual if asked to; tell of each one that is acknowledged."""
    sizes = UploadSizes(xorb_bytes or UploadSizes().xorb_bytes, files=files_a_shard or UploadSizes().files)
    with PunctualCas.open(store) as cas:
        assert isinstance(cas, PunctualCas)
        cas.wait = wait if together else None
        for report in put_files(cas, map(Path, paths), UploadOptions(sizes=sizes)):
            yield {"path": str(report.path), "hash": str(report.info.hash), "new_bytes": report.new_bytes}


def rewrite(_: Wait, *, store: str) -> Says:
    """Collect and rewrite without a grace, again and again for a second."""
    grace = Grace(0.0, 0.0)
    with EmbeddedCas.open(store) as cas, Lease.take(cas.index, "collect") or nullcontext() as lease:
        end = time.monotonic() + 1
        while lease is not None and time.monotonic() < end:
            collect(cas, lease, grace)
            yield {"copied": rewrite_store(cas, lease, grace=grace).copied_bytes}


def get(_: Wait, *, store: str, file: str, out: str) -> Says:
    with xetstore.open(store, create=False) as opened:
        yield {"verified": opened.get(file, out).verified}


def look(_: Wait, *, store: str) -> Says:
    """Check a store."""
    with EmbeddedCas.open(store, create=False) as cas:
        report = check(cas, read_data=True)
        yield {"problems": [str(problem) for problem in report.problems], "notes": list(report.notes)}


def gc(_: Wait, *, store: str) -> Says:
    """Collect and rewrite, without any grace; another one may take over at any time."""
    grace = Grace(unused=0, undelete=0)
    with EmbeddedCas.open(store) as cas:
        lease = Lease.take(cas.index, COLLECT, seconds=0)
        assert lease is not None
        with lease:
            report = collect_all(cas, lease, grace)
            lease.finish(json.dumps(report))
        yield {"files": report["files"], "objects": report["objects"]}


def commit(_: Wait, *, store: str, count: int, text: str) -> Says:
    """Store a large file in the repository alice/bert, and commit it with as many small ones; tell of both."""
    with EmbeddedCas.open(store) as cas:
        repository = EmbeddedHub(cas).repository(LOCAL, Kind.MODELS, "alice/bert")
        arrived = arrive(repository.cas, f"{text} {'large' * 20_000}".encode())
        yield {"arrived": arrived.sha256.hex()}
        operations: list[Operation] = [AddFile(f"d{n % 3}/{n}.txt", f"{text} {n}".encode()) for n in range(count)]
        revision = repository.commit("main", [AddPointer("large.bin", arrived.sha256), *operations], text)[0]
        yield {"commit": revision.id}


def cli(_: Wait, *, arguments: list[str]) -> Says:
    """The command line, for its exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["xet", *arguments]
    run()


def hurt(_: Wait, *, store: str, seed: int) -> Says:
    """Damage an object of a xorb."""
    chance = random.Random(seed)
    path = chance.choice(sorted(path for path in Path(store, "xorbs").rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1
    with path.open("r+b") as file:  # in place: a full disk has room for no other
        file.write(data)
    yield {}


def fill(_: Wait, *, ballast: str, leave: int) -> Says:
    """Make the file ``ballast`` so big that the disk has only ``leave`` bytes left; start anew if it exists."""
    path = Path(ballast)
    path.unlink(missing_ok=True)
    found = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    yield {}


def remove(_: Wait, *, path: str) -> Says:
    Path(path).unlink(missing_ok=True)
    yield {}


def copy(_: Wait, *, path: str, to: str) -> Says:
    yield {"copied": shutil.copyfile(path, to)}


def same(_: Wait, *, path: str, other: str) -> Says:
    yield {"same": Path(path).read_bytes() == Path(other).read_bytes()}


def names(_: Wait, *, folder: str) -> Says:
    yield {"names": sorted(path.name for path in Path(folder).iterdir())}


def change(_: Wait, *, path: str, how: str) -> Says:
    """Do something to a file that somebody reads."""
    match how:
        case "grow":
            with Path(path).open("ab") as file:
                file.write(b"more")
        case "shrink":
            os.truncate(path, Path(path).stat().st_size - 1)
        case "empty":
            os.truncate(path, 0)
        case "rewrite the start":
            with Path(path).open("r+b") as file:
                file.write(b"other")
        case "rewrite the end":
            with Path(path).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"!")
        case "remove":
            Path(path).unlink()
        case "replace":
            Path(path + ".new").write_bytes(b"another file")
            Path(path + ".new").replace(path)
        case _:
            raise ValueError(how)
    yield {}


CALLS: dict[str, Callable[..., Says]] = {
    "put": put,
    "get": get,
    "rewrite": rewrite,
    "look": look,
    "gc": gc,
    "commit": commit,
    "cli": cli,
    "hurt": hurt,
    "fill": fill,
    "remove": remove,
    "copy": copy,
    "same": same,
    "names": names,
    "change": change,
}


def say(**what: object) -> None:
    # One write of less than PIPE_BUF bytes: never half there, never in the middle of another process's line.
    os.write(1, json.dumps(what).encode() + b"\n")


def perform(number: int, call: dict[str, Any], wait: Wait) -> NoReturn:
    """One call, in a process of its own."""
    code = 70
    try:
        name = call.pop("call")
        if call.pop("bound", False):
            rights.give_up()
        if "kill_after" in call:  # by the kernel, at once: Python has no handler for this signal
            signal.setitimer(signal.ITIMER_PROF, max(call.pop("kill_after"), 1e-6))
        if "file_limit" in call:
            limit = call.pop("file_limit")
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        for told in CALLS[name](wait, **call) or ():
            say(call=number, told=told)
        code = 0
    except XetError as error:
        say(call=number, error=type(error).__name__, message=str(error)[:1000])
        code = error.exit_code
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def perform_all(calls: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Fork a process for each call; their exit codes, and the seconds of the processor that they used.

    They meet where they call ``wait``.
    """
    here_read, here_write = os.pipe()
    go_read, go_write = os.pipe()

    def wait() -> None:
        os.write(here_write, b".")
        os.close(here_write)
        os.read(go_read, 1)  # ends when nobody holds the other end any more

    meeting = sum(bool(call.get("together")) for call in calls)
    children = []
    for number, call in enumerate(calls):
        child = os.fork()
        if child == 0:
            os.close(go_write)
            os.close(here_read)
            perform(number, call, wait)
        children.append(child)
    os.close(here_write)
    while meeting and (arrived := os.read(here_read, meeting)):
        meeting -= len(arrived)
    for descriptor in (here_read, go_read, go_write):
        os.close(descriptor)
    outcomes = [os.wait4(child, 0) for child in children]
    return [(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime) for _, status, used in outcomes]


def main() -> None:
    say(ready=True)
    for line in sys.stdin:
        say(ended=perform_all(json.loads(line)))


if __name__ == "__main__":
    main()
