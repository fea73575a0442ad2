"""Many uploaders at once, in threads and in processes: one store, each object once, each answer true."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.testing import make_sample, random_bytes, read_back, upload

_UPLOAD_IN_THREADS = """
import sys, threading
from xetstore.cas import EmbeddedCas
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing import make_sample
data = b"compressible " * 20_000
# The same xorb in two encodings: whichever is first, the offsets that are told must be those of its bytes.
samples = [make_sample(data, policy=policy) for policy in (CompressionPolicy.LZ4, CompressionPolicy.NONE)]
cas = EmbeddedCas.open(sys.argv[1])
xorbs, shards = [], []
start = threading.Barrier(8)

def put(number):
    sample = samples[number % 2]
    start.wait()
    xorbs.append(cas.put_xorb(sample.xorb.hash, sample.body))
    shards.append(cas.put_shard(sample.shard))

threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(xorbs), sum(xorbs), len(shards), sum(shards))
cas.close()
"""


def test_eight_threads_in_two_processes_put_the_same_xorb_and_one_is_told_it_is_new(root: Path) -> None:
    command = [sys.executable, "-c", _UPLOAD_IN_THREADS, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, **pipes) as one,  # type: ignore[call-overload]  # options by name
        subprocess.Popen(command, **pipes) as two,  # type: ignore[call-overload]
    ):
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        counts = [[int(word) for word in process.stdout.readline().split()] for process in (one, two)]
    assert [sum(column) for column in zip(*counts, strict=True)] == [16, 1, 16, 1]
    with EmbeddedCas.open(root) as cas:
        verify_invariants(cas)
        sample = make_sample(b"compressible " * 20_000)
        assert read_back(cas, sample.file.hash) == sample.data
        assert len(list(cas.blobs.list("xorbs/"))) == 1
    assert list((root / "tmp").iterdir()) == []


@pytest.mark.parametrize("where", ["directory", "memory"])
def test_readers_and_writers_do_not_disturb_each_other(root: Path, where: str) -> None:
    cas = EmbeddedCas.open(root) if where == "directory" else EmbeddedCas.in_memory()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(4):
                # Two threads each share their files.
                sample = make_sample(random_bytes(30_000, 10 * (number // 2) + turn))
                file = upload(cas, sample)
                assert read_back(cas, file) == sample.data
                assert cas.stat(file).size == len(sample.data)
                assert cas.find_chunks(next(iter(sample.xorb.chunks))[0]) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with cas:
        assert failures == []
        assert cas.totals().files == 16
        verify_invariants(cas)
