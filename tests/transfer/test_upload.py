"""An upload that is cut short goes on, one that is refused starts over, one that is given up ends at once."""

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
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import (
    InterruptedCallError,
    MissingXorbError,
    NotFoundError,
    RejectedShardError,
    UnavailableError,
    XetError,
)
from xetstore.events import Event, FilesRegistered, Forgotten, XorbStored
from xetstore.limits import Limits
from xetstore.protocol.hashes import Hash
from xetstore.testing.clock import FakeClock
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.progress import NoProgress
from xetstore.transfer.upload import session, xorbs
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import UPLOADED_SECONDS, KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.sizing import UploadSizes, upload_sizes

MIB = 1 << 20
SMALL = UploadSizes(2 * MIB, 2)


@pytest.fixture
def cas() -> Iterator[WatchedCas]:
    with EmbeddedCas.in_memory() as store:
        watched = WatchedCas(store)
        with watched.settled():
            yield watched
        assert check(store, read_data=True).problems == ()


@pytest.fixture
def known(tmp_path: Path) -> Iterator[KnownXorbs]:
    with KnownXorbs(tmp_path / "known") as known:
        yield known


def put_files(
    cas: WatchedCas, paths: Iterable[Path], sizes: UploadSizes = SMALL, **others: Any
) -> Generator[PutReport]:
    """Put files in small xorbs."""
    return session.put_files(cas, paths, UploadOptions(sizes=sizes), **others)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(cas: WatchedCas, file: Hash) -> bytes:
    return b"".join(map(bytes, Downloader(cas.cas).stream(file)))


def failing(verb: str, times: int, error: Exception) -> Callable[[str], None]:
    """The first ``times`` calls of a verb succeed, the others fail."""
    left = [times]
    lock = threading.Lock()

    def before(called: str) -> None:
        if called == verb:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    raise error

    return before


# Cut short, and going on


def test_an_upload_that_was_cut_short_sends_only_what_is_missing(
    cas: WatchedCas, known: KnownXorbs, tmp_path: Path
) -> None:
    data = splitmix64(1, 30 * MIB)
    path = write(tmp_path / "file", data)
    cas.queries = replace(cas.queries, modulus=1 << 62)
    cas.before = failing("put_xorb", 8, UnavailableError("gone"))
    with pytest.raises(UnavailableError):
        list(put_files(cas, [path], known=known))
    acknowledged = cas.sent_bytes
    assert acknowledged > 14 * MIB
    assert cas.shards == []
    cas.before = lambda _: None
    [report] = put_files(cas, [path], known=known)
    assert cas.sent_bytes - acknowledged == report.stored_bytes
    assert cas.sent_bytes < len(data) * 1.01, "nothing was sent twice"
    assert read(cas, report.info.hash) == data


def test_the_xorbs_of_an_upload_that_was_cut_short_are_listed_in_the_shard_that_uses_them_once(
    cas: WatchedCas, known: KnownXorbs, tmp_path: Path
) -> None:
    path = write(tmp_path / "file", splitmix64(1, 9 * MIB))
    cas.before = failing("put_shard", 0, UnavailableError("gone"))
    with pytest.raises(UnavailableError):
        list(put_files(cas, [path], known=known))
    cas.before = lambda _: None
    stored = {xorb for xorb, _ in cas.sent}
    list(put_files(cas, [path], known=known))
    assert {xorb for xorb, _ in cas.sent} == stored
    [shard] = cas.shards
    assert {entry.hash for entry in shard.xorbs} == stored
    list(put_files(cas, [path], known=known))
    assert cas.shards[1].xorbs == ()
    assert cas.shards[1].files == shard.files


def test_what_was_uploaded_is_not_believed_in_for_ever(cas: WatchedCas, tmp_path: Path) -> None:
    clock = FakeClock()
    path = write(tmp_path / "file", splitmix64(1, 3 * MIB))
    cas.before = failing("find_chunks", 0, UnavailableError("no answers"))
    with KnownXorbs(tmp_path / "known", clock=clock) as known:
        list(put_files(cas, [path], known=known))
        sent = len(cas.sent)
        clock.advance(UPLOADED_SECONDS + 1)
        list(put_files(cas, [path], known=known))
    assert len(cas.sent) == 2 * sent


def test_every_xorb_and_every_shard_is_told(cas: WatchedCas, tmp_path: Path) -> None:
    events: list[Event] = []
    files = [write(tmp_path / str(i), splitmix64(i, 3 * MIB)) for i in range(2)]
    list(put_files(cas, files, emit=events.append))
    stored = [event for event in events if isinstance(event, XorbStored)]
    assert [(event.xorb, event.body_bytes) for event in stored] == cas.sent
    assert sum(event.raw_bytes for event in stored) == 6 * MIB
    assert all(event.is_new for event in stored)
    assert events[-1] == FilesRegistered(2)


# Refused, and starting over


