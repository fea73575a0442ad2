"""A collection beside clients and other collectors: whichever is first, no client loses what it was promised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples
from tests.support import engines, turns
from tests.support.collecting import DAY, GRACE, collected, registered, revoke, xorb_objects
from tests.support.live import PATIENCE_SECONDS
from tests.support.objects import xorb_object
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.collecting import collect, objects, rows
from xetstore.cas.collecting.run import Run
from xetstore.cas.index import Reader
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.throttle import Throttle
from xetstore.errors import LeaseLostError, MissingXorbError, NotFoundError, UnavailableError, XetError
from xetstore.protocol.shard import Shard
from xetstore.testing import FakeClock, make_sample, random_bytes, read_back, upload

Call = Callable[[EmbeddedCas], object]
ENGINES = engines.BOTH
SAMPLE = make_sample(random_bytes(100_000, 21))


def in_turns(cas: EmbeddedCas, other: EmbeddedCas, first: Call, second: Call) -> None:
    """Both calls, of which the first stands still in its transaction while the second begins; neither fails."""
    errors = turns.in_turns(cas.index, lambda: first(cas), lambda: second(other))
    for error in errors:
        if error is not None:
            raise error


@pytest.fixture
def other(open_store: engines.OpenStore, cas: EmbeddedCas, clock: FakeClock) -> Iterator[EmbeddedCas]:
    """The same store in another connection."""
    assert cas
    with open_store(clock=clock) as opened:
        yield opened


@pytest.fixture
def due(cas: EmbeddedCas, clock: FakeClock) -> str:
    """A store in which the xorb of the sample is due: no file is made of it, and its grace has passed. Its object."""
    key = upload_object(cas)
    revoke(cas, SAMPLE.file.hash)
    clock.advance(8 * DAY)
    collected(cas)
    clock.advance(24 * DAY)
    assert registered(cas, [SAMPLE.xorb.hash]) == {SAMPLE.xorb.hash: True}
    return key


def upload_object(cas: EmbeddedCas) -> str:
    upload(cas, SAMPLE)
    return xorb_object(cas, SAMPLE.xorb.hash)


def step_of(function: Callable[[Run, str], None]) -> Callable[[EmbeddedCas], None]:
    """One step of a collection, by a runner of its own. The first change that it makes is that of the step."""

    def run(cas: EmbeddedCas) -> None:
        with cas.index.transaction() as writer:
            row = writer.take_chore(COLLECT, "one", now=cas.index.clock(), until=cas.index.clock() + 60)
        assert row is not None
        with Lease(cas.index, COLLECT, row.token, None, 60) as lease:
            function(Run(cas, lease, GRACE, Throttle()), "")

    run.__name__ = function.__name__
    return run


delete_xorbs, delete_files = step_of(rows.delete_xorbs), step_of(rows.delete_files)


def put_shard(cas: EmbeddedCas) -> None:
    cas.put_shard(Shard((SAMPLE.file,)))


def put_xorb(cas: EmbeddedCas) -> None:
    cas.put_xorb(SAMPLE.xorb.hash, SAMPLE.body)


def put_other_xorb(cas: EmbeddedCas) -> None:
    cas.in_namespace("other").put_xorb(SAMPLE.xorb.hash, SAMPLE.body)


def expect_healthy(cas: EmbeddedCas, clock: FakeClock) -> None:
    """The file can be put, now and for as long as it is there, whatever was deleted before."""
    upload(cas, SAMPLE)
    for _ in range(3):
        clock.advance(25 * DAY)
        collected(cas)
    assert read_back(cas, SAMPLE.file.hash) == SAMPLE.data
    assert len(xorb_objects(cas)) == 1
    verify_invariants(cas)


# Two transactions at once


@pytest.mark.parametrize("put", [put_shard, put_xorb, put_other_xorb])
def test_a_client_that_is_first_keeps_the_xorb(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str, put: Callable[[EmbeddedCas], None]
) -> None:
    in_turns(cas, other, put, delete_xorbs)
    assert registered(cas, [SAMPLE.xorb.hash]) == {SAMPLE.xorb.hash: False}
    assert xorb_object(cas, SAMPLE.xorb.hash) == due
    expect_healthy(cas, clock)


def test_a_shard_that_is_late_is_told_which_xorb_to_send_again(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str
) -> None:
    with pytest.raises(MissingXorbError) as caught:
        in_turns(cas, other, delete_xorbs, put_shard)
    assert caught.value.xorb == str(SAMPLE.xorb.hash)
    assert registered(cas, [SAMPLE.xorb.hash]) == {}
    expect_healthy(cas, clock)
    assert due not in xorb_objects(cas)


@pytest.mark.parametrize("put", [put_xorb, put_other_xorb])
def test_an_upload_that_is_late_is_asked_to_come_again_and_its_bytes_stay(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str, put: Callable[[EmbeddedCas], None]
) -> None:
    """The object was there when it looked, so nothing of the body was kept."""
    with pytest.raises(UnavailableError, match="was deleted"):
        in_turns(cas, other, delete_xorbs, put)
    put(other)
    assert xorb_object(cas, SAMPLE.xorb.hash) != due
    expect_healthy(cas, clock)
    assert due not in xorb_objects(cas)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_file_that_is_put_again_while_it_is_deleted_is_there(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, is_first: bool
) -> None:
    upload(cas, SAMPLE)
    revoke(cas, SAMPLE.file.hash)
    clock.advance(8 * DAY)
    both = (put_shard, delete_files) if is_first else (delete_files, put_shard)
    in_turns(cas, other, *both)
    assert read_back(cas, SAMPLE.file.hash) == SAMPLE.data
    expect_healthy(cas, clock)


def test_of_two_namespaces_that_delete_a_file_the_last_one_lets_it_go(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock
) -> None:
    for namespace in ("one", "two"):
        upload(cas.in_namespace(namespace), SAMPLE)
    in_turns(
        cas,
        other,
        lambda cas: revoke(cas.in_namespace("one"), SAMPLE.file.hash),
        lambda cas: revoke(cas.in_namespace("two"), SAMPLE.file.hash),
    )
    clock.advance(8 * DAY)
    assert collected(cas).files == 1
    verify_invariants(cas)


# Between the calls of a client


def test_an_answer_is_good_for_the_grace(cas: EmbeddedCas, clock: FakeClock) -> None:
    """It offered a xorb, whose file is deleted a moment later: a shard may name the xorb for 22 days."""
    upload(cas, SAMPLE)
    answer = cas.find_chunks(first_chunk(SAMPLE))
    assert answer is not None
    revoke(cas, SAMPLE.file.hash)
    for _ in range(29):
        clock.advance(DAY)
        assert collected(cas).xorbs == 0
    put_shard(cas)
    assert registered(cas, [SAMPLE.xorb.hash]) == {SAMPLE.xorb.hash: False}
    expect_healthy(cas, clock)


@pytest.mark.parametrize("answer", [put_xorb, lambda cas: cas.find_chunks(first_chunk(SAMPLE))])
def test_so_is_one_about_a_xorb_of_no_file(
    cas: EmbeddedCas, clock: FakeClock, answer: Callable[[EmbeddedCas], object]
) -> None:
    """It was stored, and no shard came for half a day; its client, or another, has 22 days from the last answer on."""
    put_xorb(cas)
    cas.put_shard(Shard(xorbs=SAMPLE.shard.xorbs))
    clock.advance(DAY / 2)
    answer(cas)
    for _ in range(22):
        clock.advance(DAY)
        assert collected(cas).xorbs == 0
    put_shard(cas)
    expect_healthy(cas, clock)


def test_an_upload_that_was_told_that_its_xorb_is_known_beside_its_deletion(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str
) -> None:
    with cas.receive_xorb(SAMPLE.xorb.hash) as receiver:
        receiver.write(SAMPLE.body)
        assert receiver.is_known
        delete_xorbs(other)
        with pytest.raises(UnavailableError, match="was deleted"):
            receiver.commit()
    assert due in xorb_objects(cas)
    expect_healthy(cas, clock)


def test_an_upload_that_began_before_another_one_keeps_the_xorb_of_that(cas: EmbeddedCas, clock: FakeClock) -> None:
    """That one's file was deleted again meanwhile, and the xorb doomed."""
    with cas.receive_xorb(SAMPLE.xorb.hash) as receiver:
        receiver.write(SAMPLE.body)
        upload(cas, SAMPLE)
        revoke(cas, SAMPLE.file.hash)
        clock.advance(8 * DAY)
        collected(cas)
        assert registered(cas, [SAMPLE.xorb.hash]) == {SAMPLE.xorb.hash: True}
        receiver.commit()
    assert registered(cas, [SAMPLE.xorb.hash]) == {SAMPLE.xorb.hash: False}
    expect_healthy(cas, clock)


