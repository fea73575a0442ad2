"""Each program of examples/ runs as it stands, prints what its reader is told to expect, and leaves nothing behind."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"

PRINTED = {
    "async_transfers.py": [
        "stored at once: 3 files",
        "streamed: 100,000 bytes",
        "cancelled: True, the other: 1,000,000",
    ],
    "checkpoints.py": ["after step 4: 80 MiB of files, 20 MiB stored", "the newest one: 1 MiB fetched, 14 MiB reused"],
    "chunk_and_hash.py": ["with a byte in front: 19 of 20 chunks are the same", "the xorb is what its name says"],
    "estimate_savings.py": ["into an empty store", "once monday is stored\n  monday.log: 3,[0-9,]+ bytes: 0 new"],
    "read_ranges.py": ["first line: day,price", r"bytes 10 to 20: b'0,0\\n1,1\\n2,'"],
    "repositories.py": [
        "committed: 3 paths, 4,000,010 bytes new",
        "changed: model.safetensors, [0-9]+ of [0-9]+ chunks shared",
        "restored: True True",
        "log: Step 2, Step 1, initial commit",
    ],
    "serve_and_upload.py": [
        "uploaded by hf_xet: [0-9a-f]{16}",
        "downloaded by xetstore: 2,000,000 bytes, verified: True",
    ],
    "tensors.py": [
        r"embeddings.weight: F32 \(10000, 64\), 2,560,000 bytes",
        r"head.bias: \(1.0, 2.0, 3.0, 4.0\)",
        r"rows: \(3, 64\) first of each: \[10.0",
    ],
    "versions.py": ["of which [0-9]{1,2},[0-9]{3} are new", "version 3: [0-9,]+ bytes restored, verified: True"],
}


def test_every_program_is_run_and_listed() -> None:
    programs = {path.name for path in FOLDER.glob("*.py")}
    assert programs == set(PRINTED)
    assert set(re.findall(r"^\| \[`(\w+\.py)`\]", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)) == programs


@pytest.mark.parametrize("name", PRINTED)
def test_a_program_says_what_it_shows(name: str) -> None:
    head = ast.get_docstring(ast.parse((FOLDER / name).read_text()))
    assert head is not None
    assert "\nShows: " in head


@pytest.mark.parametrize("name", PRINTED)
def test_a_program_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(FOLDER / name)],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for expected in PRINTED[name]:
        assert re.search(expected, done.stdout), done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind"
