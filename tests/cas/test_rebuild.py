"""An index made anew from objects: what is damaged or lost is told, what was deleted stays so, cut off it goes on."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cas.test_healing import flip, object_of
from tests.support.lost_index import shown
from tests.support.objects import shard_object
from tests.support.postgres import PostgresServer
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import Problem, check, verify_invariants
from xetstore.cas.index import Index, Writer
from xetstore.cas.parts import StoreParts
from xetstore.cas.repair.found import LOST_FOUND, found_files, give_found
from xetstore.cas.repair.quarantine import QUARANTINE
from xetstore.cas.repair.rebuild import RebuildReport, rebuild_index, rebuild_into
from xetstore.cas.snapshots.journal import JOURNAL, note_deleted, note_restored
from xetstore.cas.snapshots.take import SNAPSHOTS, snapshots_in, take_snapshot_now
from xetstore.database.postgres import PostgresDatabase
from xetstore.errors import DamagedError, InterruptedCallError, NotFoundError, UnavailableError, UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.testing import (
    FakeClock,
    FaultPlan,
    FaultyBlobStore,
    FaultyDatabase,
    Sample,
    make_sample,
    random_bytes,
    read_back,
    upload,
)
from xetstore.testing.faults import CRASH_EXIT_CODE

SHORT = 0.05
"""Seconds of a lease, where its runner is killed."""
STEP = 3
"""Of many operations that are the same, some fail."""


def delete(cas: EmbeddedCas, *files: Hash, namespace: str = "default") -> None:
    now = cas.now()
    cas.index.change(lambda writer: writer.revoke(namespace, files, now=now))
    note_deleted(cas, namespace, files, at=now)


def give_back(cas: EmbeddedCas, *files: Hash, namespace: str = "default") -> None:
    now = cas.now()
    cas.index.change(lambda writer: writer.restore(namespace, files, now=now))
    note_restored(cas, namespace, files, at=now)


def rebuilt(root: Path, **options: object) -> RebuildReport:
    """The index of a store in a directory is lost, and made anew."""
    for log in ("", "-wal", "-shm"):
        (root / f"index.sqlite3{log}").unlink(missing_ok=True)
    return rebuild_index(StoreParts.of_directory(root), **options)  # type: ignore[arg-type]


def visible(cas: EmbeddedCas) -> dict[str, set[Hash]]:
    """The files of each namespace."""
    found: dict[str, set[Hash]] = {}
    with cas.index.snapshot() as reader:
        rows = reader.connection.rows("SELECT namespace, hash FROM file_grant JOIN file ON file.id = file_id")
        for namespace, digest in rows:
            found.setdefault(namespace, set()).add(Hash(digest))
    return found


def small(seed: int) -> Sample:
    return make_sample(random_bytes(30_000, seed))


def test_without_a_snapshot_all_files_are_those_of_the_one_namespace(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        files = [upload(cas, small(seed)) for seed in range(4)]
        delete(cas, *files[:2])
        give_back(cas, files[0])
        before = shown(cas)
    report = rebuilt(root)
    assert (report.snapshot, report.found_in, report.problems) == (None, "default", ())
    assert (report.counts.files, report.counts.found, report.counts.entries) == (4, 4, 2)
    with EmbeddedCas.open(root) as cas:
        after = shown(cas)
        assert visible(cas) == {"default": {files[0], *files[2:]}}
        assert read_back(cas, files[0]) == small(0).data
        assert [row[:2] for row in after["deleted"]] == [("default", files[1].digest)]
        for name in ("edges", "dedup", "holders", "claims"):
            assert after[name] == before[name], name
        verify_invariants(cas)


def test_without_a_snapshot_files_of_a_store_that_was_served_are_set_aside(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, small(1))
    (root / "access").mkdir(mode=0o700)
    (root / "access" / "keys.json").touch(0o600)
    assert rebuilt(root).found_in == LOST_FOUND
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {LOST_FOUND: {file}}
        with pytest.raises(NotFoundError):
            read_back(cas, file)
        assert [record.hash for record in found_files(cas)] == [file]
        assert (give_found(cas, "default"), give_found(cas, "default")) == (1, 0)
        assert visible(cas) == {"default": {file}}
        assert read_back(cas, file) == small(1).data
    assert rebuilt(root, found_in="alice").found_in == "alice"


def test_a_found_file_that_was_given_is_found_again_by_the_next_rebuild(root: Path) -> None:
    """No snapshot tells of the gift; what was taken out of the found ones for it was not deleted."""
    with EmbeddedCas.open(root) as cas:
        upload(cas.in_namespace("alice"), small(1))
        take_snapshot_now(cas)
        file = upload(cas.in_namespace("alice"), small(2))
    assert rebuilt(root).found_in == LOST_FOUND
    with EmbeddedCas.open(root) as cas:
        assert give_found(cas, "alice") == 1
    assert rebuilt(root).found_in == LOST_FOUND
    with EmbeddedCas.open(root) as cas:
        assert visible(cas)[LOST_FOUND] == {file}


def test_files_that_came_after_the_snapshot(root: Path, clock: FakeClock) -> None:
    """Granted to the one namespace that the store had; to none that strangers read where it had several."""
    for others in ((), ("alice",)):
        shutil.rmtree(root, ignore_errors=True)
        with EmbeddedCas.open(root, clock=clock) as cas:
            early = upload(cas, small(1))
            for name in others:
                upload(cas.in_namespace(name), small(1))
            take_snapshot_now(cas)
            clock.advance(10)
            late = [upload(cas, small(seed)) for seed in (2, 3)]
            clock.advance(10)
            delete(cas, late[1])
        report = rebuilt(root)
        namespace = LOST_FOUND if others else "default"
        assert (report.found_in, report.counts.found, report.counts.deleted) == (namespace, 2, 1)
        with EmbeddedCas.open(root) as cas:
            expected = {"default": {early}} | {name: {early} for name in others}
            expected[namespace] = expected.get(namespace, set()) | {late[0]}
            assert visible(cas) == expected
            verify_invariants(cas)


def test_a_file_that_was_deleted_and_put_again_is_there(root: Path, clock: FakeClock) -> None:
    with EmbeddedCas.open(root, clock=clock) as cas:
        files = [upload(cas, small(seed)) for seed in (1, 2)]
        take_snapshot_now(cas)
        clock.advance(1)
        delete(cas, *files)
        clock.advance(1)
        upload(cas, small(1))
    rebuilt(root)
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {"default": {files[0]}}


def test_a_file_that_is_deleted_while_it_is_put_again_is_there(
    root: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has both in the order of their transactions, though the put began first."""
    with EmbeddedCas.open(root, clock=clock) as cas:
        file = upload(cas, small(1))
        take_snapshot_now(cas)
        clock.advance(1)
        change = cas.index.change

        def late(work: Callable[[Writer], object]) -> object:
            monkeypatch.undo()
            clock.advance(5)
            cas.delete([file])
            clock.advance(5)
            return change(work)

        monkeypatch.setattr(cas.index, "change", late)
        assert cas.put_shard(small(1).shard)
    rebuilt(root)
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {"default": {file}}


