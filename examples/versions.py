"""Store three versions of a file, and restore each of them.

Shows: `xetstore.open`, `put_many`, `get`. The second version costs one changed line, the third what was inserted at its
start, although everything behind it has moved.
"""

import random
import tempfile
from pathlib import Path

import xetstore

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    values = random.Random(1)
    lines = [f"{i},{values.random()}\n" for i in range(200_000)]
    versions = [
        lines,
        [*lines[:100_000], "corrected\n", *lines[100_001:]],
        ["a new first line\n", *lines],
    ]
    hashes = []
    with xetstore.open(folder / "store") as store:
        for number, version in enumerate(versions, 1):
            path = folder / f"readings-{number}.csv"
            path.write_text("".join(version))
            [report] = store.put_many([path])
            hashes.append(report.info.hash)
            print(f"version {number}: {report.info.size:,} bytes, of which {report.new_bytes:,} are new")

        for number, file in enumerate(hashes, 1):
            copy = folder / "copy.csv"
            done = store.get(file, copy)
            assert copy.read_text() == "".join(versions[number - 1])
            print(f"version {number}: {done.size:,} bytes restored, verified: {done.verified}")

        totals = store.totals()
        print(f"{totals.logical_bytes:,} bytes of files take {totals.stored_bytes:,} bytes in the store")
