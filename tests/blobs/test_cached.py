"""The cache of objects' parts: what is fetched, what is kept, and whatever happens to its folder."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from xetstore.blobs.cached import BLOCK_BYTES, QUEUED_BYTES, TAIL_BYTES, CachedBlobStore
from xetstore.blobs.local import LocalBlobStore
from xetstore.blobs.memory import MemoryBlobStore, MemoryStream
from xetstore.errors import DamagedError, NotFoundError, RangeError
from xetstore.interfaces import RangeAnswer, RangeRequest
from xetstore.testing import BlobStoreContract, random_bytes
from xetstore.testing.blobs import drain

KEY = "xorbs/ab/abcd"
CAP = 64 << 20


class CountingStore(MemoryBlobStore):
    """A store that remembers which ranges it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RangeRequest] = []

    def get_range(self, key: str, start: int, end: int) -> MemoryStream:
        self.asked.append((key, start, end))
        return super().get_range(key, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        answers = [MemoryBlobStore.get_ranges(self, [request])[0] for request in requests]
        self.asked = [*self.asked[: len(self.asked) - len(requests)], *requests]
        return answers

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges since the last call."""
        asked, self.asked = self.asked, []
        return [(start, end) for _, start, end in asked]


class TestOverMemory(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> CachedBlobStore:
        return CachedBlobStore(MemoryBlobStore(), tmp_path / "cache", CAP)


class TestOverADirectory(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> CachedBlobStore:
        return CachedBlobStore(LocalBlobStore(tmp_path), tmp_path / "cache", CAP)

    def test_an_empty_store_lists_nothing(self, blobs: CachedBlobStore) -> None:  # type: ignore[override]
        assert list(blobs.list()) == []


class TestOverMemoryWithAFullFolder(BlobStoreContract):
    """The folder cannot be made: nothing is cached, and nothing fails."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> CachedBlobStore:
        (tmp_path / "cache").write_text("a file, and no folder")
        return CachedBlobStore(MemoryBlobStore(), tmp_path / "cache", CAP)


@pytest.fixture
def inner() -> CountingStore:
    return CountingStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(inner: CountingStore, folder: Path) -> CachedBlobStore:
    return CachedBlobStore(inner, folder, CAP)


def put(inner: CountingStore, size: int, key: str = KEY, seed: int = 0) -> bytes:
    data = random_bytes(size, seed=seed)
    inner.put_new(key, [data])
    return data


def read(cache: CachedBlobStore, start: int, end: int, key: str = KEY, block_bytes: int = 100_000) -> bytes:
    found = drain(cache.get_range(key, start, end), block_bytes)
    cache.settle()
    return found


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("??/*/*") if path.is_file()]


def on_disk(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files_in(folder))


# --- What is fetched ------------------------------------------------------------------------------------


def test_what_was_read_once_is_not_fetched_again(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 5 * BLOCK_BYTES)
    start, end = 300_000, 3 * BLOCK_BYTES + 17
    for _ in range(3):
        assert read(cache, start, end) == data[start:end]
    assert read(cache, start + 5, end - 5) == data[start + 5 : end - 5]
    assert inner.ranges() == [(start, end)]


def test_one_range_is_fetched_for_each_gap(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 8 * BLOCK_BYTES)
    for start, end in [(1_000_000, 2_500_000), (5_000_000, 5_000_100)]:
        read(cache, start, end)
    inner.ranges()
    assert read(cache, 0, len(data)) == data
    assert inner.ranges() == [(0, 1_000_000), (2_500_000, 5_000_000), (5_000_100, len(data))]
    assert read(cache, 0, len(data), block_bytes=999_983) == data
    assert inner.ranges() == []


def test_the_reader_gets_bytes_as_they_come(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 3 * BLOCK_BYTES)
    block = memoryview(bytearray(1000))
    with cache.get_range(KEY, 0, len(data)) as stream:
        assert stream.readinto(block) == 1000
        assert bytes(block) == data[:1000]


