"""The chunk cache: what it gives is right or is not given, it keeps its cap, and nothing that happens to it matters."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import encode, hashed_chunks, mutations, splitmix64, unpacked
from xetstore import _kernel
from xetstore.errors import FormatError
from xetstore.events import CacheDisabled, Event
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.transfer.download.reuse.chunk_cache import CachedRange, ChunkCache

ROOT = Path(__file__).parents[2]
KERNEL = XET_GEARHASH_BLAKE3.kernel
XORB = Hash(bytes(range(32)))
OTHER = Hash(bytes(32))


class Xorb:
    """Some chunks, and the same serialized."""

    def __init__(self, count: int = 20, size: int = 1000, seed: int = 1) -> None:
        self.raw = [splitmix64(seed * 1000 + i, size + i) for i in range(count)]
        self.chunks = hashed_chunks(self.raw)
        self.body = encode(self.raw, _kernel.NONE)
        _, self.ends, _ = _kernel.walk_chunks(KERNEL, self.body)

    def put(self, cache: ChunkCache, start: int, end: int, name: Hash = XORB) -> None:
        ends = [0, *unpacked(self.ends)]
        body = self.body[ends[start] : ends[end]]
        chunks = self.chunks.slice(start, end)
        cache.put(name, start, [body[:7], body[7:]], chunks, [end - ends[start] for end in ends[start + 1 : end + 1]])


def read(found: CachedRange, piece: int = 700) -> bytes:
    """All bytes of a stream, through a small buffer."""
    parts = []
    buffer = memoryview(bytearray(piece))
    while count := found.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


def verified(cache: ChunkCache, xorb: Xorb, start: int, end: int, name: Hash = XORB) -> bool:
    """Read as every reader does: the chunks are compared with their hashes, and a bad entry is discarded."""
    found = cache.get(name, start, end)
    if found is None:
        return False
    with found:
        out = bytearray(sum(map(len, xorb.raw)) + 1)
        body = read(found)
        try:
            hashes, lengths, _ = _kernel.decode_chunks(KERNEL, body, out, final=True)
        except FormatError:
            hashes, lengths = b"", b""
        expected = xorb.chunks.slice(start, end)
        if hashes != expected.hashes:
            found.discard()
            return False
        assert out[: sum(unpacked(lengths))] == b"".join(xorb.raw[start:end])
        return True


def files_in(folder: Path) -> list[Path]:
    """The entries of a cache."""
    return sorted(path for path in folder.glob("??/*/*") if path.is_file())


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def cache(tmp_path: Path, events: list[Event]) -> Iterator[ChunkCache]:
    yield ChunkCache(tmp_path / "a" / "chunks", 1 << 20, emit=events.append)
    assert not list(tmp_path.rglob("tmp/*"))


def test_what_was_put_is_given_byte_for_byte(cache: ChunkCache) -> None:
    xorb = Xorb()
    cache.put(XORB, 0, [xorb.body], xorb.chunks, xorb.ends)
    found = cache.get(XORB, 0, 20)
    assert found is not None
    with found:
        assert found.byte_count == len(xorb.body)
        assert found.hashes == xorb.chunks.hashes
        assert read(found) == xorb.body
        assert found.readinto(memoryview(bytearray(1))) == 0


def test_a_part_of_a_wider_entry_is_enough(cache: ChunkCache) -> None:
    xorb = Xorb()
    xorb.put(cache, 5, 15)
    assert verified(cache, xorb, 5, 15)
    assert verified(cache, xorb, 7, 8)
    assert verified(cache, xorb, 14, 15)
    for start, end in [(4, 6), (14, 16), (0, 20), (15, 16), (3, 3), (9, 8)]:
        assert cache.get(XORB, start, end) is None
    assert cache.get(OTHER, 5, 15) is None


def test_neighbouring_entries_make_one_answer(cache: ChunkCache) -> None:
    xorb = Xorb()
    for start, end in [(0, 5), (3, 9), (9, 12), (14, 20)]:
        xorb.put(cache, start, end)
    assert verified(cache, xorb, 0, 12)
    assert verified(cache, xorb, 4, 10)
    assert cache.get(XORB, 0, 13) is None
    assert cache.get(XORB, 0, 20) is None


def test_what_is_there_is_not_written_again_and_what_is_wider_replaces_it(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 5, 10)
    [entry] = files_in(tmp_path / "a" / "chunks")
    before = entry.stat().st_ino
    xorb.put(cache, 6, 9)
    xorb.put(cache, 5, 10)
    assert [path.stat().st_ino for path in files_in(tmp_path / "a" / "chunks")] == [before]
    xorb.put(cache, 0, 12)
    assert [path.name for path in files_in(tmp_path / "a" / "chunks")] == ["0-12"]


def test_another_process_finds_what_this_one_put(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 20)
    assert verified(ChunkCache(tmp_path / "a" / "chunks"), xorb, 2, 4)


def test_nobody_else_can_look_into_it(cache: ChunkCache, tmp_path: Path) -> None:
    Xorb().put(cache, 0, 20)
    root = tmp_path / "a" / "chunks"
    modes = {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()}
    assert modes == {0o700}
    assert {path.stat().st_mode & 0o777 for path in files_in(root)} == {0o600}
    assert (root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")


def test_a_call_that_does_not_fit_together_is_refused(cache: ChunkCache) -> None:
    xorb = Xorb()
    with pytest.raises(ValueError, match="do not go with"):
        cache.put(XORB, 0, [xorb.body[:-1]], xorb.chunks, xorb.ends)
    with pytest.raises(ValueError, match="do not go with"):
        cache.put(XORB, 0, [xorb.body], xorb.chunks.slice(0, 3), xorb.ends)
    cache.put(XORB, 0, [], ChunkList.EMPTY, [])


def test_a_cache_of_no_bytes_is_none(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path / "chunks", 0)
    Xorb().put(cache, 0, 20)
    assert cache.get(XORB, 0, 20) is None
    assert not (tmp_path / "chunks").exists()


def test_what_is_large_for_the_cache_is_not_kept(tmp_path: Path) -> None:
    xorb = Xorb(count=20, size=1000)
    cache = ChunkCache(tmp_path / "chunks", 8 * len(xorb.body))
    xorb.put(cache, 0, 20)
    assert cache.get(XORB, 0, 20) is None
    xorb.put(cache, 0, 10)
    assert verified(cache, xorb, 0, 10)


# --- The cap --------------------------------------------------------------------------------------------


def on_disk(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files_in(folder))


def name_of(i: int) -> Hash:
    return Hash(splitmix64(i, 32))


def test_the_cap_is_kept_and_what_was_used_last_stays(tmp_path: Path) -> None:
    cap = 1 << 20
    xorb = Xorb(count=8, size=4000)
    cache = ChunkCache(tmp_path / "chunks", cap)
    long_ago = time.time() - 1_000_000
    for i in range(100):
        xorb.put(cache, 0, 8, name_of(i))
        for path in (tmp_path / "chunks").glob(f"??/{str(name_of(i))[2:]}/*"):
            os.utime(path, (long_ago + i, long_ago + i))
        assert verified(cache, xorb, 1, 2, name_of(0))  # used all the time: it never goes
        assert on_disk(tmp_path / "chunks") <= cap
    kept = [i for i in range(100) if cache_holds(cache, name_of(i))]
    assert kept == [0, *range(100 - len(kept) + 1, 100)]
    assert on_disk(tmp_path / "chunks") > cap // 2
    folders = [path for path in (tmp_path / "chunks").glob("??/*") if path.is_dir()]
    assert len(folders) == len(kept)


def cache_holds(cache: ChunkCache, name: Hash) -> bool:
    found = cache.get(name, 0, 8)
    if found is not None:
        found.close()
    return found is not None


def test_a_hit_is_noted_once_a_minute(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 20)
    [entry] = files_in(tmp_path / "a" / "chunks")
    os.utime(entry, (1000, 1000))
    assert verified(cache, xorb, 0, 1)
    noted = entry.stat().st_mtime
    assert noted > 1000
    os.utime(entry, (noted - 5, noted - 5))
    assert verified(cache, xorb, 0, 1)
    assert entry.stat().st_mtime == pytest.approx(noted - 5)


def test_an_entry_that_is_evicted_can_be_read_to_its_end(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 20)
    found = cache.get(XORB, 0, 20)
    assert found is not None
    with found:
        for path in files_in(tmp_path / "a" / "chunks"):
            path.unlink()
        assert read(found) == xorb.body


def test_temporary_files_of_processes_that_were_killed_are_swept(tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(ChunkCache(tmp_path), 0, 20)
    old, new = tmp_path / "tmp" / "1-dead", tmp_path / "tmp" / "2-alive"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    xorb.put(ChunkCache(tmp_path), 0, 20, OTHER)
    assert not old.exists()
    assert new.exists()


def test_files_that_are_not_of_the_cache_are_left_alone(tmp_path: Path) -> None:
    mine = [tmp_path / "photo.jpg", tmp_path / "ab" / "letter.txt", tmp_path / "documents" / "0-5"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100_000))
    cache = ChunkCache(tmp_path, 300_000)
    for i in range(40):
        Xorb(count=8).put(cache, 0, 8, name_of(i))
    assert all(path.exists() for path in mine)


def test_a_cache_that_is_removed_meanwhile_starts_anew(tmp_path: Path) -> None:
    xorb = Xorb()
    cache = ChunkCache(tmp_path / "chunks")
    xorb.put(cache, 0, 20)
    (tmp_path / "chunks").rename(tmp_path / "gone")
    assert cache.get(XORB, 0, 20) is None
    xorb.put(cache, 0, 20)
    assert verified(cache, xorb, 0, 20)


def put_later(cache: ChunkCache, xorb: Xorb, name: Hash = XORB) -> None:
    cache.put_later(name, 0, [xorb.body[:7], xorb.body[7:]], xorb.chunks, xorb.ends)


def test_what_is_written_later_is_there_for_whoever_asks(cache: ChunkCache) -> None:
    others = set(threading.enumerate())
    xorbs = [Xorb(seed=seed) for seed in range(30)]
    for number, xorb in enumerate(xorbs):
        put_later(cache, xorb, name_of(number))
        assert verified(cache, xorb, 0, 20, name_of(number))
    cache.close()
    put_later(cache, xorbs[0], name_of(100))
    assert verified(cache, xorbs[0], 0, 20, name_of(100))
    cache.close()
    ours = set(threading.enumerate()) - others
    assert not [thread for thread in ours if thread.name.startswith("chunk-cache")]


def test_one_entry_at_most_is_held_to_be_written_later(
    cache: ChunkCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    write = os.writev

    def slow(fd: int, parts: list[memoryview]) -> int:
        if threading.current_thread() is not threading.main_thread():
            started.set()
            assert go_on.wait(30)
        return write(fd, parts)

    monkeypatch.setattr(os, "writev", slow)
    put_later(cache, Xorb())
    assert started.wait(30)
    put_later(cache, Xorb(seed=2), OTHER)
    assert len(files_in(tmp_path / "a" / "chunks")) == 1
    go_on.set()
    assert verified(cache, Xorb(), 0, 20)
    assert verified(cache, Xorb(seed=2), 0, 20, OTHER)


def test_a_forked_child_keeps_and_finds_entries(cache: ChunkCache) -> None:
    put_later(cache, Xorb())
    child = os.fork()
    if child == 0:
        put_later(cache, Xorb(seed=2), OTHER)
        good = verified(cache, Xorb(seed=2), 0, 20, OTHER)
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert verified(cache, Xorb(seed=2), 0, 20, OTHER)


# --- What goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["read-only", "a file"])
def test_a_folder_that_cannot_be_written_to_ends_writing_once(tmp_path: Path, events: list[Event], where: str) -> None:
    xorb = Xorb()
    folder = tmp_path / "chunks"
    if where == "a file":
        folder.write_bytes(b"")
    else:
        folder = Path("/proc/self/chunks")  # not even root can make anything there
    cache = ChunkCache(folder, emit=events.append)
    for _ in range(3):
        xorb.put(cache, 0, 20)
        assert cache.get(XORB, 0, 20) is None
    [event] = events
    assert isinstance(event, CacheDisabled)
    assert str(folder) in event.reason


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["writev", "replace", "open"])
def test_an_error_while_writing_ends_writing_and_reading_goes_on(
    tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    xorb = Xorb()
    cache = ChunkCache(tmp_path, emit=events.append)
    xorb.put(cache, 0, 5)
    given = getattr(os, call)

    def fails(first: object, *rest: object) -> object:
        if call == "open" and not str(first).startswith(f"{tmp_path}/tmp/"):
            return given(first, *rest)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        xorb.put(cache, 5, 20)
        xorb.put(cache, 6, 20)
    assert [os.strerror(code) in str(event) for event in events] == [True]
    assert not list((tmp_path / "tmp").iterdir())
    xorb.put(cache, 5, 20)
    assert cache.get(XORB, 5, 20) is None
    assert verified(cache, xorb, 0, 5)


_ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from tests.transfer.test_cache import Xorb, name_of, verified
from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
folder, events = Path(sys.argv[1]) / "chunks", []
cache = ChunkCache(folder, 1 << 30, emit=events.append)
xorb = Xorb(count=8, size=4000)
for i in range(60):
    xorb.put(cache, 0, 8, name_of(i))
kept = [i for i in range(60) if verified(cache, xorb, 0, 8, name_of(i))]
print(kept == list(range(len(kept))), 0 < len(kept) < 60, len(list((folder / "tmp").iterdir())))
print(*events)
"""


