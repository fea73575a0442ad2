"""Many uploaders at once, in threads and in processes: one store, each object once, each answer true."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.process import ROOT
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Writer
from xetstore.cas.index.index import ATTEMPTS
from xetstore.errors import ConflictError, UnavailableError
from xetstore.protocol.shard import FileEntry
from xetstore.testing import make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH

_UPLOAD_IN_THREADS = """
import sys, threading
from pathlib import Path
from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing import make_sample
data = b"compressible " * 20_000
# The same xorb in two encodings: whichever is first, the offsets that are told must be those of its bytes.
samples = [make_sample(data, policy=policy) for policy in (CompressionPolicy.LZ4, CompressionPolicy.NONE)]
_, root, *url = sys.argv
cas = engines.open_on_postgres(Path(root), *url) if url else EmbeddedCas.open(root)
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


def test_eight_threads_in_two_processes_put_the_same_xorb_and_one_is_told_it_is_new(
    root: Path, engine: str, open_store: engines.OpenStore, request: pytest.FixtureRequest
) -> None:
    url = [request.getfixturevalue("postgres_url")] if engine == engines.POSTGRES else []
    open_store().close()
    command = [sys.executable, "-c", _UPLOAD_IN_THREADS, str(root), *url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
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
    with open_store() as cas:
        verify_invariants(cas)
        sample = make_sample(b"compressible " * 20_000)
        assert read_back(cas, sample.file.hash) == sample.data
        assert len(list(cas.blobs.list("xorbs/"))) == 1
    assert list((root / "tmp").iterdir()) == []


def test_readers_and_writers_of_a_store_in_memory_do_not_disturb_each_other() -> None:
    read_and_write(EmbeddedCas.in_memory())


def test_readers_and_writers_do_not_disturb_each_other(open_store: engines.OpenStore) -> None:
    read_and_write(open_store())


def read_and_write(cas: EmbeddedCas) -> None:
    """Eight threads, of which two each put and get the same files."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(4):
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


def test_writers_who_register_the_same_files_in_any_order_all_get_done(open_store: engines.OpenStore) -> None:
    """In opposite orders they get into each other's way, and one gives way: then it is done again."""
    samples = [make_sample(random_bytes(2_000, number)) for number in range(40)]
    with open_store() as cas:
        for sample in samples:
            cas.put_xorb(sample.xorb.hash, sample.body)
        with cas.index.snapshot() as reader:
            rows = reader.xorbs([sample.xorb.hash for sample in samples])
        start = threading.Barrier(8)
        outcomes: list[bool | BaseException] = []

        def register(number: int) -> None:
            order = samples if number % 2 else samples[::-1]
            start.wait(60)
            try:
                for at in range(0, len(order), 10):
                    entries = [sample.file for sample in order[at : at + 10]]

                    def add(writer: Writer, entries: list[FileEntry] = entries) -> bool:
                        new = False
                        for entry in entries:  # one after the other, so that others come between
                            new |= writer.add_files([entry], rows, namespace=str(number), now=1.0)
                        return new

                    outcomes.append(cas.index.change(add))
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [True] * 8 * 4, "a grant is new for each"
        for number in range(8):
            view = cas.in_namespace(str(number))
            assert all(read_back(view, sample.file.hash) == sample.data for sample in samples)
        verify_invariants(cas)


def test_a_change_is_done_again_after_a_conflict_a_few_times(open_store: engines.OpenStore) -> None:
    with open_store() as cas:
        tried = []

        def work(writer: Writer, conflicts: int) -> str:
            tried.append(1)
            writer.supersede(f"some key {len(tried)}", now=1.0)
            if len(tried) <= conflicts:
                raise ConflictError("another writer was first")
            return "done"

        assert cas.index.change(lambda writer: work(writer, 2)) == "done"
        with cas.index.snapshot() as reader:
            assert reader.superseded_before(2.0) == ["some key 3"]
        for patience, times in ((None, ATTEMPTS), (0, 1)):
            tried.clear()
            with pytest.raises(UnavailableError) as caught:
                cas.index.change(lambda writer: work(writer, 100), patience_seconds=patience)
            assert type(caught.value) is UnavailableError
            assert caught.value.retry_after
            assert len(tried) == times
