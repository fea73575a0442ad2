"""Chunks: the kernel's cuts against the draft's loop, and a stream against the whole."""

from __future__ import annotations

import threading
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import (
    GENERATORS,
    TINY_SUITE,
    chunk_lists,
    constant,
    gear_window,
    payloads,
    splitmix64,
    splits,
    unpacked,
)
from xetstore import _kernel
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

SUITE = XET_GEARHASH_BLAKE3
LIMITS = [0, 1, 63, 64, 65, 8191, 8192, 8193, 65536, 131071, 131072, 131073, 262144, 262145]


def kernel_cuts(data: bytes, threads: int = 1) -> list[int]:
    return unpacked(_kernel.find_cuts(SUITE.kernel, data, final=True, threads=threads))


def twin_cuts(data: bytes) -> list[int]:
    return [len(chunk) for chunk in reference.chunk_file(data)]


# --- The kernel against the draft ------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=120)
@given(payloads(max_size=3000))
def test_cuts_and_hashes_are_those_of_the_draft(data: bytes) -> None:
    chunks = reference.chunk_file(data, TINY_SUITE)
    found = chunk_bytes(data, suite=TINY_SUITE)
    assert list(found.sizes) == [len(chunk) for chunk in chunks]
    assert found.hashes == b"".join(reference.chunk_hash(chunk, TINY_SUITE) for chunk in chunks)


@pytest.mark.parametrize("kind", GENERATORS)
def test_skipping_the_start_of_a_chunk_never_alters_a_cut(kind: str) -> None:
    # The twin updates its hash at every byte; the kernel skips what lies more than a window before the minimum.
    data = GENERATORS[kind](600_000)
    assert kernel_cuts(data) == twin_cuts(data)


@pytest.mark.parametrize("size", LIMITS)
@pytest.mark.parametrize("kind", ["random", "constant", "text"])
def test_sizes_around_every_limit_are_cut_as_the_draft_says(kind: str, size: int) -> None:
    data = GENERATORS[kind](size)
    assert kernel_cuts(data) == twin_cuts(data)


def test_no_chunk_but_the_last_is_shorter_than_the_minimum_and_none_longer_than_the_maximum() -> None:
    cuts = kernel_cuts(splitmix64(4, 8 << 20), threads=2)
    assert sum(cuts) == 8 << 20
    assert min(cuts[:-1]) >= SUITE.min_chunk_bytes
    assert max(cuts) <= SUITE.max_chunk_bytes


@pytest.mark.parametrize(
    ("window_end", "expected"),
    [
        (8191, 131072),  # before the minimum nothing cuts
        (8192, 8192),  # the first length that may be cut
        (8193, 8193),
        (131071, 131071),  # the last one that is cut by content
        (131072, 131072),  # here the maximum cuts anyway
        (131073, 131072),
    ],
)
def test_a_cut_by_content_counts_from_the_minimum_to_the_maximum(window_end: int, expected: int) -> None:
    data = bytearray(constant(200_000))
    data[window_end - 64 : window_end] = gear_window()
    assert kernel_cuts(bytes(data))[0] == expected
    assert kernel_cuts(bytes(data)) == twin_cuts(bytes(data))


def test_the_hash_starts_anew_behind_each_cut() -> None:
    # The second window begins before the end of the first chunk: a hash that went on would cut at its end.
    data = bytearray(constant(300_000))
    data[8192 - 64 : 8192] = gear_window()
    data[16384 - 64 : 16384] = gear_window()
    assert kernel_cuts(bytes(data))[:2] == [8192, 8192]
    assert kernel_cuts(bytes(data)) == twin_cuts(bytes(data))


@pytest.mark.parametrize("kind", GENERATORS)
def test_any_number_of_threads_gives_the_same_chunks(kind: str) -> None:
    data = GENERATORS[kind]((5 << 20) + 12_345)
    alone = chunk_bytes(data)
    for threads in (2, 3, 8):
        assert chunk_bytes(data, threads=threads) == alone
        assert kernel_cuts(data, threads) == list(alone.sizes)


@pytest.mark.parametrize("kind", ["random", "few values"])
def test_threads_do_not_show_where_there_are_thousands_of_cuts(kind: str) -> None:
    # About one candidate in 64 bytes: wherever the work is divided, chunks and candidates lie across.
    data = GENERATORS[kind]((3 << 20) + 1)
    alone = chunk_bytes(data, suite=TINY_SUITE)
    assert len(alone) > 10_000
    for threads in (2, 3, 5, 16):
        assert chunk_bytes(data, suite=TINY_SUITE, threads=threads) == alone


@settings(max_examples=100)
@given(payloads(max_size=8000), st.integers(1, 9))
def test_threads_do_not_show_in_small_inputs_either(data: bytes, threads: int) -> None:
    assert chunk_bytes(data, suite=TINY_SUITE, threads=threads) == chunk_bytes(data, suite=TINY_SUITE)


@given(payloads(max_size=5000), st.data())
def test_an_open_chunk_is_left_out_until_it_is_closed(data: bytes, more: st.DataObject) -> None:
    whole = list(chunk_bytes(data, suite=TINY_SUITE).sizes)
    size = more.draw(st.integers(0, len(data)))
    found = unpacked(_kernel.find_cuts(TINY_SUITE.kernel, data[:size], final=False))
    ends = list(accumulate(whole[:-1]))
    assert found == whole[: sum(end <= size for end in ends)] or (size == len(data) and found == whole)


def test_the_kernel_takes_any_contiguous_buffer_without_threads_of_python_in_its_way() -> None:
    data = splitmix64(9, 3 << 20)
    expected = chunk_bytes(data)
    results: list[ChunkList] = []
    workers = [
        threading.Thread(target=lambda view=view: results.append(chunk_bytes(view)))
        for view in (bytearray(data), memoryview(data), memoryview(data).cast("Q"))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 3


def test_the_kernel_refuses_what_is_not_contiguous_bytes() -> None:
    with pytest.raises((ValueError, BufferError)):
        chunk_bytes(memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError):
        chunk_bytes("text")  # type: ignore[arg-type]
    for threads in (0, -1):
        with pytest.raises((ValueError, OverflowError)):
            chunk_bytes(b"x", threads=threads)


# --- The list --------------------------------------------------------------------------------------------


@given(chunk_lists(), st.data())
def test_slices_of_a_list_make_the_list(chunks: ChunkList, more: st.DataObject) -> None:
    parts = [chunks.slice(start, end) for start, end in more.draw(splits(len(chunks)))]
    assert ChunkList.concat(parts) == chunks
    assert [entry for part in parts for entry in part] == list(chunks)
    assert sum(part.total_bytes for part in parts) == chunks.total_bytes == sum(chunks.sizes)
    assert [name.digest for name, _ in chunks] == [chunks.digest(i) for i in range(len(chunks))]


def test_a_list_wants_a_length_for_each_hash() -> None:
    for hashes, lengths in ((bytes(32), b""), (bytes(31), bytes(8)), (b"", bytes(8)), (bytes(32), bytes(9))):
        with pytest.raises(ValueError):
            ChunkList(hashes, lengths)


def test_chunks_that_are_not_there_are_not_given() -> None:
    chunks = chunk_bytes(b"one chunk")
    for start, end in ((0, 2), (1, 0), (-1, 1), (2, 2)):
        with pytest.raises(ValueError):
            chunks.slice(start, end)
    for index in (-1, 1):
        with pytest.raises(IndexError):
            chunks.digest(index)
    assert len(ChunkList.EMPTY) == ChunkList.EMPTY.total_bytes == 0
