"""Keep a folder by name: commit it, tag it, change it, compare, and restore it whole.

Shows: `Store.create_repo`, and `commit`, `create_tag`, `diff`, `compare` and `download` of a repository. The same works
over a server: give `xetstore.open` its URL.
"""

import random
import tempfile
from pathlib import Path

import xetstore

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    checkpoint = folder / "ckpt"
    (checkpoint / "logs").mkdir(parents=True)
    weights = random.Random(1).randbytes(4_000_000)
    (checkpoint / "model.safetensors").write_bytes(weights)
    (checkpoint / "train.sh").write_text("#!/bin/sh\n")
    (checkpoint / "train.sh").chmod(0o755)

    with xetstore.open(folder / "store") as store:
        repo = store.create_repo("alice/bert")
        report = repo.commit({"": checkpoint}, message="Step 1")  # all of the folder, by one commit
        print(f"committed: {len(report.files)} paths, {report.new_bytes:,} bytes new")
        repo.create_tag("step-1")

        (checkpoint / "model.safetensors").write_bytes(weights[:2_000_000] + b"trained" + weights[2_000_000:])
        report = repo.commit({"": checkpoint}, message="Step 2")
        print(f"once more: {len(report.files)} path, {report.new_bytes:,} bytes new")

        for difference in repo.diff("step-1"):
            told = repo.compare(difference, "step-1")
            if told is not None:
                print(f"{difference.kind}: {difference.path}, {told.shared_chunks} of {told.new_chunks} chunks shared")

        repo.download("step-1", folder / "restored")
        whole = (folder / "restored" / "model.safetensors").read_bytes() == weights
        print("restored:", whole, (folder / "restored" / "train.sh").stat().st_mode & 0o111 != 0)
        print("log:", ", ".join(commit.title for commit in repo.log()))
