"""Destinations: whole or not at all, and what was there stays until then."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from xetstore.errors import IntegrityError, InterruptedCallError, NotFoundError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.download.partial_file import PartialFile


def test_a_new_file_appears_on_commit_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with NewFile(out) as new:
        new.write_at(2, memoryview(b"cd"))
        assert not out.exists()
        new.write_at(0, memoryview(b"ab"))
        new.commit(4)
    assert out.read_bytes() == b"abcd"
    assert list(tmp_path.iterdir()) == [out]


def test_without_commit_the_old_file_stays_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")
    with pytest.raises(RuntimeError), NewFile(out) as new:
        new.write_at(0, memoryview(b"new"))
        raise RuntimeError
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_zeros_become_holes_and_read_as_zeros(tmp_path: Path) -> None:
    out = tmp_path / "out"
    size = 64 << 20
    with NewFile(out) as new:
        new.write_at(0, memoryview(bytes(size - 1)))
        new.write_at(size - 1, memoryview(b"x"))
        new.commit(size)
    assert out.stat().st_size == size
    assert out.stat().st_blocks * 512 < 1 << 20
    with out.open("rb") as data:
        assert data.read(100) == bytes(100)


def test_data_with_zeros_at_its_ends_is_written(tmp_path: Path) -> None:
    data = bytes(3 << 20) + b"x" + bytes(3 << 20)
    with NewFile(tmp_path / "out") as new:
        new.write_at(0, memoryview(data))
        new.commit(len(data))
    assert (tmp_path / "out").read_bytes() == data


def test_only_files_are_replaced(tmp_path: Path) -> None:
    for bad in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="not a file to write to"), NewFile(bad):
            pass
    assert Path("/dev/null").is_char_device()
    with pytest.raises(NotFoundError, match="directory"), NewFile(tmp_path / "missing" / "out"):
        pass


def test_zeros_are_written_where_something_else_was(tmp_path: Path) -> None:
    with NewFile(tmp_path / "out") as new:
        new.write_at(0, memoryview(b"x" * 100_000))
        new.write_at(0, memoryview(bytes(100_000)))
        new.write_at(200_000, memoryview(b"x" * 100_000))
        new.write_at(150_000, memoryview(bytes(100_000)))
        new.commit(300_000)
    assert (tmp_path / "out").read_bytes() == bytes(250_000) + b"x" * 50_000


def test_zeros_beside_data_are_holes_too(tmp_path: Path) -> None:
    """Wherever data begins or ends: within a block that it shares with zeros."""
    with NewFile(tmp_path / "out") as new:
        for at in range(0, 64 << 20, 8 << 20):
            new.write_at(at + 77, memoryview(b"x" * 1000))
            new.write_at(at + 1077, memoryview(bytes((8 << 20) - 1000)))
        new.write_at(0, memoryview(bytes(77)))
        new.commit((64 << 20) + 77)
    assert (tmp_path / "out").read_bytes() == (bytes(77) + b"x" * 1000 + bytes((8 << 20) - 1077)) * 8 + bytes(77)
    assert (tmp_path / "out").stat().st_blocks * 512 < 1 << 20


def test_files_of_killed_processes_are_written_anew_and_do_not_pile_up(tmp_path: Path) -> None:
    program = f"""if 1:
        import os, signal
        from pathlib import Path
        from xetstore.transfer.download.new_file import NewFile
        with NewFile(Path({str(tmp_path / "out")!r})) as new:
            new.write_at(0, memoryview(b"more than the next one writes"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".out.1.incomplete"]
    with NewFile(tmp_path / "out") as new:
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"data")]


def test_writers_of_one_destination_side_by_side_never_share_a_file(tmp_path: Path) -> None:
    """However they end: the last one to commit gives the content, and nothing else is left."""
    out = tmp_path / "out"
    with ExitStack() as stack:
        writers = [stack.enter_context(NewFile(out)) for _ in range(20)]
        for number, new in enumerate(writers):
            new.write_at(0, memoryview(bytes([number]) * 1000))
        for number, new in enumerate(writers):
            if number % 3 == 0:
                new.commit(1000)
                assert out.read_bytes() == bytes([number]) * 1000
            elif number % 3 == 1:
                with NewFile(out) as other:  # takes a name that was let go, if there is one
                    other.write_at(0, memoryview(b"other"))
                    new.commit(1000)
                    assert out.read_bytes() == bytes([number]) * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_is_not_ours_to_write_to_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"kept")
    (tmp_path / ".out.1.incomplete").symlink_to("victim")
    (tmp_path / ".out.2.incomplete").hardlink_to(tmp_path / "victim")
    (tmp_path / ".out.3.incomplete").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    with NewFile(tmp_path / "out") as new:
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    assert (tmp_path / "victim").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "out"])


def test_a_file_system_without_locks_gives_each_writer_a_name_of_its_own(tmp_path: Path) -> None:
    def refuses(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    with NewFile(tmp_path / "out", flock=refuses) as first, NewFile(tmp_path / "out", flock=refuses) as second:
        first.write_at(0, memoryview(b"first"))
        second.write_at(0, memoryview(b"second"))
        second.commit(6)
        first.commit(5)
    assert (tmp_path / "out").read_bytes() == b"first"


@pytest.mark.parametrize(
    "make", [NewFile, lambda out, **options: PartialFile(out, FileRange(Hash(bytes(32))), **options)]
)
def test_a_flushed_file_is_a_file_like_any_other(tmp_path: Path, make: Callable[..., NewFile]) -> None:
    with make(tmp_path / "out", fsync=True) as new:
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    assert (tmp_path / "out").read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("make", [NewFile, lambda out: PartialFile(out, FileRange(Hash(bytes(32)), 5, 100))])
@pytest.mark.parametrize("name", ["n" * 255, "\N{SNOWMAN}" * 85, "\udcff" * 200])
def test_any_name_that_a_file_can_have_will_do(tmp_path: Path, make: Callable[[Path], NewFile], name: str) -> None:
    with make(tmp_path / name) as new:
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"data"]


@pytest.mark.parametrize("make", [NewFile, lambda out: PartialFile(out, FileRange(Hash(bytes(32))))])
def test_who_writes_too_late_is_told_so_and_writes_nowhere(tmp_path: Path, make: Callable[[Path], NewFile]) -> None:
    """The number of the descriptor may be another file's by then."""
    with make(tmp_path / "out") as new:
        new.write_at(0, memoryview(b"data"))
        new.commit(4)
    with (tmp_path / "other").open("w+b") as other:
        with pytest.raises(InterruptedCallError):
            new.write_at(0, memoryview(b"late"))
        assert other.read() == b""
    assert (tmp_path / "out").read_bytes() == b"data"


def test_a_file_is_closed_when_its_writers_are_done(tmp_path: Path) -> None:
    refused: list[int] = []

    def write(number: int) -> None:
        try:
            for at in range(200):
                new.write_at((number * 200 + at) * 1000, memoryview(b"x" * 1000))
        except InterruptedCallError:
            refused.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    with pytest.raises(RuntimeError), NewFile(tmp_path / "out") as new:
        for thread in threads:
            thread.start()
        raise RuntimeError
    for thread in threads:
        thread.join()
    assert len(refused) <= 4
    assert list(tmp_path.iterdir()) == []


def test_damage_says_that_the_destination_was_not_touched(tmp_path: Path) -> None:
    for make in (NewFile, lambda out: PartialFile(out, FileRange(Hash(bytes(32))))):
        with pytest.raises(IntegrityError) as caught, make(tmp_path / "out"):
            raise IntegrityError("odd", hint="look")
        assert caught.value.hint == "look; the destination was not touched"
