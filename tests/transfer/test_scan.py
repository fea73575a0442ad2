"""Scanning a file: the same hashes whatever the block size, clear errors, changes noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.strategies import GENERATORS, splitmix64
from xetstore.errors import NotFoundError, SourceChangedError, UsageError
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, file_hash, xorb_hash
from xetstore.transfer import scan
from xetstore.transfer.scan import FileScan, hash_file, hash_report

BLOCK = scan.BLOCK_BYTES


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("size", [0, 1, 12, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 12_345])
def test_a_file_read_in_blocks_has_the_hash_of_its_bytes(tmp_path: Path, kind: str, size: int) -> None:
    data = GENERATORS[kind](size)
    path = tmp_path / "file"
    path.write_bytes(data)
    whole = chunk_bytes(data)
    report = hash_report(path, sha256=True, keep_chunks=True)
    assert report.chunks == whole
    assert report.chunk_count == len(whole)
    assert report.info.hash == file_hash(xorb_hash(whole.hashes, whole.lengths))
    assert report.info.size == size
    assert report.info.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("sha256", [False, True])
def test_blocks_are_the_file_in_order(tmp_path: Path, sha256: bool) -> None:
    data = splitmix64(3, 5 * BLOCK + 77)
    path = tmp_path / "file"
    path.write_bytes(data)
    with FileScan(path, sha256=sha256) as opened:
        blocks = [(bytes(block.data), block.chunks) for block in opened]
    assert b"".join(part for part, _ in blocks) == data
    assert ChunkList.concat(chunks for _, chunks in blocks) == chunk_bytes(data)


@pytest.mark.parametrize("size", [1, 5000, BLOCK])
def test_the_bytes_of_a_small_file_can_be_kept(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(splitmix64(3, size))
    with FileScan(path) as opened:
        blocks = list(opened)
    assert [block.readers for block in blocks] == [None]
    assert bytes(blocks[0].data) == splitmix64(3, size)


def test_the_empty_file_is_all_zeros(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty").hash == Hash.ZERO


def test_threads_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(splitmix64(4, 3 * BLOCK))
    assert len({hash_file(path, threads=n) for n in (1, 2, 5)}) == 1


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        hash_file(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a directory"):
        hash_file(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="not a regular file"):
        hash_file(tmp_path / "fifo")


@pytest.mark.parametrize("size", [100, 3 * BLOCK])
@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, size: int, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(splitmix64(5, size))
    with FileScan(path) as opened, pytest.raises(SourceChangedError, match="changed"):
        for i, _ in enumerate(opened):
            if i == 0:
                if change == "grow":
                    with path.open("ab") as out:
                        out.write(b"more")
                elif change == "shrink":
                    os.truncate(path, size // 2)
                else:
                    os.utime(path, ns=(1, 1))


def test_info_before_the_end_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with FileScan(path) as opened, pytest.raises(RuntimeError):
        opened.info()
