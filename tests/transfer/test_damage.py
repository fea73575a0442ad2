"""What is damaged on its way is fetched again, once; and what stays wrong is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.faulty import FaultyCas, Send, Stored, Tell, flip
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.errors import (
    ForbiddenError,
    FormatError,
    HashMismatchError,
    IntegrityError,
    NotFoundError,
    StorageFullError,
    XetError,
)
from xetstore.events import Damaged, Event
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction, Term
from xetstore.protocol.shard import Shard
from xetstore.testing.samples import entry_of, make_sample
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.download.new_file import NewFile

ONE_AT_A_TIME = DownloadOptions(workers=1)


def get(
    cas: FaultyCas,
    stored: Stored,
    out: Path,
    events: list[Event] | None = None,
    options: DownloadOptions = DownloadOptions(),  # noqa: B008  # it is immutable
) -> bytes:
    seen = [] if events is None else events
    with NewFile(out) as new:
        done = Downloader(cas, options, emit=seen.append).download(stored.file, new.write_at)
        new.commit(done.size)
    assert done.verified
    assert done.fetched_bytes == cas.sent
    return out.read_bytes()


def damages(events: list[Event]) -> list[Damaged]:
    return [event for event in events if isinstance(event, Damaged)]


def once(change: Callable[[bytes], bytes]) -> Send:
    return lambda number, _fetch, data: change(data) if number == 1 else data


def always(change: Callable[[bytes], bytes]) -> Send:
    """The second body, however often it is asked for."""
    bad: list[FetchRange] = []

    def send(number: int, fetch: FetchRange, data: bytes) -> bytes:
        if number == 1:
            bad.append(fetch)
        return change(data) if bad and (bad[0].xorb, bad[0].byte_start) == (fetch.xorb, fetch.byte_start) else data

    return send


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "a bit of a chunk": lambda data: flip(data, len(data) // 2),
    "the first header": lambda data: flip(data, 0),
    "the last byte": lambda data: flip(data, -1),
    "too short": lambda data: data[:-10],
    "nothing": lambda _data: b"",
    "too long": lambda data: data + b"more",
    "something else": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_once_is_fetched_again(stored: Stored, tmp_path: Path, fault: str, hashes: bool) -> None:
    cas = FaultyCas(stored.cas, hashes=hashes, send=once(FAULTS[fault]))
    events: list[Event] = []
    assert get(cas, stored, tmp_path / "out", events) == stored.data
    assert [event.refetching for event in damages(events)] == [True]


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_twice_is_an_error_and_touches_nothing(
    stored: Stored, tmp_path: Path, fault: str, hashes: bool
) -> None:
    cas = FaultyCas(stored.cas, hashes=hashes, send=always(FAULTS[fault]))
    (tmp_path / "out").write_bytes(b"old")
    events: list[Event] = []
    with pytest.raises(IntegrityError) as caught:
        get(cas, stored, tmp_path / "out", events)
    assert caught.value.exit_code == 4
    assert "the destination was not touched" in (caught.value.hint or "")
    assert "xorb" in f"{caught.value} {caught.value.hint}"
    assert [event.refetching for event in damages(events)] == [True, False]
    assert (tmp_path / "out").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_with_hashes_a_damaged_chunk_is_named_and_never_written(stored: Stored) -> None:
    cas = FaultyCas(stored.cas, send=always(lambda data: flip(data, len(data) // 2)))
    wrong: list[int] = []

    def sink(offset: int, data: memoryview) -> None:
        if stored.data[offset : offset + len(data)] != data:
            wrong.append(offset)

    with pytest.raises(IntegrityError, match=r"^chunk \d+ of xorb [0-9a-f]{64} does not match its hash$"):
        Downloader(cas).download(stored.file, sink)
    assert not wrong


@pytest.mark.parametrize("hashes", [True, False])
def test_bytes_that_should_be_zeros_are_zeros_after_a_second_try(stored: Stored, tmp_path: Path, hashes: bool) -> None:
    """The first try has written something else there, and zeros are not written where a hole is."""
    zeros = stored.cas.reconstruct(stored.file, 3 << 20, (3 << 20) + 1).terms[0].xorb

    def send(_number: int, fetch: FetchRange, data: bytes) -> bytes:
        return flip(data, len(data) - 3) if fetch.xorb == zeros and fetch.url.endswith("#0") else data

    assert get(FaultyCas(stored.cas, hashes=hashes, send=send), stored, tmp_path / "out") == stored.data


def test_an_expired_url_is_renewed_without_a_word(stored: Stored, tmp_path: Path) -> None:
    cas = FaultyCas(stored.cas, expired=1)
    events: list[Event] = []
    assert get(cas, stored, tmp_path / "out", events) == stored.data
    assert not damages(events)
    assert cas.bodies == 2 * (cas.told - 1), "each of the first URLs was refused, and asked for anew"


def test_urls_that_never_work_are_an_error_of_their_own(stored: Stored, tmp_path: Path) -> None:
    cas = FaultyCas(stored.cas, expired=10**6)
    with pytest.raises(ForbiddenError):
        get(cas, stored, tmp_path / "out")


def test_an_expired_url_leaves_a_second_try_for_damage(stored: Stored, tmp_path: Path) -> None:
    cas = FaultyCas(stored.cas, expired=1, send=once(lambda data: flip(data, 100)))
    assert get(cas, stored, tmp_path / "out") == stored.data


def swapped(told: Reconstruction) -> Reconstruction:
    first, second, *others = told.terms
    hashes = told.term_hashes and (told.term_hashes[1], told.term_hashes[0], *told.term_hashes[2:])
    return replace(told, terms=(second, first, *others), term_hashes=hashes)


def first_term(change: Callable[[Term], Term]) -> Callable[[Reconstruction], Reconstruction]:
    return lambda told: replace(told, terms=(change(told.terms[0]), *told.terms[1:]))


def broken(_: Reconstruction) -> Reconstruction:
    raise FormatError("reconstruction.json", 0, "not a reconstruction")


LIES: dict[str, Callable[[Reconstruction], Reconstruction]] = {
    "no json": broken,
    "an offset": lambda told: replace(told, offset_into_first_term=9),
    "a longer term": first_term(lambda term: replace(term, unpacked_bytes=term.unpacked_bytes + 10)),
    "a shorter term": first_term(lambda term: replace(term, unpacked_bytes=term.unpacked_bytes - 10)),
    "fewer chunks": lambda told: replace(
        told,
        terms=(replace(told.terms[0], chunk_end=told.terms[0].chunk_end - 1), *told.terms[1:]),
        term_hashes=told.term_hashes and (told.term_hashes[0][:-32], *told.term_hashes[1:]),
    ),
    "no fetches": lambda told: replace(told, fetches={}),
    "other chunks": lambda told: replace(
        told,
        fetches={
            xorb: tuple(replace(fetch, byte_start=fetch.byte_start + 8) for fetch in fetches)
            for xorb, fetches in told.fetches.items()
        },
    ),
    "bytes that are not there": lambda told: replace(
        told,
        fetches={
            xorb: tuple(replace(fetch, byte_end=fetch.byte_end + 1_000_000) for fetch in fetches)
            for xorb, fetches in told.fetches.items()
        },
    ),
    "a xorb that is not there": lambda told: replace(
        told,
        terms=tuple(replace(term, xorb=Hash(flip(term.xorb.digest, 3))) for term in told.terms),
        fetches={
            Hash(flip(xorb.digest, 3)): tuple(replace(f, xorb=Hash(flip(xorb.digest, 3))) for f in fetches)
            for xorb, fetches in told.fetches.items()
        },
    ),
    "other hashes": lambda told: replace(
        told, term_hashes=told.term_hashes and (flip(told.term_hashes[0], 5), *told.term_hashes[1:])
    ),
}


def lie(which: str, *, ever: bool) -> Tell:
    return lambda number, told: LIES[which](told) if ever or number == 0 else told


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("which", LIES)
def test_a_reconstruction_that_is_wrong_once_is_asked_for_again(
    stored: Stored, tmp_path: Path, which: str, hashes: bool
) -> None:
    cas = FaultyCas(stored.cas, hashes=hashes, tell=lie(which, ever=False))
    assert get(cas, stored, tmp_path / "out") == stored.data
    start, end = 1_000_000, 3_500_000
    again = FaultyCas(stored.cas, hashes=hashes, tell=lie(which, ever=False))
    if which != "an offset":  # where a range starts inside a chunk is for the Cas to say
        assert b"".join(map(bytes, Downloader(again).stream(stored.file, start, end))) == stored.data[start:end]


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("which", LIES)
def test_a_reconstruction_that_stays_wrong_is_an_error(
    stored: Stored, tmp_path: Path, which: str, hashes: bool
) -> None:
    if which == "other hashes" and not hashes:
        return
    error = NotFoundError if which == "a xorb that is not there" else IntegrityError
    with pytest.raises(error):
        get(FaultyCas(stored.cas, hashes=hashes, tell=lie(which, ever=True)), stored, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hashes", [True, False])
def test_terms_in_another_order_are_not_the_file(stored: Stored, tmp_path: Path, hashes: bool) -> None:
    cas = FaultyCas(stored.cas, hashes=hashes, tell=lambda _, told: swapped(told) if len(told.terms) > 1 else told)
    with pytest.raises(HashMismatchError):
        get(cas, stored, tmp_path / "out")


@pytest.fixture(scope="module")
def behind() -> Iterator[Stored]:
    """A file in three xorbs, behind other chunks in each: no name of a xorb vouches for what is fetched of it."""
    with EmbeddedCas.in_memory() as cas:
        samples = [make_sample(splitmix64(seed, 900_000), before=splitmix64(9, 200_000)) for seed in (1, 2, 3)]
        for sample in samples:
            cas.put_xorb(sample.xorb.hash, sample.body)
        terms = [sample.file.terms[0] for sample in samples]
        chunks = [s.xorb.chunks.slice(t.chunk_start, t.chunk_end) for s, t in zip(samples, terms, strict=True)]
        entry = entry_of(list(zip(terms, chunks, strict=True)))
        cas.put_shard(Shard((entry,)))
        yield Stored(cas, entry.hash, b"".join(sample.data for sample in samples))


def test_without_hashes_a_wrong_file_is_fetched_again_as_far_as_nothing_vouches_for_it(
    behind: Stored, tmp_path: Path
) -> None:
    cas = FaultyCas(behind.cas, hashes=False, send=once(lambda data: flip(data, len(data) // 2)))
    events: list[Event] = []
    groups = DownloadOptions(group_bytes=1 << 20)
    assert get(cas, behind, tmp_path / "out", events, groups) == behind.data
    assert damages(events) == [Damaged(f"file {behind.file}", refetching=True)]
    assert cas.bodies == 6


def test_without_hashes_what_stays_wrong_is_named_as_far_as_it_is_known(behind: Stored, tmp_path: Path) -> None:
    same = FaultyCas(behind.cas, hashes=False, send=lambda _number, _fetch, data: flip(data, 500))
    with pytest.raises(HashMismatchError) as caught:
        get(same, behind, tmp_path / "out")
    assert "came out the same: look at xorb " in (caught.value.hint or "")
    twice = FaultyCas(behind.cas, hashes=False, send=lambda number, _, data: flip(data, 500 + number // 3))
    with pytest.raises(HashMismatchError) as caught:
        get(twice, behind, tmp_path / "out")
    assert "it was fetched twice and differed in chunk " in (caught.value.hint or "")
    assert "the destination was not touched" in (caught.value.hint or "")


@pytest.mark.parametrize("error", [StorageFullError("no room"), IntegrityError("odd"), ForbiddenError("no")])
def test_an_error_of_the_destination_is_raised_as_it_is_and_nothing_fetched_again(
    stored: Stored, error: XetError
) -> None:
    cas = FaultyCas(stored.cas)
    events: list[Event] = []

    def sink(offset: int, data: memoryview) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Downloader(cas, ONE_AT_A_TIME, emit=events.append).download(stored.file, sink)
    assert caught.value is error
    assert not damages(events)
    assert cas.told == 1


def test_what_is_not_there_is_not_asked_for_twice(stored: Stored) -> None:
    cas = FaultyCas(stored.cas)
    with pytest.raises(NotFoundError):
        Downloader(cas).download(Hash(flip(stored.file.digest, 0)), lambda _offset, _data: None)
    assert cas.told == 1
