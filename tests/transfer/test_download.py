"""Downloads and streams: what they report, what they take from the chunk cache, and how they stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.faulty import FaultyCas, Stored, flip
from tests.support.live import until
from tests.support.strategies import splitmix64
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import AccessDeniedError, IntegrityError, InterruptedCallError, NotFoundError
from xetstore.events import ConcurrencyChanged, Event, RangeFetched
from xetstore.limits import Limits
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction
from xetstore.transfer.download import workers
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloaded, Downloader
from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
from xetstore.transfer.progress import Progress
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

MIB = 1 << 20
ONE_AT_A_TIME = DownloadOptions(workers=1)


def total(stored: Stored) -> int:
    found = stored.cas.reconstruct(stored.file).fetches.values()
    return sum(fetch.byte_end - fetch.byte_start for each in found for fetch in each)


def nowhere(_offset: int, _data: memoryview) -> None:
    pass


def read(downloader: Downloader, stored: Stored, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(map(bytes, downloader.stream(stored.file, start, end, MIB)))


class Sums(Progress):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.expected = self.moved = 0

    def total(self, nbytes: int) -> None:
        self.expected += nbytes

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        self.moved += logical


# What it tells


@pytest.mark.parametrize("remote", [True, False])
def test_a_download_reports_what_it_did(stored: Stored, remote: bool) -> None:
    cas = FaultyCas(stored.cas, remote=remote)
    progress = Sums()
    events: list[Event] = []
    done = Downloader(cas, emit=events.append).download(stored.file, nowhere, progress=progress)
    assert done == Downloaded(len(stored.data), True, total(stored), 0)
    assert (progress.expected, progress.moved) == (len(stored.data), len(stored.data))
    fetched = [event for event in events if isinstance(event, RangeFetched)]
    assert sum(event.byte_end - event.byte_start for event in fetched) == cas.sent == total(stored)
    assert not any(event.cached for event in fetched)


def test_progress_counts_bytes_once_however_often_they_are_fetched(stored: Stored) -> None:
    progress = Sums()
    cas = FaultyCas(stored.cas, send=lambda number, _, data: flip(data, -1) if number % 2 == 0 else data)
    Downloader(cas, ONE_AT_A_TIME).download(stored.file, nowhere, progress=progress)
    assert progress.moved == progress.expected == len(stored.data)


def test_no_range_is_fetched_twice(stored: Stored) -> None:
    cas = FaultyCas(stored.cas)
    Downloader(cas).download(stored.file, nowhere)
    assert len(set(cas.fetches)) == len(cas.fetches)


def test_a_range_without_hashes_is_not_verified(stored: Stored) -> None:
    cas = FaultyCas(stored.cas, hashes=False)
    assert not Downloader(cas).download(stored.file, nowhere, 5, 1_000_000).verified
    assert Downloader(cas).download(stored.file, nowhere).verified


# The chunk cache


@pytest.fixture
def cache(tmp_path: Path) -> ChunkCache:
    return ChunkCache(tmp_path / "cache")


@pytest.mark.parametrize("hashes", [True, False])
def test_what_was_streamed_once_comes_from_the_cache(stored: Stored, cache: ChunkCache, hashes: bool) -> None:
    first = FaultyCas(stored.cas, hashes=hashes)
    assert read(Downloader(first, cache=cache), stored) == stored.data
    second = FaultyCas(stored.cas, hashes=hashes)
    events: list[Event] = []
    downloader = Downloader(second, cache=cache, emit=events.append)
    assert read(downloader, stored) == stored.data
    assert read(downloader, stored, 1_000_001, 1_500_000) == stored.data[1_000_001:1_500_000]
    done = downloader.download(stored.file, nowhere)
    if hashes:
        assert second.bodies == 0
        assert (done.fetched_bytes, done.reused_bytes) == (0, len(stored.data))
        assert all(event.cached for event in events if isinstance(event, RangeFetched))
    else:  # only what is known to be right is kept: here, whole xorbs
        assert second.sent < 2.5 * total(stored)
        assert done.fetched_bytes + done.reused_bytes >= total(stored)


def test_ranges_are_cached_and_whole_downloads_are_not(stored: Stored, cache: ChunkCache) -> None:
    Downloader(stored.cas, cache=cache).download(stored.file, nowhere)
    cas = FaultyCas(stored.cas)
    Downloader(cas, cache=cache).download(stored.file, nowhere, 10, 2_000_000)
    assert cas.sent >= 2_000_000 - 10
    again = FaultyCas(stored.cas)
    done = Downloader(again, cache=cache).download(stored.file, nowhere, 10, 2_000_000)
    assert (again.sent, done.reused_bytes) == (0, 2_000_000 - 10)


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("place", [0.3, 0.999])
def test_a_damaged_cache_is_a_miss(
    stored: Stored, cache: ChunkCache, tmp_path: Path, hashes: bool, place: float
) -> None:
    read(Downloader(stored.cas, cache=cache), stored)
    cache.settle()
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            content = path.read_bytes()
            path.write_bytes(flip(content, int(len(content) * place)))
    cas = FaultyCas(stored.cas, hashes=hashes)
    assert read(Downloader(cas, cache=cache), stored) == stored.data
    assert cas.sent > 1_000_000
    again = FaultyCas(stored.cas)
    assert read(Downloader(again, cache=cache), stored) == stored.data


def test_a_cache_that_holds_other_chunks_than_the_cas_tells_is_not_believed(stored: Stored, cache: ChunkCache) -> None:
    read(Downloader(stored.cas, cache=cache), stored)

    def lie(_number: int, told: Reconstruction) -> Reconstruction:
        assert told.term_hashes is not None
        return replace(told, term_hashes=(bytes(len(told.term_hashes[0])), *told.term_hashes[1:]))

    with pytest.raises(IntegrityError):
        read(Downloader(FaultyCas(stored.cas, tell=lie), cache=cache), stored)


# Streams


def test_a_stream_fetches_one_window_ahead_and_no_more(stored: Stored) -> None:
    cas = FaultyCas(stored.cas, remote=True)
    stream = Downloader(cas).stream(stored.file, 0, None, MIB)
    parts = [bytes(next(stream))]
    until(lambda: cas.told >= 2)
    for part in stream:
        assert cas.told <= len(parts) + 3
        parts.append(bytes(part))
    assert b"".join(parts) == stored.data


def test_memory_bounds_the_window_of_a_stream(stored: Stored) -> None:
    small = Downloader(stored.cas, DownloadOptions(Limits(max_memory=128 << 20)))
    assert [len(part) for part in small.stream(stored.file)] == [len(stored.data)]
    assert small._stream_window() == 8 * MIB


def test_an_error_ahead_comes_when_its_window_is_due(stored: Stored) -> None:
    cas = FaultyCas(stored.cas)
    stream = Downloader(cas).stream(stored.file, 0, None, MIB)
    first = next(stream)
    assert stored.data.startswith(bytes(first))
    cas.send = lambda _number, _fetch, _data: b""
    with pytest.raises(IntegrityError):
        list(stream)


def test_a_file_that_is_not_there_is_missed_at_the_first_byte(stored: Stored) -> None:
    stream = Downloader(stored.cas).stream(Hash(bytes(range(32))))
    with pytest.raises(NotFoundError):
        next(stream)


# Stopping


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("fetch", "ahead"))]


@pytest.fixture
def held(stored: Stored) -> Iterator[FaultyCas]:
    until(lambda: not fetchers())
    cas = FaultyCas(stored.cas, remote=True)
    yield cas
    cas.release()
    until(lambda: not fetchers())


def test_control_c_does_not_wait_for_a_server_that_hangs(stored: Stored, held: FaultyCas) -> None:
    held.hold()

    def press() -> None:
        held.waiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    key = threading.Thread(target=press)
    key.start()
    with pytest.raises(KeyboardInterrupt):
        Downloader(held).download(stored.file, nowhere)
    key.join()
    until(lambda: not fetchers())


def test_a_cancellation_ends_a_download(stored: Stored, held: FaultyCas) -> None:
    held.hold()
    call = Cancellation()

    def interrupt() -> None:
        held.waiting.wait()
        call.cancel()

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(InterruptedCallError):
        Downloader(held, cancellation=call).download(stored.file, nowhere)
    other.join()


def test_a_closed_stream_stops_and_interrupts_nobody_else(stored: Stored, held: FaultyCas) -> None:
    call = Cancellation()
    stream = Downloader(held, cancellation=call).stream(stored.file, 0, None, MIB)
    next(stream)
    held.hold()
    held.waiting.wait(0.2)
    stream.close()
    assert not call.is_cancelled
    sent = held.sent
    held.release()
    until(lambda: not fetchers())
    assert held.sent <= sent + 8 * 65_536


def test_one_error_stops_the_other_fetches(stored: Stored, held: FaultyCas) -> None:
    def send(number: int, _fetch: FetchRange, data: bytes) -> bytes:
        if number == 0:
            raise AccessDeniedError("not for you")
        return data

    held.send = send
    held.hold()
    with pytest.raises(AccessDeniedError):
        Downloader(held).download(stored.file, nowhere)
    held.release()
    until(lambda: not fetchers())
    assert held.sent <= 8 * 65_536


# How many at a time


def most_at_once(stored: Stored, expected: int, limits: Limits, requests: int | None = None) -> int:
    """How many fetches of a remote Cas that hangs are under way, once the ``expected`` ones are."""
    cas = FaultyCas(stored.cas, remote=True)
    cas.hold()
    call = Cancellation()
    with_errors: list[BaseException] = []

    def run() -> None:
        try:
            Downloader(cas, DownloadOptions(limits, requests), cancellation=call).download(stored.file, nowhere)
        except InterruptedCallError as error:
            with_errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: cas.bodies >= expected)
    time.sleep(0.02)
    under_way = cas.bodies
    call.cancel()
    cas.release()
    thread.join()
    return under_way


def test_fetches_over_a_network_start_with_four(stored: Stored) -> None:
    assert most_at_once(stored, 4, Limits()) == 4
    assert most_at_once(stored, 2, Limits(jobs=2)) == 2
    assert most_at_once(stored, 3, Limits(), requests=3) == 3


def test_memory_bounds_how_many_fetches_there_are(stored: Stored) -> None:
    def threads(limits: Limits) -> int:
        with workers.Workers(Cancellation(), limits, lambda _event: None, is_remote=True) as made:
            return made._threads

    assert threads(Limits()) == 32
    assert threads(Limits(max_memory=128 << 20)) == 16
    assert threads(Limits(jobs=5)) == 5


def test_their_number_follows_the_goodput(tmp_path: Path) -> None:
    """It takes half a second, and four fetches of each that run at a time, until a rate is believed."""
    data = splitmix64(5, 12 * MIB)
    (tmp_path / "file").write_bytes(data)
    events: list[Event] = []
    content = bytearray(len(data))

    def sink(offset: int, data: memoryview) -> None:
        content[offset : offset + len(data)] = data

    def slowly(_: int, _fetch: FetchRange, data: bytes) -> bytes:
        time.sleep(0.04)
        return data

    with EmbeddedCas.in_memory() as cas:
        [report] = put_files(cas, [tmp_path / "file"], UploadOptions(sizes=UploadSizes(xorb_bytes=150_000)))
        Downloader(FaultyCas(cas, remote=True, send=slowly), emit=events.append).download(report.info.hash, sink)
    assert content == data
    changes = [event for event in events if isinstance(event, ConcurrencyChanged)]
    assert changes
    assert changes[0].requests == 6
