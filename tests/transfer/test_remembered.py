"""Files that were put are not read again while they are as they were, and the store has them; else they are."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.around import AroundCas
from tests.support.collecting import collected
from tests.support.live import live_server
from tests.support.opened import opened
from xetstore.cas import EmbeddedCas
from xetstore.events import CacheDisabled, Event
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.testing import read_back
from xetstore.transfer.scan import hash_file
from xetstore.transfer.upload.context import Unchanged, UploadOptions
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.remembered import RACY_SECONDS, RememberedFiles, Sighting
from xetstore.transfer.upload.session import put_files

SKIP = UploadOptions(unchanged=Unchanged.SKIP)
RENEW = UploadOptions(unchanged=Unchanged.RENEW)
DRY = UploadOptions(unchanged=Unchanged.SKIP, dry_run=True)


class Put:
    """Puts of one machine, some seconds after its files were made."""

    def __init__(self, folder: Path) -> None:
        self.memory = folder / "cache" / "remembered" / "files.sqlite3"
        self.events: list[Event] = []
        self.later_seconds = RACY_SECONDS + 1

    def __call__(self, cas: Any, *paths: Path, options: UploadOptions = SKIP, **more: Any) -> list[PutReport]:
        remembered = RememberedFiles(
            self.memory, clock=lambda: time.time_ns() + self.later_seconds * 10**9, emit=self.events.append
        )
        return list(put_files(cas, paths, options, remembered=remembered, emit=self.events.append, **more))

    def skipped(self, cas: Any, *paths: Path, options: UploadOptions = SKIP) -> list[Path]:
        """The files that a put does not read. Its reports are right, and what it stores can be read."""
        with opened() as names:
            reports = self(cas, *paths, options=options)
        assert [report.path for report in reports] == list(paths)
        unchanged = [report.path for report in reports if report.unchanged]
        assert [path for path in paths if str(path) not in names] == unchanged
        for report in reports:
            assert report.info == hash_file(report.path, sha256=True)
            assert read_back(cas, report.info.hash) == report.path.read_bytes()
        return unchanged


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        yield cas


@pytest.fixture
def put(tmp_path: Path) -> Put:
    return Put(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Some small files, of which two are equal, an empty one and a longer one."""
    folder = tmp_path / "files"
    folder.mkdir()
    sizes = [3000, 100_000, 0, 2_000_000, 3000, 5]
    for number, size in enumerate(sizes):
        (folder / str(number)).write_bytes(random.Random(size).randbytes(size))
    return [folder / str(number) for number in range(len(sizes))]


