"""Deleting by hash: gone here at once, there elsewhere, given back as it was; whatever fails, and whoever is beside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples
from tests.support import engines
from tests.support.turns import in_turns
from xetstore.access.tenant import DedupDomain
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.collecting import collect
from xetstore.cas.deleting import AT_A_TIME, deleted_page
from xetstore.cas.grace import Grace
from xetstore.cas.index import Index, Reader, Writer
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.snapshots.journal import journal_keys, read_entry
from xetstore.errors import (
    ForbiddenError,
    MissingXorbError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    XetError,
)
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.testing import (
    FakeClock,
    FaultPlan,
    FaultyDatabase,
    Sample,
    make_sample,
    random_bytes,
    read_back,
    upload,
)
from xetstore.testing.samples import entry_of

ENGINES = engines.BOTH

SAMPLE = make_sample(random_bytes(100_000, 1))
OTHER = make_sample(random_bytes(50_000, 2))


@pytest.fixture
def file(cas: EmbeddedCas) -> Hash:
    return upload(cas, SAMPLE)


def is_there(cas: EmbeddedCas, sample: Sample = SAMPLE) -> bool:
    """True if a file is there, whole, for every verb; False if it is for none."""
    file = sample.file.hash
    verbs: list[Callable[[], Any]] = [
        lambda: cas.stat(file),
        lambda: cas.reconstruct(file),
        lambda: cas.reconstruct_many([file]),
        lambda: cas.count_terms(file),
        lambda: cas.file_chunks(file),
    ]
    found = []
    for verb in verbs:
        try:
            verb()
        except NotFoundError:
            found.append(False)
        else:
            found.append(True)
    found.append(file in {record.hash for record in cas.files()})
    with cas.index.snapshot() as reader:
        assert sample.file.sha256 is not None
        found.append(reader.file_by_sha256(cas.tenant.namespace, sample.file.sha256) is not None)
    assert len(set(found)) == 1, found
    if found[0]:
        assert read_back(cas, file) == sample.data
    return found[0]


def parts_of(sample: Sample) -> Iterator[FileEntry]:
    """A file of each run of chunks of a xorb."""
    chunks = sample.xorb.chunks
    for start, end in combinations(range(len(chunks) + 1), 2):
        part = chunks.slice(start, end)
        yield entry_of([(Term(sample.xorb.hash, start, end, part.total_bytes), part)])


# --- Namespaces -----------------------------------------------------------------------------------------


def test_a_file_goes_where_it_is_deleted_and_stays_where_another_has_it(cas: EmbeddedCas, file: Hash) -> None:
    anna, bert = cas.in_namespace("anna"), cas.in_namespace("bert")
    for view in (anna, bert):
        upload(view, SAMPLE)
    anna.delete([file])
    assert (is_there(cas), is_there(anna), is_there(bert)) == (True, False, True)
    for view in (cas, bert):
        view.delete([file])
    assert not is_there(bert)
    anna.undelete([file])
    assert (is_there(cas), is_there(anna), is_there(bert)) == (False, True, False)
    verify_invariants(cas)


def test_a_file_of_others_is_no_other_than_none(cas: EmbeddedCas, file: Hash) -> None:
    anna, none = cas.in_namespace("anna"), OTHER.file.hash
    for verb in (anna.delete, anna.undelete):
        messages = []
        for name in (file, none):
            with pytest.raises(NotFoundError) as caught:
                verb([name])
            messages.append(str(caught.value).replace(str(name), "?"))
        assert messages[0] == messages[1]
    cas.delete([file])
    with pytest.raises(NotFoundError):
        anna.undelete([file])
    assert not is_there(anna)
    assert [*anna.deleted()] == []
    # Nor does the place of a page tell of it.
    assert deleted_page(anna, (2e12, file), 10) == []


def test_a_deleted_file_can_still_be_read_by_none_of_its_bytes(cas: EmbeddedCas, file: Hash) -> None:
    """Its xorb is the uploader's, who has shown to possess it; one who has only the file loses all."""
    bert = cas.in_namespace("bert", dedup=DedupDomain.NAMESPACE)
    cas.index.change(lambda writer: writer.copy_grants("default", "bert", [file], now=1.0))
    assert bert.may_read(SAMPLE.xorb.hash, [(0, 10)])
    bert.delete([file])
    assert not bert.may_read(SAMPLE.xorb.hash, [(0, 10)])
    with pytest.raises(NotFoundError):
        bert.stored_xorb(SAMPLE.xorb.hash)
    assert bert.find_chunks(first_chunk(SAMPLE)) is None


