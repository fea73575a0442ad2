"""Global queries in the background: answers help, and nobody waits for them for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.strategies import splitmix64
from tests.transfer.watched import PATIENCE_SECONDS, WatchedCas
from xetstore.cas import EmbeddedCas
from xetstore.errors import FormatError, UnavailableError, UsageError
from xetstore.events import Event
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload import queries, sizing
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.queries import MAX_FAILURES, MAX_WAITING, THREADS, BackgroundQueries
from xetstore.transfer.upload.session import put_files

MIB = 1 << 20


@pytest.fixture
def cas() -> Iterator[WatchedCas]:
    with EmbeddedCas.in_memory() as store:
        watched = WatchedCas(store)
        with watched.settled():
            yield watched


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come in time, however slow the machine is."""
    monkeypatch.setattr(queries, "HOLD_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def small_xorbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "REMOTE_XORB_BYTES", 2 * MIB)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def failing(error: Exception) -> Callable[[str], None]:
    def before(verb: str) -> None:
        if verb == "find_chunks":
            raise error

    return before


def waiting_for(event: threading.Event) -> Callable[[str], None]:
    def before(verb: str) -> None:
        if verb == "find_chunks":
            event.wait(PATIENCE_SECONDS)

    return before


@pytest.mark.usefixtures("patient", "small_xorbs")
def test_a_large_file_that_the_server_has_is_not_sent_again(cas: WatchedCas, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(1, 20 * MIB))
    list(put_files(cas, [path]))
    first = cas.sent_bytes
    assert first > 20 * MIB
    [report] = put_files(cas, [path])
    assert cas.sent_bytes == first
    assert (report.new_bytes, report.deduped_bytes) == (0, 20 * MIB)


def test_an_answer_that_comes_late_still_helps_later_blocks(cas: WatchedCas, tmp_path: Path) -> None:
    data = splitmix64(2, 6 * MIB)
    list(put_files(cas, [write(tmp_path / "old", data)]))
    asked_before, answered = len(cas.asked), threading.Event()
    real = cas.cas.find_chunks

    def find_chunks(chunk: Hash) -> object:
        answer = real(chunk)
        answered.set()
        return answer

    cas.cas.find_chunks = find_chunks  # type: ignore[method-assign, assignment]

    def files() -> Iterator[Path]:
        yield write(tmp_path / "a", data[: 5 * MIB])
        assert answered.wait(PATIENCE_SECONDS)
        time.sleep(0.05)
        yield write(tmp_path / "b", data[:-5])

    first, second = put_files(cas, files())
    assert len(cas.asked) > asked_before
    assert second.new_bytes < MIB
    assert first.new_bytes + first.deduped_bytes == 5 * MIB


def test_an_answer_that_comes_late_drops_what_waits_in_a_xorb(
    cas: WatchedCas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "HOLD_SECONDS", 0.0)
    data, other = splitmix64(3, 6 * MIB), splitmix64(4, 300_000)
    list(put_files(cas, [write(tmp_path / "old", data)]))
    sent_before, go_on, answered = cas.sent_bytes, threading.Event(), threading.Event()
    cas.before = waiting_for(go_on)
    real = BackgroundQueries._next

    def next_question(self: BackgroundQueries) -> Hash | None:
        if len(cas.asked) > asked_before:
            answered.set()  # the thread comes back for more: what it was told is there
        return real(self)

    asked_before = len(cas.asked)
    monkeypatch.setattr(BackgroundQueries, "_next", next_question)

    def files() -> Iterator[Path]:
        yield write(tmp_path / "again", data)
        go_on.set()
        assert answered.wait(PATIENCE_SECONDS)
        yield write(tmp_path / "other", other)

    again, new = put_files(cas, files())
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


@pytest.mark.usefixtures("small_xorbs")
def test_an_endpoint_that_hangs_delays_one_file_once(
    cas: WatchedCas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []
    real = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if timeout is not None and threading.current_thread() is threading.main_thread():
            held.append(timeout)
        return real(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)
    monkeypatch.setattr(queries, "HOLD_SECONDS", 0.05)
    never = threading.Event()
    cas.before = waiting_for(never)
    files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(4)]
    reports = list(put_files(cas, files))
    assert [report.new_bytes for report in reports] == [5 * MIB] * 4
    assert len([timeout for timeout in held if 0 < timeout <= 0.05]) == 1
    assert len(cas.asked) <= THREADS
    never.set()


@pytest.mark.usefixtures("small_xorbs")
@pytest.mark.parametrize(
    "error", [UnavailableError("busy"), FormatError("shard.tag", 0, "rubbish"), UsageError("what?")]
)
def test_an_endpoint_that_fails_is_given_up_and_fails_no_upload(
    cas: WatchedCas, tmp_path: Path, error: Exception
) -> None:
    cas.before = failing(error)
    files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(4)]
    assert len(list(put_files(cas, files))) == 4
    assert len(cas.asked) <= MAX_FAILURES + THREADS


