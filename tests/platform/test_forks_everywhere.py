"""Every lock, pool, thread and connection in the code: made anew in a child, or on a list that says why not."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import xetstore

SOURCE = Path(xetstore.__file__).parent

MADE = frozenset(
    {
        *("threading.Lock", "threading.RLock", "threading.Condition", "threading.Event", "threading.Semaphore"),
        *("threading.BoundedSemaphore", "threading.Barrier", "threading.Thread", "threading.Timer", "asyncio.Lock"),
        *("ThreadPoolExecutor", "ProcessPoolExecutor", "queue.Queue", "queue.LifoQueue", "queue.SimpleQueue"),
        *("sqlite3.connect", "urllib3.PoolManager", "urllib3.ProxyManager"),
        *("start_thread", "try_lock"),
        *("socket.socket", "socket.socketpair", "fcntl.flock", "subprocess.Popen", "mmap.mmap"),
        "untouched_memory",
    }
)
"""Whatever is one thread's, one connection's or one process's."""

CALL = "of one call: in a child Cancellation, Bound or the process's number refuses to go on with it"
UNLOCKED = "unlocked where it is locked, so that a copy in a child does not keep it"
SERVER = "of a server that runs: its event loop is the parent's, and a child starts a server of its own"
PROGRAM = "of the command line, whose process is never forked while it works"
PRIVATE = "memory that a child has a copy of"
TESTS = "of a test double"

ALLOWED = {
    "blobs/bucket_upload.py: _LongUpload": CALL,
    "cancellation.py: Cancellation": CALL,
    "cli/bar.py: Bar": PROGRAM,
    "cli/interruption.py: ": PROGRAM,
    "cli/output.py: Output": PROGRAM,
    "database/sqlite_file.py: _connect": "opened and let go of by SqliteDatabase, which is a Section",
    "access/secrets.py: locked": UNLOCKED,
    "access/table_secrets.py: TableSecrets": SERVER,
    "fs/file.py: Told": CALL,
    "platform/descriptors.py: ": "of systems that cannot fork",
    "platform/memory.py: ": PRIVATE,
    "platform/forks.py: ": "the module itself, whose test is test_forks.py",
    "platform/threads.py: ": "where threads are started for those who own them, which are looked at here, too",
    "protocol/xorb.py: XorbBuilder": PRIVATE,
    "remote/bodies.py: _Second": CALL,
    "remote/lookup.py: addresses": CALL,
    "remote/socks.py: connect_through": CALL,
    "server/care.py: Care": SERVER,
    "server/http/lifecycle.py: DrainingServer": SERVER,
    "server/http/receiving.py: ": SERVER,
    "server/ops/crew.py: Crew": SERVER,
    "server/ops/shared.py: Shared": SERVER,
    "server/site.py: Site": SERVER,
    "server/workers.py: ": SERVER,
    "server/http/sockets.py: listen": SERVER,
    "server/ops/suspects.py: Suspects": SERVER,
    "platform/cache_folder.py: CacheFolder": UNLOCKED,
    "transfer/download/reuse/base_file.py: BaseFile": CALL,
    "transfer/download/batch.py: ": CALL,
    "transfer/download/buffers.py: _memory": PRIVATE,
    "testing/": TESTS,
    "transfer/download/new_file.py: _OpenFile": CALL,
    "transfer/download/new_file.py: _open_temporary": "a copy in a child keeps a number, and there are more",
    "transfer/download/partial_file.py: _lock": UNLOCKED,
    "transfer/download/reuse/journal.py: DownloadJournal": CALL,
    "transfer/download/many.py: ": CALL,
    "transfer/download/workers.py: ": CALL,
    "transfer/goodput.py: ": CALL,
    "transfer/upload/known_file.py: KnownFile": "opened and let go of by KnownXorbs, which is a Section",
    "transfer/upload/queries.py: ": CALL,
    "transfer/upload/slots.py: ": CALL,
}


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _renewed(owner: ast.AST | None) -> bool:
    """True if a class, or a function, has something done in children."""
    return owner is not None and any(
        isinstance(node, ast.Call) and _name(node) in ("forks.renew", "forks.Section", "forks.free", "renew", "free")
        for node in ast.walk(owner)
    )


@cache
def found() -> list[str]:
    """``file: class or function: what it makes`` for all that is made and not made anew."""
    left = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for owner in ast.parse(path.read_text()).body:
            if _renewed(owner):
                continue
            for node in ast.walk(owner):
                makes = isinstance(node, ast.Call) and _name(node) in MADE
                factory = isinstance(node, ast.keyword) and ast.unparse(node.value) in MADE
                if (makes or factory) and "LOCK_UN" not in ast.unparse(node):
                    left.append(f"{name}: {getattr(owner, 'name', '')}: {ast.unparse(node)[:60]}")
    return left


def test_all_is_made_anew_in_a_child_or_need_not_be() -> None:
    unknown = [one for one in found() if not any(one.startswith(place) for place in ALLOWED)]
    assert not unknown, "use xetstore.platform.forks, or say why not"


def test_the_list_names_only_what_is_there() -> None:
    left = found()
    assert [place for place in ALLOWED if not any(one.startswith(place) for one in left)] == []