def test_what_was_deleted_is_still_deduplicated_against(cas: EmbeddedCas) -> None:
    """Until it is collected: its edges are there, and an answer about it writes nothing."""
    [sample] = one_chunk_samples(1)
    cas.delete([upload(cas, sample)])
    answer = cas.find_chunks(first_chunk(sample))
    assert answer is not None
    assert [entry.hash for entry in answer.xorbs] == [sample.xorb.hash]
    assert cas.put_shard(Shard((sample.file,)))
    assert is_there(cas, sample)


def test_claims_go_and_come_with_their_file(cas: EmbeddedCas, file: Hash) -> None:
    assert cas.stat(file).sha256 == (SAMPLE.file.sha256 or b"").hex()
    created = cas.stat(file).created_at
    cas.delete([file])
    cas.undelete([file])
    assert cas.stat(file).sha256 == (SAMPLE.file.sha256 or b"").hex()
    assert cas.stat(file).created_at == created


def test_the_time_of_a_deletion_is_told_and_until_when_it_can_be_undone(
    cas: EmbeddedCas, file: Hash, clock: FakeClock
) -> None:
    clock.advance(100)
    [done] = cas.delete([file])
    assert (done.deleted_at, done.until) == (clock(), clock() + 7 * 24 * 3600)
    clock.advance(100)
    assert cas.delete([file]) == [done], "it was deleted then"
    upload(cas, SAMPLE)
    assert cas.delete([file])[0].deleted_at == clock()


def test_many_files_go_by_one_call(cas: EmbeddedCas) -> None:
    source = make_sample(random_bytes(2_500_000, 5))
    cas.put_xorb(source.xorb.hash, source.body)
    entries = list(parts_of(source))[: 2 * AT_A_TIME + 10]
    cas.put_shard(Shard(tuple(entries)))
    files = [entry.hash for entry in entries]
    assert len(files) > 2 * AT_A_TIME
    assert [done.hash for done in cas.delete([*files, files[0]])] == files
    assert [*cas.files()] == []
    paged, last = [], None
    while page := deleted_page(cas, last, 100):
        paged += page
        last = page[-1].deleted_at, page[-1].hash
    assert {done.hash for done in paged} == set(files)
    assert len(paged) == len(files)
    assert [record.hash for record in cas.undelete(files)] == files
    assert len([*cas.files()]) == len(files)
    verify_invariants(cas)


def test_a_page_goes_on_behind_a_file_that_was_given_back(cas: EmbeddedCas) -> None:
    """It is not found in the list any more, and its place is."""
    samples = [make_sample(b"%d" % number) for number in range(10)]
    cas.delete([upload(cas, sample) for sample in samples])
    told = [done.hash for done in cas.deleted()]
    at = deleted_page(cas, None, 4)[-1]
    cas.undelete([at.hash])
    assert [done.hash for done in deleted_page(cas, (at.deleted_at, at.hash), 100)] == told[4:]


def test_a_guard_is_asked_before_and_in_the_transaction(cas: EmbeddedCas, file: Hash) -> None:
    upload(cas, OTHER)
    asked = []

    def guard(reader: Reader, namespace: str, files: Collection[Hash]) -> None:
        asked.append((isinstance(reader, Writer), namespace, set(files)))
        if file in files:
            raise ForbiddenError("it has a name")

    cas.deletion_guard = guard
    view = cas.in_namespace("default")
    for dry_run in (False, True):
        with pytest.raises(ForbiddenError):
            view.delete([OTHER.file.hash, file], dry_run=dry_run)
    assert is_there(cas)
    assert is_there(cas, OTHER)
    asked.clear()
    view.delete([OTHER.file.hash])
    assert asked == [(False, "default", {OTHER.file.hash}), (True, "default", {OTHER.file.hash})]