@pytest.mark.usefixtures("patient", "small_xorbs")
def test_answers_are_remembered_for_the_next_session(cas: WatchedCas, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(1, 20 * MIB))
    list(put_files(cas, [path]))
    cas.sent.clear()
    with KnownXorbs(tmp_path / "known") as known:
        list(put_files(cas, [path], known=known))
        assert cas.sent == []
        # Answers are written down by the threads that got them.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not known.find(cas.asked[-1].digest):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cas.before = failing(UnavailableError("no more answers"))
        [report] = put_files(cas, [path], known=known)
    assert cas.sent == []
    assert report.new_bytes == 0


def test_queries_that_nobody_has_time_for_are_dropped(cas: WatchedCas) -> None:
    go_on = threading.Event()
    cas.before = waiting_for(go_on)
    asking = BackgroundQueries(cas, lambda _: None)
    for number in range(1, 101):
        asking.ask(Hash(number.to_bytes(32, "big")))
    asking.close()
    go_on.set()
    assert len(cas.asked) <= MAX_WAITING + THREADS
    asking.ask(Hash.ZERO)
    assert Hash.ZERO not in cas.asked


def test_a_dry_run_asks_waits_and_remembers_nothing(cas: WatchedCas, tmp_path: Path) -> None:
    data = splitmix64(1, 9 * MIB)
    list(put_files(cas, [write(tmp_path / "old", data)]))
    sent, shards, events = list(cas.sent), list(cas.shards), list[Event]()
    with KnownXorbs(tmp_path / "known") as known:
        files = [write(tmp_path / "new", data + b"more"), write(tmp_path / "other", splitmix64(9, 3000))]
        one, other = put_files(cas, files, known=known, dry_run=True, emit=events.append)
    assert one.new_bytes < MIB
    assert one.info.size == one.new_bytes + one.deduped_bytes == 9 * MIB + 4
    assert (other.new_bytes, other.stored_bytes) == (3000, 0)
    assert (cas.sent, cas.shards, events) == (sent, shards, [])
    assert not (tmp_path / "known").exists()


def test_a_dry_run_does_without_answers_where_none_come(cas: WatchedCas, tmp_path: Path) -> None:
    cas.before = failing(UnavailableError("busy"))
    files = [write(tmp_path / str(i), splitmix64(i, 5 * MIB)) for i in range(3)]
    reports = list(put_files(cas, files, dry_run=True))
    assert [report.new_bytes for report in reports] == [5 * MIB] * 3
    assert len(cas.asked) == 1


def test_only_time_waited_in_vain_counts_and_after_a_failure_nobody_waits(
    cas: WatchedCas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [report] = put_files(cas, [write(tmp_path / "file", splitmix64(1, 100_000))])
    [hashes] = cas.cas.reconstruct(report.info.hash, hashes=True).term_hashes or ()
    stored = Hash(hashes[:32])
    go_on = threading.Semaphore(0)

    def before(_: str) -> None:
        go_on.acquire(timeout=PATIENCE_SECONDS)

    def hold(chunk: Hash) -> float:
        """What is left to be waited after an answer that came while it was waited for."""
        asking.ask(chunk)
        threading.Timer(0.02, go_on.release).start()
        asking.hold_for(chunk)
        asking.arrived()
        return asking._hold_seconds

    cas.before = before
    monkeypatch.setattr(queries, "HOLD_SECONDS", 1000.0)
    asking = BackgroundQueries(cas, lambda _: None)
    assert [hold(stored), hold(stored)] == [1000, 1000]
    left = hold(Hash(b"1" * 32))
    assert left < 1000
    assert hold(Hash(b"2" * 32)) < left
    cas.before = failing(UnavailableError("busy"))
    assert hold(Hash(b"3" * 32)) == 0
    asking.close()
