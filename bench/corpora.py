"""The benchmark's inputs, made from fixed seeds: random bytes, bf16 weights, CSV, and a mostly empty sparse file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_STEP = 64 << 20


def make(name: str, path: Path, nbytes: int, *, seed: int = 1) -> None:
    """Write corpus ``name`` of exactly ``nbytes``."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as out:
        while (left := nbytes - out.tell()) > 0:
            out.write(_PARTS[name](rng, out.tell())[:left])


def sparse(path: Path, nbytes: int) -> None:
    """A sparse file: 8 MiB of data at every tenth of it, holes elsewhere."""
    rng = np.random.default_rng(2)
    with path.open("wb") as out:
        for i in range(10):
            out.seek(nbytes // 10 * i)
            out.write(rng.bytes(8 << 20))
        out.truncate(nbytes)


def _random(rng: np.random.Generator, _: int) -> bytes:
    return rng.bytes(_STEP)


def _bf16(rng: np.random.Generator, _: int) -> bytes:
    weights = rng.standard_normal(_STEP // 2, dtype=np.float32) * np.float32(0.02)
    return (weights.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def _csv(rng: np.random.Generator, at: int) -> bytes:
    rows = rng.integers(0, 100_000, size=(100_000, 4)).tolist()
    lines = (
        f"{at + k},2026-11-{k % 28 + 1:02d},{a},{b},user{c % 1000},{d / 100:.2f}\n"
        for k, (a, b, c, d) in enumerate(rows)
    )
    return "".join(lines).encode()


_PARTS = {"random": _random, "bf16": _bf16, "csv": _csv}
NAMES = tuple(_PARTS)
