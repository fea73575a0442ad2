"""What the kernel's stub promises beside results: who may pass what, and what happens to those who do not."""

from __future__ import annotations

import multiprocessing
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.strategies import splitmix64, text, unpacked
from xetstore import _kernel
from xetstore.errors import FormatError
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

SUITE = XET_GEARHASH_BLAKE3.kernel
DATA = splitmix64(3, 1 << 20)
HASHES, LENGTHS = _kernel.find_chunks(SUITE, DATA, final=True)


def suite_with(**changes: Any) -> _kernel.Suite:
    suite = XET_GEARHASH_BLAKE3
    values: dict[str, Any] = {
        "gear_table": struct.pack("<256Q", *suite.gear_table),
        "min_chunk_bytes": suite.min_chunk_bytes,
        "max_chunk_bytes": suite.max_chunk_bytes,
        "cut_mask": suite.cut_mask,
        "data_key": suite.data_key,
        "node_key": suite.node_key,
        "mean_branching": suite.mean_branching,
        "max_xorb_body_bytes": suite.max_xorb_body_bytes,
        "max_xorb_chunks": suite.max_xorb_chunks,
    }
    return _kernel.Suite(**(values | changes))


def encoded(policy: int = _kernel.NONE) -> bytes:
    out = bytearray(len(DATA) + len(LENGTHS))
    ends = _kernel.encode_chunks(SUITE, [DATA], LENGTHS, out, policy=policy)
    return bytes(out[: unpacked(ends)[-1]])


# --- Arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"gear_table": bytes(2047)},
        {"gear_table": bytes(2056)},
        {"data_key": bytes(31)},
        {"node_key": bytes(33)},
        {"min_chunk_bytes": 63},  # shorter than the window of the gear hash
        {"min_chunk_bytes": 131_073},  # above the maximum
        {"max_chunk_bytes": (4 << 20) + 1},  # more than an LZ4 frame can declare as one block
        {"cut_mask": 0},
        {"mean_branching": 0},
        {"max_xorb_body_bytes": 0},
        {"max_xorb_chunks": 0},
    ],
)
def test_a_suite_that_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        suite_with(**changes)


THREADED: dict[str, Callable[[int], object]] = {
    "find_chunks": lambda threads: _kernel.find_chunks(SUITE, DATA, final=True, threads=threads),
    "find_cuts": lambda threads: _kernel.find_cuts(SUITE, DATA, final=True, threads=threads),
    "hash_chunks": lambda threads: _kernel.hash_chunks(SUITE, DATA, LENGTHS, threads=threads),
    "encode_chunks": lambda threads: _kernel.encode_chunks(
        SUITE, [DATA], LENGTHS, bytearray(2 << 20), policy=_kernel.AUTO, threads=threads
    ),
    "verify_chunks": lambda threads: _kernel.verify_chunks(SUITE, encoded(), final=True, threads=threads),
    "decode_chunks": lambda threads: _kernel.decode_chunks(
        SUITE, encoded(), bytearray(1 << 20), final=True, threads=threads
    ),
}


