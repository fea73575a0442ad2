"""Whose object counts, and which is removed: one that a row may name never is, whatever went wrong."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from tests.support.objects import shard_row, xorb_object, xorb_row
from xetstore.blobs.memory import MemoryBlobStore, NewMemoryObject
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.index import Index
from xetstore.database import sqlite_file
from xetstore.database.connection import Connection
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import StorageFullError, UnavailableError, UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, FaultPlan, FaultyBlobStore, Sample, make_sample, random_bytes, read_back, upload


class BreakingDatabase(SqliteDatabase):
    """A database whose next transaction fails with ``error``: before it begins, at its commit, or behind it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.error: XetError = UnavailableError("the connection broke")
        self.moment: str | None = None

    @contextlib.contextmanager
    def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Connection]:
        moment, self.moment = self.moment, None
        if moment == "before":
            raise self.error
        with super().transaction(patience_seconds=patience_seconds) as connection:
            yield connection
            if moment == "at the commit":
                raise self.error
        if moment == "behind the commit":
            raise self.error


@pytest.fixture
def database() -> BreakingDatabase:
    return BreakingDatabase()


@pytest.fixture
def cas(database: BreakingDatabase, clock: FakeClock) -> Iterator[EmbeddedCas]:
    with EmbeddedCas(MemoryBlobStore(), Index(database), clock=clock) as cas:
        yield cas
        verify_invariants(cas)


def keys_of(cas: EmbeddedCas) -> list[str]:
    return [blob.key for blob in cas.blobs.list()]


Put = Callable[[EmbeddedCas, Sample], bool]
PUTS: dict[str, Put] = {
    "xorb": lambda cas, sample: cas.put_xorb(sample.xorb.hash, sample.body),
    "shard": lambda cas, sample: cas.put_shard(sample.shard),
}


@pytest.fixture(params=PUTS)
def put(request: pytest.FixtureRequest, cas: EmbeddedCas, sample: Sample) -> Put:
    """A put of a xorb, or that of a shard whose xorb is stored."""
    if request.param == "shard":
        cas.put_xorb(sample.xorb.hash, sample.body)
    return PUTS[request.param]


def test_an_object_stays_when_the_connection_breaks_behind_the_commit(
    cas: EmbeddedCas, database: BreakingDatabase, sample: Sample, put: Put
) -> None:
    before = keys_of(cas)
    database.moment = "behind the commit"
    with pytest.raises(UnavailableError):
        put(cas, sample)
    after = keys_of(cas)
    assert len(after) == len(before) + 1
    verify_invariants(cas)
    assert not put(cas, sample), "it was registered"
    assert keys_of(cas) == after
    assert check(cas).notes == ()
    assert read_back(cas, upload(cas, sample)) == sample.data


def test_an_object_stays_when_it_cannot_be_told_whether_a_row_names_it(
    cas: EmbeddedCas, database: BreakingDatabase, sample: Sample, put: Put
) -> None:
    before = keys_of(cas)
    database.moment = "at the commit"
    with pytest.raises(UnavailableError):
        put(cas, sample)
    [left] = set(keys_of(cas)) - set(before)
    assert put(cas, sample), "it was not registered"
    [note] = check(cas).notes
    assert note.startswith(left)
    assert left in keys_of(cas)
    assert read_back(cas, upload(cas, sample)) == sample.data


@pytest.mark.parametrize("error", [UnavailableError("busy"), StorageFullError("no room")])
def test_an_object_is_removed_when_nothing_was_begun(
    cas: EmbeddedCas, database: BreakingDatabase, sample: Sample, put: Put, error: XetError
) -> None:
    before = keys_of(cas)
    database.moment, database.error = "before", error
    with pytest.raises(type(error)):
        put(cas, sample)
    assert keys_of(cas) == before
    assert put(cas, sample)


def test_an_object_is_removed_when_there_was_no_room_to_commit_its_row(
    cas: EmbeddedCas, database: BreakingDatabase, sample: Sample, put: Put
) -> None:
    before = keys_of(cas)
    database.moment, database.error = "at the commit", StorageFullError("no room")
    with pytest.raises(StorageFullError):
        put(cas, sample)
    assert keys_of(cas) == before
    assert put(cas, sample)


