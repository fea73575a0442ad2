"""What a child has of what its parent was at: free locks, calls that are the parent's, and no open database."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

import xetstore
from tests.support.children import failures, in_child
from tests.support.live import ServerProcess
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import InterruptedCallError, UsageError
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.store import Store
from xetstore.transfer.upload.known import KnownXorbs

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SIZE = 3_000_000


def in_a_child(work: Callable[[], None]) -> None:
    assert not failures([in_child(work)])


@pytest.fixture
def held() -> Iterator[Callable[[threading.Lock], None]]:
    """Has a thread hold a lock until the test is over."""
    over = threading.Event()
    threads = []

    def hold(lock: threading.Lock) -> None:
        taken = threading.Event()

        def work() -> None:
            with lock:
                taken.set()
                over.wait()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        taken.wait()

    yield hold
    over.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_a_lock_that_another_thread_holds_is_free_in_a_child(held: Callable[[threading.Lock], None]) -> None:
    locks = [forks.lock(), forks.rlock()]
    for lock in locks:
        held(lock)

    def take() -> None:
        assert all(lock.acquire(timeout=5) for lock in locks)

    in_a_child(take)
    assert not locks[0].acquire(blocking=False)


def test_what_was_made_anew_is_forgotten_with_its_owner() -> None:
    gc.collect()
    before = len(forks._renewed)
    locks = [forks.lock() for _ in range(100)]
    assert len(forks._renewed) >= before + 100
    del locks
    gc.collect()
    assert len(forks._renewed) <= before


class TestIterators:
    def begun(self, store: Store, source: Path, name: str) -> Iterator[object]:
        file = store.put(source).hash
        begin: dict[str, Callable[[], Iterator[object]]] = {
            "iter_range": lambda: store.iter_range(file),
            "iter_get": lambda: store.iter_get([(file, source.with_name(f"out{number}")) for number in range(2)]),
            "iter_put": lambda: store.iter_put([source, source]),
        }
        items = begin[name]()
        next(items)
        return items

    @pytest.mark.parametrize("name", ["iter_range", "iter_get", "iter_put"])
    def test_goes_on_in_the_parent_and_says_so_in_a_child(self, tmp_path: Path, source: Path, name: str) -> None:
        with xetstore.open(tmp_path / "store") as store:
            items = self.begun(store, source, name)

            def go_on() -> None:
                with pytest.raises(InterruptedCallError, match="begun by another process"):
                    next(items)
                items.close()  # type: ignore[attr-defined]
                assert store.totals().files == 1

            in_a_child(go_on)
            assert list(items) or name == "iter_range"

    def test_what_a_child_leaves_is_not_cleaned_up(self) -> None:
        cleaned = []

        @forks.bound
        def numbers() -> Generator[int]:
            try:
                yield from range(3)
            finally:
                cleaned.append(os.getpid())

        items = [numbers()]
        next(items[0])

        def leave() -> None:
            items.clear()
            gc.collect()
            assert not cleaned

        in_a_child(leave)
        assert [*items[0]] == [1, 2]
        assert cleaned == [os.getpid()]


def test_a_file_object_that_a_thread_is_reading_from_is_read_on_in_a_child() -> None:
    class Slow(io.RawIOBase):
        """Gives nothing until it may."""

        def __init__(self) -> None:
            self.may, self.asked = threading.Event(), threading.Event()

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return 0

        def seek(self, offset: int, whence: int = 0, /) -> int:
            return 0

        def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
            self.asked.set()
            self.may.wait()
            buffer[:2] = b"ok"
            return 2

    from xetstore.transfer.download.stored_file import StoredReader

    slow = Slow()
    reader = StoredReader(slow)  # type: ignore[arg-type]
    thread = threading.Thread(target=reader.read1)
    thread.start()
    slow.asked.wait()

    def read() -> None:
        slow.may = threading.Event()
        slow.may.set()
        assert reader.read1() == b"ok"

    in_a_child(read)
    slow.may.set()
    thread.join()


class TestDatabases:
    """SQLite keeps the locks of a process by file: no connection may be there when it forks."""

    def test_no_descriptor_of_the_index_is_inherited(self, tmp_path: Path, source: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            store.put(source)
            assert _open_files("index") > 0

            def look() -> None:
                assert _open_files("index") == 0
                assert store.totals().files == 1

            in_a_child(look)
            assert store.totals().files == 1

    def test_a_fork_waits_for_a_transaction(self, tmp_path: Path) -> None:
        cas = EmbeddedCas.open(tmp_path / "store")
        inside = threading.Event()

        def write() -> None:
            with cas.index.transaction():
                inside.set()
                time.sleep(0.5)

        thread = threading.Thread(target=write)
        thread.start()
        inside.wait()
        in_a_child(cas.ping)
        thread.join()
        cas.close()

    @pytest.mark.slow
    def test_one_that_does_not_end_makes_a_child_refuse_the_store(self, tmp_path: Path) -> None:
        cas = EmbeddedCas.open(tmp_path / "store")

        def refused() -> None:
            for use in (cas.ping, lambda: EmbeddedCas.open(tmp_path / "store")):
                with pytest.raises(UsageError, match="was forked while"):
                    use()
            EmbeddedCas.open(tmp_path / "another").ping()
            cas.close()

        inside, over = threading.Event(), threading.Event()

        def read() -> None:
            with cas.index.snapshot():
                inside.set()
                over.wait()

        thread = threading.Thread(target=read)
        thread.start()
        inside.wait()
        in_a_child(refused)
        cas.ping()
        over.set()
        thread.join()
        in_a_child(cas.ping)
        cas.close()

    def test_the_thread_that_forks_does_not_wait_for_itself(self, tmp_path: Path) -> None:
        cas = EmbeddedCas.open(tmp_path / "store")

        def refused() -> None:
            with pytest.raises(UsageError, match="was forked while"):
                cas.ping()

        with cas.index.snapshot():
            in_a_child(refused)
        cas.ping()
        cas.close()

    def test_a_store_in_memory_is_copied(self, source: Path) -> None:
        store = Store(EmbeddedCas.in_memory())
        file = store.put(source).hash

        def use() -> None:
            assert b"".join(store.iter_range(file)) == source.read_bytes()
            source.with_name("new").write_bytes(b"new")
            store.put(source.with_name("new"))
            assert store.totals().files == 2

        in_a_child(use)
        assert store.totals().files == 1
        store.close()

    def test_what_is_known_of_a_server_is_known_in_a_child(self, tmp_path: Path) -> None:
        with KnownXorbs(tmp_path / "known.sqlite3") as known:
            known.forget_all()
            known.registered([Hash.ZERO])

            def look() -> None:
                assert _open_files("known.sqlite3") == 0
                assert known.find(bytes(32)) == []

            in_a_child(look)
            assert known.find(bytes(32)) == []


def test_connections_are_closed_in_a_child_and_go_on_in_the_parent(tmp_path: Path, source: Path) -> None:
    with ServerProcess(tmp_path / "store", "--auth", "none") as server, xetstore.open(server.url, cache=False) as store:
        file = store.put(source).hash
        port = int(server.url.rpartition(":")[2])
        store.stat(file)
        assert _connections(port) > 0
        in_a_child(partial(_no_connections, port))
        before = _connections(port)
        assert store.stat(file).size == SIZE
        assert _connections(port) == before

        def without_being_told() -> None:
            """As programs do that fork in C, such as uWSGI: Python is told in the child only."""
            python = ctypes.pythonapi
            python.fork.restype = ctypes.c_int
            pid = python.fork()
            if not pid:
                code = 1
                try:
                    python.PyOS_AfterFork_Child()
                    _no_connections(port)
                    code = store.stat(file).size != SIZE
                finally:
                    os._exit(code)
            assert not failures([pid])

        without_being_told()


def _no_connections(port: int) -> None:
    assert _connections(port) == 0


def _connections(port: int) -> int:
    """How many connections to a port of this machine this process has open."""
    inodes = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    return sum(target in inodes for target in _targets())


def _open_files(name: str) -> int:
    """How many descriptors this process has of files whose path holds ``name``."""
    return sum(name in target.rpartition("/")[2] for target in _targets())


def _targets() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return found
