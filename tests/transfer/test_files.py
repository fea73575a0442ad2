"""Destinations: whole or not at all, and what was there stays until then."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.strategies import splitmix64
from xetstore.errors import NotFoundError, UsageError
from xetstore.transfer.files import NewFile, StoredFile


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


@pytest.fixture
def content() -> bytes:
    return splitmix64(1, 10 << 20)


@pytest.fixture
def opened(content: bytes) -> Iterator[tuple[io.BufferedReader[StoredFile], list[tuple[int, int]]]]:
    asked: list[tuple[int, int]] = []

    def stream(start: int, end: int) -> Iterator[memoryview]:
        asked.append((start, end))
        yield memoryview(content)[start:end]

    with io.BufferedReader(StoredFile(len(content), stream)) as reader:
        yield reader, asked


def test_a_stored_file_reads_and_seeks_as_a_file(
    content: bytes, opened: tuple[io.BufferedReader[StoredFile], list[tuple[int, int]]]
) -> None:
    reader, asked = opened
    twin = io.BytesIO(content)
    for offset, whence, size in [
        (0, 0, 10),
        (1000, 1, 5000),
        (-7, 2, 100),
        (5 << 20, 0, 3 << 20),
        (20 << 20, 0, 5),
        (3, 0, -1),
        (0, 2, 1),
    ]:
        assert reader.seek(offset, whence) == twin.seek(offset, whence)
        assert reader.read(size) == twin.read(size)
        assert reader.tell() == twin.tell()
    assert all(start < end <= len(content) for start, end in asked)


def test_small_reads_ahead_ask_once(
    opened: tuple[io.BufferedReader[StoredFile], list[tuple[int, int]]], content: bytes
) -> None:
    reader, asked = opened
    for i in range(0, 1 << 20, 1000):
        assert reader.read(1000) == content[i : i + 1000]
    assert len(asked) == 1


def test_a_stored_file_refuses_what_files_refuse(
    opened: tuple[io.BufferedReader[StoredFile], list[tuple[int, int]]],
) -> None:
    reader, _ = opened
    with pytest.raises(OSError, match="negative"):
        reader.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        reader.raw.seek(0, 9)
    assert not reader.writable()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()