def test_on_a_full_disk_what_was_kept_stays_and_nothing_more_is_written(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("a small disk takes the command unshare, of util-linux")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@"'
    command = ["unshare", *as_root, "--mount", "--propagation", "private", "sh", "-c", mount, str(tmp_path)]
    command += [sys.executable, "-c", _ON_A_SMALL_DISK, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("a small disk takes permission to mount: run the tests as root")
    told, event = ended.stdout.splitlines()
    assert told == "True True 0"
    assert event.startswith("CacheDisabled")
    assert event.count("No space left") == 1


def test_a_write_in_many_pieces_arrives_whole(cache: ChunkCache, monkeypatch: pytest.MonkeyPatch) -> None:
    xorb = Xorb(count=40)
    given = os.writev
    with monkeypatch.context() as patched:  # a kernel may take less than it is offered
        patched.setattr(os, "writev", lambda fd, views: given(fd, [views[0][:1001]]))
        cache.put(XORB, 0, [xorb.body[i : i + 13] for i in range(0, len(xorb.body), 13)], xorb.chunks, xorb.ends)
    assert verified(cache, xorb, 0, 40)


@pytest.mark.parametrize("made", ["folder", "fifo", "symlink", "empty", "another xorb", "other chunks"])
def test_what_is_no_entry_is_a_miss(cache: ChunkCache, tmp_path: Path, made: str) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 10)
    xorb.put(cache, 0, 10, OTHER)
    [entry] = (path for path in files_in(tmp_path / "a" / "chunks") if path.parent.name == str(XORB)[2:])
    good = entry.read_bytes()
    entry.unlink()
    match made:
        case "folder":
            entry.mkdir()
        case "fifo":
            os.mkfifo(entry)
        case "symlink":
            entry.symlink_to("/dev/zero")
        case "empty":
            entry.touch()
        case "another xorb":
            [other] = files_in(tmp_path / "a" / "chunks")
            entry.write_bytes(other.read_bytes())
        case _:
            entry = entry.with_name("10-20")
            entry.write_bytes(good)
    assert cache.get(XORB, 0, 10) is None
    assert cache.get(XORB, 10, 20) is None
    if made not in ("folder", "symlink"):
        assert not entry.exists()
    assert verified(cache, xorb, 0, 10, OTHER)


def test_an_entry_cut_short_while_it_is_read_ends_early(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 20)
    found = cache.get(XORB, 0, 20)
    assert found is not None
    with found:
        [entry] = files_in(tmp_path / "a" / "chunks")
        os.truncate(entry, 5000)
        assert len(read(found)) < found.byte_count
        found.discard()
    assert not entry.exists()


def test_discarding_spares_the_entry_that_came_after(cache: ChunkCache, tmp_path: Path) -> None:
    xorb = Xorb()
    xorb.put(cache, 0, 20)
    found = cache.get(XORB, 0, 20)
    assert found is not None
    [entry] = files_in(tmp_path / "a" / "chunks")
    entry.unlink()
    (tmp_path / "occupied").touch()  # so that the new entry has another inode
    xorb.put(cache, 0, 20)
    found.discard()
    found.discard()
    assert verified(cache, xorb, 0, 20)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_to_the_files_a_reader_gets_right_bytes_or_a_miss(data: st.DataObject) -> None:
    xorb = Xorb(count=6, size=200)
    with TemporaryDirectory() as folder:
        cache = ChunkCache(Path(folder))
        for start, end in ((0, 4), (3, 6)):
            xorb.put(cache, start, end)
        for path in files_in(Path(folder)):
            match data.draw(st.sampled_from(["keep", "change", "swap", "zeros"])):
                case "change":
                    path.write_bytes(data.draw(mutations(path.read_bytes())))
                case "swap":
                    path.write_bytes(data.draw(st.sampled_from(files_in(Path(folder)))).read_bytes())
                case "zeros":  # what a power cut leaves
                    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, 500))].ljust(path.stat().st_size))
        start = data.draw(st.integers(0, 5))
        end = data.draw(st.integers(start + 1, 6))
        if not verified(cache, xorb, start, end):
            # What was bad is gone: the range is fetched, put, and there again.
            xorb.put(cache, start, end)
            again = verified(cache, xorb, start, end)
            xorb.put(cache, start, end)
            assert again or verified(cache, xorb, start, end)