def test_what_an_index_made_anew_must_know_is_in_the_journal(cas: EmbeddedCas, file: Hash, clock: FakeClock) -> None:
    cas.delete([file])
    cas.delete([file])
    clock.advance(1)
    cas.undelete([file])
    cas.undelete([file])
    with cas.index.snapshot() as reader:
        store = reader.store_id()
    entries = [read_entry(cas.blobs, blob, store) for _, blob in journal_keys(cas.blobs)]
    assert [(entry.is_deletion, entry.namespace, entry.files) for entry in entries] == [
        (True, "default", (file,)),
        (False, "default", (file,)),
    ]


def test_a_download_that_has_begun_comes_to_its_end(cas: EmbeddedCas, file: Hash) -> None:
    """Fetches of an answer are good after the file is deleted, as those of a signed URL are."""
    found = cas.reconstruct(file)
    [[fetch]] = found.fetches.values()
    with cas.fetch_xorb(fetch) as stream:
        head = memoryview(bytearray(1000))
        count = stream.readinto(head)
        cas.delete([file])
        rest = bytearray()
        block = memoryview(bytearray(1 << 16))
        while more := stream.readinto(block):
            rest += block[:more]
    assert bytes(head[:count]) + bytes(rest) == SAMPLE.body[fetch.byte_start : fetch.byte_end]
    with cas.fetch_xorb(fetch) as stream:
        assert stream.readinto(head)


# --- Whatever fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["delete", "undelete"])
def test_whichever_statement_fails_all_of_a_call_is_done_or_nothing(
    tmp_path: Path, opening: engines.Opening, verb: str
) -> None:
    plan = FaultPlan()
    files = [SAMPLE.file.hash, OTHER.file.hash]
    spoilt = 0  # of which the reserve makes some good
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(FaultyDatabase(opening(), plan))) as cas:
        for sample in (SAMPLE, OTHER):
            upload(cas, sample)
        for number in range(60):
            if verb == "undelete":
                cas.delete(files)
            plan.fail_next(after=number)
            try:
                getattr(cas, verb)(files)
                acknowledged = True
            except UnavailableError:
                acknowledged = False
            has_failed = plan.has_failed
            plan.disarm()
            states = {is_there(cas, sample) for sample in (SAMPLE, OTHER)}
            assert len(states) == 1, plan.operations[-1]
            assert not acknowledged or states == {verb == "undelete"}
            cas.undelete(files)
            spoilt += has_failed
            if not has_failed:
                break
        assert acknowledged
        verify_invariants(cas)
    assert spoilt > 5


def test_a_deletion_stands_where_the_disk_has_no_room_to_note_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, SAMPLE)

    class Full(LocalBlobStore):
        def put_new(self, key: str, parts: Any) -> None:
            raise StorageFullError("no room")

    with EmbeddedCas.open(root) as cas:
        cas.blobs = Full(root)
        cas.delete([file])
        assert not is_there(cas)
    assert "could not be noted" in caplog.text


# --- Beside others --------------------------------------------------------------------------------------


def put(cas: EmbeddedCas) -> None:
    upload(cas, SAMPLE)


def put_shard(cas: EmbeddedCas) -> None:
    cas.put_shard(Shard((SAMPLE.file,)))


def delete(cas: EmbeddedCas) -> None:
    cas.delete([SAMPLE.file.hash])


def undelete(cas: EmbeddedCas) -> None:
    cas.undelete([SAMPLE.file.hash])