def test_an_upload_keeps_its_bytes_while_the_same_xorb_is_removed(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str
) -> None:
    """No key is written twice: at every moment of the new upload another object goes."""
    delete_xorbs(other)
    clock.advance(2 * DAY)
    with cas.receive_xorb(SAMPLE.xorb.hash) as receiver:
        receiver.write(SAMPLE.body)
        collected(other)  # the old object goes, while the new one is being written
        assert due not in xorb_objects(cas)
        assert receiver.commit()
    collected(other)
    put_shard(cas)
    assert read_back(cas, SAMPLE.file.hash) == SAMPLE.data
    expect_healthy(cas, clock)


def test_a_reader_who_has_begun_gets_done(cas: EmbeddedCas, clock: FakeClock) -> None:
    """The file is deleted, and its xorb: the bytes that a URL names stay for a day."""
    upload(cas, SAMPLE)
    key = xorb_object(cas, SAMPLE.xorb.hash)
    revoke(cas, SAMPLE.file.hash)
    for _ in range(2):
        clock.advance(24 * DAY)
        collected(cas)
    assert registered(cas, [SAMPLE.xorb.hash]) == {}
    assert cas.blobs.stat(key) is not None
    with pytest.raises(NotFoundError):
        cas.reconstruct(SAMPLE.file.hash)
    clock.advance(GRACE.replaced + 1)
    collected(cas)
    assert cas.blobs.stat(key) is None