# --- Others at the same time ----------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
from tests.transfer.test_cache import Xorb, name_of
from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
cache = ChunkCache(Path(sys.argv[1]), int(sys.argv[2]), emit=lambda event: print(event, flush=True))
xorb = Xorb(count=8, size=4000)
print("ready", flush=True)
for i in range(int(sys.argv[3]), int(sys.argv[4])):
    xorb.put(cache, 0, 8, name_of(i % 60))
    found = cache.get(name_of(i % 31), 2, 5)
    if found is not None:
        found.close()
print("done", flush=True)
"""


def writer(folder: Path, cap: int, first: int, end: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(folder), str(cap), str(first), str(end)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_and_threads_that_share_it_keep_the_cap_and_their_wits(tmp_path: Path) -> None:
    cap = 1 << 20
    xorb = Xorb(count=8, size=4000)
    cache = ChunkCache(tmp_path, cap)
    problems: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for i in range(first, first + 100):
                xorb.put(cache, 0, 8, name_of(i % 60))
                verified(cache, xorb, 1, 7, name_of((i * 7) % 60))
        except BaseException as error:
            problems.append(error)

    with writer(tmp_path, cap, 0, 150) as one, writer(tmp_path, cap, 1000, 1150) as two:
        threads = [threading.Thread(target=work, args=(i * 13,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.communicate(timeout=60)[0].split() for process in (one, two)] == [["ready", "done"]] * 2
    assert not problems
    # Each of three may have written a sixteenth that the others did not see.
    assert cap // 2 < on_disk(tmp_path) <= cap * 19 // 16
    assert all(entry.stat().st_size > 32_000 for entry in files_in(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())


def test_processes_killed_while_they_write_leave_nothing_wrong(tmp_path: Path) -> None:
    xorb = Xorb(count=8, size=4000)
    with ExitStack() as ended:
        processes = [ended.enter_context(writer(tmp_path, 1 << 20, 20 * i, 10**9)) for i in range(3)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        while len(files_in(tmp_path)) < 10:
            assert [process.poll() for process in processes] == [None] * 3
        for process in processes:
            process.send_signal(signal.SIGKILL)
    cache = ChunkCache(tmp_path, 1 << 20)
    assert sum(verified(cache, xorb, 0, 8, name_of(i)) for i in range(60)) == len(files_in(tmp_path))
    xorb.put(cache, 0, 8, name_of(99))
    assert verified(cache, xorb, 0, 8, name_of(99))