@pytest.mark.parametrize(
    ("before", "first", "second", "outcome"),
    [
        ("there", delete, delete, False),
        ("there", delete, put, None),
        ("there", put, delete, False),
        ("there", delete, put_shard, None),
        ("there", delete, undelete, None),
        ("deleted", put, undelete, True),
        ("deleted", undelete, put, True),
        ("deleted", undelete, delete, None),
        ("deleted", undelete, undelete, True),
        ("deleted", put_shard, delete, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_two_at_once_are_as_one_after_the_other(
    open_store: engines.OpenStore, before: str, first: Any, second: Any, outcome: bool | None
) -> None:
    """The one that commits last, or either where that is left open; nothing is lost, and no one is left waiting."""
    with open_store() as cas, open_store() as other:
        file = upload(cas, SAMPLE)
        if before == "deleted":
            cas.delete([file])
        assert in_turns(cas.index, lambda: first(cas), lambda: second(other)) == (None, None)
        found = is_there(other)
        assert found == (bool([*other.deleted()]) is False), "it is there, or can be given back"
        assert outcome in (None, found)
        other.undelete([file])
        assert is_there(other)
        verify_invariants(other)


SHORT = Grace(unused=20.0, undelete=10.0)


def collected(cas: EmbeddedCas) -> None:
    lease = Lease.take(cas.index, COLLECT)
    assert lease is not None
    with lease:
        collect(cas, lease, SHORT)


@pytest.mark.parametrize(
    ("at", "second", "late"),
    [
        ("drop_expired", put, None),
        ("drop_expired", undelete, NotFoundError),
        ("drop_files", put, None),
        ("drop_files", put_shard, None),
        ("drop_files", undelete, NotFoundError),
        ("drop_xorbs", put, UnavailableError),
        ("drop_xorbs", put_shard, MissingXorbError),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_comes_back_while_it_is_collected(
    open_store: engines.OpenStore, clock: FakeClock, at: str, second: Any, late: type[XetError] | None
) -> None:
    """It is there again, whole, or it was too late, which is said: an upload that is made again is never too late."""
    with open_store(clock=clock) as cas, open_store(clock=clock) as other:
        cas.delete([upload(cas, SAMPLE)])
        clock.advance(11)
        if at != "drop_expired":
            collect_up_to(cas, clock, at)
        first, error = in_turns(cas.index, lambda: collected(cas), lambda: second(other), at=at)
        assert first is None
        assert error is None or type(error) is late
        assert is_there(other) == (error is None)
        if second is not undelete:
            put(other)
        outcome = is_there(other)
        for _ in range(3):
            verify_invariants(other)
            clock.advance(50)
            collected(other)
            assert is_there(other) == outcome


def collect_up_to(cas: EmbeddedCas, clock: FakeClock, at: str) -> None:
    """Collect until the verb is the first one that has something to do: each waits for the end of a time of its own."""
    with cas.index.transaction() as writer:
        writer.connection.change("DELETE FROM deleted_grant")
    if at == "drop_xorbs":
        collected(cas)
        clock.advance(50)


def test_all_files_of_a_namespace_and_one_that_comes_meanwhile(open_store: engines.OpenStore) -> None:
    """It is deleted and can be given back, or it is there: it is not lost between two statements."""
    with open_store() as cas, open_store() as other:
        upload(cas, SAMPLE)
        with cas.index.transaction() as writer:
            writers_take_turns = not writer.connection.dialect.keeps_rows
            change = writer.connection.change
            calls: list[int] = []

            def between(statement: str, *values: Any) -> int:
                if calls == [1] and not writers_take_turns:
                    upload(other, OTHER)
                calls.append(1)
                return change(statement, *values)

            writer.connection.change = between  # type: ignore[method-assign,assignment]
            writer.revoke_all("default", now=5.0)
        assert not is_there(cas)
        if writers_take_turns:
            upload(cas, OTHER)
        cas.undelete([OTHER.file.hash])
        cas.index.change(lambda writer: writer.restore_all("default", deleted_at=5.0))
        assert is_there(cas)
        assert is_there(cas, OTHER)
        assert [*cas.deleted()] == []
        verify_invariants(cas)
        assert check(cas).problems == ()


def test_all_that_is_given_back_and_one_that_is_deleted_meanwhile(open_store: engines.OpenStore) -> None:
    with open_store() as cas, open_store() as other:
        files = [upload(cas, sample) for sample in (SAMPLE, OTHER)]
        cas.index.change(lambda writer: writer.revoke("default", files[:1], now=5.0))
        with cas.index.transaction() as writer:
            change = writer.connection.change
            calls: list[int] = []

            def between(statement: str, *values: Any) -> int:
                if calls == [1] and writer.connection.dialect.keeps_rows:
                    other.index.change(lambda writer: writer.revoke("default", files[1:], now=5.0))
                calls.append(1)
                return change(statement, *values)

            writer.connection.change = between  # type: ignore[method-assign,assignment]
            writer.restore_all("default", deleted_at=5.0)
        assert is_there(cas)
        cas.undelete(files)
        assert is_there(cas, OTHER)
        verify_invariants(cas)


def test_a_deletion_is_there_when_the_store_is_opened_again(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        cas.delete([file := upload(cas, SAMPLE)])
    with EmbeddedCas.open(root) as cas:
        assert not is_there(cas)
        assert [done.hash for done in cas.deleted()] == [file]