@pytest.mark.parametrize("wiped", ["before", "between two flushes"])
def test_a_server_that_has_lost_everything_gets_everything_again(
    cas: WatchedCas, known: KnownXorbs, tmp_path: Path, wiped: str
) -> None:
    contents = [splitmix64(i, 3 * MIB) for i in range(4)]
    files = [write(tmp_path / str(i), data) for i, data in enumerate(contents)]
    list(put_files(cas, files, known=known))
    events: list[Event] = []
    with EmbeddedCas.in_memory() as empty:
        if wiped == "before":
            cas.cas = empty
        reports = []
        for report in put_files(cas, files, replace(SMALL, files=2), known=known, emit=events.append):
            reports.append(report)
            if len(reports) == 2 and cas.cas is not empty:
                # What the first two files are of is gone with them.
                cas.cas = empty
        assert [report.path for report in reports] == files
        assert [report.info.size for report in reports] == [3 * MIB] * 4
        kept = 2 if wiped == "between two flushes" else 0
        assert [read(cas, report.info.hash) for report in reports[kept:]] == contents[kept:]
        assert [type(event) for event in events].count(Forgotten) == 1
        assert check(empty, read_data=True).problems == ()
        sent = len(cas.sent)
        list(put_files(cas, files[2:], known=known))
        assert len(cas.sent) == sent, "what was sent again is known again"


def test_a_server_that_has_lost_one_xorb_gets_it_again(cas: WatchedCas, known: KnownXorbs, tmp_path: Path) -> None:
    old, new = splitmix64(1, 5 * MIB), splitmix64(2, 2 * MIB)
    list(put_files(cas, [write(tmp_path / "old", old)], known=known))
    with EmbeddedCas.in_memory() as empty:
        cas.cas = empty
        files = [write(tmp_path / "new", new), write(tmp_path / "mixed", old[: 4 * MIB] + new)]
        reports = list(put_files(cas, files, known=known))
        assert [read(cas, report.info.hash) for report in reports] == [new, old[: 4 * MIB] + new]
        assert check(empty, read_data=True).problems == ()


def test_a_second_refusal_is_the_error(cas: WatchedCas, known: KnownXorbs, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(1, 3 * MIB))
    list(put_files(cas, [path], known=known))
    cas.before = failing("put_shard", 0, MissingXorbError("0" * 64))
    events: list[Event] = []
    with pytest.raises(MissingXorbError):
        list(put_files(cas, [path], known=known, emit=events.append))
    assert sum(isinstance(event, Forgotten) for event in events) == 1


def test_a_shard_of_own_xorbs_alone_that_is_refused_is_an_error_at_once(cas: WatchedCas, tmp_path: Path) -> None:
    cas.before = failing("put_shard", 0, RejectedShardError("no"))
    with pytest.raises(RejectedShardError):
        list(put_files(cas, [write(tmp_path / "file", splitmix64(1, 3 * MIB))]))
    assert sum(nbytes for _, nbytes in cas.sent) < 3.1 * MIB


def test_a_file_that_is_gone_when_it_is_to_be_sent_again_is_reported_and_the_others_are_stored(
    cas: WatchedCas, known: KnownXorbs, tmp_path: Path
) -> None:
    files = [write(tmp_path / str(i), splitmix64(i, MIB)) for i in range(3)]
    list(put_files(cas, files, known=known))
    failed: list[tuple[Path, XetError]] = []
    with EmbeddedCas.in_memory() as empty:
        cas.cas = empty
        remove = [files[1]]

        def before(verb: str) -> None:
            if verb == "put_shard" and remove:
                remove.pop().unlink()

        cas.before = before
        reports = list(put_files(cas, files, known=known, on_error=lambda *what: failed.append(what)))
        assert [report.path for report in reports] == [files[0], files[2]]
        assert [(path, type(error)) for path, error in failed] == [(files[1], NotFoundError)]


# Given up


@pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptedCallError("enough"), NotFoundError("a file is gone")])
def test_an_upload_that_is_given_up_does_not_wait_for_the_network(
    cas: WatchedCas, tmp_path: Path, error: BaseException
) -> None:
    hanging = threading.Event()

    def before(verb: str) -> None:
        if verb == "put_xorb":
            hanging.set()
            cas.hang()

    def files() -> Iterator[Path]:
        yield write(tmp_path / "file", splitmix64(1, 4 * MIB))
        assert hanging.wait(PATIENCE_SECONDS)
        raise error

    cas.before = before
    with pytest.raises(type(error) if isinstance(error, Exception) else error):  # type: ignore[arg-type]
        list(put_files(cas, files()))
    assert cas.sent == []


def test_an_upload_that_nobody_takes_the_reports_of_any_more_ends(cas: WatchedCas, tmp_path: Path) -> None:
    files = [write(tmp_path / str(i), splitmix64(i, 100_000)) for i in range(3)]
    reports = put_files(cas, files)
    next(reports)
    reports.close()
    assert len(cas.registered) == 3


