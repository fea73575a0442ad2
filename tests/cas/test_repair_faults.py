"""A repair that fails, or dies, at each single thing that it asks of a disk, a database, an object store."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cas.test_repair import repaired
from tests.support import engines, rot
from tests.support.objects import shard_object, xorb_object
from tests.support.proxy import Fate, proxy
from tests.support.seaweed import Seaweed
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.index import Index
from xetstore.cas.repair.quarantine import QUARANTINE
from xetstore.cas.repair.sources import ObjectSource
from xetstore.errors import IntegrityError, UnavailableError
from xetstore.interfaces import BlobStore
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.store import Store
from xetstore.testing import FaultPlan, FaultyDatabase, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.faults import CRASH_EXIT_CODE

ENGINES = engines.BOTH
MOST = 400
"""More operations than any of these repairs asks for."""
STEP = 7
"""Of the operations of a disk, which are the most and take the longest, each seventh; every one with 1, by hand."""


def shards_of(cas: EmbeddedCas, sample: Sample) -> list[Hash]:
    with cas.index.snapshot() as reader:
        return reader.shards_of(sample.file.hash)


class Hurt:
    """Three files; of the first the xorb is damaged, of the second it is lost, of the third half: and its shard."""

    def __init__(self) -> None:
        self.samples = [make_sample(random_bytes(size, size)) for size in (30_000, 20_000)]
        one, two = random_bytes(150_000, 1), random_bytes(150_000, 2)
        self.both, self.first = make_sample(two, before=one), make_sample(one)
        [term] = self.first.file.terms
        shared = type(term)(self.both.xorb.hash, 0, term.chunk_end, term.unpacked_bytes)
        entry = type(self.first.file)(
            self.first.file.hash, (shared,), self.first.file.verification, self.first.file.sha256
        )
        self.shared = Shard((entry,))

    def plant(self, cas: EmbeddedCas, copy: BlobStore) -> None:
        """Store the files, two of them in ``copy`` too, and damage what is stored."""
        for sample in (*self.samples, self.both):
            upload(cas, sample)
        cas.put_shard(self.shared)
        for sample in self.samples:
            key = xorb_object(cas, sample.xorb.hash)
            copy.put_new(key, [cas.blobs.get(key)])
        self._rewrite(cas, xorb_object(cas, self.samples[0].xorb.hash), flipped=10_000)
        cas.blobs.delete_many([xorb_object(cas, self.samples[1].xorb.hash)])
        self._rewrite(cas, xorb_object(cas, self.both.xorb.hash), flipped=len(self.both.body) - 10)
        [name] = shards_of(cas, self.both)
        self._rewrite(cas, shard_object(cas, name), flipped=60)
        cas.blobs.put_new("xorbs/strange.txt", [b"strange"])
        check(cas, read_data=True)

    def expect(self, cas: EmbeddedCas, *, read_data: bool = True) -> None:
        """All is as it must be after a repair that came to its end."""
        problems = check(cas, read_data=read_data).problems
        assert [problem.files for problem in problems] == [(self.both.file.hash,)]
        for sample in self.samples:
            assert read_back(cas, sample.file.hash) == sample.data
        assert read_back(cas, self.first.file.hash) == self.first.data
        assert shards_of(cas, self.both)
        kept = {blob.key for blob in cas.blobs.list(QUARANTINE)}
        assert f"{QUARANTINE}xorbs/strange.txt" in kept
        if read_data:
            upload(cas, self.both)
            verify_invariants(cas)

    def expect_no_worse(self, cas: EmbeddedCas) -> None:
        """Whatever happened meanwhile: files are whole or refused, and the damaged ones are told of."""
        for sample in (*self.samples, self.first):
            try:
                assert b"".join(Store(cas).iter_range(sample.file.hash)) == sample.data
            except IntegrityError:
                continue

    @staticmethod
    def _rewrite(cas: EmbeddedCas, key: str, *, flipped: int) -> None:
        data = bytearray(cas.blobs.get(key))
        data[flipped] ^= 1
        cas.blobs.delete_many([key])
        cas.blobs.put_new(key, [data])


@pytest.fixture
def copy(tmp_path: Path) -> LocalBlobStore:
    (tmp_path / "copy").mkdir()
    return LocalBlobStore(tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.usefixtures("on_sqlite")
def test_whichever_operation_of_the_disk_fails_the_next_repair_goes_on(
    root: Path, tmp_path: Path, copy: LocalBlobStore, error: int
) -> None:
    hurt = Hurt()
    with EmbeddedCas.open(tmp_path / "pattern") as cas:
        hurt.plant(cas, copy)
    refused = 0
    for number in range(error % STEP, MOST, STEP):
        shutil.copytree(tmp_path / "pattern", root)
        with FaultPlan(fail_at=number, error=error).installed() as plan:
            try:
                with EmbeddedCas.open(root, create=False) as cas:
                    repaired(cas, ObjectSource("copy", copy), read_data=False)
            except UnavailableError:
                refused += 1
        rot.end_leases(root)  # it may be that it could not be given back
        with EmbeddedCas.open(root, create=False) as cas:
            hurt.expect_no_worse(cas)
            repaired(cas, ObjectSource("copy", copy), read_data=number % 4 == 0)
            hurt.expect(cas, read_data=number % 4 == 0)
        shutil.rmtree(root)
        if not plan.has_failed:
            break
    assert not plan.has_failed
    assert refused > 50 // STEP


CRASHES = """
import os, shutil, sys
from pathlib import Path
from tests.cas.test_repair import repaired
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.repair.sources import ObjectSource
from xetstore.testing import FaultPlan
folder = Path(sys.argv[1])
for number in range(0, 400, int(sys.argv[2])):
    root = folder / str(number)
    shutil.copytree(folder / "pattern", root)
    child = os.fork()
    if child == 0:
        with FaultPlan(fail_at=number, crash=True).installed(), EmbeddedCas.open(root) as cas:
            repaired(cas, ObjectSource("copy", LocalBlobStore(folder / "copy")), read_data=False)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code)
    if code == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.usefixtures("on_sqlite")
