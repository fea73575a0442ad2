"""Keep every checkpoint of a training run, and pay for what changed between them.

Shows: `put` after each step, `totals`, and `get` with `base=`, which takes the chunks that an older local file holds.
A step changes one layer of sixteen here; the others are stored once.
"""

import random
import tempfile
from pathlib import Path

import xetstore

LAYERS = 16
LAYER_BYTES = 1 << 20
STEPS = 5

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    noise = random.Random(2)
    layers = [noise.randbytes(LAYER_BYTES) for _ in range(LAYERS)]
    checkpoints = []
    with xetstore.open(folder / "store") as store:
        for step in range(STEPS):
            layers[3 * step % LAYERS] = noise.randbytes(LAYER_BYTES)
            path = folder / f"step-{step}.bin"
            path.write_bytes(b"".join(layers))
            checkpoints.append((store.put(path), path))
            totals = store.totals()
            print(
                f"after step {step}: {totals.logical_bytes >> 20} MiB of files, {totals.stored_bytes >> 20} MiB stored"
            )

        newest, path = checkpoints[-1]
        report = store.get(newest.hash, folder / "resumed.bin", base=checkpoints[-2][1])
        assert (folder / "resumed.bin").read_bytes() == path.read_bytes()
        print(f"the newest one: {report.fetched_bytes >> 20} MiB fetched, {report.reused_bytes >> 20} MiB reused")
