"""An older version as a source of chunks: everything in it is found, and what changes meanwhile is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import splitmix64
from xetstore.errors import NotFoundError, SourceChangedError, UsageError
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import chunk_hash
from xetstore.transfer.download.reuse.base_file import BaseFile, _Table

DATA = splitmix64(5, 9 << 20)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(DATA)
    return path


def start_of(version: BaseFile, digest: bytes) -> int | None:
    found = version.locate(digest)
    return None if found is None else found[0]


def test_every_chunk_of_the_old_version_is_found_and_read(old: Path) -> None:
    with BaseFile(old) as version:
        position = 0
        for digest, length in chunk_bytes(DATA):
            assert version.locate(digest.digest) == (position, length)
            view = memoryview(bytearray(length))
            version.read(position, view)
            assert chunk_hash(view) == digest
            position += length
        assert version.locate(bytes(32)) is None


def test_of_equal_chunks_the_first_is_found(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as out:
        out.write(DATA[:1000])
        out.truncate(20 << 20)
    chunks = chunk_bytes(path.read_bytes())
    with BaseFile(path) as version:
        assert start_of(version, chunks.digest(5)) == sum(chunks.sizes[:1])


def test_an_old_version_that_was_removed_can_still_be_read(old: Path) -> None:
    """So that a new version can be written in place of the old one."""
    with BaseFile(old) as version:
        old.unlink()
        first = chunk_bytes(DATA)
        assert start_of(version, first.digest(3)) == sum(first.sizes[:3])
        view = memoryview(bytearray(100))
        version.read(200, view)
        assert view == DATA[200:300]


def test_an_old_version_that_changes_gives_what_is_there_or_an_error(old: Path) -> None:
    with BaseFile(old) as version:
        assert version.locate(bytes(32)) is None
        os.truncate(old, 1000)
        view = memoryview(bytearray(100))
        version.read(900, view)
        with pytest.raises(SourceChangedError, match="old became shorter"):
            version.read(901, view)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        BaseFile(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a directory"):
        BaseFile(tmp_path)


def test_an_empty_old_version_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with BaseFile(tmp_path / "empty") as version:
        assert version.locate(bytes(32)) is None


def test_nothing_is_read_that_nobody_asks_for(old: Path) -> None:
    seen: list[int] = []

    class Watch:
        def total(self, nbytes: int) -> None:
            seen.append(nbytes)

        def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
            seen.append(-logical)

    with BaseFile(old, progress=Watch()) as version:
        assert seen == []
        for _ in range(3):
            version.locate(bytes(32))
        assert sum(seen) == 0
        assert max(seen) == len(DATA)
        version.close()
        assert version.locate(bytes(32)) is None
    with BaseFile(old) as version:
        pass
    with pytest.raises(ValueError, match="closed"):
        version.locate(bytes(32))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.integers(1, 131072)), max_size=60))
def test_the_table_finds_what_a_dict_finds(entries: list[tuple[bytes, int]]) -> None:
    digests = [(digest * 32)[:32] for digest, _ in entries]
    table = _Table()
    expected: dict[bytes, tuple[int, int]] = {}
    position = 0
    for digest, (_, length) in zip(digests, entries, strict=True):
        table.add(digest, memoryview(length.to_bytes(8, "little")).cast("Q"))
        expected.setdefault(digest, (position, length))
        position += length
    table.sort()
    assert {digest: table.find(digest) for digest in digests} == expected
    assert table.find(b"none of these two-byte patterns.") is None