def test_what_was_collected_before_the_snapshot_does_not_come_back_from_an_old_shard(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        both = [small(1), small(2)]
        for one in both:
            cas.put_xorb(one.xorb.hash, one.body)
        cas.put_shard(Shard(tuple(one.file for one in both), tuple(x for one in both for x in one.shard.xorbs)))
        delete(cas, both[0].file.hash)
        with cas.index.transaction() as writer:  # as a collection does, once the time is over
            writer.connection.change("DELETE FROM file WHERE hash = :hash", {"hash": both[0].file.hash.digest})
        take_snapshot_now(cas)
        cas.blobs.delete_many([blob.key for blob in cas.blobs.list(JOURNAL)])
    report = rebuilt(root)
    assert report.counts.found == 0
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {"default": {both[1].file.hash}}


def test_a_lost_xorb_is_told_with_its_files_and_the_others_are_there(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        samples = [small(seed) for seed in (1, 2, 3)]
        for one in samples:
            cas.put_xorb(one.xorb.hash, one.body)
        cas.put_shard(Shard(tuple(one.file for one in samples), tuple(x for one in samples for x in one.shard.xorbs)))
        paths = [object_of(cas, root, one.xorb.hash) for one in samples]
        take_snapshot_now(cas)
    paths[0].unlink()
    size = paths[1].stat().st_size - 1
    os.truncate(paths[1], size)
    report = rebuilt(root)
    lost = {one.xorb.hash: [one.file.hash] for one in samples[:2]}
    assert report.lost == lost
    assert report.counts.lost_files == 2
    assert {one.name for one in report.problems} >= {f"xorb {name}" for name in lost}
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {"default": {samples[2].file.hash}}
        [problem] = check(cas, read_data=True).problems
        assert "which is gone" in problem.what
        assert read_back(cas, upload(cas, samples[0])) == samples[0].data  # put again, all is well
    # What is damaged is not deleted, and no collection removes it: all of its chunks may be there.
    assert not paths[1].exists()
    assert (root / QUARANTINE / paths[1].relative_to(root)).stat().st_size == size


def test_of_several_objects_of_a_xorb_a_whole_one_counts(root: Path) -> None:
    sample = small(1)
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, sample)
        first = object_of(cas, root, sample.xorb.hash)
        flip(first)
        cas.suspect(sample.xorb.hash)
        upload(cas, sample)
        second = object_of(cas, root, sample.xorb.hash)
    for newest in (first, second):
        other = second if newest is first else first
        os.utime(newest, (2e9, 2e9))
        os.utime(other, (1e9, 1e9))
        assert rebuilt(root).problems == (), "because nothing is lost"
        with EmbeddedCas.open(root) as cas:
            assert read_back(cas, file) == sample.data
            assert object_of(cas, root, sample.xorb.hash) == second
            verify_invariants(cas)
    second.unlink()
    assert rebuilt(root).problems == ()  # its footer is whole, and nothing else was read
    report = rebuilt(root, checksums=True)
    assert [problem.name for problem in report.problems] == [f"xorb {sample.xorb.hash}"]
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)  # it is marked, so it is stored anew
        assert read_back(cas, file) == sample.data


