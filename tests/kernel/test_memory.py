"""Out of memory: a call whose result has no room raises MemoryError, and the process goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = 2_000_000
"""Hashes, of 32 bytes each: an input of 64 MB."""

PROGRAM = """
import resource, sys
from pathlib import Path
from xetstore import _kernel
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

suite, count = XET_GEARHASH_BLAKE3.kernel, int(sys.argv[1])
key, hashes = bytes(32), bytes(32 * count)
lengths = (1).to_bytes(8, sys.byteorder) * count
data = bytes(count)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
try:
    {call}
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
@pytest.mark.parametrize(
    "call",
    [
        "_kernel.keyed_hashes(key, hashes)",
        "_kernel.hash_chunks(suite, data, lengths)",
        "_kernel.MerkleTree(suite).update(hashes, lengths)",
    ],
)
def test_a_call_without_room_for_its_result_raises(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{call}", call), str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr
