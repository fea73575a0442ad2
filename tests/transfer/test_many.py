"""Many files at once: each comes right or says why, nothing comes twice, and whoever gives up leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.faulty import FaultyCas, Send, TellMany, flip
from tests.support.live import until
from tests.support.strategies import splitmix64, text
from tests.transfer.conftest import SMALL_XORBS
from tests.transfer.test_download import Sums, fetchers
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import (
    FormatError,
    IntegrityError,
    InterruptedCallError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.events import Damaged, Emit, Event, RangeFetched, ignore
from xetstore.limits import NO_LIMITS, Limits
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange
from xetstore.transfer.download import many
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloaded, Downloader
from xetstore.transfer.download.file_request import Named
from xetstore.transfer.download.many import ManySizes, get_files
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files

MIB = 1 << 20
MISSING = Hash(bytes(range(32)))


@dataclass(frozen=True)
class Corpus:
    """Files in a store: ``contents`` by their hashes."""

    cas: EmbeddedCas
    files: list[Hash]
    contents: dict[Hash, bytes]


def stored(cas: EmbeddedCas, folder: Path, contents: Sequence[bytes], *options: UploadOptions) -> Corpus:
    paths = [folder / f"{number:05}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    files = [report.info.hash for report in put_files(cas, paths, *options)]
    return Corpus(cas, files, dict(zip(files, contents, strict=True)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """300 different files of up to 5 kB."""
    contents = [splitmix64(1000 + number, 1 + number * 37 % 5000) for number in range(300)]
    with EmbeddedCas.in_memory() as cas:
        yield stored(cas, tmp_path_factory.mktemp("small"), contents)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Files of all sizes in xorbs of 700 kB: some span several of these, some have chunks of others, two are empty."""
    big = splitmix64(1, 6 * MIB)
    contents = [splitmix64(2000 + number, 1 + number * 977 % 90_000) for number in range(60)]
    contents[10:10] = [splitmix64(2, 2 * MIB), b"", big, text(300_000), bytes(MIB)]
    contents[40:40] = [big[3 * MIB : 4 * MIB], splitmix64(2, MIB) + b"and more", splitmix64(3, 3 * MIB), contents[3]]
    contents += [big[: 5 * MIB] + b"the end", b""]
    with EmbeddedCas.in_memory() as cas:
        yield stored(cas, tmp_path_factory.mktemp("mixed"), contents, SMALL_XORBS)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Files that are too large for a batch."""
    contents = [splitmix64(3000 + number, ManySizes().small_bytes + 1000 * number + 1) for number in range(5)]
    with EmbeddedCas.in_memory() as cas:
        yield stored(cas, tmp_path_factory.mktemp("large"), contents)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def resolve(file: Hash | str) -> Hash:
    return file if isinstance(file, Hash) else Hash.parse(file)


def get(
    cas: Any,
    files: Sequence[Hash],
    out: Path,
    *,
    limits: Limits = NO_LIMITS,
    emit: Emit = ignore,
    cancellation: Cancellation | None = None,
    **options: Any,
) -> list[tuple[Hash, Downloaded]]:
    """Each file to the path of its number."""
    named = [(file, out / str(number)) for number, file in enumerate(files)]
    downloader = Downloader(cas, DownloadOptions(limits), emit=emit, cancellation=cancellation)
    return list(get_files(downloader, named, resolve=resolve, **options))


def check(corpus: Corpus, files: Sequence[Hash], out: Path) -> None:
    """All of them are there, and nothing else."""
    assert sorted(int(path.name) for path in out.iterdir()) == list(range(len(files)))
    for number, file in enumerate(files):
        assert (out / str(number)).read_bytes() == corpus.contents[file], number


# What comes


@pytest.mark.parametrize("remote", [True, False])
def test_small_files_come_by_two_requests_for_some_dozens(small: Corpus, out: Path, remote: bool) -> None:
    cas = FaultyCas(small.cas, remote=remote)
    progress = Sums()
    events: list[Event] = []
    told = get(cas, small.files, out, progress=progress, emit=events.append)
    check(small, small.files, out)
    assert [file for file, _ in told] == small.files
    assert [done.size for _, done in told] == [len(small.contents[file]) for file in small.files]
    assert all(done.verified and not done.reused_bytes for _, done in told)
    assert cas.told + cas.bodies == 10
    total = sum(map(len, small.contents.values()))
    assert progress.expected == progress.moved == total
    assert sum(done.fetched_bytes for _, done in told) == cas.sent
    assert {type(event) for event in events} == {RangeFetched}


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("hashes", [True, False])
def test_files_of_all_kinds_come_right(mixed: Corpus, out: Path, remote: bool, hashes: bool) -> None:
    cas = FaultyCas(mixed.cas, remote=remote, hashes=hashes)
    progress = Sums()
    told = get(cas, mixed.files, out, progress=progress)
    check(mixed, mixed.files, out)
    assert [file for file, _ in told] == mixed.files
    assert all(done.verified for _, done in told)
    assert sum(done.fetched_bytes for _, done in told) == cas.sent
    assert progress.expected == progress.moved == sum(len(mixed.contents[file]) for file in mixed.files)


def test_a_range_that_a_large_file_needs_too_does_not_come_twice(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas)
    files = [file for file in mixed.files if mixed.contents[file][:100] != splitmix64(2, 100)]
    get(cas, [*dict.fromkeys(files)][:20], out)
    alone = FaultyCas(mixed.cas)
    for file in files[:20]:
        with suppress(NotFoundError):
            list(get_files(Downloader(alone), [(file, out / "again")], resolve=resolve))
    assert cas.sent <= alone.sent


def test_equal_files_are_fetched_once(small: Corpus, mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(small.cas)
    files = [*small.files[:100], *small.files[:100], small.files[0]]
    told = get(cas, files, out)
    check(small, files, out)
    assert cas.sent == sum(done.fetched_bytes for _, done in told[:100])
    assert [done.reused_bytes for _, done in told[100:]] == [len(small.contents[file]) for file in files[100:]]
    [large] = [file for file in mixed.files if len(mixed.contents[file]) == 6 * MIB]
    cas = FaultyCas(mixed.cas)
    [(_, first), (_, second)] = get(cas, [large, large], out)
    assert (first.fetched_bytes, second.fetched_bytes, second.reused_bytes) == (cas.sent, 0, 6 * MIB)
    assert (out / "0").read_bytes() == (out / "1").read_bytes() == mixed.contents[large]


def test_files_may_be_named_by_text_and_replace_what_was_there(small: Corpus, out: Path) -> None:
    for number in range(300):
        (out / str(number)).write_text("old")
    named = [(str(file), str(out / str(number))) for number, file in enumerate(small.files)]
    list(
        get_files(Downloader(small.cas), named, resolve=resolve, destination=lambda path, _: NewFile(path, fsync=True))
    )
    check(small, small.files, out)


def test_no_files_are_no_work(small: Corpus, out: Path) -> None:
    cas = FaultyCas(small.cas)
    assert get(cas, [], out) == []
    assert get(cas, small.files[:1], out)[0][1].verified
    assert cas.told == 1, "one file alone is asked for as always"


def test_what_does_not_fit_into_memory_comes_another_way(mixed: Corpus, out: Path) -> None:
    get(FaultyCas(mixed.cas, remote=True), mixed.files, out, sizes=ManySizes(held_bytes=100_000))
    check(mixed, mixed.files, out)


def test_a_list_longer_than_what_is_ahead_comes_to_its_end(small: Corpus, out: Path) -> None:
    cas = FaultyCas(small.cas)
    named = [(file, out / str(at)) for at, file in enumerate(small.files)]
    found = get_files(Downloader(cas), named, resolve=resolve, sizes=ManySizes(batches_ahead=1))
    next(found)
    until(lambda: len(list(out.iterdir())) == 2 * 64)
    assert cas.told == 2, "whoever is busy with the first file is not run away from"
    assert len(list(found)) == 299
    check(small, small.files, out)


# What does not come


def together(change: Callable[[bytes], bytes]) -> Send:
    """Changes the ranges of several files."""
    return lambda _, fetch, data: change(data) if fetch.chunk_end - fetch.chunk_start > 1 else data


def test_a_file_that_is_missing_is_reported_and_the_others_come(small: Corpus, out: Path) -> None:
    files = [*small.files[:100], MISSING, *small.files[100:]]
    failed: list[tuple[Path, XetError]] = []
    told = get(FaultyCas(small.cas), files, out, on_error=lambda *error: failed.append(error))
    [(path, error)] = failed
    assert (path, type(error)) == (out / "100", NotFoundError)
    assert [file for file, _ in told] == small.files
    assert not path.exists()
    path.write_bytes(b"")
    check(Corpus(small.cas, files, {**small.contents, MISSING: b""}), files, out)


def test_without_on_error_the_first_error_is_raised_behind_the_files_before(small: Corpus, out: Path) -> None:
    found = get_files(
        Downloader(small.cas),
        [(file, out / str(at)) for at, file in enumerate([*small.files[:5], MISSING, *small.files[5:]])],
        resolve=resolve,
    )
    assert [file for file, _ in (next(found) for _ in range(5))] == small.files[:5]
    with pytest.raises(NotFoundError):
        next(found)
    assert not incomplete(out)


def incomplete(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_names_that_are_none_and_paths_given_twice_are_reported(small: Corpus, out: Path) -> None:
    failed: list[tuple[Path, XetError]] = []
    first, second = small.files[:2]
    named: list[Named] = [
        (first, out / "a"),
        ("no hash", out / "b"),
        (second, out / "a"),
        (first, out / "a"),
        (second, out / "c"),
    ]
    told = list(get_files(Downloader(small.cas), named, resolve=resolve, on_error=lambda *error: failed.append(error)))
    assert [file for file, _ in told] == [first, second]
    assert [(path.name, type(error)) for path, error in failed] == [(name, UsageError) for name in "baa"]
    assert (out / "a").read_bytes() == small.contents[first]
    assert (out / "c").read_bytes() == small.contents[second]


def test_a_damaged_byte_that_passes_is_fetched_again(small: Corpus, out: Path) -> None:
    events: list[Event] = []
    cas = FaultyCas(small.cas, send=together(lambda data: flip(data, 50_000)))
    told = get(cas, small.files, out, emit=events.append)
    check(small, small.files, out)
    assert sum(done.fetched_bytes for _, done in told) == cas.sent
    assert [event for event in events if isinstance(event, Damaged) and event.refetching]
    assert len(cas.fetches) < 20, "its neighbours came all the same"


@pytest.mark.parametrize("place", [0, 2, 7, 8, 1000, -1])
def test_whatever_byte_is_damaged_every_file_is_right_in_the_end(small: Corpus, out: Path, place: int) -> None:
    get(FaultyCas(small.cas, send=together(lambda data: flip(data, place))), small.files, out)
    check(small, small.files, out)


@pytest.mark.parametrize(
    "cut", [lambda data: data[:-1], lambda data: data[:3000], lambda data: b"", lambda data: data + b"x"]
)
def test_ranges_of_another_length_are_fetched_again(small: Corpus, out: Path, cut: Callable[[bytes], bytes]) -> None:
    get(FaultyCas(small.cas, send=together(cut)), small.files, out)
    check(small, small.files, out)


def test_what_is_damaged_for_good_fails_alone_and_leaves_its_place_as_it_was(small: Corpus, out: Path) -> None:
    bad = small.files[20]
    [term] = small.cas.reconstruct(bad).terms
    [where] = small.cas.reconstruct(bad).fetches[term.xorb]

    def send(_number: int, fetch: FetchRange, data: bytes) -> bytes:
        at = where.byte_start - fetch.byte_start
        return flip(data, at + 100) if 0 <= at < len(data) else data

    (out / "20").write_text("old")
    failed: list[tuple[Path, XetError]] = []
    get(FaultyCas(small.cas, send=send), small.files, out, on_error=lambda *error: failed.append(error))
    [(path, error)] = failed
    assert path == out / "20"
    assert isinstance(error, IntegrityError)
    assert "not touched" in (error.hint or "")
    assert path.read_text() == "old"
    path.write_bytes(small.contents[bad])
    check(small, small.files, out)


def test_expired_urls_are_replaced(small: Corpus, out: Path) -> None:
    # Of one answer, the first: which ones come before a file is asked for again is not certain.
    get(FaultyCas(small.cas, expired=1), small.files, out)
    check(small, small.files, out)


def test_without_the_call_files_come_one_by_one(small: Corpus, out: Path) -> None:
    cas = FaultyCas(small.cas, tell_many=lambda *_: None)
    get(cas, small.files[:80], out)
    check(small, small.files[:80], out)
    assert cas.told == 2 + 80


def refuse(_number: int, _told: BatchReconstruction) -> BatchReconstruction:
    raise UnavailableError("not now")


def garble(_number: int, _told: BatchReconstruction) -> BatchReconstruction:
    raise FormatError("reconstruction.json", 0, "garbage")


@pytest.mark.parametrize("tell", [refuse, garble])
def test_a_call_that_fails_is_not_made_for_each_batch(small: Corpus, out: Path, tell: TellMany) -> None:
    cas = FaultyCas(small.cas, tell_many=tell)
    get(cas, small.files, out, sizes=ManySizes(batches_ahead=0))
    check(small, small.files, out)
    assert cas.told == 1 + 300


def swapped(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    """Each file is said to be made of the next one's chunks."""
    terms = list(told.files.values())
    return replace(told, files=dict(zip(told.files, [*terms[1:], terms[0]], strict=True)))


def lengths(by: int) -> TellMany:
    """Each file is said to have more or fewer bytes."""

    def tell(_number: int, told: BatchReconstruction) -> BatchReconstruction:
        files = {
            file: tuple(replace(term, unpacked_bytes=max(1, term.unpacked_bytes + by)) for term in terms)
            for file, terms in told.files.items()
        }
        return replace(told, files=files)

    return tell


def no_terms(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    return replace(told, files=dict.fromkeys(told.files, ()))


def no_ranges(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    return replace(told, fetches={})


def other_ranges(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    moved = {
        xorb: tuple(replace(fetch, byte_start=fetch.byte_start + 1) for fetch in ranges)
        for xorb, ranges in told.fetches.items()
    }
    return replace(told, fetches=moved)


def twice(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    return replace(told, files={file: (*terms, *terms) for file, terms in told.files.items()})


def turned_round(_number: int, told: BatchReconstruction) -> BatchReconstruction:
    return replace(told, files={file: terms[::-1] for file, terms in told.files.items()})


LIES: dict[str, TellMany] = {
    "swapped": swapped,
    "longer": lengths(1),
    "shorter": lengths(-1),
    "far longer": lengths(100_000),
    "no terms": no_terms,
    "no ranges": no_ranges,
    "other ranges": other_ranges,
    "terms twice": twice,
    "terms turned round": turned_round,
}


@pytest.mark.parametrize("lie", LIES)
def test_no_answer_puts_a_wrong_byte_under_a_name(small: Corpus, mixed: Corpus, out: Path, lie: str) -> None:
    get(FaultyCas(small.cas, tell_many=LIES[lie]), small.files, out)
    check(small, small.files, out)
    get(FaultyCas(mixed.cas, tell_many=LIES[lie]), mixed.files, out)
    for number, file in enumerate(mixed.files):
        assert (out / str(number)).read_bytes() == mixed.contents[file]


# Where they go


def test_a_place_that_cannot_be_written_fails_alone(small: Corpus, out: Path) -> None:
    (out / "7").mkdir()
    named = [(file, out / str(number)) for number, file in enumerate(small.files)]
    named[5] = (named[5][0], out / "nowhere" / "5")
    failed: list[tuple[Path, XetError]] = []
    cas = FaultyCas(small.cas)
    told = list(get_files(Downloader(cas), named, resolve=resolve, on_error=lambda *error: failed.append(error)))
    assert [(path.name, type(error)) for path, error in failed] == [("5", NotFoundError), ("7", UsageError)]
    assert [file for file, _ in told] == [file for at, file in enumerate(small.files) if at not in (5, 7)]
    assert cas.told == 5, "it is not fetched again for that"
    assert not incomplete(out)


def test_a_full_disk_is_told_and_leaves_nothing(small: Corpus, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def write(fd: int, data: Any, offset: int) -> int:
        if bytes(data) == small.contents[small.files[30]]:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    failed: list[tuple[Path, XetError]] = []
    get(FaultyCas(small.cas), small.files, out, on_error=lambda *error: failed.append(error))
    assert [(path.name, type(error)) for path, error in failed] == [("30", StorageFullError)]
    assert len(list(out.iterdir())) == 299
    with pytest.raises(StorageFullError):
        get(FaultyCas(small.cas), small.files, out)
    assert not incomplete(out)


def test_one_of_two_places_of_a_file_may_fail(small: Corpus, out: Path) -> None:
    first, second = small.files[:2]
    failed: list[Path] = []
    named = [(first, out / "no" / "a"), (first, out / "b"), (second, out / "c")]
    cas = FaultyCas(small.cas)
    found = list(get_files(Downloader(cas), named, resolve=resolve, on_error=lambda path, _: failed.append(path)))
    assert failed == [out / "no" / "a"]
    assert [file for file, _ in found] == [first, second]
    assert sum(done.fetched_bytes for _, done in found) == cas.sent
    assert (out / "b").read_bytes() == small.contents[first]


# Giving up


def test_whoever_stops_listening_leaves_no_temporary_files(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas, remote=True)
    named = [(file, out / str(number)) for number, file in enumerate(mixed.files)]
    found = get_files(Downloader(cas), named, resolve=resolve)
    next(found)
    cas.hold()
    cas.waiting.wait(0.2)
    found.close()
    until(lambda: not fetchers())
    assert not incomplete(out)
    for path in out.iterdir():
        assert path.read_bytes() == mixed.contents[mixed.files[int(path.name)]]


def test_an_error_stops_what_is_under_way(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas, remote=True)
    cas.hold()
    named = [(file, out / str(number)) for number, file in enumerate(mixed.files)]
    named[0] = (MISSING, out / "0")
    with pytest.raises(NotFoundError):
        list(get_files(Downloader(cas), named, resolve=resolve))
    assert all(path.read_bytes() == b"" for path in out.iterdir())


def test_control_c_does_not_wait_for_a_server_that_hangs(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas, remote=True)
    cas.hold()

    def press() -> None:
        cas.waiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    key = threading.Thread(target=press)
    key.start()
    with pytest.raises(KeyboardInterrupt):
        get(cas, mixed.files, out)
    key.join()
    assert all(path.read_bytes() == b"" for path in out.iterdir()), "nothing is there but what is empty"


def test_an_interruption_is_no_files_error(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas, remote=True)
    cas.hold()
    call = Cancellation()

    def interrupt() -> None:
        cas.waiting.wait()
        call.cancel()

    other = threading.Thread(target=interrupt)
    other.start()
    failed: list[Path] = []
    with pytest.raises(InterruptedCallError):
        get(cas, mixed.files, out, on_error=lambda path, _: failed.append(path), cancellation=call)
    other.join()
    assert failed == []
    assert all(path.read_bytes() == b"" for path in out.iterdir())


def test_what_a_progress_raises_is_raised(small: Corpus, out: Path) -> None:
    """And not what those threads raise that are stopped because of it, however soon they do."""
    fetches, stopped = count(), threading.Event()

    class Broken(Sums):
        def advance(self, **_: int) -> None:
            raise ZeroDivisionError

    class Stopping(FaultyCas):
        def under(self, cancellation: Cancellation) -> Any:
            cancellation.on_cancel(wake)
            return super().under(cancellation)

    def wake() -> None:
        stopped.set()
        time.sleep(0.2)  # those that were stopped are done first

    def send(_: int, _fetch: FetchRange, data: bytes) -> bytes:
        if next(fetches):
            assert stopped.wait(60)
        return data

    with pytest.raises(ZeroDivisionError):
        get(Stopping(small.cas, remote=True, send=send), small.files, out, progress=Broken())
    assert not incomplete(out)


# How many at a time


@pytest.mark.parametrize(
    ("limits", "most"), [(Limits(), 8), (Limits(jobs=3), 3), (Limits(jobs=1), 1), (Limits(max_memory=128 << 20), 8)]
)
def test_so_many_requests_run_at_a_time_and_no_more(small: Corpus, out: Path, limits: Limits, most: int) -> None:
    cas = FaultyCas(small.cas, remote=True, tell_many=lambda *_: None)
    cas.hold()
    thread = threading.Thread(target=get, args=(cas, small.files, out), kwargs={"limits": limits})
    thread.start()
    try:
        until(lambda: cas.bodies >= most)
        time.sleep(0.02)
        assert cas.bodies == most
    finally:
        cas.release()
        thread.join()
    check(small, small.files, out)


def test_large_files_come_two_at_a_time(large: Corpus, out: Path) -> None:
    running, most, lock = 0, 0, threading.Lock()

    class Noted(NewFile):
        def __enter__(self) -> Self:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            return super().__enter__()

        def __exit__(self, *exc: Any) -> None:
            nonlocal running
            super().__exit__(*exc)
            with lock:
                running -= 1

    sizes = ManySizes(large_bytes=ManySizes().small_bytes)
    get(FaultyCas(large.cas, remote=True), large.files, out, destination=lambda path, _: Noted(path), sizes=sizes)
    check(large, large.files, out)
    assert most == many.LARGE_AT_A_TIME


def test_what_one_file_takes_is_a_share_of_the_limits() -> None:
    assert many._shares(Limits(), 8, 64 * MIB) == (64 * MIB, Limits(jobs=4), Limits(jobs=16))
    assert many._shares(Limits(jobs=32), 8, 64 * MIB) == (64 * MIB, Limits(jobs=4), Limits(jobs=4))
    assert many._shares(Limits(max_memory=128 * MIB), 8, 64 * MIB)[1].jobs == 1
    assert many._shares(Limits(max_memory=128 * MIB), 8, 64 * MIB)[0] == 32 * MIB


def test_small_is_what_is_said_to_be_small(mixed: Corpus, out: Path) -> None:
    cas = FaultyCas(mixed.cas)
    get(cas, mixed.files, out, sizes=ManySizes(small_bytes=10))
    check(mixed, mixed.files, out)
    assert cas.told >= len(set(mixed.files)) - 1
