"""Bytes that are pushed in: the hashes of the same bytes in a file, whatever the parts, in two blocks of memory."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.strategies import GENERATORS, splitmix64
from xetstore.errors import UsageError
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import file_hash, xorb_hash
from xetstore.transfer.pushed_scan import PushedScan

BLOCK = 300_000
"""Bytes of a block here: so a file of some has few bytes."""


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 12_345])
@pytest.mark.parametrize("part_bytes", [777, BLOCK, 1 << 30])
@pytest.mark.parametrize("is_known", [False, True])
def test_bytes_in_parts_have_the_hash_of_the_whole(kind: str, size: int, part_bytes: int, is_known: bool) -> None:
    data = GENERATORS[kind](size)
    whole = chunk_bytes(data)
    taken, chunks = bytearray(), []
    with PushedScan(size if is_known else None, block_bytes=BLOCK) as scan:
        for at in range(0, size, part_bytes):
            part = bytearray(data[at : at + part_bytes])
            for block in scan.write(part):
                taken += block.data
                chunks.append(block.chunks)
            part[:] = bytes(len(part))  # its memory is the caller's again
        for block in scan.finish():
            taken += block.data
            chunks.append(block.chunks)
        info = scan.info()
    assert taken == data
    assert ChunkList.concat(chunks) == whole
    assert info.hash == file_hash(xorb_hash(whole.hashes, whole.lengths))
    assert (info.size, info.sha256) == (size, hashlib.sha256(data).hexdigest())


def test_a_small_file_is_one_block_that_can_be_kept() -> None:
    with PushedScan(5000) as scan:
        blocks = [*scan.write(splitmix64(3, 5000)), *scan.finish()]
    assert [block.readers for block in blocks] == [None]
    assert bytes(blocks[0].data) == splitmix64(3, 5000)


def test_two_blocks_are_all_the_memory() -> None:
    with PushedScan(block_bytes=BLOCK) as scan:
        memory = {id(block.data.obj) for _ in range(50) for block in scan.write(splitmix64(3, BLOCK // 2))}
    assert len(memory) == 2


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_another_size_than_was_announced_is_refused(size: int) -> None:
    with PushedScan(size, block_bytes=BLOCK) as scan, pytest.raises(UsageError, match="more than"):
        list(scan.write(bytes(size + 1)))
    with PushedScan(size, block_bytes=BLOCK) as scan, pytest.raises(UsageError, match="announced"):
        list(scan.write(bytes(size - 1)))
        list(scan.finish())
