"""Bytes at a position, holes and room: the same whatever calls the system has."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xetstore.platform.descriptors import (
    BINARY,
    next_data,
    next_hole,
    read_at,
    read_into,
    read_next,
    take_room,
    taken_bytes,
    write_at,
    write_parts,
)

MISSING = {
    "linux": (),
    "macOS 10": ("preadv", "pwritev", "posix_fallocate"),
    "windows": ("pread", "preadv", "pwrite", "pwritev", "readv", "writev", "posix_fallocate", "SEEK_DATA", "SEEK_HOLE"),
}


@pytest.fixture(params=MISSING)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system, as far as it lacks calls: those are taken away."""
    for name in MISSING[request.param]:
        monkeypatch.delattr(os, name)
    return str(request.param)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | BINARY, 0o600)
    yield fd
    os.close(fd)


@pytest.mark.usefixtures("system")
def test_bytes_at_a_position_are_read_as_they_were_written(descriptor: int) -> None:
    assert write_at(descriptor, b"later", 5) == 5
    assert write_at(descriptor, memoryview(b"first"), 0) == 5
    buffer = bytearray(8)
    assert read_into(descriptor, memoryview(buffer), 3) == 7
    assert buffer == b"stlater\0"
    assert read_at(descriptor, 5, 2) == b"rstla"
    assert read_at(descriptor, 5, 10) == b""
    assert read_into(descriptor, memoryview(buffer), 10) == 0


@pytest.mark.usefixtures("system")
def test_parts_are_appended_and_read_in_order(descriptor: int) -> None:
    parts = [b"", *(bytes([number % 251]) * (number % 7) for number in range(2000))]
    write_parts(descriptor, parts)
    os.lseek(descriptor, 0, os.SEEK_SET)
    piece, data = bytearray(1000), bytearray()
    while count := read_next(descriptor, memoryview(piece)):
        data += piece[:count]
    assert data == b"".join(parts)


@pytest.mark.usefixtures("system")
def test_threads_do_not_move_each_others_position(descriptor: int) -> None:
    block, count = 4096, 64
    failures: list[object] = []

    def work(first: int) -> None:
        for number in range(first, count, 4):
            if write_at(descriptor, bytes([number]) * block, number * block) != block:
                failures.append(number)
        for number in range(first, count, 4):
            if read_at(descriptor, block, number * block) != bytes([number]) * block:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.fstat(descriptor).st_size == block * count


def test_data_and_holes_cover_a_file(system: str, descriptor: int) -> None:
    end = 4 << 20
    write_at(descriptor, b"x" * 4096, 2 << 20)
    os.truncate(descriptor, end)
    start = next_data(descriptor, 0)
    assert start == (0 if system == "windows" else 2 << 20)
    hole = next_hole(descriptor, 2 << 20)
    assert hole == (end if system == "windows" else (2 << 20) + 4096)
    assert next_data(descriptor, end) is None


def test_a_file_system_that_tells_no_holes_has_data_everywhere(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(fd: int, position: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    os.truncate(descriptor, 100)
    monkeypatch.setattr(os, "lseek", refuses)
    assert next_data(descriptor, 10) == 10
    assert next_hole(descriptor, 10) == 100
    assert next_data(descriptor, 100) is None


@pytest.mark.usefixtures("system")
def test_room_is_taken_and_counted(descriptor: int) -> None:
    write_at(descriptor, b"kept", 0)
    take_room(descriptor, (1 << 20) + 5)
    assert os.fstat(descriptor).st_size == (1 << 20) + 5
    os.fsync(descriptor)
    assert taken_bytes(os.fstat(descriptor)) >= 1 << 20
    assert read_at(descriptor, 6, 0) == b"kept\0\0"