def rewrite(path: Path, data: bytes | None = None) -> None:
    """Write other bytes of the same length, at the same time of change."""
    info = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()) if data is None else data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_an_unchanged_file_is_put_without_reading_it(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    first = put(cas, *files)
    assert not any(report.unchanged for report in first)
    assert put.skipped(cas, *files) == files
    again = put(cas, *files)
    assert [report.info for report in again] == [report.info for report in first]
    assert all((report.new_bytes, report.deduped_bytes) == (0, report.info.size) for report in again)


def test_reports_are_in_order_whichever_are_read(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files[::2])
    assert put.skipped(cas, *files) == files[::2]


@pytest.mark.parametrize("options", [RENEW, UploadOptions(dry_run=True)])
def test_without_the_option_all_is_read(cas: EmbeddedCas, put: Put, files: list[Path], options: UploadOptions) -> None:
    put(cas, *files)
    assert put.skipped(cas, *files, options=options) == []
    assert put.skipped(cas, *files) == files


def test_a_dry_run_skips_and_writes_nothing(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files, options=DRY)
    assert not put.memory.exists()
    put(cas, *files[:2])
    before = put.memory.read_bytes()
    assert [report.unchanged for report in put(cas, *files, options=DRY)] == [True, True, *[False] * 4]
    assert put.memory.read_bytes() == before
    assert put.skipped(cas, *files) == files[:2]


# Files that are not as they were


def set_back(path: Path, _: Path) -> None:
    rewrite(path)


def replace(path: Path, other: Path) -> None:
    """By another file of the same length, and time of change."""
    info = path.stat()
    other.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.replace(path)


def reuse(path: Path, _: Path) -> None:
    """Its inode, as most file systems do at once."""
    info, data = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(byte ^ 1 for byte in data))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def grow(path: Path, _: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def exchange(path: Path, other: Path) -> None:
    """The file that a path leads to."""
    replace(path, other)
    path.rename(other)
    path.symlink_to(other)


def touch(path: Path, _: Path) -> None:
    os.utime(path)


def rename_above(path: Path, _: Path) -> None:
    """The same names lead to other files: two folders changed places."""
    folder, aside = path.parent, path.parent.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    for each in aside.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    rewrite(path)


@pytest.mark.parametrize("change", [set_back, replace, reuse, grow, exchange, touch, rename_above])
def test_what_changed_in_whatever_way_is_read(
    cas: EmbeddedCas, put: Put, files: list[Path], change: Callable[[Path, Path], None]
) -> None:
    put(cas, *files)
    change(files[1], files[1].with_name("other"))
    assert files[1] not in put.skipped(cas, *files)
    put.later_seconds *= 2
    assert files[1] in put.skipped(cas, *files)


def test_what_was_changed_just_now_is_not_remembered(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    """It may change once more in the same tick of the file system's clock, and look the same."""
    put.later_seconds = 0
    put(cas, *files)
    assert put.skipped(cas, *files) == []
    put.later_seconds = RACY_SECONDS + 1
    put(cas, *files)
    assert put.skipped(cas, *files) == files


def test_what_seems_to_change_in_the_future_is_not_remembered(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    """The clock of its file system may be ahead."""
    os.utime(files[0], (time.time() + 10**6, time.time() + 10**6))
    for _ in range(2):
        put(cas, *files)
    assert put.skipped(cas, *files) == files[1:]


def test_what_changes_while_it_is_read_is_not_remembered(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    """Its status counts too: a time of change that was set back may hide a change."""

    class Changing:
        def total(self, nbytes: int) -> None:
            files[3].chmod(0o640)

        def advance(self, **_: int) -> None: ...

    put(cas, files[3], progress=Changing())
    assert put.skipped(cas, files[3]) == []
    assert put.skipped(cas, files[3]) == [files[3]]


def test_a_link_is_the_file_it_leads_to(cas: EmbeddedCas, put: Put, files: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(files[0])
    put(cas, link)
    assert put.skipped(cas, link, files[0]) == [link]
    link.unlink()
    link.symlink_to(files[4])  # of the same bytes and length
    assert put.skipped(cas, link) == []


def test_a_sparse_file_is_skipped(cas: EmbeddedCas, put: Put, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(5_000_000)
    put(cas, sparse)
    assert put.skipped(cas, sparse) == [sparse]


def test_what_is_no_file_is_told_as_ever(cas: EmbeddedCas, put: Put, files: list[Path], tmp_path: Path) -> None:
    odd = [tmp_path / "absent", tmp_path / "files", tmp_path / "pipe", tmp_path / "socket", Path("a\0b")]
    os.mkfifo(odd[2])
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(odd[3]))
        for _ in range(2):
            failed: list[Path] = []
            reports = put(cas, files[0], *odd, files[1], on_error=lambda path, _, failed=failed: failed.append(path))
            assert [report.path for report in reports] == files[:2]
            assert failed == odd


# Stores


def test_another_store_has_it_not(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files)
    with EmbeddedCas.in_memory() as other:
        assert put.skipped(other, *files) == []
        assert put.skipped(other, *files) == files
    assert put.skipped(cas, *files) == files
    assert put.skipped(cas.in_namespace("another"), *files) == []


def test_what_is_deleted_is_put_again(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    first = put(cas, *files)
    cas.delete([first[1].info.hash])
    assert put.skipped(cas, *files) == [path for path in files if path != files[1]]
    assert put.skipped(cas, *files) == files


def test_what_is_collected_is_stored_again(put: Put, files: list[Path], tmp_path: Path) -> None:
    now = time.time()
    with EmbeddedCas.open(tmp_path / "another", clock=lambda: now) as cas:
        first = put(cas, *files)
        cas.delete([report.info.hash for report in first])
        for _ in range(3):
            now += 60 * 24 * 3600
            collected(cas)
        assert not any((tmp_path / "another" / "xorbs").rglob("*-*"))
        assert put.skipped(cas, *files) == []
        assert put.skipped(cas, *files) == files


def test_what_is_damaged_is_healed(put: Put, files: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "another"
    with EmbeddedCas.open(root) as cas:
        put(cas, *files[:2])
        put(cas, *files[2:])
        [*objects] = (root / "xorbs").rglob("*-*")
        objects[0].unlink()
        skipped = put.skipped(cas, *files)
        assert 0 < len(skipped) < len(files)
        assert put.skipped(cas, *files) == files


class Asked(AroundCas):
    """A store that notes how many files it is asked for by their hashes."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas)
        self.counts: list[int] = []

    def put_again(self, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        self.counts.append(len(files))
        return super().put_again(files, dry_run=dry_run)


def test_a_store_is_asked_for_thousands_at_once(cas: EmbeddedCas, put: Put, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = [tmp_path / "files" / str(number) for number in range(MANY_PUT_AGAIN + 10)]
    for path in files:
        path.write_bytes(path.name.encode())
    put(cas, *files)
    asked = Asked(cas)
    assert all(report.unchanged for report in put(asked, *files))
    assert asked.counts == [MANY_PUT_AGAIN, 10]


def test_a_server_has_what_was_put_there(put: Put, files: list[Path]) -> None:
    with EmbeddedCas.in_memory() as store, live_server(store, auth="none") as server:
        for _ in range(2):
            with closing(HttpCas(server.url)) as cas:
                first = put.skipped(cas, *files)
        assert first == files
        store.delete([hash_file(files[3]).hash])
        with closing(HttpCas(server.url)) as cas:
            assert put.skipped(cas, *files) == [path for path in files if path != files[3]]


# The memory


def test_a_memory_that_makes_no_sense_is_started_anew(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files)
    put.memory.write_bytes(b"no database " * 1000)
    assert put.skipped(cas, *files) == []
    assert put.skipped(cas, *files) == files
    assert put.memory.with_name("files.sqlite3.damaged").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_memory_never_tells_what_is_not_so(cas: EmbeddedCas, put: Put, files: list[Path], seed: int) -> None:
    put(cas, *files)
    chance = random.Random(seed)
    data = bytearray(put.memory.read_bytes())
    for _ in range(1 + seed * 8):
        data[chance.randrange(4096 if seed % 2 else 0, len(data))] ^= 1 << chance.randrange(8)
    put.memory.write_bytes(data)
    put.skipped(cas, *files)
    put.skipped(cas, *files)


def test_rows_that_changed_places_are_not_believed(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files)
    with closing(sqlite3.connect(put.memory)) as connection, connection:
        rows = connection.execute("SELECT id, hash, sha256, proof, day FROM file").fetchall()
        ids = [row[0] for row in rows]
        connection.executemany(
            "REPLACE INTO file VALUES (?, ?, ?, ?, ?)",
            [(there, *row[1:]) for there, row in zip(ids[1:], rows[:-1], strict=True)],
        )
        connection.execute("UPDATE file SET sha256 = randomblob(32) WHERE id = ?", ids[:1])
    assert put.skipped(cas, *files) == []


def test_a_memory_of_a_newer_format_is_left_as_it_is(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put.memory.parent.mkdir(parents=True, mode=0o700)
    with closing(sqlite3.connect(put.memory)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for _ in range(2):
        assert put.skipped(cas, *files) == []
    assert sum(isinstance(event, CacheDisabled) for event in put.events) == 2
    with closing(sqlite3.connect(put.memory)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_memory_that_others_can_write_to_is_not_believed(
    cas: EmbeddedCas, put: Put, files: list[Path], mode: int
) -> None:
    put(cas, *files)
    assert put.memory.parent.stat().st_mode & 0o777 == 0o700
    put.memory.parent.chmod(mode)
    assert put.skipped(cas, *files) == []
    assert any(isinstance(event, CacheDisabled) for event in put.events)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_memory_of_someone_else_is_not_believed(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files)
    os.chown(put.memory.parent, 12345, 12345)
    assert put.skipped(cas, *files) == []


def test_a_link_in_the_place_of_its_folder_is_not_followed(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put(cas, *files)
    folder = put.memory.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    assert put.skipped(cas, *files) == []


def test_where_there_is_no_place_for_it_all_is_read(cas: EmbeddedCas, put: Put, files: list[Path]) -> None:
    put.memory.parent.parent.mkdir()
    put.memory.parent.write_bytes(b"a file in the place of the folder")
    assert put.skipped(cas, *files) == []
    assert [type(event) for event in put.events].count(CacheDisabled) == 1


def test_it_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    info, status, now = hash_file(path, sha256=True), path.stat(), time.time_ns() + 10**11
    most = 400_000
    with RememberedFiles(tmp_path / "memory" / "files", max_bytes=most) as remembered:
        for start in range(0, 20_000, 500):
            seen = [Sighting.of(tmp_path / str(number), status, now, "") for number in range(start, start + 500)]
            remembered.remember((one, info) for one in seen)
            assert remembered.find(seen) == [info] * 500
        assert (tmp_path / "memory" / "files").stat().st_size < most * 1.2


def test_what_was_put_lately_is_kept_where_others_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    info, status, day = hash_file(path, sha256=True), path.stat(), 24 * 3600 * 10**9
    now = time.time_ns() + day
    with RememberedFiles(tmp_path / "memory" / "files", max_bytes=400_000, clock=lambda: now) as remembered:
        used, unused = (
            [Sighting.of(tmp_path / f"{kind} {number}", status, now, "") for number in range(500)]
            for kind in ("used", "unused")
        )
        remembered.remember((one, info) for one in (*used, *unused))
        for number in range(10):
            now += 10 * day
            assert remembered.find(used) == [info] * 500
            others = [Sighting.of(tmp_path / f"{number} {each}", status, now, "") for each in range(500)]
            remembered.remember((one, info) for one in others)
        assert remembered.find(unused) == [None] * 500


PROGRAM = """
import sys, xetstore
with xetstore.open(sys.argv[1]) as store:
    for report in store.iter_put(sys.argv[3:], unchanged=sys.argv[2]):
        print(report.unchanged, report.info.hash, flush=True)
"""


def process(store: Path, cache: Path, files: list[Path]) -> subprocess.Popen[str]:
    environment = {**os.environ, "XET_CACHE": str(cache)}
    command = [sys.executable, "-c", PROGRAM, str(store), "skip", *map(str, files)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_processes_share_it_and_may_be_killed(tmp_path: Path) -> None:
    """Two at once, over and over, one of which is killed at some moment; then all is as it should be."""
    folder = tmp_path / "files"
    folder.mkdir()
    files = [folder / str(number) for number in range(300)]
    for path in files:
        path.write_bytes(path.name.encode() * 100)
    chance = random.Random(1)
    time.sleep(RACY_SECONDS)  # the processes go by the clock
    for _ in range(4):
        with process(tmp_path / "store", tmp_path / "cache", files) as one:
            with process(tmp_path / "store", tmp_path / "cache", files) as other:
                time.sleep(chance.random())
                other.send_signal(signal.SIGKILL)
            out, _ = one.communicate(timeout=120)
        assert one.returncode == 0
        assert [line.split()[1] for line in out.splitlines()] == [str(hash_file(path).hash) for path in files]
    assert [line.split()[0] for line in out.splitlines()] == ["True"] * 300
