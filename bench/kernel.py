"""Speed of the kernel: every loop on its own, next to the bare libraries where Python has them.

Run ``python -m bench.kernel [MIB]``. Figures are GB/s of raw bytes, the best of several runs; libraries that are not
installed are left out.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import corpora
from xetstore import _kernel as kernel
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

SUITE = XET_GEARHASH_BLAKE3.kernel
POLICIES = {"none": kernel.NONE, "lz4": kernel.LZ4, "bg4-lz4": kernel.BG4_LZ4, "auto": kernel.AUTO}
SECONDS_EACH = 0.5


def report(name: str, size: int, work: Callable[[], object], note: str = "") -> None:
    """Print the best of several runs of ``work`` over ``size`` bytes."""
    best, until = float("inf"), time.perf_counter() + SECONDS_EACH
    while time.perf_counter() < until:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    print(f"  {name:<28} {size / best / 1e9:7.2f} GB/s  {note}".rstrip())


def optional(module: str) -> Any:
    """A library to compare with, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def compress_each(compress: Callable[[bytes], bytes], pieces: list[bytes]) -> int:
    """The compressed size of all pieces."""
    return sum(len(compress(piece)) for piece in pieces)


def measure_libraries(data: bytes) -> None:
    """The libraries as they are, on one thread."""
    size = len(data)
    if blake3 := optional("blake3"):
        report("blake3 wheel", size, lambda: blake3.blake3(data).digest())
    report("hashlib sha256", size, lambda: hashlib.sha256(data).digest())
    pieces = [data[start : start + 65_536] for start in range(0, size, 65_536)]
    for module in ("lz4.block", "lz4.frame"):
        if lz4 := optional(module):
            report(f"{module} wheel, 64 KiB each", size, partial(compress_each, lz4.compress, pieces))


def measure_chunking(data: bytes) -> bytes:
    """Boundaries and hashes; returns the lengths of the chunks."""
    size = len(data)
    hashes, lengths = kernel.find_chunks(SUITE, data, final=True)
    for threads in (1, 2):
        suffix = f", {threads} threads" if threads > 1 else ""
        report(f"find_cuts{suffix}", size, partial(kernel.find_cuts, SUITE, data, final=True, threads=threads))
        report(f"hash_chunks{suffix}", size, partial(kernel.hash_chunks, SUITE, data, lengths, threads=threads))
        report(f"find_chunks{suffix}", size, partial(kernel.find_chunks, SUITE, data, final=True, threads=threads))
    count = len(lengths) // 8
    report("merkle_root", size, partial(kernel.merkle_root, SUITE, hashes, lengths), f"{count} chunks")
    return lengths


def measure_policy(data: bytes, lengths: bytes, policy: str, threads: int) -> None:
    """Encoding under one policy, and decoding what that gives."""
    size = len(data)
    out, raw = bytearray(size + len(lengths)), bytearray(size)
    encode = partial(kernel.encode_chunks, SUITE, [data], lengths, out, policy=POLICIES[policy], threads=threads)
    stored = memoryview(encode()).cast("Q")[-1]
    body = bytes(memoryview(out)[:stored])
    suffix = f"{policy}, {threads} threads" if threads > 1 else policy
    report(f"encode {suffix}", size, encode, f"{stored / size:.1%} of the size")
    report(f"decode {suffix}", size, partial(kernel.decode_chunks, SUITE, body, raw, final=True, threads=threads))
    if raw != data:
        raise AssertionError(f"{policy} does not give back what was encoded")


def main() -> None:
    """Measure everything on corpora of the size given, 64 MiB each if none is."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else 64) << 20
    for name in corpora.NAMES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            corpora.make(name, path, size)
            data = path.read_bytes()
        print(f"{name}, {size >> 20} MiB")
        measure_libraries(data)
        lengths = measure_chunking(data)
        for policy in POLICIES:
            measure_policy(data, lengths, policy, 1)
        measure_policy(data, lengths, "auto", 2)
        report("byte_group", size, partial(kernel.byte_group, data))
        report("byte_ungroup", size, partial(kernel.byte_ungroup, data))
        report("crc64_nvme", size, partial(kernel.crc64_nvme, data))


if __name__ == "__main__":
    main()