# Collectors


class Pausing(Throttle):
    """Lets another one do something at the first rest."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work: Callable[[], object] | None = work

    def rest(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


def test_one_that_slept_beyond_its_lease_changes_nothing_more(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, due: str
) -> None:
    late = Lease.take(cas.index, COLLECT, seconds=-1)
    assert late is not None
    with pytest.raises(LeaseLostError):
        collect(cas, late, GRACE, Pausing(lambda: collected(other)))
    assert registered(cas, [SAMPLE.xorb.hash]) == {}
    clock.advance(2 * DAY)
    assert due in xorb_objects(cas)
    assert collected(cas).objects >= 1
    assert due not in xorb_objects(cas)
    expect_healthy(cas, clock)


def test_two_at_once_do_no_harm(cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock) -> None:
    samples = one_chunk_samples(20)
    for sample in samples:
        upload(cas, sample)
    revoke(cas, *(sample.file.hash for sample in samples[:15]))
    errors: list[BaseException] = []

    def work(store: EmbeddedCas) -> None:
        # Each takes the lease from the other, as if that were dead.
        for _ in range(6):
            lease = Lease.take(store.index, COLLECT, seconds=-1)
            try:
                if lease is not None:
                    collect(store, lease, GRACE)
            except LeaseLostError:
                pass
            except BaseException as error:
                errors.append(error)

    for _ in range(4):
        clock.advance(24 * DAY)
        threads = [threading.Thread(target=work, args=(store,)) for store in (cas, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert errors == []
    collected(cas)
    assert len(xorb_objects(cas)) == 5
    verify_invariants(cas)
    for sample in samples[15:]:
        assert read_back(cas, sample.file.hash) == sample.data


class DyingError(Exception):
    """The collector ends here."""


def test_one_that_died_between_row_and_object_is_gone_on_with(
    cas: EmbeddedCas, clock: FakeClock, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_xorbs(cas)  # and no more
    assert due in xorb_objects(cas)
    delete_many = LocalBlobStore.delete_many
    clock.advance(2 * DAY)
    with monkeypatch.context() as dying, pytest.raises(DyingError):

        def delete_and_die(store: LocalBlobStore, keys: Any) -> int:
            delete_many(store, keys)
            raise DyingError

        dying.setattr(LocalBlobStore, "delete_many", delete_and_die)
        step_of(objects.remove_replaced)(cas)
    assert due not in xorb_objects(cas)
    with cas.index.snapshot() as reader:
        assert due in reader.superseded_before(clock())
    assert collected(cas).objects == 0
    with cas.index.snapshot() as reader:
        assert due not in reader.superseded_before(clock() + 1)
    expect_healthy(cas, clock)


def test_a_check_reports_nothing_that_is_collected_meanwhile(
    cas: EmbeddedCas, other: EmbeddedCas, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [make_sample(random_bytes(20_000, 50 + number)) for number in range(4)]
    for sample in samples:
        upload(cas, sample)
    pages: list[str] = []

    def collect_all_first(name: str) -> None:
        listed = getattr(Reader, name)

        def page(reader: Reader, *args: Any) -> Any:
            found = listed(reader, *args)
            if found and name not in pages:
                pages.append(name)
                again.append(name)
            return found

        monkeypatch.setattr(Reader, name, page)

    again: list[str] = []
    for name in ("xorbs_after", "files_after", "shards_after"):
        collect_all_first(name)

    stat, is_at_it, checking = LocalBlobStore.stat, list[int](), threading.current_thread()

    def stat_late(store: LocalBlobStore, key: str) -> Any:
        # A page of rows was read: by the time that the first of their objects is looked at, all of them are gone.
        if again and threading.current_thread() is checking and not is_at_it:
            again.clear()
            is_at_it.append(1)
            with cas.index.snapshot() as reader:
                left = [record.hash for _, record in reader.files_after(0, "default")]
            if left:
                revoke(other, *left)
            for _ in range(3):
                clock.advance(25 * DAY)
                step_all(other)
            is_at_it.clear()
        return stat(store, key)

    monkeypatch.setattr(LocalBlobStore, "stat", stat_late)
    report = check(cas, read_data=True)
    assert "xorbs_after" in pages
    assert report.problems == ()
    assert xorb_objects(cas) == set()


def step_all(cas: EmbeddedCas) -> None:
    lease = Lease.take(cas.index, COLLECT)
    assert lease is not None
    with lease:
        collect(cas, lease, GRACE)


def test_errors_of_a_step_end_it_and_lose_nothing(
    cas: EmbeddedCas, clock: FakeClock, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_xorbs(cas)
    clock.advance(2 * DAY)

    def refuse(_store: Any, _keys: Any) -> int:
        raise UnavailableError("the objects do not answer")

    with monkeypatch.context() as away, pytest.raises(XetError, match="do not answer"):
        away.setattr(LocalBlobStore, "delete_many", refuse)
        step_all(cas)
    assert due in xorb_objects(cas)
    step_all(cas)
    assert due not in xorb_objects(cas)
    expect_healthy(cas, clock)