def test_a_damaged_object_is_superseded_when_the_connection_breaks_behind_the_commit(
    cas: EmbeddedCas, database: BreakingDatabase, sample: Sample
) -> None:
    upload(cas, sample)
    old = xorb_row(cas, sample.xorb.hash)
    cas.healing.mark(old)
    database.moment = "behind the commit"
    with pytest.raises(UnavailableError):
        cas.put_xorb(sample.xorb.hash, sample.body)
    assert xorb_object(cas, sample.xorb.hash) != old.key
    assert not cas.put_xorb(sample.xorb.hash, sample.body), "it was healed"
    assert {old.key, xorb_object(cas, sample.xorb.hash)} <= {*keys_of(cas)}


class BusyBlobStore(MemoryBlobStore):
    """A store whose next commit makes the object, and then fails."""

    is_next = False

    def create(self, key: str) -> NewMemoryObject:
        new = super().create(key)
        commit = new.commit

        def fail() -> None:
            commit()
            if self.is_next:
                self.is_next = False
                raise UnavailableError("the answer did not come")

        new.commit = fail  # type: ignore[method-assign]
        return new


@pytest.mark.parametrize("name", PUTS)
def test_an_object_of_which_the_store_did_not_say_that_it_is_durable_is_removed(sample: Sample, name: str) -> None:
    blobs = BusyBlobStore()
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        if name == "shard":
            cas.put_xorb(sample.xorb.hash, sample.body)
        before = keys_of(cas)
        blobs.is_next = True
        with pytest.raises(UnavailableError):
            PUTS[name](cas, sample)
        assert keys_of(cas) == before
        assert read_back(cas, upload(cas, sample)) == sample.data
        verify_invariants(cas)


class TakenBlobStore(MemoryBlobStore):
    """A store in which the next key that is written to has an object already."""

    is_next = True

    def create(self, key: str) -> NewMemoryObject:
        if self.is_next:
            self.is_next = False
            self.put_new(key, [b"another"])
        return super().create(key)


def test_an_object_under_a_key_that_is_taken_is_refused_and_that_one_stays(sample: Sample) -> None:
    with EmbeddedCas(TakenBlobStore(), Index.in_memory()) as cas:
        with pytest.raises(UsageError, match="already"):
            cas.put_xorb(sample.xorb.hash, sample.body)
        [taken] = keys_of(cas)
        assert cas.blobs.get(taken) == b"another"
        assert read_back(cas, upload(cas, sample)) == sample.data
        assert cas.blobs.get(taken) == b"another"
        verify_invariants(cas)


@pytest.mark.parametrize("damage", ["missing", "cut", "marked"])
def test_a_shard_whose_object_is_damaged_is_stored_anew_by_the_next_put(
    cas: EmbeddedCas, sample: Sample, damage: str
) -> None:
    upload(cas, sample)
    with cas.index.snapshot() as reader:
        [old] = reader.shards_after(None)
    stored = cas.blobs.get(old.key)
    if damage == "marked":
        cas.healing.mark(old)
    else:
        cas.blobs.delete_many([old.key])
        if damage == "cut":
            cas.blobs.put_new(old.key, [stored[:-1]])
    assert len(check(cas).problems) == 1
    assert not cas.put_shard(sample.shard), "nothing in it is new"
    row = shard_row(cas, old.hash)
    assert row.key != old.key
    assert not row.is_damaged
    assert cas.blobs.get(row.key) == stored
    with cas.index.snapshot() as reader:
        assert reader.superseded_before(cas.now() + 1) == [old.key]
    assert not cas.put_shard(sample.shard)
    assert shard_row(cas, old.hash) == row, "once"


def test_a_flipped_bit_of_a_shard_is_marked_by_a_check_that_reads_it_and_unmarked_when_it_is_well(
    cas: EmbeddedCas, sample: Sample
) -> None:
    upload(cas, sample)
    with cas.index.snapshot() as reader:
        [row] = reader.shards_after(None)
    stored = cas.blobs.get(row.key)
    for content, is_damaged in ((stored[:-1] + bytes([stored[-1] ^ 1]), True), (stored, False)):
        cas.blobs.delete_many([row.key])
        cas.blobs.put_new(row.key, [content])
        assert (check(cas).problems == ()) == is_damaged, "it is not read, but the mark is"
        assert (check(cas, read_data=True).problems != ()) == is_damaged
        assert shard_row(cas, row.hash).is_damaged == is_damaged


def test_an_upload_of_others_does_not_count_for_one_that_is_found_damaged_meanwhile(
    cas: EmbeddedCas, sample: Sample
) -> None:
    """Who has sent all of it, and did not write it because it was there, is not told that it is stored."""
    cas.put_xorb(sample.xorb.hash, sample.body)
    with cas.in_namespace("other").receive_xorb(sample.xorb.hash) as receiver:
        receiver.write(sample.body)
        cas.healing.mark(xorb_row(cas, sample.xorb.hash))
        with pytest.raises(UnavailableError, match="just now"):
            receiver.commit()
    assert cas.in_namespace("other").put_xorb(sample.xorb.hash, sample.body)


