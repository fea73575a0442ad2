"""Destinations that are links, pipes and devices; folders that cannot be flushed; file systems without locks."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.strategies import splitmix64
from xetstore.cancellation import Cancellation
from xetstore.errors import AccessDeniedError, InterruptedCallError, UnavailableError, UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.store import Store, open_store
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.download.partial_file import PartialFile
from xetstore.transfer.download.through import open_through

DATA = splitmix64(5, 3_000_000)
NOBODY = 65534


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(tmp_path_factory.mktemp("store") / "store") as made:
        yield made


@pytest.fixture(scope="module")
def file(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Hash:
    source = tmp_path_factory.mktemp("source") / "source"
    source.write_bytes(DATA)
    return store.put(source).hash


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Links


def test_a_link_is_followed_and_stays(store: Store, file: Hash, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "chain").symlink_to(tmp_path / "link")
    store.get(file, tmp_path / "chain")
    assert (tmp_path / "there" / "file").read_bytes() == DATA
    assert (tmp_path / "link").readlink() == Path("there/file")
    assert _names(tmp_path) == ["chain", "link", "there"]
    assert _names(tmp_path / "there") == ["file"]


def test_a_link_to_what_is_not_there_yet_makes_it(store: Store, file: Hash, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")
    store.get(file, tmp_path / "link", end=10)
    assert (tmp_path / "new").read_bytes() == DATA[:10]
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "lost").symlink_to("missing/new")
    with pytest.raises(XetError, match=r"the directory of .*lost does not exist"):
        store.get(file, tmp_path / "lost")


def test_a_link_that_leads_to_no_file_is_refused_and_stays(store: Store, file: Hash, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("link", "folder", "socket"):
            with pytest.raises(UsageError, match=r"is not a file to write to|is a directory"):
                store.get(file, tmp_path / name)
        with pytest.raises(XetError, match="symbolic links"):
            store.get(file, tmp_path / "circle")
    assert _names(tmp_path) == ["circle", "folder", "link", "socket"]


def test_many_files_follow_links_too(store: Store, file: Hash, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "null").symlink_to("/dev/null")
    errors: dict[str, XetError] = {}
    wanted = [(file, tmp_path / "link"), (file, tmp_path / "null"), (file, tmp_path / "other")]
    list(store.get_many(wanted, on_error=lambda path, error: errors.update({path.name: error})))
    assert (tmp_path / "file").read_bytes() == (tmp_path / "other").read_bytes() == DATA
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "null").readlink() == Path("/dev/null")
    assert {name: str(error) for name, error in errors.items()} == {
        "null": f"{tmp_path / 'null'} is not a file to write to"
    }


# Pipes and devices


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_pipe_is_written_to(store: Store, file: Hash, tmp_path: Path, is_linked: bool) -> None:
    pipe = out = tmp_path / "pipe"
    os.mkfifo(pipe)
    if is_linked:
        out = tmp_path / "link"
        out.symlink_to("pipe")
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reading.start()
    report = store.get(file, out)
    reading.join(60)
    assert got == [DATA]
    assert (report.size, report.verified) == (len(DATA), True)
    assert pipe.is_fifo()
    assert out.is_symlink() == is_linked


def test_a_device_is_written_to(store: Store, file: Hash, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    assert store.get(file, "/dev/null").size == len(DATA)
    assert store.get(file, tmp_path / "link").size == len(DATA)
    assert Path("/dev/null").is_char_device()
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(XetError, match=r"/dev/full cannot be written: No space left"):
        store.get(file, "/dev/full")


def test_an_open_file_of_this_process_is_written_to_where_it_is(store: Store, file: Hash, tmp_path: Path) -> None:
    """As by ``>>``: what is there stays, and the file is not replaced."""
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before ")
        log.flush()
        inode = os.fstat(log.fileno()).st_ino
        (tmp_path / "link").symlink_to(f"/dev/fd/{log.fileno()}")
        store.get(file, f"/dev/fd/{log.fileno()}", end=3)
        store.get(file, tmp_path / "link", start=3, end=6)
        assert (tmp_path / "log").read_bytes() == b"before " + DATA[:6]
        assert (tmp_path / "log").stat().st_ino == inode


def test_a_pipe_that_nothing_reads_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnavailableError, match="nothing reads from the pipe"):
        open_through(tmp_path / "pipe", Cancellation(), reader_seconds=0.2)

    call = Cancellation()
    threading.Timer(0.1, call.cancel).start()
    with pytest.raises(InterruptedCallError):
        open_through(tmp_path / "pipe", call)


def test_a_reader_that_leaves_is_told(store: Store, file: Hash, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            store.get(file, f"/dev/fd/{writer}")
    finally:
        os.close(writer)


# Folders that cannot be flushed, locks that are not there


@pytest.fixture
def write_only() -> Iterator[Path]:
    """A folder in which files can be made and replaced, and which cannot be opened: for no one but root."""
    folder = Path(tempfile.mkdtemp())
    as_root = os.geteuid() == 0
    if as_root:
        os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o333)
    if as_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o700)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


EMPTY = FileRange(Hash(bytes(32)))


@pytest.mark.parametrize("make", [NewFile, lambda out, **options: PartialFile(out, EMPTY, **options)])
def test_a_folder_that_cannot_be_flushed_is_told_as_it_is(write_only: Path, make: Callable[..., NewFile]) -> None:
    out = write_only / "out"
    out.write_bytes(b"old")
    with pytest.raises(AccessDeniedError, match="is there, whole and on the disk, but its directory") as caught:  # noqa: SIM117
        with make(out, fsync=True) as new:
            new.write_at(0, memoryview(b"data"))
            new.commit(4)
    assert "not touched" not in (caught.value.hint or "")
    assert "power cut" in (caught.value.hint or "")
    assert out.read_bytes() == b"data"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_nothing_is_left(tmp_path: Path, code: int) -> None:
    def refuses(_fd: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    out, file = tmp_path / "out", Hash(bytes(32))
    with PartialFile(out, FileRange(file), flock=refuses) as new:
        assert new.journal is None
        assert [name for name in _names(tmp_path) if name.endswith(".journal")] == []
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    assert _names(tmp_path) == ["out"]
    with suppress(KeyError), PartialFile(out, FileRange(file), flock=refuses) as new:
        new.write_at(0, memoryview(b"other"))
        raise KeyError
    assert _names(tmp_path) == ["out"]
    assert out.read_bytes() == b"data"
