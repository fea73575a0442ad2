"""A stored file as a file object: it reads and seeks as files do, and fetches no more than it has to."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from tests.support.strategies import splitmix64
from xetstore.errors import UnavailableError
from xetstore.transfer.download.stored_file import READ_AHEAD_BYTES, StoredFile


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


def test_small_reads_in_a_row_ask_twice_once_for_a_look_and_once_for_all_that_follows(
    opened: tuple[io.BufferedReader[StoredFile], list[tuple[int, int]]], content: bytes
) -> None:
    reader, asked = opened
    for i in range(0, 1 << 20, 1000):
        assert reader.read(1000) == content[i : i + 1000]
    assert len(asked) == 2


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


def test_reading_on_takes_one_stream_of_all_that_follows(content: bytes) -> None:
    asked: list[tuple[int, int]] = []
    closed: list[int] = []

    def stream(start: int, end: int) -> Iterator[memoryview]:
        asked.append((start, end))
        try:
            for at in range(start, end, 4 << 20):
                yield memoryview(content)[at : min(at + (4 << 20), end)]
        finally:
            closed.append(start)

    with io.BufferedReader(StoredFile(len(content), stream), 1 << 16) as reader:
        assert reader.read() == content
        assert asked == [(0, READ_AHEAD_BYTES), (READ_AHEAD_BYTES, len(content))]
        reader.seek(5)
        assert reader.read(10) == content[5:15]
        reader.seek(4 << 20)
        assert len(reader.read(5 << 20)) == 5 << 20
        reader.seek(100)
        reader.read(1)
        assert len(closed) == len(asked)


def test_a_reader_recovers_from_an_error_on_the_way(content: bytes) -> None:
    broken = [False]

    def stream(start: int, end: int) -> Iterator[memoryview]:
        for at in range(start, end, 1 << 20):
            if broken[0] and at >= 5 << 20:
                raise UnavailableError("gone")
            yield memoryview(content)[at : min(at + (1 << 20), end)]

    with StoredFile(len(content), stream) as reader:
        got = bytearray(len(content))
        view, at = memoryview(got), 0
        broken[0] = True
        with pytest.raises(UnavailableError):
            while count := reader.readinto(view[at:]):
                at += count
        broken[0] = False
        while count := reader.readinto(view[at:]):
            at += count
    assert got == content
