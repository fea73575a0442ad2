"""hash_file() against the reference client's hash_files(), where chunking can go wrong: at every limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.hf import HfClient
from tests.support.strategies import GENERATORS, constant, gear_window, splitmix64
from xetstore import hash_file
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.records import FileInfo
from xetstore.transfer.scan import BLOCK_BYTES

Generator = Callable[[int], bytes]

MIN, MAX = XET_GEARHASH_BLAKE3.min_chunk_bytes, XET_GEARHASH_BLAKE3.max_chunk_bytes
MIB = 1 << 20
HF_BLOCK_BYTES = 8_000_000
"""How much the reference client reads at a time."""


def around(*sizes: int) -> list[int]:
    return sorted({size + delta for size in sizes for delta in (-1, 0, 1) if size + delta >= 0})


SIZES = around(0, 64, MIN, 2 * MIN, 3 * MIN, MAX, MAX + MIN, 2 * MAX, MIB)
BLOCK_SIZES = around(BLOCK_BYTES, 2 * BLOCK_BYTES, HF_BLOCK_BYTES)
XORB_SIZES = around(64 * MIB)


def cut_every(length: int, filler: Generator) -> Generator:
    """Windows that ask for a cut, each ending ``length`` bytes behind the one before."""

    def generate(size: int) -> bytes:
        window = gear_window()
        count = -(-size // length)
        rest = filler(count * (length - len(window)))
        step = length - len(window)
        return b"".join(rest[i * step : (i + 1) * step] + window for i in range(count))[:size]

    return generate


def windows(shift: int) -> Generator:
    """Nothing but such windows: every 64th byte could end a chunk, so only the minimum decides."""
    return lambda size: (constant(shift) + gear_window() * (size // 64 + 1))[:size]


def alternating(*parts: bytes) -> Generator:
    period = b"".join(parts)
    return lambda size: (period * (size // len(period) + 1))[:size]


EXACT_CUTS: dict[str, tuple[int, Generator]] = {
    "cuts at the minimum": (MIN, cut_every(MIN, constant)),
    "cuts at the minimum, other data": (MIN, cut_every(MIN, GENERATORS["random"])),
    "cuts just behind the minimum": (MIN + 1, cut_every(MIN + 1, constant)),
    "cuts just before the maximum": (MAX - 1, cut_every(MAX - 1, constant)),
    "cuts at the maximum": (MAX, cut_every(MAX, constant)),
    "windows only": (MIN, windows(0)),
}

KINDS: dict[str, Generator] = {
    **GENERATORS,
    **{name: generate for name, (_, generate) in EXACT_CUTS.items()},
    "cuts just too early": cut_every(MIN - 1, constant),
    "cuts just too late": cut_every(MAX + 1, constant),
    "windows only, shifted": windows(37),
    "zeros": bytes,
    "ones": lambda size: constant(size, 255),
    "alternating bytes": alternating(b"\x00\xff"),
    "alternating words": alternating(b"\x00" * 8, b"\xff" * 8),
    "alternating noise and zeros": alternating(splitmix64(9, 5000), bytes(200_000)),
    "noise that repeats": alternating(splitmix64(10, 100_000)),
}


def ours(paths: list[Path]) -> list[FileInfo]:
    return [hash_file(path, threads=1 + i % 3) for i, path in enumerate(paths)]


def assert_agreement(hf: HfClient, scratch: Path, sizes: list[int], generate: Generator) -> None:
    data = generate(max(sizes))
    paths = [scratch / str(size) for size in sizes]
    for size, path in zip(sizes, paths, strict=True):
        path.write_bytes(data[:size])
    assert [path.stat().st_size for path in paths] == sizes
    assert ours(paths) == hf.hash_files(paths)


@pytest.mark.parametrize("name", EXACT_CUTS)
def test_the_adversarial_inputs_cut_where_they_are_meant_to(name: str) -> None:
    length, generate = EXACT_CUTS[name]
    assert set(chunk_bytes(generate(8 * MAX)).sizes[:-1]) == {length}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_is_the_clients_at_every_size_around_a_limit(hf: HfClient, scratch: Path, kind: str) -> None:
    assert_agreement(hf, scratch, SIZES, KINDS[kind])


@pytest.mark.parametrize(
    "kind",
    ["random", "float32", "zeros", "cuts at the minimum", "cuts just before the maximum", "windows only, shifted"],
)
def test_the_hash_is_the_clients_around_the_blocks_that_are_read(hf: HfClient, scratch: Path, kind: str) -> None:
    assert_agreement(hf, scratch, BLOCK_SIZES, KINDS[kind])


@pytest.mark.parametrize("kind", ["random", "constant", "text", "cuts at the minimum"])
def test_the_hash_is_the_clients_around_the_size_of_a_xorb(hf: HfClient, scratch: Path, kind: str) -> None:
    path = scratch / "file"
    path.write_bytes(KINDS[kind](max(XORB_SIZES)))
    for size in reversed(XORB_SIZES):
        os.truncate(path, size)
        assert ours([path]) == hf.hash_files([path])


def test_windows_across_the_ends_of_blocks_are_found(hf: HfClient, scratch: Path) -> None:
    """A window of 64 bytes that lies at every position relative to the end of a block, or of a core's share."""
    paths = []
    for i, end in enumerate(range(BLOCK_BYTES - 8, BLOCK_BYTES + 80, 8)):
        data = bytearray(constant(2 * BLOCK_BYTES))
        for at in (end, end // 2, end + BLOCK_BYTES // 2):
            data[at - 64 : at] = gear_window()
        paths.append(scratch / str(i))
        paths[-1].write_bytes(data)
    assert ours(paths) == hf.hash_files(paths)