def test_complete_blocks_of_a_reader_who_left_are_kept(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 4 * BLOCK_BYTES)
    block = memoryview(bytearray(BLOCK_BYTES // 2))
    with cache.get_range(KEY, 0, len(data)) as stream:
        for _ in range(5):
            stream.readinto(block)
    cache.settle()
    inner.ranges()
    assert read(cache, 0, len(data)) == data
    assert inner.ranges() == [(2 * BLOCK_BYTES, len(data))]


def test_small_ranges_that_are_missing_are_fetched_by_one_call(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 2 * BLOCK_BYTES)
    put(inner, 5000, "xorbs/cd/cdef")
    first = cache.get_ranges([(KEY, 100, 200), ("xorbs/no/ne", 0, 1), (KEY, BLOCK_BYTES - 50, BLOCK_BYTES + 50)])
    cache.settle()
    assert inner.ranges() == [(100, 200), (0, 1), (BLOCK_BYTES - 50, BLOCK_BYTES + 50)]
    second = cache.get_ranges([(KEY, 120, 180), (KEY, 0, 7), (KEY, BLOCK_BYTES - 50, BLOCK_BYTES + 50)])
    assert inner.ranges() == [(0, 7)]
    assert first[0] == data[100:200]
    assert isinstance(first[1], NotFoundError)
    assert first[2] == second[2] == data[BLOCK_BYTES - 50 : BLOCK_BYTES + 50]
    assert second[:2] == [data[120:180], data[:7]]


def test_the_end_of_what_is_uploaded_is_kept(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = random_bytes(3 * BLOCK_BYTES + 100_000)
    with cache.create(KEY) as new:
        for at in range(0, len(data), 700_000):
            new.write(data[at : at + 700_000])
        new.commit()
    cache.settle()
    size = len(data)
    assert read(cache, size - TAIL_BYTES, size) == data[-TAIL_BYTES:]
    assert inner.ranges() == []
    assert read(cache, size - TAIL_BYTES - 1, size) == data[-TAIL_BYTES - 1 :]
    assert inner.ranges() == [(size - TAIL_BYTES - 1, size - TAIL_BYTES)]


def test_what_was_given_up_is_not_kept(cache: CachedBlobStore, folder: Path) -> None:
    with cache.create(KEY) as new:
        new.write(b"x" * 1000)
    cache.settle()
    assert files_in(folder) == []


def test_a_wider_part_replaces_those_in_it(cache: CachedBlobStore, inner: CountingStore, folder: Path) -> None:
    data = put(inner, BLOCK_BYTES)
    cache.keep(KEY, 100, data[100:200])
    cache.keep(KEY, 500, data[500:900])
    cache.keep(KEY, 600, data[600:700])
    cache.settle()
    assert {path.name for path in files_in(folder)} == {"100-200", "500-900"}
    cache.keep(KEY, 0, data)
    cache.settle()
    assert [path.name for path in files_in(folder)] == [f"0-{BLOCK_BYTES}"]


def test_a_cache_of_no_bytes_is_none(inner: CountingStore, folder: Path) -> None:
    cache = CachedBlobStore(inner, folder, 0)
    data = put(inner, 1000)
    for _ in range(2):
        assert read(cache, 0, 1000) == data
    assert inner.ranges() == [(0, 1000)] * 2
    assert not folder.exists()


def test_what_is_deleted_leaves_the_cache(cache: CachedBlobStore, inner: CountingStore, folder: Path) -> None:
    put(inner, 1000)
    read(cache, 0, 1000)
    assert len(files_in(folder)) == 1
    assert cache.delete_many([KEY]) == 1
    assert files_in(folder) == []
    with pytest.raises(NotFoundError):
        cache.get_range(KEY, 0, 1000)


def test_an_object_that_lost_its_end_is_damaged_where_that_is_read(
    cache: CachedBlobStore, inner: CountingStore
) -> None:
    data = put(inner, 1000)
    read(cache, 0, 500)
    with pytest.raises(DamagedError, match="1000 bytes"):
        read(cache, 0, 1001)
    with pytest.raises(RangeError):
        read(cache, 600, 1001)
    inner.delete_many([KEY])
    assert read(cache, 0, 500) == data[:500]
    with pytest.raises(DamagedError, match="not there any more"):
        read(cache, 0, 1000)


# --- The folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["flipped", "cut", "longer", "empty", "folder", "pipe", "another", "header", "gone"])
def test_a_part_that_is_not_whole_is_removed_and_fetched(
    cache: CachedBlobStore, inner: CountingStore, folder: Path, made: str
) -> None:
    data = put(inner, 3 * BLOCK_BYTES)
    other = put(inner, 3 * BLOCK_BYTES, "xorbs/cd/cdef", seed=1)
    read(cache, 0, len(other), "xorbs/cd/cdef")
    elsewhere = {path.name: path for path in files_in(folder)}
    read(cache, 0, len(data))
    [middle] = [
        path for path in files_in(folder) if path.name.startswith(f"{BLOCK_BYTES}-") and path not in elsewhere.values()
    ]
    stored = middle.read_bytes()
    middle.unlink()
    match made:
        case "flipped":
            middle.write_bytes(stored[:-1000] + bytes([stored[-1000] ^ 1]) + stored[-999:])
        case "header":
            middle.write_bytes(stored[:20] + bytes([stored[20] ^ 1]) + stored[21:])
        case "cut":
            middle.write_bytes(stored[:-5])
        case "longer":
            middle.write_bytes(stored + b"x")
        case "empty":
            middle.write_bytes(b"")
        case "folder":
            middle.mkdir()
        case "pipe":
            os.mkfifo(middle)
        case "another":
            middle.write_bytes(elsewhere[middle.name].read_bytes())
    inner.ranges()
    assert read(cache, 0, len(data)) == data
    assert cache.get_ranges([(KEY, BLOCK_BYTES + 5, BLOCK_BYTES + 9)]) == [data[BLOCK_BYTES + 5 : BLOCK_BYTES + 9]]
    assert inner.ranges()[0] == (BLOCK_BYTES, 2 * BLOCK_BYTES)
    if made != "folder":
        assert read(cache, 0, len(data)) == data
        assert inner.ranges() == []


def test_a_part_that_is_evicted_while_it_is_read_is_fetched(
    cache: CachedBlobStore, inner: CountingStore, folder: Path
) -> None:
    data = put(inner, 3 * BLOCK_BYTES)
    read(cache, 0, len(data))
    inner.ranges()
    block = memoryview(bytearray(1000))
    with cache.get_range(KEY, 0, len(data)) as stream:
        assert stream.readinto(block) == 1000
        for path in files_in(folder):
            path.unlink()
        assert bytes(block) + drain(stream) == data
    assert inner.ranges() == [(BLOCK_BYTES, 3 * BLOCK_BYTES)]


def test_the_cap_is_kept_and_what_was_used_last_stays(inner: CountingStore, folder: Path) -> None:
    cap = 16 * BLOCK_BYTES
    cache = CachedBlobStore(inner, folder, cap)
    data = put(inner, BLOCK_BYTES)
    long_ago = time.time() - 1_000_000
    for i in range(60):
        cache.keep(f"xorbs/aa/{i:04}", 0, data)
        cache.settle()
        for path in files_in(folder):
            if path.stat().st_mtime > time.time() - 1000 and cache.parts(f"xorbs/aa/{i:04}"):
                os.utime(path, (long_ago + i, long_ago + i))
        assert read(cache, 0, 10, "xorbs/aa/0000") == data[:10]  # used all the time: it never goes
        assert on_disk(folder) <= cap
    assert inner.ranges() == []
    kept = [i for i in range(60) if cache.parts(f"xorbs/aa/{i:04}")]
    assert kept == [0, *range(61 - len(kept), 60)]
    assert on_disk(folder) > cap // 2


def test_stores_that_share_a_folder_do_not_share_their_objects(folder: Path) -> None:
    """Of xorbs of older releases the key has the hash alone, and each store has compressed them in its own way."""
    one, other = CountingStore(), CountingStore()
    datas = put(one, 1000, seed=1), put(other, 1000, seed=2)
    for _ in range(2):
        for inner, place, data in ((one, "s3://one", datas[0]), (other, "s3://other", datas[1])):
            assert read(CachedBlobStore(inner, folder, CAP, place=place), 0, 1000) == data
    assert (one.ranges(), other.ranges()) == ([(0, 1000)], [(0, 1000)])


def test_a_restart_keeps_what_is_there_and_does_not_look_through_the_folder(
    inner: CountingStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put(inner, 2 * BLOCK_BYTES)
    read(CachedBlobStore(inner, folder, CAP), 0, BLOCK_BYTES)
    inner.ranges()
    listed: list[str] = []
    scan = os.scandir

    def scandir(path: str) -> Any:
        listed.append(Path(path).name)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    again = CachedBlobStore(inner, folder, CAP)
    assert read(again, 0, 2 * BLOCK_BYTES) == data
    assert inner.ranges() == [(BLOCK_BYTES, 2 * BLOCK_BYTES)]
    assert listed == ["tmp"]
    (folder / "level").write_bytes(b"nonsense")
    again = CachedBlobStore(inner, folder, CAP)
    again.keep("xorbs/cd/cdef", 0, data)
    again.settle()
    assert len(listed) > 3
    assert int((folder / "level").read_bytes()) >= on_disk(folder)


def test_programs_that_each_write_a_little_keep_one_cap(inner: CountingStore, folder: Path) -> None:
    cap = 16 * BLOCK_BYTES
    data = put(inner, BLOCK_BYTES)
    for i in range(60):
        cache = CachedBlobStore(inner, folder, cap)
        cache.keep(f"xorbs/aa/{i:04}", 0, data)
        cache.settle()
        assert on_disk(folder) <= cap


def test_an_error_of_the_disk_is_told_once_and_writing_goes_on_later(
    inner: CountingStore, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = put(inner, 4 * BLOCK_BYTES)
    cache = CachedBlobStore(inner, folder, CAP, pause_seconds=0)
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        broken.setattr(os, "writev", no_room)
        for _ in range(3):
            assert read(cache, 0, len(data)) == data
    assert [record.getMessage() for record in caplog.records] == [
        f"the cache {folder} cannot be written to: No space left on device"
    ]
    assert files_in(folder) == []
    assert not list((folder / "tmp").iterdir())
    inner.ranges()
    for _ in range(2):
        assert read(cache, 0, len(data)) == data
    assert inner.ranges() == [(0, len(data))]


def test_after_an_error_nothing_is_tried_for_a_while(
    cache: CachedBlobStore, inner: CountingStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put(inner, 1000)
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", no_room)
        assert read(cache, 0, 1000) == data
    assert read(cache, 0, 1000) == data
    assert files_in(folder) == []


def no_room(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_ON_A_SMALL_DISK = """
import logging, sys
from pathlib import Path
from xetstore.blobs.cached import CachedBlobStore, BLOCK_BYTES
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.testing import random_bytes
from xetstore.testing.blobs import drain

folder, inner = Path(sys.argv[1]), MemoryBlobStore()
logging.basicConfig(stream=sys.stdout, format="%(message)s")
cache = CachedBlobStore(inner, folder, 1 << 30)
for i in range(12):
    data = random_bytes(BLOCK_BYTES, seed=i)
    inner.put_new(f"xorbs/aa/{i}", [data])
    for _ in range(2):
        assert drain(cache.get_range(f"xorbs/aa/{i}", 0, len(data))) == data
        cache.settle()
print(sum(1 for path in folder.glob("??/*/*")), len(list((folder / "tmp").iterdir())))
"""


def test_on_a_disk_that_is_full_what_was_kept_stays(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("a small disk takes the command unshare, of util-linux")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount -t tmpfs -o size=6m tmpfs "$0" || exit 77; exec "$@"'
    command = ["unshare", *as_root, "--mount", "--propagation", "private", "sh", "-c", mount, str(tmp_path)]
    command += [sys.executable, "-c", _ON_A_SMALL_DISK, str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("a small disk takes permission to mount: run the tests as root")
    assert ended.returncode == 0, ended.stderr
    told, counts = ended.stdout.splitlines()
    assert told.endswith("No space left on device")
    kept, litter = map(int, counts.split())
    assert 0 < kept < 7
    assert not litter


_WRITER = """
import sys, time
from pathlib import Path
from xetstore.blobs.cached import CachedBlobStore, BLOCK_BYTES
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.testing import random_bytes
from xetstore.testing.blobs import drain

folder, seed, until = Path(sys.argv[1]), int(sys.argv[2]), time.monotonic() + 60
inner = MemoryBlobStore()
data = {i: random_bytes(3 * BLOCK_BYTES, seed=i) for i in range(10)}
for i, body in data.items():
    inner.put_new(f"xorbs/aa/{i}", [body])
cache = CachedBlobStore(inner, folder, 20 * BLOCK_BYTES)
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    i, start = (turn * 7 + seed) % 10, (turn * 654_321 + seed) % BLOCK_BYTES
    end = start + (turn * 123_457) % (2 * BLOCK_BYTES) + 1
    assert drain(cache.get_range(f"xorbs/aa/{i}", start, end)) == data[i][start:end], (turn, i)
    cache.settle()
    assert time.monotonic() < until
print("done", flush=True)
"""


def writer(folder: Path, seed: int, turns: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), str(seed), str(turns)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_share_a_folder_read_right_bytes_and_keep_the_cap(folder: Path) -> None:
    processes = [writer(folder, seed, 150) for seed in range(3)]
    try:
        assert [process.communicate(timeout=120)[0] for process in processes] == ["ready\ndone\n"] * 3
    finally:
        for process in processes:
            process.kill()
    assert on_disk(folder) <= 20 * BLOCK_BYTES
    assert not list((folder / "tmp").iterdir())


def test_processes_killed_while_they_write_leave_nothing_wrong(folder: Path, inner: CountingStore) -> None:
    for seed in range(5):
        process = writer(folder, seed, 100_000)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.05 + seed / 50)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
    last = writer(folder, 7, 60)
    assert last.communicate(timeout=120)[0] == "ready\ndone\n"


def test_threads_read_one_block_at_once(cache: CachedBlobStore, inner: CountingStore) -> None:
    data = put(inner, 3 * BLOCK_BYTES)
    found: list[bytes] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        for _ in range(5):
            found.append(drain(cache.get_range(KEY, 10, len(data))))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data[10:]] * 40
    cache.settle()
    assert read(cache, 10, len(data)) == data[10:]  # what there was no room for in the queue is kept now
    inner.ranges()
    assert read(cache, 10, len(data)) == data[10:]
    assert inner.ranges() == []


def test_a_disk_that_is_slow_keeps_no_reader_waiting(
    cache: CachedBlobStore, inner: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put(inner, QUEUED_BYTES + 4 * BLOCK_BYTES)
    go_on = threading.Event()
    write = os.writev

    def slow(fd: int, parts: list[memoryview]) -> int:
        assert go_on.wait(60)
        return write(fd, parts)

    monkeypatch.setattr(os, "writev", slow)
    try:
        assert drain(cache.get_range(KEY, 0, len(data))) == data
    finally:
        go_on.set()
    cache.settle()
    inner.ranges()
    assert read(cache, 0, len(data)) == data
    assert inner.ranges() == [(QUEUED_BYTES, len(data))]


@pytest.fixture
def child() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_reads_and_keeps(cache: CachedBlobStore, inner: CountingStore, child: list[int]) -> None:
    data = put(inner, 2 * BLOCK_BYTES)
    read(cache, 0, BLOCK_BYTES)
    inner.ranges()
    pid = os.fork()
    if pid == 0:
        good = read(cache, 0, len(data)) == data and inner.ranges() == [(BLOCK_BYTES, len(data))]
        os._exit(0 if good and read(cache, 0, len(data)) == data and not inner.ranges() else 1)
    child.append(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert read(cache, 0, len(data)) == data
    assert inner.ranges() == []
