"""Global queries in the background: answers are waited for where they decide, and for a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.strategies import splitmix64
from tests.transfer.watched import PATIENCE_SECONDS, WatchedCas
from xetstore.cas import EmbeddedCas
from xetstore.errors import FormatError, UnavailableError, UsageError
from xetstore.events import Event
from xetstore.protocol.dedup import WIRE_QUERIES
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload import session
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.queries import MAX_FAILURES, MAX_WAITING, THREADS, BackgroundQueries, QueryPatience
from xetstore.transfer.upload.sizing import UploadSizes

MIB = 1 << 20


@pytest.fixture
def cas() -> Iterator[WatchedCas]:
    with EmbeddedCas.in_memory() as store:
        watched = WatchedCas(store)
        with watched.settled():
            yield watched


PATIENT = UploadOptions(query_patience=QueryPatience(PATIENCE_SECONDS, PATIENCE_SECONDS))
"""Answers come in time, however slow the machine is."""

DRY_RUN = replace(PATIENT, dry_run=True)
SMALL_XORBS = replace(PATIENT, sizes=UploadSizes(2 * MIB, in_flight=20))


def put_files(
    cas: WatchedCas, paths: Iterable[Path], options: UploadOptions = PATIENT, **others: Any
) -> Generator[PutReport]:
    return session.put_files(cas, paths, options, **others)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def failing(error: Exception) -> Callable[[str], None]:
    def before(verb: str) -> None:
        if verb == "find_chunks":
            raise error

    return before


def late(verb: str) -> None:
    if verb == "find_chunks":
        time.sleep(0.3)


def waiting_for(event: threading.Event) -> Callable[[str], None]:
    def before(verb: str) -> None:
        if verb == "find_chunks":
            event.wait(PATIENCE_SECONDS)

    return before


def test_a_large_file_that_the_server_has_is_not_sent_again(cas: WatchedCas, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(1, 20 * MIB))
    list(put_files(cas, [path], SMALL_XORBS))
    first = cas.sent_bytes
    assert first > 20 * MIB
    [report] = put_files(cas, [path], SMALL_XORBS)
    assert cas.sent_bytes == first
    assert (report.new_bytes, report.deduped_bytes) == (0, 20 * MIB)


def test_what_is_asked_is_known_before_it_is_sent(cas: WatchedCas, tmp_path: Path) -> None:
    """However short the file, and however late the answer: it is waited for before the xorb is sent."""
    for size in (1000, 6 * MIB):
        path = write(tmp_path / str(size), splitmix64(size, size))
        list(put_files(cas, [path]))
        sent, cas.before = len(cas.sent), late
        [report] = put_files(cas, [path])
        assert (report.new_bytes, report.stored_bytes, report.deduped_bytes) == (0, 0, size)
        assert len(cas.sent) == sent


def test_an_answer_that_comes_late_drops_what_waits_in_a_xorb(cas: WatchedCas, tmp_path: Path) -> None:
    data, other = splitmix64(3, 6 * MIB), splitmix64(4, 300_000)
    list(put_files(cas, [write(tmp_path / "old", data)]))
    sent_before, cas.before = cas.sent_bytes, late
    again, new = put_files(cas, [write(tmp_path / "again", data), write(tmp_path / "other", other)])
    assert (again.new_bytes, again.stored_bytes, again.deduped_bytes) == (0, 0, len(data))
    assert new.new_bytes == len(other)
    assert cas.sent_bytes - sent_before == new.stored_bytes
    for report, content in ((again, data), (new, other)):
        assert b"".join(map(bytes, Downloader(cas.cas).stream(report.info.hash))) == content


def test_many_small_files_make_few_queries(cas: WatchedCas, tmp_path: Path) -> None:
    files = [write(tmp_path / str(i), splitmix64(i, 4096)) for i in range(3000)]
    reports = list(put_files(cas, files))
    assert len(reports) == 3000
    assert 1 <= len(cas.asked) <= 3000 * 4096 // cas.queries.spacing_bytes + 1


def test_every_file_worth_a_query_makes_one(cas: WatchedCas, tmp_path: Path) -> None:
    small = [write(tmp_path / f"small{i}", splitmix64(i, 4096)) for i in range(10)]
    large = write(tmp_path / "large", splitmix64(99, 5 * MIB))
    list(put_files(cas, [*small, large]))
    assert len(cas.asked) >= 2


def test_an_endpoint_that_hangs_fails_no_upload(cas: WatchedCas, tmp_path: Path) -> None:
    never = threading.Event()
    cas.before = waiting_for(never)
    hasty = replace(SMALL_XORBS, query_patience=QueryPatience(0.05, 0.12))
    try:
        files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(4)]
        reports = list(put_files(cas, files, hasty))
    finally:
        never.set()
    assert [report.new_bytes for report in reports] == [5 * MIB] * 4
    assert len(cas.asked) <= THREADS


def test_an_endpoint_that_hangs_is_waited_for_a_bounded_time(cas: WatchedCas) -> None:
    never = threading.Event()
    cas.before = waiting_for(never)
    asking = BackgroundQueries(cas, lambda _: None, QueryPatience(0.02, 0.1))
    try:
        asking.ask([Hash.ZERO])
        for _ in range(5):
            assert asking._vain_seconds > -1
            assert asking.answers() == []
        assert asking._vain_seconds <= 0, "what was waited in vain counts"
        asking._changed.wait = None  # type: ignore[assignment, method-assign]  # there is no more waiting
        assert asking.answers() == []
    finally:
        asking.close()
        never.set()


@pytest.mark.parametrize(
    "error", [UnavailableError("busy"), FormatError("shard.tag", 0, "rubbish"), UsageError("what?")]
)
def test_an_endpoint_that_fails_is_given_up_and_fails_no_upload(
    cas: WatchedCas, tmp_path: Path, error: Exception
) -> None:
    cas.before = failing(error)
    files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(4)]
    assert len(list(put_files(cas, files, SMALL_XORBS))) == 4
    assert len(cas.asked) <= MAX_FAILURES + THREADS


def test_answers_are_remembered_for_the_next_session(cas: WatchedCas, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(1, 20 * MIB))
    list(put_files(cas, [path], SMALL_XORBS))
    cas.sent.clear()
    with KnownXorbs(tmp_path / "known") as known:
        list(put_files(cas, [path], SMALL_XORBS, known=known))
        assert cas.sent == []
        # Answers are written down by the threads that got them.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not known.find(cas.asked[-1].digest):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cas.before = failing(UnavailableError("no more answers"))
        [report] = put_files(cas, [path], SMALL_XORBS, known=known)
    assert cas.sent == []
    assert report.new_bytes == 0


def test_what_waits_to_be_asked_is_bounded(cas: WatchedCas) -> None:
    go_on = threading.Event()
    cas.before = waiting_for(go_on)
    asking = BackgroundQueries(cas, lambda _: None)
    asking.ask(Hash(number.to_bytes(32, "big")) for number in range(1, 2 * MAX_WAITING))
    assert len(asking._waiting) <= MAX_WAITING
    asking.close()
    go_on.set()
    assert len(cas.asked) <= THREADS
    asking.ask([Hash.ZERO])
    assert Hash.ZERO not in cas.asked


def test_a_dry_run_asks_waits_and_remembers_nothing(cas: WatchedCas, tmp_path: Path) -> None:
    data = splitmix64(1, 9 * MIB)
    list(put_files(cas, [write(tmp_path / "old", data)]))
    sent, shards, events = list(cas.sent), list(cas.shards), list[Event]()
    with KnownXorbs(tmp_path / "known") as known:
        files = [write(tmp_path / "new", data + b"more"), write(tmp_path / "other", splitmix64(9, 3000))]
        one, other = put_files(cas, files, DRY_RUN, known=known, emit=events.append)
    assert one.new_bytes < MIB
    assert one.info.size == one.new_bytes + one.deduped_bytes == 9 * MIB + 4
    assert (other.new_bytes, other.stored_bytes) == (3000, 0)
    assert (cas.sent, cas.shards, events) == (sent, shards, [])
    assert not (tmp_path / "known").exists()


def test_a_dry_run_does_without_answers_where_none_come(cas: WatchedCas, tmp_path: Path) -> None:
    cas.before = failing(UnavailableError("busy"))
    files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(3)]
    reports = list(put_files(cas, files, DRY_RUN))
    assert [report.new_bytes for report in reports] == [5 * MIB] * 3
    assert len(cas.asked) == 1


def test_only_time_waited_in_vain_counts_and_after_a_failure_there_is_no_waiting(
    cas: WatchedCas, tmp_path: Path
) -> None:
    [report] = put_files(cas, [write(tmp_path / "file", splitmix64(1, 100_000))])
    [hashes] = cas.cas.reconstruct(report.info.hash, hashes=True).term_hashes or ()
    stored = Hash(hashes[:32])
    go_on = threading.Semaphore(0)

    def before(_: str) -> None:
        go_on.acquire(timeout=PATIENCE_SECONDS)

    def left_after(chunk: Hash, sending_seconds: float = 0.0) -> float:
        """How long may be waited in vain after an answer that came while it was waited for."""
        asking.ask([chunk])
        threading.Timer(0.02, go_on.release).start()
        asking.answers(sending_seconds)
        return asking._vain_seconds

    cas.before = before
    asking = BackgroundQueries(cas, lambda _: None, QueryPatience(PATIENCE_SECONDS, 1000))
    assert left_after(stored) == 1000, "it told of something"
    assert left_after(Hash(b"1" * 32), sending_seconds=PATIENCE_SECONDS) == 1000, "sending would have taken longer"
    assert 0 < (left := left_after(Hash(b"2" * 32))) < 1000
    assert left_after(Hash(b"3" * 32)) < left
    assert left_after(stored) == 1000, "waiting is worth it again"
    never = threading.Event()
    cas.before = failing(UnavailableError("busy"))
    asking.ask([Hash(b"4" * 32)])
    asking.answers()
    cas.before = waiting_for(never)
    asking.ask([Hash(b"5" * 32)])
    assert asking.answers(sending_seconds=PATIENCE_SECONDS) == []
    asking.close()
    never.set()


def test_where_an_answer_may_name_many_chunks_small_files_make_a_few_queries(cas: WatchedCas, tmp_path: Path) -> None:
    """And all of their first chunks are asked for, those too that were placed before the rule was known."""
    rule, cas.queries = replace(cas.queries, most_at_once=1024, spacing_bytes=0), WIRE_QUERIES
    files = [write(tmp_path / str(i), splitmix64(i, 4096)) for i in range(1500)]

    def before(verb: str) -> None:
        if verb == "find_chunks":
            late(verb)
            cas.queries = rule

    cas.before = before
    list(put_files(cas, files))
    assert len(set(cas.asked)) == 1500
    assert cas.questions <= 30, "each takes what has gathered while the one before was on its way"
    sent = len(cas.sent)
    cas.queries = WIRE_QUERIES
    changed = [write(path, splitmix64(10_000 + i, 4096)) if i % 20 == 0 else path for i, path in enumerate(files)]
    reports = list(put_files(cas, changed))
    assert [report.new_bytes for report in reports] == [0 if i % 20 else 4096 for i in range(1500)]
    assert len(cas.sent) == sent + 1