def test_of_two_uploads_the_second_to_commit_removes_its_own(cas: EmbeddedCas, sample: Sample) -> None:
    with cas.receive_xorb(sample.xorb.hash) as first, cas.receive_xorb(sample.xorb.hash) as second:
        for receiver in (first, second):
            receiver.write(sample.body)
        assert first.commit()
        [key] = keys_of(cas)
        assert not second.commit()
        assert keys_of(cas) == [key] == [xorb_object(cas, sample.xorb.hash)]


def test_of_two_uploads_the_second_to_commit_counts_where_the_first_is_damaged_by_then(
    cas: EmbeddedCas, sample: Sample
) -> None:
    with cas.receive_xorb(sample.xorb.hash) as first, cas.receive_xorb(sample.xorb.hash) as second:
        for receiver in (first, second):
            receiver.write(sample.body)
        assert first.commit()
        [key] = keys_of(cas)
        cas.blobs.delete_many([key])
        assert second.commit()
        assert keys_of(cas) == [xorb_object(cas, sample.xorb.hash)] != [key]


def test_objects_are_not_asked_for_within_a_transaction_or_a_snapshot(sample: Sample) -> None:
    """That may wait for a network, and the database, and all writers, with it."""

    class WatchedDatabase(SqliteDatabase):
        is_busy = False

        @contextlib.contextmanager
        def transaction(self, *, patience_seconds: float | None = None) -> Iterator[Connection]:
            with super().transaction(patience_seconds=patience_seconds) as connection, self.watched():
                yield connection

        @contextlib.contextmanager
        def snapshot(self) -> Iterator[Connection]:
            with super().snapshot() as connection, self.watched():
                yield connection

        @contextlib.contextmanager
        def watched(self) -> Iterator[None]:
            self.is_busy = True
            try:
                yield
            finally:
                self.is_busy = False

    class WatchedPlan(FaultPlan):
        def step(self, operation: str) -> None:
            assert not watched.is_busy, operation
            super().step(operation)

    watched, plan = WatchedDatabase(None), WatchedPlan()
    with EmbeddedCas(FaultyBlobStore(MemoryBlobStore(), plan), Index(watched), footer_cache_bytes=0) as cas:
        upload(cas, sample)
        other = make_sample(random_bytes(9000, 5))
        upload(cas, other)
        reads: list[Callable[[], object]] = [
            lambda: read_back(cas, sample.file.hash, 100_000, 200_000),
            lambda: cas.may_read(sample.xorb.hash, [(len(sample.body) - 10, len(sample.body))]),
            lambda: cas.reconstruct_many([sample.file.hash]),
            lambda: cas.file_chunks(sample.file.hash),
            lambda: cas.find_chunks(Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start))),
            lambda: cas.find_recent(1000),
            lambda: cas.suspect(sample.xorb.hash),
            lambda: check(cas, checksums=True),
        ]
        for _ in range(2):
            cas.blobs.delete_many(keys_of(cas))
            with cas.receive_xorb(sample.xorb.hash) as first, cas.receive_xorb(sample.xorb.hash) as second:
                for receiver in (first, second):
                    receiver.write(sample.body)
                    receiver.commit()
            upload(cas.in_namespace("other"), sample)
            upload(cas, other)
            for read in reads:
                cas.file_chunks(other.file.hash)  # the footer of the one is remembered then, and not that of the other
                assert read() is not False
        verify_invariants(cas)
    assert len(plan.operations) > 50


def test_a_commit_that_failed_after_all_was_in_the_log_is_not_taken_for_a_full_disk() -> None:
    """SQLite needs room for its shared memory then; a process that opens the file after a crash finds all of it."""

    class Connection(sqlite3.Connection):
        code = sqlite3.SQLITE_FULL

        def commit(self) -> None:
            failure = sqlite3.OperationalError("disk I/O error")
            failure.sqlite_errorcode = self.code
            raise failure

    connection = Connection(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite_file.commit(connection)
    assert isinstance(sqlite_file.meaning(caught.value), StorageFullError)
    connection.code = sqlite3.SQLITE_IOERR_SHMSIZE
    with pytest.raises(UnavailableError) as unsure:
        sqlite_file.commit(connection)
    assert not isinstance(unsure.value, StorageFullError)
    connection.close()