def test_wherever_a_repair_dies_the_next_one_goes_on(tmp_path: Path, copy: LocalBlobStore) -> None:
    """Its lease is of a process that is gone: the next one has to wait for its end, which is in the index."""
    hurt = Hurt()
    with EmbeddedCas.open(tmp_path / "pattern") as cas:
        hurt.plant(cas, copy)
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path), str(STEP)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    codes = [int(line) for line in done.stdout.split()]
    assert codes == [CRASH_EXIT_CODE] * (len(codes) - 1) + [0]
    assert len(codes) > 80 // STEP
    for number in range(0, len(codes) * STEP, STEP):
        root = tmp_path / str(number)
        rot.end_leases(root)
        with EmbeddedCas.open(root, create=False) as cas:
            hurt.expect_no_worse(cas)
            repaired(cas, ObjectSource("copy", copy), read_data=number % 4 == 0)
            hurt.expect(cas, read_data=number % 4 == 0)
        shutil.rmtree(root)


@pytest.mark.slow
def test_whichever_statement_fails_the_next_repair_goes_on(
    tmp_path: Path, opening: engines.Opening, copy: LocalBlobStore
) -> None:
    hurt = Hurt()
    plan = FaultPlan()
    refused = 0
    with closing(Index(FaultyDatabase(opening(), plan))) as index:
        (tmp_path / "objects").mkdir()
        cas = EmbeddedCas(LocalBlobStore(tmp_path / "objects"), index)
        hurt.plant(cas, copy)
        for number in range(MOST):
            plan.fail_next(after=number)
            try:
                repaired(cas, ObjectSource("copy", copy), read_data=False)
            except UnavailableError:
                refused += 1
            has_failed = plan.has_failed
            plan.disarm()
            hurt.expect_no_worse(cas)
            if not has_failed:
                break
        assert not has_failed
        assert refused > 20
        hurt.expect(cas)


@pytest.mark.slow
def test_whichever_request_fails_the_next_repair_goes_on(
    seaweed: Seaweed, opening: engines.Opening, copy: LocalBlobStore
) -> None:
    hurt = Hurt()
    with far(seaweed) as (blobs, fail), EmbeddedCas(blobs, Index(opening())) as cas:
        hurt.plant(cas, copy)
        refused = 0
        for number in range(MOST):
            failed = fail(number)
            try:
                repaired(cas, ObjectSource("copy", copy), read_data=False)
            except UnavailableError:
                refused += 1
            has_failed = failed()
            fail(None)
            if not has_failed:
                break
        assert not has_failed
        assert refused > 10
        hurt.expect(cas)


@contextmanager
def far(seaweed: Seaweed) -> Iterator[tuple[BlobStore, Callable[[int | None], Callable[[], bool]]]]:
    """Objects behind a proxy, which refuses all requests from a number on."""
    state: dict[str, int | None] = {"at": None, "count": 0, "failed": 0}

    def fate(_: str) -> Fate:
        count = state["count"] or 0
        state["count"] = count + 1
        at = state["at"]
        if at is None or count < at:
            return Fate.PASSED
        state["failed"] = 1
        return Fate.REFUSED

    def fail(number: int | None) -> Callable[[], bool]:
        state.update(at=number, count=0, failed=0)
        return lambda: bool(state["failed"])

    with proxy(seaweed.endpoint) as between:
        between.fate = fate
        place = BucketPlace.parse(seaweed.prefix(), {**seaweed.options, "endpoint": between.endpoint})
        yield BucketBlobStore(place, pause_seconds=0.001), fail
