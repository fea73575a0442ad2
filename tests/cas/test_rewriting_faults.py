"""A rewrite while the system fails, at every single operation there is: all that lives is there, and the next one ends.

Of files, of statements, of requests; and the process that dies.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cas.deleting import (
    drop,
    expect_contents,
    expect_sound,
    file_across,
    file_in,
    objects,
    rewritten,
    shard_entries,
    sweep,
    xorb_of,
)
from tests.cas.test_request_faults import Far, Spoil, all_refused, far, one_lost, spoil
from tests.support import engines
from tests.support.postgres import PostgresServer
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.index import Index
from xetstore.cas.rewriting import Locality
from xetstore.errors import UnavailableError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.testing import FaultPlan, FaultyDatabase, Sample, make_sample, random_bytes
from xetstore.testing.faults import CRASH_EXIT_CODE

__all__ = ["far", "spoil"]  # fixtures
ENGINES = engines.BOTH

FRAGMENTED = Locality(1_000.0, 1.0)


def prepare(cas: EmbeddedCas, seed: int = 0) -> dict[Hash, bytes]:
    """Give a store everything that a rewrite has to do: partly dead xorbs, a fragmented file, a shard that names a
    deleted file too. Returns the files that live.
    """
    olds = [xorb_of(cas, 10 * seed + number) for number in range(2)]
    files = dict([file_in(cas, olds[0], (3, 5), (20, 24)), file_in(cas, olds[1], (0, 8))])
    files |= [file_across(cas, *[(olds[at % 2], at, at + 1) for at in range(18)])]
    return files | _delete_some(cas, olds, seed)


def prepare_less(cas: EmbeddedCas, seed: int = 0) -> dict[Hash, bytes]:
    """The same without the fragmented file, whose parts are copied in the same way."""
    old = xorb_of(cas, 10 * seed)
    return dict([file_in(cas, old, (3, 5), (20, 24))]) | _delete_some(cas, [old], seed)


def _delete_some(cas: EmbeddedCas, olds: list[Sample], seed: int) -> dict[Hash, bytes]:
    gone = [file_in(cas, old, (0, 40))[0] for old in olds]
    samples = [make_sample(random_bytes(2_000, 10 * seed + number)) for number in range(2)]
    for sample in samples:
        cas.put_xorb(sample.xorb.hash, sample.body)
    cas.put_shard(Shard(tuple(sample.file for sample in samples)))
    drop(cas, *gone, samples[0].file.hash)
    return {samples[1].file.hash: samples[1].data}


def empty(cas: EmbeddedCas) -> None:
    """Take everything out of a store."""
    with cas.index.transaction() as writer:
        for table in ("file", "shard", "xorb", "superseded_object"):
            writer.connection.change(f"DELETE FROM {table}")
    cas.blobs.delete_many([blob.key for blob in cas.blobs.list()])


def rewrite_all(cas: EmbeddedCas) -> bool:
    """Rewrite, and tell if that came to its end."""
    return rewritten(cas, locality=FRAGMENTED).stopped is None


def expect_in_order(cas: EmbeddedCas, files: dict[Hash, bytes]) -> None:
    expect_sound(cas)
    expect_contents(cas, files)


def expect_done(cas: EmbeddedCas, files: dict[Hash, bytes]) -> None:
    """The next runner, once the lease has ended, comes to the end; what it leaves is just what lives."""
    with cas.index.transaction() as writer:
        writer.connection.change("UPDATE chore SET expires_at = 0")
    assert rewrite_all(cas)
    sweep(cas)
    expect_in_order(cas, files)
    assert {entry.hash for entry in shard_entries(cas)} == files.keys()
    with cas.index.snapshot() as reader:
        assert reader.xorbs_with_garbage(0, 100) == []
        assert reader.stale_shards(0, 100) == []


def expect_no_more_objects(cas: EmbeddedCas) -> None:
    with cas.index.snapshot() as reader:
        assert objects(cas, "xorbs/") == {row.hash for row in reader.xorbs_after(0)}
        assert objects(cas, "shards/") == {row.hash for row in reader.shards_after(None)}


@pytest.mark.slow
def test_whichever_operation_of_files_fails_all_that_lives_is_there(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "first") as cas:
        files = prepare(cas)
    failed = 0
    for number in range(400):
        root, error = tmp_path / str(number), errno.EIO if number % 2 else errno.ENOSPC
        shutil.copytree(tmp_path / "first", root)
        with FaultPlan(fail_at=number, error=error).installed() as plan:
            try:
                with EmbeddedCas.open(root) as cas:
                    failed += not rewrite_all(cas)
            except UnavailableError:
                failed += 1
        if not plan.has_failed:
            break
        with EmbeddedCas.open(root) as cas:
            if error == errno.EIO:  # an object that could not be read was marked
                assert check(cas, read_data=True).problems == ()
            expect_in_order(cas, files)
            expect_done(cas, files)
            if error == errno.ENOSPC:
                expect_no_more_objects(cas)
        shutil.rmtree(root)
    assert not plan.has_failed
    assert failed > 40


CRASHES = """
import os, sys
from pathlib import Path
from tests.cas.test_rewriting_faults import rewrite_all
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.testing import FaultPlan
for number in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        with FaultPlan(fail_at=number, crash=True).installed():
            with EmbeddedCas.open(Path(sys.argv[1]) / str(number)) as cas:
                rewrite_all(cas)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Rewrites stores below a folder, each of them named after the operation of the disk at which the process dies."""
LASTING = ("link", "unlink", "COMMIT")


@pytest.mark.slow
def test_wherever_the_process_dies_all_that_lives_is_there(tmp_path: Path) -> None:
    first = tmp_path / "first"
    with EmbeddedCas.open(first) as cas:
        files = prepare(cas)
    shutil.copytree(first, tmp_path / "counted")
    with FaultPlan().installed() as plan, EmbeddedCas.open(tmp_path / "counted") as cas:
        rewrite_all(cas)
    # In between nothing changes that outlives the process.
    points = [at + 1 for at, operation in enumerate(plan.operations[:-1]) if operation in LASTING]
    for number in points:
        shutil.copytree(first, tmp_path / str(number))
    command = [sys.executable, "-c", CRASHES, str(tmp_path), *map(str, points)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    codes = [int(line) for line in done.stdout.split()]
    assert codes == [CRASH_EXIT_CODE] * len(points)
    for number in points:
        with EmbeddedCas.open(tmp_path / str(number)) as cas:
            expect_in_order(cas, files)
            expect_done(cas, files)


def rewrite_while_it_fails(cas: EmbeddedCas, plan: FaultPlan, *, step: int = 1) -> int:
    """Rewrite again and again, while the first statement fails, the one ``step`` behind it, …; how often it could not
    go on.
    """
    failed = 0
    for number in range(0, 400, step):
        files = prepare_less(cas, number)
        plan.fail_next(after=number)
        try:
            failed += not rewrite_all(cas)
        except UnavailableError:
            failed += 1
        if not plan.has_failed:
            break
        plan.disarm()
        expect_in_order(cas, files)
        expect_done(cas, files)
        empty(cas)
    assert not plan.has_failed
    return failed


@pytest.mark.slow
def test_whichever_statement_fails_all_that_lives_is_there(opening: engines.Opening, engine: str) -> None:
    plan = FaultPlan()
    with EmbeddedCas(MemoryBlobStore(), Index(FaultyDatabase(opening(), plan))) as cas:
        step = 1 if engine == engines.SQLITE else 3  # of the same statements, of which each takes longer
        assert rewrite_while_it_fails(cas, plan, step=step) > 25 // step


@pytest.mark.slow
def test_at_whichever_statement_the_connection_breaks_all_that_lives_is_there(
    postgres: PostgresServer, postgres_url: str
) -> None:
    plan = FaultPlan()
    database = FaultyDatabase(
        engines.opening_of(postgres_url)(), plan, instead=lambda: postgres.terminate(postgres_url)
    )
    with EmbeddedCas(MemoryBlobStore(), Index(database)) as cas:
        assert rewrite_while_it_fails(cas, plan, step=5) > 3


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [one_lost, all_refused], indirect=True)
def test_whichever_request_fails_all_that_lives_is_there(far: Far, on_sqlite: None, spoil: Spoil) -> None:
    stopped = 0
    for number in range(200):
        files = prepare_less(far.cas, number)
        far.requests.begin(number)
        try:
            rewrite_all(far.cas)
        except UnavailableError:
            stopped += 1
        far.requests.heal()
        if not far.requests.spoilt:
            break
        expect_in_order(far.cas, files)
        expect_done(far.cas, files)
        empty(far.cas)
    assert not far.requests.spoilt
    assert (stopped > 10) == (spoil is all_refused)