def test_an_upload_that_fails_cancels_no_other(cas: WatchedCas, tmp_path: Path) -> None:
    call = Cancellation()
    with pytest.raises(NotFoundError):
        list(put_files(cas, [write(tmp_path / "good", b"good"), tmp_path / "missing"], cancellation=call))
    assert len(cas.registered) == 1
    assert not call.is_cancelled


def test_a_query_that_outlasts_an_upload_is_left_alone(cas: WatchedCas, tmp_path: Path) -> None:
    """A query that hangs is to fail, so that the server is not asked by the uploads that follow."""
    asked, release = threading.Event(), threading.Event()
    outlasted: list[bool] = []

    def before(verb: str) -> None:
        if verb == "find_chunks":
            asked.set()
            assert release.wait(PATIENCE_SECONDS)
            outlasted.append(cas.calls[0].is_cancelled)

    cas.before = before
    list(put_files(cas, [write(tmp_path / "file", splitmix64(1, 4 * MIB))]))
    assert asked.is_set()
    release.set()
    for thread in threading.enumerate():
        if thread.name == "find_chunks":
            thread.join(PATIENCE_SECONDS)
    assert outlasted
    assert not any(outlasted)


def test_an_error_of_any_xorb_in_flight_ends_the_upload(cas: WatchedCas, tmp_path: Path) -> None:
    cas.before = failing("put_xorb", 2, UnavailableError("gone"))
    path = write(tmp_path / "file", splitmix64(1, 40 * MIB))
    watched = Logical()
    with pytest.raises(UnavailableError):
        list(put_files(cas, [path], progress=watched))
    assert len(cas.sent) == 2
    assert watched.nbytes < 40 * MIB, "the rest of the file is not read"


class Logical(NoProgress):
    nbytes = 0

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        self.nbytes += logical


# How much at a time


def test_small_files_are_credited_with_what_each_of_them_takes(cas: WatchedCas, tmp_path: Path) -> None:
    contents = [(b"%d," % i) * 3000 if i % 2 else splitmix64(i, 5000 + i) for i in range(200)]
    reports = list(put_files(cas, [write(tmp_path / str(i), data) for i, data in enumerate(contents)]))
    assert sum(report.stored_bytes for report in reports) == cas.sent_bytes
    for i, report in enumerate(reports):
        if i % 2:
            assert 0 < report.stored_bytes < report.info.size / 2
        else:
            assert report.stored_bytes == report.new_bytes + 8
    assert [read(cas, report.info.hash) for report in reports[::20]] == contents[::20]


def test_several_xorbs_are_sent_at_a_time(cas: WatchedCas, tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    waits = iter([True, True])

    def before(verb: str) -> None:
        if verb == "put_xorb" and next(waits, False):
            together.wait()

    cas.before = before
    list(put_files(cas, [write(tmp_path / "file", splitmix64(1, 9 * MIB))]))
    assert together.n_waiting == 0


def test_small_files_are_not_read_much_faster_than_they_are_sent(cas: WatchedCas, tmp_path: Path) -> None:
    sizes = replace(SMALL, held_bytes=2 * MIB)
    read_bytes = [0]
    stalled_at: list[int] = []

    def before(verb: str) -> None:
        # Until nothing has been read for a while.
        seen = -1
        while verb == "put_xorb" and not stalled_at and seen != read_bytes[0]:
            seen = read_bytes[0]
            time.sleep(0.2)
        stalled_at.append(read_bytes[0])

    def files() -> Iterator[Path]:
        for i in range(400):
            yield write(tmp_path / str(i), splitmix64(i, 50_000))
            read_bytes[0] += 50_000

    cas.before = before
    assert len(list(put_files(cas, files(), sizes))) == 400
    filled = (sizes.in_flight + 1) * sizes.xorb_bytes
    assert stalled_at[0] < filled + sizes.held_bytes + 2 * xorbs.BATCH_BYTES + MIB < 400 * 50_000


MEMORY = [128 << 20, 160 << 20, 256 << 20, 512 << 20, 4 << 30]


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("jobs", [None, 1, 4, 64])
def test_sizes_keep_the_memory_that_is_allowed(remote: bool, jobs: int | None) -> None:
    for memory in MEMORY:
        sizes = upload_sizes(Limits(max_memory=memory, jobs=jobs), remote=remote)
        taken = (sizes.in_flight + 1) * sizes.xorb_bytes + 320 * sizes.known_chunks + 2048 * sizes.files
        assert taken + (75 << 20) <= max(memory, 128 << 20)
        assert 1 <= sizes.in_flight <= (jobs or (21 if remote else 1))
        assert sizes.xorb_bytes in {8 * MIB, 16 * MIB, 24 * MIB}


def test_sizes_where_nothing_is_said() -> None:
    assert upload_sizes(Limits(), remote=False) == UploadSizes(24 * MIB, 1)
    assert upload_sizes(Limits(), remote=True) == UploadSizes(24 * MIB, 20)
    assert upload_sizes(Limits(jobs=5), remote=True) == UploadSizes(24 * MIB, 5)
    assert upload_sizes(Limits(max_memory=1 << 30), remote=True) == UploadSizes(24 * MIB, 21)