def test_a_damaged_shard_is_told_and_harms_no_other(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        files = [upload(cas, small(seed)) for seed in (1, 2)]
        with cas.index.snapshot() as reader:
            [shard] = reader.shards_of(files[0])
        path = root / shard_object(cas, shard)
    flip(path, 100)
    report = rebuilt(root, read_data=True)
    assert [problem.name for problem in report.problems] == [f"shard {shard}"]
    with EmbeddedCas.open(root) as cas:
        assert visible(cas) == {"default": {files[1]}}


def test_a_snapshot_that_is_damaged_or_of_another_store_is_not_taken(root: Path, clock: FakeClock) -> None:
    other = root.with_name("other")
    with EmbeddedCas.open(other) as cas:
        take_snapshot_now(cas)
        [(_, stranger)] = snapshots_in(cas.blobs)
    with EmbeddedCas.open(root, clock=clock) as cas:
        files = [upload(cas.in_namespace("alice"), small(seed)) for seed in (1, 2)]
        take_snapshot_now(cas)
        clock.advance(1000)
        delete(cas, files[0], namespace="alice")
        clock.advance(1000)
        take_snapshot_now(cas)
        before, keys = shown(cas), [blob.key for _, blob in snapshots_in(cas.blobs)]
    flip(root / keys[1], 60)
    shutil.copy(other / stranger.key, root / f"{SNAPSHOTS}999999999999999-0000000000000000")
    report = rebuilt(root)
    assert report.snapshot == keys[0]
    assert len(report.problems) == 2
    with EmbeddedCas.open(root, clock=clock) as cas:
        assert shown(cas) == before  # by the journal, which is kept for as long
        assert visible(cas) == {"alice": {files[1]}}


def test_an_old_index_is_kept_and_a_store_without_one_says_what_to_do(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, small(1))
    index = root / "index.sqlite3"
    index.write_bytes(b"this is no database" * 100)
    with pytest.raises(DamagedError) as raised:
        EmbeddedCas.open(root)
    assert "xet repair --rebuild-index" in str(raised.value.hint)
    report = rebuild_index(StoreParts.of_directory(root))
    assert report.kept_index is not None
    assert report.kept_index.read_bytes().startswith(b"this is no database")
    with EmbeddedCas.open(root) as cas:
        assert read_back(cas, file) == small(1).data
    index.unlink()
    with pytest.raises(DamagedError) as raised:
        EmbeddedCas.open(root)
    assert "xet repair --rebuild-index" in str(raised.value.hint)


def test_writers_are_kept_out_meanwhile(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        upload(cas, small(1))

        class Progress:
            def total(self, nbytes: int) -> None:
                with pytest.raises(UnavailableError):
                    cas.index.change(lambda writer: writer.supersede("xorbs/ab/none", now=1.0), patience_seconds=0)
                self.asked = nbytes

            def advance(self, *, logical: int = 0) -> None: ...

        progress = Progress()
        rebuild_index(StoreParts.of_directory(root), progress=progress)
        assert progress.asked > 30_000
        with pytest.raises(UnavailableError):  # it has another index by now
            upload(cas, small(2))


def test_the_report_is_about_all_if_the_rebuild_was_cut_off(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        for seed in (1, 2, 3):
            upload(cas, small(seed))
    (root / "index.sqlite3").unlink()

    class Progress:
        steps = 0

        def total(self, nbytes: int) -> None: ...

        def advance(self, *, logical: int = 0) -> None:
            self.steps += 1
            if self.steps == 3:  # all xorbs, and two shards
                raise InterruptedCallError("cut off")

    with pytest.raises(InterruptedCallError):
        rebuild_index(StoreParts.of_directory(root), progress=Progress())
    counts = rebuilt(root).counts
    assert (counts.xorbs, counts.shards, counts.files) == (3, 3, 3)


def test_a_database_with_an_index_is_not_touched(root: Path, postgres_url: str, tmp_path: Path) -> None:
    with closing(Index(PostgresDatabase(postgres_url))) as index:
        EmbeddedCas(LocalBlobStore(root), index)
    root.mkdir(exist_ok=True)
    (root / "format").write_text("xetstore embedded store, format 1\n")
    file = tmp_path / "store.toml"
    file.touch(0o600)
    file.write_text(f'objects = "{root}"\nindex = "{postgres_url}"\n')
    with pytest.raises(UsageError, match="there is an index"):
        rebuild_index(StoreParts.read(file))


def filled(cas: EmbeddedCas, clock: FakeClock) -> None:
    """Something of everything: files, a deletion before and after the snapshot, a heal, a late file."""
    files = [upload(cas, small(seed)) for seed in (1, 2)]
    upload(cas.in_namespace("alice"), small(1))
    delete(cas, files[0])
    take_snapshot_now(cas)
    clock.advance(1000)
    upload(cas, small(3))
    give_back(cas, files[0])
    clock.advance(1)
    delete(cas, files[1])


@pytest.mark.slow
def test_whichever_operation_fails_the_next_call_goes_on(root: Path, clock: FakeClock, tmp_path: Path) -> None:
    with EmbeddedCas.open(root, clock=clock) as cas:
        filled(cas, clock)
    (root / "index.sqlite3").unlink()
    expected = None
    failed, told = [], 0
    for number in range(0, 400, STEP):
        copy = tmp_path / str(number)
        shutil.copytree(root, copy)
        parts = StoreParts.of_directory(copy)
        with FaultPlan(fail_at=number, error=errno.EIO if number % 2 else errno.ENOSPC).installed() as plan:
            problems: tuple[Problem, ...] = ()
            try:
                problems = rebuild_index(parts, jobs=1).problems
            except XetError:
                failed.append(plan.operations[number])
        if not (copy / "index.sqlite3").exists():
            with pytest.raises(DamagedError):
                EmbeddedCas.open(copy)
            rebuild_index(parts, jobs=1)
        with EmbeddedCas.open(copy) as cas:
            expected = expected or shown(cas)
            if problems:  # an object that cannot be read counts as damaged
                told += 1
                continue
            for name, rows in shown(cas).items():
                assert rows == expected[name], (number, plan.operations[number], name)
            if number % 20 == 0:
                verify_invariants(cas)
        if not plan.has_failed:
            break
    assert not plan.has_failed
    assert len(failed) > 25
    assert told < 8


@pytest.mark.slow
def test_killed_at_any_operation_the_next_call_goes_on(root: Path, clock: FakeClock, tmp_path: Path) -> None:
    with EmbeddedCas.open(root, clock=clock) as cas:
        filled(cas, clock)
    (root / "index.sqlite3").unlink()
    expected = None
    crashes = 0
    for number in range(0, 400, 4 * STEP):
        copy = tmp_path / str(number)
        shutil.copytree(root, copy)
        parts = StoreParts.of_directory(copy)
        child = os.fork()
        if child == 0:
            with FaultPlan(fail_at=number, crash=True).installed():
                rebuild_index(parts, jobs=1, lease_seconds=SHORT)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, CRASH_EXIT_CODE)
        if code:
            crashes += 1
            time.sleep(2 * SHORT)
            rebuild_index(parts, jobs=1)
        with EmbeddedCas.open(copy) as cas:
            expected = expected or shown(cas)
            assert shown(cas) == expected
        shutil.rmtree(copy)
        if not code:
            break
    assert code == 0
    assert crashes > 5


@pytest.mark.slow
def test_whichever_statement_or_request_fails_on_a_server_the_next_call_goes_on(
    root: Path, clock: FakeClock, postgres: PostgresServer, postgres_url: str
) -> None:
    with EmbeddedCas.open(root, clock=clock) as cas:
        filled(cas, clock)
        store_id = reader_id(cas)
    expected = None
    failed = set[str]()
    for number in range(0, 600, 4 * STEP):
        plan = FaultPlan()
        postgres.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public", url=postgres_url)
        with closing(PostgresDatabase(postgres_url)) as database:
            index = Index(FaultyDatabase(database, plan))
            blobs = FaultyBlobStore(LocalBlobStore(root), plan)
            begun = len(plan.operations)
            plan.fail_next(after=number)
            for is_broken in (True, False):
                try:
                    problems = rebuild_into(blobs, index, jobs=1, lease_seconds=SHORT).problems
                except XetError:
                    if not is_broken:
                        raise
                    failed.add(plan.operations[begun + number].split()[0])
                    time.sleep(SHORT)  # where it failed to give its lease back
                    problems = ()
                plan.disarm()
            cas = EmbeddedCas(blobs, Index(database))
            assert reader_id(cas) == store_id
            if not problems:  # an object that cannot be read counts as damaged
                expected = expected or shown(cas)
                assert shown(cas) == expected, number
        if not plan.has_failed:
            break
    assert not plan.has_failed
    assert failed >= {"SELECT", "INSERT", "UPDATE"}


def reader_id(cas: EmbeddedCas) -> str | None:
    """The id of a store."""
    with cas.index.snapshot() as reader:
        return reader.store_id()


def test_an_index_that_is_lost_at_any_moment_of_a_run_comes_back(root: Path, clock: FakeClock, tmp_path: Path) -> None:
    """Puts, deletions, snapshots and heals in any order: at each moment a rebuild shows what the store shows."""
    chance = random.Random(7)
    samples: dict[Hash, Sample] = {}
    with EmbeddedCas.open(root, clock=clock) as cas:
        for number in range(40):
            clock.advance(chance.choice((0.01, 1, 700)))
            names = visible(cas).get("default", set())
            gone = [file for file in samples if file not in names]
            match chance.choice(("put", "put", "again", "delete", "give back", "snapshot", "heal")):
                case "put":
                    samples[upload(cas, small(number))] = small(number)
                case "again" if samples:
                    upload(cas, chance.choice([*samples.values()]))
                case "delete" if names:
                    delete(cas, *chance.sample(sorted(names), min(2, len(names))))
                case "give back" if gone:
                    give_back(cas, chance.choice(gone))
                case "snapshot":
                    take_snapshot_now(cas)
                case "heal" if names:
                    sample = samples[chance.choice(sorted(names))]
                    flip(object_of(cas, root, sample.xorb.hash))
                    cas.suspect(sample.xorb.hash)
                    upload(cas, sample)
            if number % 3:
                continue
            copy = tmp_path / str(number)
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns("index.sqlite3*"))
            rebuild_index(StoreParts.of_directory(copy))
            with EmbeddedCas.open(copy) as other:
                assert visible(other) == visible(cas), number
                for file in visible(cas).get("default", ()):
                    assert read_back(other, file) == samples[file].data
                verify_invariants(other)
