"""Storing a file while the system fails, at every single operation there is: nothing is half there."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.index import Index
from xetstore.errors import NotFoundError, StorageFullError, UnavailableError
from xetstore.testing import FaultPlan, FaultyBlobStore, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.faults import CRASH_EXIT_CODE


@pytest.fixture
def small() -> Sample:
    return make_sample(random_bytes(100_000, 3))


def expect_absent_or_whole(cas: EmbeddedCas, sample: Sample, leftovers: int = 0) -> bool:
    """The file is not there, or all of it is; whether it is. Everything else in the store is in order, but for at most
    so many objects that no row names.
    """
    verify_invariants(cas)
    notes = check(cas).notes
    assert all("is stored but not registered" in note or "is not used" in note for note in notes)
    assert len(notes) <= leftovers, notes
    try:
        found = read_back(cas, sample.file.hash)
    except NotFoundError:
        return False
    assert found == sample.data
    return True


def test_the_row_comes_after_the_bytes_and_the_shard_before_its_files(root: Path, small: Sample) -> None:
    with FaultPlan().installed() as plan, EmbeddedCas.open(root) as cas:
        opened = len(plan.operations)
        cas.put_xorb(small.xorb.hash, small.body)
        put_xorb = plan.operations[opened:]
        cas.put_shard(small.shard)
        put_shard = plan.operations[opened + len(put_xorb) :]
    durable = ["fsync file", "close", "link", "unlink", "open", "fsync folder", "close"]
    assert put_xorb[put_xorb.index("fsync file") :] == [*durable, "BEGIN", "INSERT", "INSERT", "COMMIT"]
    at = put_shard.index("fsync file")
    files, segments, edges, grants, claims, dedup, shards, names_files, names_xorbs = ["INSERT"] * 9
    rows = ["BEGIN", files, segments, edges, grants, claims, dedup, shards, names_files, names_xorbs, "COMMIT"]
    assert put_shard[at:] == [*durable, *rows]
    assert "INSERT" not in put_shard[:at]


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_whichever_operation_fails_the_store_is_whole(tmp_path: Path, small: Sample, error: int) -> None:
    outcomes = []
    for number in range(200):
        root = tmp_path / str(number)
        with FaultPlan(fail_at=number, error=error).installed() as plan:
            try:
                with EmbeddedCas.open(root) as cas:
                    upload(cas, small)
                acknowledged = True
            except UnavailableError:
                acknowledged = False
        if not plan.has_failed:
            break
        # Of a disk that fails at a commit, only after a crash can it be told how far that came.
        is_unsure = error == errno.EIO and plan.operations[number] == "COMMIT"
        with EmbeddedCas.open(root) as cas:
            is_there = expect_absent_or_whole(cas, small, leftovers=is_unsure)
            assert is_there or not acknowledged, plan.operations[number]
            # What was left behind, if anything, stands in the way of nothing.
            assert read_back(cas, upload(cas, small)) == small.data
            verify_invariants(cas)
        leftovers = [path for path in (root / "tmp").iterdir() if plan.operations[number] != "unlink"]
        assert leftovers == []
        outcomes.append(acknowledged)
    assert acknowledged
    assert not plan.has_failed
    assert len(outcomes) > 50
    assert outcomes.count(False) > 40


def test_a_store_that_was_open_when_the_disk_was_full_goes_on(root: Path, sample: Sample) -> None:
    with FaultPlan().installed() as plan, EmbeddedCas.open(root) as cas:
        file = upload(cas, sample)
        refused = 0
        for number in range(100):
            new = make_sample(random_bytes(20_000, 100 + number))
            plan.fail_next(after=number)
            try:
                upload(cas, new)
            except StorageFullError:
                refused += 1
            if not plan.has_failed:
                break
            plan.disarm()
            assert read_back(cas, file) == sample.data
            expect_absent_or_whole(cas, new)
        assert not plan.has_failed
        assert refused > 20
        plan.disarm()
        assert expect_absent_or_whole(cas, new)


CRASHES = """
import os, sys
from pathlib import Path
from xetstore.cas import EmbeddedCas
from xetstore.testing import FaultPlan, make_sample, random_bytes, upload
sample = make_sample(random_bytes(100_000, 3))
for number in range(200):
    child = os.fork()
    if child == 0:
        with FaultPlan(fail_at=number, crash=True).installed():
            with EmbeddedCas.open(Path(sys.argv[1]) / str(number)) as cas:
                upload(cas, sample)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code)
    if code == 0:
        break
"""
"""Puts one sample into store after store below a folder, and dies at the first, second, … operation of the disk."""


@pytest.mark.slow
def test_wherever_the_process_dies_the_store_is_whole(tmp_path: Path, small: Sample) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) > 50
    assert codes == [CRASH_EXIT_CODE] * (len(codes) - 1) + [0]
    found = []
    for number in range(len(codes)):
        with EmbeddedCas.open(tmp_path / str(number)) as cas:
            found.append(expect_absent_or_whole(cas, small, leftovers=1))
            assert read_back(cas, upload(cas, small)) == small.data
            verify_invariants(cas)
    # Up to the last commit it is absent, from then on it is there.
    assert found == sorted(found)
    assert not found[0]
    assert found[-1]


@pytest.mark.parametrize(("verb", "looks_before"), [("create", 0), ("get_range", 2)])
def test_a_blob_store_that_fails_registers_nothing(small: Sample, verb: str, looks_before: int) -> None:
    plan = FaultPlan()
    with EmbeddedCas(FaultyBlobStore(MemoryBlobStore(), plan), Index.in_memory(), footer_cache_bytes=0) as cas:
        if verb == "get_range":
            cas.put_xorb(small.xorb.hash, small.body)
            other = make_sample(random_bytes(1000, 4))
            cas.put_xorb(other.xorb.hash, other.body)  # and the footer of the first is forgotten
        plan.fail_next(after=looks_before)
        with pytest.raises(StorageFullError):
            upload(cas, small)
        assert plan.operations[-1].startswith(verb)
        assert cas.totals().files == 0
        verify_invariants(cas)
        assert read_back(cas, upload(cas, small)) == small.data