@pytest.mark.parametrize("name", THREADED)
@pytest.mark.parametrize("threads", [0, -1, 1025, 2**64])
def test_a_number_of_threads_that_no_machine_has_is_refused(name: str, threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        THREADED[name](threads)


@pytest.mark.parametrize("name", THREADED)
def test_more_threads_than_work_do_no_harm(name: str) -> None:
    assert THREADED[name](1024) == THREADED[name](1)


def test_an_output_must_be_writable() -> None:
    with pytest.raises(ValueError, match="writable"):
        _kernel.encode_chunks(SUITE, [DATA], LENGTHS, bytes(2 << 20), policy=_kernel.NONE)
    with pytest.raises(ValueError, match="writable"):
        _kernel.decode_chunks(SUITE, encoded(), bytes(1 << 20), final=True)


def test_an_output_must_not_overlap_an_input() -> None:
    both = bytearray(4 << 20)
    body = encoded()
    both[: len(body)] = body
    view = memoryview(both)
    with pytest.raises(ValueError, match="overlap"):
        _kernel.decode_chunks(SUITE, view[: len(body)], view[len(body) - 1 :], final=True)
    out = view[len(body) :]
    assert _kernel.decode_chunks(SUITE, view[: len(body)], out, final=True)[0] == HASHES
    with pytest.raises(ValueError, match="overlap"):
        _kernel.encode_chunks(SUITE, [out[: len(DATA)]], LENGTHS, view[10:], policy=_kernel.NONE)


def test_an_output_may_be_larger_and_only_its_start_is_written() -> None:
    body = encoded()
    out = bytearray(b"\xaa" * (len(DATA) + 100))
    _kernel.decode_chunks(SUITE, body, out, final=True)
    assert out == DATA + b"\xaa" * 100


def test_an_empty_buffer_is_a_buffer() -> None:
    assert _kernel.find_chunks(SUITE, b"", final=True) == (b"", b"")
    assert _kernel.hash_chunks(SUITE, memoryview(b""), b"") == b""
    assert _kernel.encode_chunks(SUITE, [], b"", bytearray(), policy=_kernel.AUTO) == b""
    assert _kernel.encode_chunks(SUITE, [b"", b""], b"", bytearray(), policy=_kernel.AUTO) == b""
    assert _kernel.walk_chunks(SUITE, b"") == (b"", b"", b"")
    assert _kernel.decode_chunks(SUITE, b"", bytearray(), final=True) == (b"", b"", 0)
    assert _kernel.byte_group(b"") == _kernel.byte_ungroup(b"") == b""
    assert _kernel.merkle_root(SUITE, b"", b"") == bytes(32)
    assert _kernel.keyed_hashes(bytes(32), b"") == b""


@pytest.mark.parametrize(
    "call",
    [
        lambda: _kernel.hash_chunks(SUITE, b"abc", bytes(7)),
        lambda: _kernel.hash_chunks(SUITE, b"abc", struct.pack("=2Q", 3, 0)),
        lambda: _kernel.hash_chunks(SUITE, b"abc", struct.pack("=2Q", 2**64 - 1, 4)),
        lambda: _kernel.keyed_hash(bytes(31), b""),
        lambda: _kernel.keyed_hashes(bytes(32), bytes(33)),
        lambda: _kernel.merkle_root(SUITE, bytes(64), bytes(8)),
        lambda: _kernel.merkle_root(SUITE, bytes(64), struct.pack("=2Q", 2**64 - 1, 1)),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()


def test_a_refused_update_leaves_a_tree_as_it_was() -> None:
    tree = _kernel.MerkleTree(SUITE)
    tree.update(bytes(range(32)), struct.pack("=Q", 5))
    root = tree.root()
    for sizes in (struct.pack("=Q", 2**64 - 1), b"", bytes(16)):
        with pytest.raises(ValueError):
            tree.update(bytes(32), sizes)
    assert (tree.root(), tree.total_bytes) == (root, 5)


# --- What a call leaves behind ---------------------------------------------------------------------------


def fork_and_scan(answers: Any) -> None:
    answers.put(_kernel.find_chunks(SUITE, DATA, final=True, threads=2))


def test_threads_of_a_call_do_not_outlive_it_so_that_a_fork_can_use_them_anew() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    _kernel.find_chunks(SUITE, DATA, final=True, threads=2)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=fork_and_scan, args=(answers,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == (HASHES, LENGTHS)


def test_a_buffer_can_be_resized_again_after_a_call_that_failed() -> None:
    body, out = bytearray(encoded()), bytearray(1 << 20)
    body[0] = 9
    with pytest.raises(FormatError):
        _kernel.decode_chunks(SUITE, body, out, final=True)
    body.append(0)
    out.append(0)


# --- AUTO ------------------------------------------------------------------------------------------------


def test_auto_finds_a_repeat_far_back_in_noise() -> None:
    noise = splitmix64(5, 30_000)
    chunk = noise + splitmix64(6, 30_000) + noise
    lengths = struct.pack("=2Q", 60_000, len(chunk))
    data = splitmix64(7, 60_000) + chunk  # the chunk before it is noise only
    out = bytearray(len(data) + 16)
    ends = unpacked(_kernel.encode_chunks(SUITE, [data], lengths, out, policy=_kernel.AUTO))
    assert ends[0] == 60_008
    assert ends[1] - ends[0] < 61_000


def test_auto_notices_where_floats_follow_text() -> None:
    floats = b"".join(struct.pack("<f", 1 + splitmix / 1e6) for splitmix in range(15_000))
    data = text(60_000) + floats
    lengths = struct.pack("=2Q", 60_000, 60_000)
    sizes = {}
    for policy in (_kernel.AUTO, _kernel.LZ4, _kernel.BG4_LZ4):
        out = bytearray(len(data) + 16)
        first, last = unpacked(_kernel.encode_chunks(SUITE, [data], lengths, out, policy=policy))
        sizes[policy] = (first, last - first)
    best = tuple(min(sizes[_kernel.LZ4][i], sizes[_kernel.BG4_LZ4][i]) for i in range(2))
    assert sizes[_kernel.AUTO] == best


def test_chunk_hashes_are_plain_keyed_blake3_at_every_length() -> None:
    """hash_chunks fills all SIMD lanes by itself; keyed_hash is the blake3 crate as it comes."""
    data = bytes((i * 2_654_435_761 >> 24) & 0xFF for i in range(131_072))
    for length in [*range(1, 4200, 3), *range(4480, 131_072, 1021), *(1024 * n for n in range(1, 129)), 131_071]:
        piece = data[:length]
        hashed = _kernel.hash_chunks(SUITE, piece, struct.pack("=Q", length))
        assert hashed == _kernel.keyed_hash(XET_GEARHASH_BLAKE3.data_key, piece)
