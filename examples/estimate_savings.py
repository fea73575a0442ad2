"""Estimate what storing files would save, and store nothing.

Shows: `Store.estimate`. Each byte is new, repeated in its file, shared with a file before it, or in the store already;
what new bytes take when they are compressed is estimated from a sample of them.
"""

import random
import tempfile
from pathlib import Path

import xetstore

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    noise = random.Random(5)
    monday, tuesday = folder / "monday.log", folder / "tuesday.log"
    monday.write_text("".join(f"{noise.random()} ok\n" for _ in range(150_000)))
    tuesday.write_text(monday.read_text() + "".join(f"{noise.random()} ok\n" for _ in range(50_000)))

    with xetstore.open(folder / "store") as store:
        before = store.estimate([monday, tuesday])
        store.put(monday)
        after = store.estimate([monday, tuesday])
        assert store.totals().files == 1, "an estimate stores nothing"

    for title, estimate in (("into an empty store", before), ("once monday is stored", after)):
        print(title)
        for file in estimate.files:
            print(
                f"  {file.path.name}: {file.info.size:,} bytes: {file.new_bytes:,} new (compressed about "
                f"{file.compressed_bytes:,}), {file.shared_bytes:,} shared, {file.stored_bytes:,} stored"
            )
